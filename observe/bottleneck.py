"""What holds the run up? A pure function from two scrapes of all roles to one sentence.

A run is a loop: actors collect, a carrier brings the fragments, the learner updates, the weights path brings the new
version and the leases to go on. Whatever is busy for the largest share of the time sets the pace (the utilisation law).

| part    | its share of the time                                                            | verdict when largest |
|---------|----------------------------------------------------------------------------------|----------------------|
| actors  | env + policy, of the actors' time                                                | actors too few       |
| learner | update + assemble + checkpoint, of the learner's time                            | learner too slow     |
| weights | publish, of the learner's time; or a publication under way (at most the actors'  | weights too slow     |
|         | wait for a lease); plus what no part explains while both ends wait               |                      |
| carrier | put or its wait for room, or a fragment on its way to its acknowledgement, of    | broker too slow      |
|         | the actors' time (at most the learner's wait)                                    |                      |

"at most": a slow carrier is to blame only for the time somebody really waits. A full queue in front of a busy learner
blocks put() as well, but then the learner does not wait. Actors and learner both ahead and within 0.1: balanced.
"no part explains": only where versions are made, or whoever stands still would be called a slow weights path.

The dashboard says the same: deploy/prometheus/alerts.yml has these rules in Prometheus' words, held to these by
tests/dashboards/test_bottleneck_rules.py.

Trouble (observe/trouble.py) comes before any of these, and no verdict is given that no share of time supports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headrace.observe import trouble
from headrace.observe.scrape import Scrape, growth

MARGIN = 0.1

ADVICE = {
    "actors too few": "more actors, more environments per actor, or a faster environment",
    "learner too slow": "a faster device, larger minibatches or fewer epochs; more actors would not help",
    "weights too slow": "a parameter server nearer to the learner, relays, or a larger max_staleness",
    "broker too slow": "more partitions, faster disks, compression, or a broker nearer to the actors",
    "balanced": "more of both, or more cores for them",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares are of the time of the learner, or of all actors together, 0 to 1; latencies are means in seconds."""

    actors: int = 0
    learner_wait: float = 0.0
    learner_busy: float = 0.0
    learner_publish: float = 0.0
    actor_lease: float = 0.0
    actor_busy: float = 0.0
    actor_put: float = 0.0
    publish_s: float = 0.0
    publish_share: float = 0.0
    ack_s: float = 0.0
    ack_share: float = 0.0
    blocked_share: float = 0.0
    updates: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """``name`` is a key of :data:`ADVICE`, one of trouble.py's, or "unknown"; ``parts`` the share of each part of the
    loop."""

    name: str
    sentence: str
    parts: Mapping[str, float]
    figures: Figures

    def as_json(self) -> dict[str, Any]:
        rounded = {k: round(v, 4) for k, v in asdict(self.figures).items()}
        parts = {k: round(v, 4) for k, v in self.parts.items()}
        return {"name": self.name, "sentence": self.sentence, "parts": parts, "figures": rounded}


def judge(after: Sequence[Scrape], before: Sequence[Scrape] = (), said: Mapping[str, str] = {}) -> Verdict:
    """The verdict on the time between two scrapes, or since each role's start where there is no ``before``. ``said``:
    the last words of roles (``trouble.last_words``), by name."""
    deltas = [(s.endpoint.role, growth(s, before)) for s in after if s.up]
    figures = _figures([d for r, d in deltas if r == "learner"], [d for r, d in deltas if r == "actor"])
    if found := trouble.find(after, before, said):
        return Verdict(*found, {}, figures)
    return decide(figures)


