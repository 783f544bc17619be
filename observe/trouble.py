"""What is wrong with a run, looked for before anybody asks what is slow: a run that stands still has no bottleneck.

| verdict               | what it takes                                                                          |
|-----------------------|----------------------------------------------------------------------------------------|
| everything is refused | in the time judged the learner refused fragments and admitted none                     |
| actors keep dying     | an actor is dead or was started again, and none of those that answer has sent anything |
| waiting for worker N  | no version was made in that time, and a lease has been out for longer than 5 s         |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.observe.scrape import Scrape, growth

#: A lease held for longer is worth a name where nothing else moves.
WAITED_FOR_S = 5.0
_TAIL_BYTES = 16 << 10
#: What Python prints around and below the line that says why it died.
_AROUND = (" ", "Thread 0x", "Current thread 0x", "Extension modules:", "Traceback (most recent call last)")
#: How the last line of a role begins that ended itself.
_ENDED = "headrace "


def find(after: Sequence[Scrape], before: Sequence[Scrape], said: Mapping[str, str]) -> tuple[str, str] | None:
    """The verdict's name and its sentence, None where nothing of the table is seen. ``said``: :func:`last_words`."""
    up = [s for s in after if s.up]
    learner = [growth(s, before) for s in up if s.endpoint.role == "learner"]
    return (
        _all_refused(learner)
        or _actors_dying([s for s in after if s.endpoint.role == "actor"], said)
        or _waiting([s for s in up if s.endpoint.role == "paramserver"], learner)
    )


def _all_refused(learner: Sequence[Mapping[str, float]]) -> tuple[str, str] | None:
    reasons: dict[str, int] = {}
    for grown in learner:
        for name, value in grown.items():
            # A duplicate is no loss: a learner that goes on reads what it has trained on already.
            if name.startswith("learner_rejected_total{") and value > 0 and "duplicate" not in name:
                reasons[name[len("learner_rejected_total{") : -1]] = int(value)
    if not reasons or sum(grown.get("learner_fragments_total", 0.0) for grown in learner) > 0:
        return None
    listed = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items(), key=lambda item: -item[1]))
    return "everything is refused", f"everything is refused ({listed}); dead_letter/ has the records and why"


def _actors_dying(actors: Sequence[Scrape], said: Mapping[str, str]) -> tuple[str, str] | None:
    """(Between two lives the last one's endpoint is left: a clean end would have taken it away.)"""
    if any(s.up and s.value("actor_fragments_total") for s in actors):
        return None
    for s in actors:
        name = f"{s.endpoint.role}-{s.endpoint.index}"
        words, hangs = said.get(name, ""), s.error.startswith("no answer")
        if words.startswith(_ENDED) or (words and not s.up and not hangs):
            return "actors keep dying", f"actors keep dying: {name}: {words}"
    return None


def _waiting(paramserver: Sequence[Scrape], learner: Sequence[Mapping[str, float]]) -> tuple[str, str] | None:
    """The parameter server shows who has had a lease for longest, and when it was heard of last."""
    if sum(grown.get("learner_updates_total", 0.0) for grown in learner) > 0:
        return None
    for s in paramserver:
        worker, out_s = int(s.value("lease_oldest_worker", -1)), s.value("lease_oldest_seconds")
        if worker >= 0 and out_s > WAITED_FOR_S:
            silent_s = s.value("lease_oldest_silent_seconds")
            heard = f", not heard of for {silent_s:.0f} s" if silent_s > WAITED_FOR_S else ""
            return "waiting", f"waiting for worker {worker} (lease out for {out_s:.0f} s{heard})"
    return None


def last_words(run_dir: Path) -> dict[str, str]:
    """Of every role with a log in the run directory: the last line that says something, e.g. why it died."""
    found = {log.stem: _last_line(log) for log in sorted((run_dir / "logs").glob("*.log"))}
    return {name: line for name, line in found.items() if line}


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip() and not line.startswith(_AROUND)), "")
