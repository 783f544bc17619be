"""What a cluster of so many actors asks of each part, from what one call costs: a model, and where it saturates.

    python bench/scale_model.py [--actors 10000 --envs 8 --step-s 0.02 ... --fan-out 128]      what one cluster comes to
    python bench/scale_page.py                                                          the table in docs/scale.md

Costs are those in bench/results/scale.json, measured by bench/scale.py, which also says how far the model is off.

    a worker's cycle   c = T * step + ask + put             T steps of its environments, a lease, an acknowledged put
    fragments a second   f = actors / c
    weights an actor takes   w = min(versions a second, 1 / c)     it asks once a fragment, newest only
    heartbeats a second  h = actors * T * step / c / beat          while it collects

A process has one core (Python's lock), a host one link. What asks for more than that is saturated: then the leases
hold everybody back to what the tightest part takes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from scale_costs import CarrierCosts, Costs, ServerCosts, kept

#: common/weights/heart.py; common/weights/publisher.py and learner/loop.py: a learner tells at least so often.
BEAT_S, TELL_S = 1.0, 1.0
#: launch/run_actor.py: an actor for which there is no lease asks again after so long.
ASK_AGAIN_S = 1.0
#: paramserver/server.py: a relay passes on the hearts of all below it so often (each question for a lease at once).
RELAY_TICK_S = 0.25


@dataclass(frozen=True)
class Cluster:
    """What is planned. ``actors``: rollout workers; ``step_s``: one step of all ``envs`` of one, its policy included.

    ``fan_out``: most children of a parameter server (0: all actors are the root's). ``link_bytes_per_s``: of each host,
    either way. ``partition_bytes_per_s``: trusted to one Kafka partition. ``update_s_per_step``: learner's CPU for each
    environment step that it trains on, intake apart.
    """

    actors: int
    envs: int = 8
    step_s: float = 0.02
    fragment_steps: int = 128
    bytes_per_step: float = 53.0
    versions_per_s: float = 0.25
    weights_bytes: float = 1e6
    fan_out: int = 0
    carrier: str = "confluent"
    update_s_per_step: float = 0.0
    link_bytes_per_s: float = 1.25e9
    partition_bytes_per_s: float = 50e6
    beat_s: float = BEAT_S

    @property
    def fragment_s(self) -> float:
        return self.fragment_steps * self.step_s

    @property
    def fragment_bytes(self) -> float:
        return self.fragment_steps * self.envs * self.bytes_per_step


@dataclass(frozen=True)
class Hop:
    """What one part does: calls and bytes a second, cores it takes of those it can use, and its host's link."""

    name: str
    calls_per_s: float
    bytes_in_per_s: float
    bytes_out_per_s: float
    cores: float
    cores_at_most: float
    link_bytes_per_s: float

    @property
    def load(self) -> dict[str, float]:
        """Of each resource the share that is asked for; over 1 is more than there is."""
        link = max(self.bytes_in_per_s, self.bytes_out_per_s) / self.link_bytes_per_s
        return {"cores": self.cores / self.cores_at_most, "link": link}


@dataclass(frozen=True)
class Prediction:
    """``hops``: root, relay (one that actors ask) and upper relay where there are any, broker (with Kafka), learner.

    ``staleness_at_least``: with a smaller max_staleness the leases keep some actors waiting. While a fragment is made
    all others begin one more, so 2 * actors fragments beyond those accepted must be admissible; a version admits
    ``fragments_per_version``.
    """

    hops: Mapping[str, Hop]
    fragments_per_s: float
    steps_per_s: float
    beats_per_s: float
    tells_per_s: float
    weights_per_s: float
    relays: int
    partitions: int
    fragments_per_version: float
    staleness_at_least: int

    @property
    def tightest(self) -> tuple[str, str, float]:
        """The part and the resource that saturate first, and the share asked for."""
        shares = [(hop.name, what, share) for hop in self.hops.values() for what, share in hop.load.items()]
        return max(shares, key=lambda row: row[2])


def predict(cluster: Cluster, costs: Costs) -> Prediction:
    """What is asked of each part if none holds the others back."""
    carrier = costs.carriers[cluster.carrier]
    cycle_s = cluster.fragment_s + costs.ask_s + carrier.put_s
    fragments = cluster.actors / cycle_s
    beats = cluster.actors * cluster.fragment_s / cycle_s / cluster.beat_s
    weights = cluster.actors * min(cluster.versions_per_s, 1 / cycle_s)
    levels = relay_levels(cluster.actors, cluster.fan_out)
    tells = tells_per_s(cluster, cycle_s)
    hops = [_root(cluster, costs.server, levels, fragments, beats, weights, tells)]
    hops += _relays(cluster, costs.server, levels, fragments, beats, weights)
    if carrier.broker_byte_s:
        hops.append(_broker(cluster, carrier, fragments))
    hops.append(_learner(cluster, carrier, fragments))
    nbytes = fragments * cluster.fragment_bytes
    partitions = math.ceil(nbytes / cluster.partition_bytes_per_s) if carrier.broker_byte_s else 0
    per_version = fragments / cluster.versions_per_s
    steps = fragments * cluster.fragment_steps * cluster.envs
    by_name = {hop.name: hop for hop in hops}
    stale = math.ceil(2 * cluster.actors / per_version)
    return Prediction(by_name, fragments, steps, beats, tells, weights, sum(levels), partitions, per_version, stale)


def relay_levels(actors: int, fan_out: int) -> tuple[int, ...]:
    """Relays at each level, the actors' parents first; none where the root has few enough children."""
    levels, children = [], actors
    while fan_out and children > fan_out:
        children = math.ceil(children / fan_out)
        levels.append(children)
    return tuple(levels)


def tells_per_s(cluster: Cluster, cycle_s: float) -> float:
    """Calls of the learner: one a version, at least one a second; and, where fragments are faster than that, one
    whenever a fragment's lease is younger than the last answer, which then tells of all that are out
    (learner/intake.py)."""
    told = max(cluster.versions_per_s, 1 / TELL_S)
    return told if cycle_s * told >= 1 else told + 1 / cycle_s


def actors_at_most(cluster: Cluster, costs: Costs) -> int:
    """How many actors saturate nothing, everything else being as it is."""
    low, high = 0, 1
    while predict(replace(cluster, actors=high), costs).tightest[2] <= 1 and high < 1 << 30:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = predict(replace(cluster, actors=middle), costs).tightest[2] <= 1
        low, high = (middle, high) if fits else (low, middle)
    return low


def _root(
    cluster: Cluster, costs: ServerCosts, levels: Sequence[int], leases: float, beats: float, weights: float,
    tells: float,
) -> Hop:  # fmt: skip
    """Flat, every actor calls. With relays there are its children only, but the ledger still hears of each actor."""
    if not levels:
        calls, out = leases + beats, weights * cluster.weights_bytes
        cores = leases * costs.lease_s + beats * costs.beat_s
    else:
        calls = leases + levels[-1] / RELAY_TICK_S
        out = levels[-1] * cluster.versions_per_s * cluster.weights_bytes
        cores = leases * costs.relayed_lease_s + beats * costs.relayed_beat_s
    cores += costs.idle + tells * costs.tell_s + out * costs.byte_s
    into = cluster.versions_per_s * cluster.weights_bytes
    return Hop("root", calls + tells, into, out, cores, 1.0, cluster.link_bytes_per_s)


def _relays(
    cluster: Cluster, costs: ServerCosts, levels: Sequence[int], leases: float, beats: float, weights: float
) -> Iterator[Hop]:
    """One of those that the actors ask, with all the children it may have; and one of the root's children, which hears
    of all actors below it."""
    into = cluster.versions_per_s * cluster.weights_bytes
    if levels:
        share = cluster.fan_out / cluster.actors
        out = weights * share * cluster.weights_bytes
        cores = costs.idle + (leases * costs.relay_lease_s + beats * costs.relay_beat_s) * share + out * costs.byte_s
        yield Hop("relay", (leases + beats) * share, into, out, cores, 1.0, cluster.link_bytes_per_s)
    if len(levels) > 1:
        share, out = 1 / levels[-1], cluster.fan_out * into
        of_lease = costs.relayed_lease_s + costs.relay_lease_s - costs.lease_s
        of_beat = costs.relayed_beat_s + costs.relay_beat_s - costs.beat_s
        cores = costs.idle + (leases * of_lease + beats * of_beat) * share + out * costs.byte_s
        calls = leases * share + cluster.fan_out / RELAY_TICK_S
        yield Hop("upper relay", calls, into, out, cores, 1.0, cluster.link_bytes_per_s)


def _broker(cluster: Cluster, costs: CarrierCosts, fragments: float) -> Hop:
    """All brokers of the cluster as if they were one, its cores those of this machine."""
    nbytes = fragments * cluster.fragment_bytes
    cores = costs.broker_idle + fragments * costs.broker_record_s + nbytes * costs.broker_byte_s
    return Hop("broker", 2 * fragments, nbytes, nbytes, cores, 2.0, cluster.link_bytes_per_s)


def _learner(cluster: Cluster, costs: CarrierCosts, fragments: float) -> Hop:
    nbytes = fragments * cluster.fragment_bytes
    steps = fragments * cluster.fragment_steps * cluster.envs
    cores = costs.idle + fragments * costs.record_s + nbytes * costs.byte_s + steps * cluster.update_s_per_step
    out = cluster.versions_per_s * cluster.weights_bytes
    return Hop("learner", fragments, nbytes, out, cores, 1.0, cluster.link_bytes_per_s)


WHAT_TO_CHANGE = {
    ("root", "cores"): "relays; longer fragments and more environments an actor (fewer calls)",
    ("root", "link"): "relays",
    ("relay", "cores"): "a smaller fan-out",
    ("relay", "link"): "a smaller fan-out",
    ("upper relay", "cores"): "a smaller fan-out",
    ("upper relay", "link"): "a smaller fan-out",
    ("broker", "cores"): "more brokers, as many partitions",
    ("broker", "link"): "more brokers; fewer bytes a step",
    ("learner", "cores"): "larger fragments, fewer bytes a step; else fewer actors: there is one learner",
    ("learner", "link"): "fewer bytes a step; else fewer actors: there is one learner",
}


def lines(cluster: Cluster, costs: Costs) -> Iterator[str]:
    found = predict(cluster, costs)
    yield f"{found.steps_per_s:,.0f} environment steps, {found.fragments_per_s:,.1f} fragments a second"
    yield (f"a version is made of {found.fragments_per_version:,.0f} fragments; "
           f"max_staleness {found.staleness_at_least} keeps all actors at work")  # fmt: skip
    for hop in found.hops.values():
        load = ", ".join(f"{what} {share:.0%}" for what, share in hop.load.items())
        yield (f"{hop.name:12} {hop.calls_per_s:10,.0f} calls/s  in {hop.bytes_in_per_s / 1e6:9,.1f} MB/s  "
               f"out {hop.bytes_out_per_s / 1e6:9,.1f} MB/s  {load}")  # fmt: skip
    yield f"{found.relays} relays, {found.partitions} partitions"
    name, what, share = found.tightest
    yield f"tightest: {name}, {what}, at {share:.0%}; {actors_at_most(cluster, costs):,} actors fill it"
    if share > 1:
        idle = cluster.actors * (1 - 1 / share)
        yield (f"held back to {found.fragments_per_s / share:,.0f} fragments a second: {idle:,.0f} actors wait, "
               f"and ask {idle / ASK_AGAIN_S:,.0f} times a second besides")  # fmt: skip
    yield f"to go beyond: {WHAT_TO_CHANGE[name, what]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Cluster):
        default = 10_000 if field.name == "actors" else field.default
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(default), default=default)
    print("\n".join(lines(Cluster(**vars(parser.parse_args())), Costs.read(kept()["costs"]))))


if __name__ == "__main__":
    main()