def decide(f: Figures) -> Verdict:
    """The rules of the table above."""
    if f.learner_wait + f.learner_busy + f.learner_publish == 0:
        return Verdict("unknown", "not known yet: no learner answers that has made an update", {}, f)
    if f.actors == 0:
        return Verdict("actors too few", "actors too few: none answers", {}, f)
    parts = {
        "actors": f.actor_busy,
        "learner": f.learner_busy,
        "weights": max(f.learner_publish, min(f.publish_share, f.actor_lease)),
        "carrier": min(max(f.actor_put, f.blocked_share, f.ack_share), f.learner_wait),
    }
    if f.updates > 0:
        parts["weights"] += max(0.0, min(1 - sum(parts.values()), f.learner_wait, f.actor_lease))
    first, second, *_ = sorted(parts, key=lambda part: parts[part], reverse=True)
    if parts[first] < MARGIN:
        return Verdict("unknown", f"not known yet: {_missing(f)}", parts, f)
    if {first, second} == {"actors", "learner"} and parts[first] - parts[second] < MARGIN:
        name = "balanced"
        why = f"actors are busy {f.actor_busy:.0%} of their time, the learner {f.learner_busy:.0%}"
    elif first == "actors":
        name = "actors too few"
        why = f"the learner waits {f.learner_wait:.0%} of its time, actors are busy {f.actor_busy:.0%} of theirs"
    elif first == "learner":
        name = "learner too slow"
        why = f"it is busy {f.learner_busy:.0%} of its time, actors wait {f.actor_lease + f.actor_put:.0%} of theirs"
    elif first == "weights":
        name = "weights too slow"
        why = f"the learner waits {f.learner_wait:.0%} of its time and publishes {f.learner_publish:.0%}, "
        why += f"actors wait {f.actor_lease:.0%} of theirs for a lease; a publication takes {_ms(f.publish_s)}"
    else:
        name = "broker too slow"
        why = f"the learner waits {f.learner_wait:.0%} of its time; put takes {f.actor_put:.0%} of the actors', "
        why += f"an acknowledgement {_ms(f.ack_s)}"
    return Verdict(name, f"{name}: {why}; try {ADVICE[name]}", parts, f)


def _missing(f: Figures) -> str:
    """What it would take to tell."""
    if f.actor_busy + f.actor_put == 0:  # its time is accounted for when it is finished
        why = ": they wait for a lease, or take long over one" if f.actor_lease else ""
        return f"no actor has finished a fragment{why}"
    waits = f"the learner waits {f.learner_wait:.0%} of its time, actors wait {f.actor_lease:.0%} of theirs for a lease"
    return f"{waits}{'' if f.updates else ', and no version was made meanwhile'}; look for longer (--window 30)"


def _figures(learners: Sequence[Mapping[str, float]], actors: Sequence[Mapping[str, float]]) -> Figures:
    def share(deltas: Sequence[Mapping[str, float]], role: str, *names: str) -> float:
        each = [_share(delta, role, names) for delta in deltas]
        return min(1.0, sum(each) / len(each)) if each else 0.0

    def mean(deltas: Sequence[Mapping[str, float]], name: str) -> float:
        count = sum(delta.get(f"{name}_count", 0.0) for delta in deltas)
        return sum(delta.get(f"{name}_sum", 0.0) for delta in deltas) / max(1.0, count)

    return Figures(
        actors=len(actors),
        learner_wait=share(learners, "learner", "wait"),
        learner_busy=share(learners, "learner", "update", "assemble", "checkpoint"),
        learner_publish=share(learners, "learner", "publish"),
        actor_lease=share(actors, "actor", "lease"),
        actor_busy=share(actors, "actor", "env", "policy"),
        actor_put=share(actors, "actor", "put"),
        publish_s=mean(learners, "weights_publish_seconds"),
        publish_share=share(learners, "learner", "weights_publish_seconds_sum"),
        ack_s=mean(actors, "transport_ack_seconds"),
        ack_share=share(actors, "actor", "transport_ack_seconds_sum"),
        blocked_share=share(actors, "actor", "transport_blocked_seconds_total"),
        updates=sum(delta.get("learner_updates_total", 0.0) for delta in learners),
    )


def _share(delta: Mapping[str, float], role: str, names: Sequence[str]) -> float:
    """The time one process spent in phases (or under whole metrics) ``names``, of all time it accounts for."""
    phase = f"{role}_phase_seconds_total{{"
    time_s = sum(value for name, value in delta.items() if name.startswith(phase))
    spent_s = sum(delta.get(name if "seconds" in name else f"{phase}{name}}}", 0.0) for name in names)
    return spent_s / time_s if time_s > 0 else 0.0


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
