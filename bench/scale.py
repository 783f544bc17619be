"""What a call costs here, and does bench/scale_model.py foresee what 8, 64 and 512 simulated actors do?

    python bench/scale.py [--sizes 8 64 512] [--carriers local kafka-python confluent] [--seconds 20] [--json]
                                                                              -> bench/results/scale.json

Real: the parameter server, the broker, sinks and sources, the learner's intake with its checks, the publisher. The
actors are simulated (bench/swarm.py): they take leases, wait as long as a fragment takes, and put one.

Costs are measured with 32 and 256 actors under loads of quite different mixtures, by least squares over the CPU
seconds of each process; none of them is a load of the comparison. Compared are the calls, bytes and fragments a second,
and the cores that the server and the learner took. Exit code 1 where one of the former is off by more than a quarter.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from counting_learner import Plan, learn
from hardware import save
from scale_model import CarrierCosts, Cluster, Costs, Prediction, ServerCosts, fit, predict
from swarm import Crowd, fragment
from swarm_rig import Rig, growth, look, shares

from headrace.common.codec import encode
from headrace.launch import broker

CALIBRATED_AT, MANY = 32, 256
#: Cycles of an actor that are watched at least: of 8 actors one fragment more or less is seen.
CYCLES = 5
AT_MOST_OFF, PARTITIONS, WARM_UP_S = 0.25, 4, 4.0
CARRIERS = ("local", "kafka-python", "confluent")


@dataclass(frozen=True)
class Load:
    """What a measurement does; see Cluster in scale_model.py."""

    actors: int = CALIBRATED_AT
    fragment_s: float = 1.0
    fragment_steps: int = 128
    envs: int = 8
    weights_bytes: int = 1_000
    versions_per_s: float = 1.0
    beat_s: float = 1.0
    relays: int = 0


#: One load in which each cost weighs most, and one of little of everything. A call costs more on a connection that has
#: few: as many connections as with hundreds of actors.
SERVER_LOADS = {
    "little": Load(fragment_s=2.0),
    "leases": Load(MANY, fragment_s=0.8, fragment_steps=16),
    "hearts": Load(MANY, fragment_s=4.0, beat_s=0.4),
    "weights": Load(MANY, fragment_s=4.0, weights_bytes=2_000_000),
    "learner's calls": Load(fragment_s=2.0, versions_per_s=50.0),
}
RELAY_LOADS = {
    "little, relays": Load(fragment_s=2.0, relays=2),
    "leases, relays": Load(MANY, fragment_s=0.8, fragment_steps=16, relays=2),
    "hearts, relays": Load(MANY, fragment_s=4.0, beat_s=0.4, relays=2),
}
CARRIER_LOADS = {
    "little": Load(fragment_s=2.0),
    "records": Load(fragment_s=0.1, fragment_steps=16),
    "bytes": Load(fragment_s=0.5, fragment_steps=2048),
}
#: As fast as eight can: what the learner's process takes beyond every load that its costs come from.
FLAT_OUT = Load(8, fragment_s=0.001, fragment_steps=512)


def compared(actors: int) -> Load:
    return Load(actors, fragment_s=4.0, weights_bytes=1_000_000, versions_per_s=1.0)


def ahead(load: Load) -> int:
    """Fragments that may be begun beyond those accepted, so that nobody waits: those of two cycles, and what comes
    between two words of the learner's."""
    return round(4 * load.actors * (1 + 1 / load.fragment_s))


@dataclass(frozen=True)
class Seen:
    """A second of it: fragments, calls (``tells``: the learner's; ``calls``: all that come to the root), bytes, cores;
    and how long an actor waited for a lease, and for an acknowledgement."""

    fragments: float
    fragment_bytes: float
    steps: float
    next_calls: float
    beats: float
    tells: float
    calls: float
    weight_bytes: float
    relayed_bytes: float
    server_cores: float
    relays_cores: float
    learner_cores: float
    broker_cores: float
    clients_cores: float
    ask_s: float
    put_s: float


class Bench:
    """One measurement at a time, each with processes of its own; the broker stays."""

    def __init__(self, seconds: float, bootstrap: str, broker_pid: int) -> None:
        self._seconds, self._bootstrap, self._broker_pid = seconds, bootstrap, broker_pid
        self._number = 0

    def measure(self, load: Load, carrier: str) -> Seen:
        self._number += 1
        with Rig(f"scale-{self._number}") as rig:
            root, url = rig.server(), self._url(carrier, rig)
            relays = [rig.server(upstream=root) for _ in range(load.relays)]
            plan = Plan(root.address, rig.run_id, url, rig.folder, load.weights_bytes, load.versions_per_s,
                        ahead(load), load.fragment_steps, load.envs)  # fmt: skip
            learner = rig.start(learn, plan)
            learner.look()  # its source is open: a topic is there
            collects = {"url": url, "envs": load.envs, "fragment_steps": load.fragment_steps,
                        "fragment_s": load.fragment_s, "beat_s": load.beat_s}  # fmt: skip
            parts = shares(load.actors, min(load.actors, 2))
            asked = [(relays or [root])[i % (load.relays or 1)].address for i in range(len(parts))]
            crowds = rig.crowds([Crowd(address, rig.run_id, p.start, len(p), **collects)
                                 for address, p in zip(asked, parts, strict=True)])  # fmt: skip
            look(crowds)
            time.sleep(2 * load.fragment_s + WARM_UP_S)

            def now() -> tuple[dict[str, float], ...]:
                cpu = {"s": time.monotonic(), "broker": 0.0 if carrier == "local" else self._broker_cpu_s()}
                for relay in relays:
                    seen = relay.look()
                    cpu["relays"] = cpu.get("relays", 0.0) + seen["cpu_s"]
                    cpu["relays_bytes"] = cpu.get("relays_bytes", 0.0) + seen["weights_bytes_total"]
                return look(crowds)[0], learner.look(), root.look(), cpu

            before = now()
            time.sleep(max(self._seconds, CYCLES * load.fragment_s))
            after = now()
            if any("refused" in name for name in after[1]) or any("errors" in name for name in after[0]):
                print(f"  refused or failed: {after[1]} {after[0]}", flush=True)
            return _seen(*(growth(*pair) for pair in zip(before, after, strict=True)))

    def _url(self, carrier: str, rig: Rig) -> str:
        if carrier == "local":
            return f"local://{rig.folder}/t"
        return f"kafka://{self._bootstrap}/{rig.run_id}?client={carrier}&partitions={PARTITIONS}"

    def _broker_cpu_s(self) -> float:
        times = psutil.Process(self._broker_pid).cpu_times()
        return float(times.user + times.system)


def _seen(crowds: dict[str, float], learner: dict[str, float], root: dict[str, float], cpu: dict[str, float]) -> Seen:
    each_s, leases = 1 / cpu["s"], max(1.0, crowds.get("leases", 0))
    return Seen(
        learner.get("fragments", 0) * each_s,
        crowds.get("put_bytes", 0) * each_s,
        learner.get("steps", 0) * each_s,
        crowds.get("next_calls", 0) * each_s,
        crowds.get("beats", 0) * each_s,
        learner["tells"] * each_s,
        (crowds.get("next_calls", 0) + crowds.get("beats", 0) + learner["tells"]) * each_s,
        root["weights_bytes_total"] * each_s,
        cpu.get("relays_bytes", 0.0) * each_s,
        root["cpu_s"] * each_s,
        cpu.get("relays", 0.0) * each_s,
        learner["cpu_s"] * each_s,
        cpu["broker"] * each_s,
        crowds["cpu_s"] * each_s,
        crowds.get("asked_us", 0) / leases / 1e6,
        crowds.get("put_us", 0) / leases / 1e6,
    )


# --- calibration ---------------------------------------------------------------------------------------------------


def calibrate(bench: Bench, carriers: list[str]) -> tuple[Costs, dict[str, Any]]:
    """The costs, and what they were made of."""
    flat = {name: _measured(bench, name, load, "local") for name, load in SERVER_LOADS.items()}
    relayed = {name: _measured(bench, name, load, "local") for name, load in RELAY_LOADS.items()}
    server = _server_costs(list(flat.values()), list(relayed.values()))
    rows = {"server": {name: asdict(s) for name, s in (flat | relayed).items()}}
    by_carrier = {}
    for carrier in carriers:
        if carrier != "local":
            _measured(bench, "(to warm up)", CARRIER_LOADS["records"], carrier)  # Java compiles as it goes
        ran = {name: _measured(bench, name, load, carrier) for name, load in CARRIER_LOADS.items()}
        by_carrier[carrier] = _carrier_costs(list(ran.values()), carrier)
        rows[carrier] = {name: asdict(s) for name, s in ran.items()}
    return Costs(server, by_carrier, flat["little"].ask_s), rows


def _server_costs(flat: list[Seen], relayed: list[Seen]) -> ServerCosts:
    """Of the root by all loads at once; then of a relay, what is left of it beyond idling and sending weights."""
    rows = [[1.0, s.next_calls, s.beats, s.tells, s.weight_bytes, 0.0, 0.0] for s in flat]
    rows += [[1.0, 0.0, 0.0, s.tells, s.weight_bytes, s.next_calls, s.beats] for s in relayed]
    root = fit(rows, [s.server_cores for s in [*flat, *relayed]])
    idle, byte_s = root[0], root[4]
    left = [s.relays_cores - 2 * idle - s.relayed_bytes * byte_s for s in relayed]
    return ServerCosts(*root, *fit([[s.next_calls, s.beats] for s in relayed], left))


def _carrier_costs(seen: list[Seen], carrier: str) -> CarrierCosts:
    rows = [[1.0, s.fragments, s.fragment_bytes] for s in seen]
    learner = fit(rows, [s.learner_cores for s in seen])
    brokers = [0.0] * 3 if carrier == "local" else fit(rows, [s.broker_cores for s in seen])
    return CarrierCosts(*learner, seen[0].put_s, *brokers)


def _measured(bench: Bench, name: str, load: Load, carrier: str) -> Seen:
    seen = bench.measure(load, carrier)
    cores = {name.removesuffix("_cores"): value for name, value in asdict(seen).items() if name.endswith("_cores")}
    print(f"{carrier:13} {name:16} {seen.fragments:6.1f} fragments/s {seen.fragment_bytes / 1e6:6.2f} MB/s "
          f"{seen.beats:6.1f} beats/s {seen.tells:5.1f} tells/s {seen.weight_bytes / 1e6:6.2f} MB/s of weights; "
          "cores: " + ", ".join(f"{what} {n:.3f}" for what, n in cores.items()), flush=True)  # fmt: skip
    return seen


# --- comparison ----------------------------------------------------------------------------------------------------


def foreseen(load: Load, carrier: str, costs: Costs) -> dict[str, float]:
    """By the names that :class:`Seen` has."""
    made = fragment("scale-0", load.fragment_steps, load.envs)
    nbytes = len(encode(made, 8 << 20, compress=carrier != "local"))
    steps = load.fragment_steps * load.envs
    cluster = Cluster(
        load.actors, load.envs, load.fragment_s / load.fragment_steps, load.fragment_steps, nbytes / steps,
        load.versions_per_s, load.weights_bytes, carrier=carrier, beat_s=load.beat_s,
    )  # fmt: skip
    found: Prediction = predict(cluster, costs)
    root, learner = found.hops["root"], found.hops["learner"]
    return {
        "fragments": found.fragments_per_s,
        "fragment_bytes": learner.bytes_in_per_s,
        "steps": found.steps_per_s,
        "next_calls": found.fragments_per_s,
        "beats": found.beats_per_s,
        "tells": found.tells_per_s,
        "calls": root.calls_per_s,
        "weight_bytes": root.bytes_out_per_s,
        "server_cores": root.cores,
        "learner_cores": learner.cores,
        "broker_cores": found.hops["broker"].cores if "broker" in found.hops else 0.0,
    }


#: What the model is held to; the rest is shown.
HELD = ("fragments", "fragment_bytes", "steps", "next_calls", "beats", "calls", "weight_bytes")


def compare(bench: Bench, costs: Costs, sizes: list[int], carriers: list[str]) -> list[dict[str, Any]]:
    rows = []
    for carrier in carriers:
        for actors in sizes:
            load = compared(actors)
            seen, said = asdict(_measured(bench, f"{actors} actors", load, carrier)), foreseen(load, carrier, costs)
            off = {name: round(said[name] / seen[name] - 1, 4) for name in said if seen[name] > 0}
            rows.append({"carrier": carrier, "actors": actors, "measured": seen, "foreseen": said, "off": off})
            print("  foreseen / measured - 1: " + ", ".join(f"{k} {v:+.0%}" for k, v in off.items()), flush=True)
    return rows


def flat_out(bench: Bench, costs: Costs, carrier: str) -> dict[str, Any]:
    """Far from the loads that the costs come from: the cores that the learner then takes, and what it would take with
    the whole of one."""
    seen, cost = _measured(bench, "flat out", FLAT_OUT, carrier), costs.carriers[carrier]
    record_s = cost.record_s + seen.fragment_bytes / seen.fragments * cost.byte_s
    said = cost.idle + seen.fragments * record_s
    print(f"  foreseen {said:.2f} cores; with a whole one {(1 - cost.idle) / record_s:,.0f} fragments/s", flush=True)
    return {"measured": asdict(seen), "learner_cores": said, "fragments_with_one_core": (1 - cost.idle) / record_s,
            "off": round(said / seen.learner_cores - 1, 4)}  # fmt: skip


@contextmanager
def own_broker(folder: Path, wanted: bool) -> Iterator[tuple[str, int]]:
    """host:port and pid."""
    if not wanted:
        yield "", 0
        return
    info = broker.start(folder, port=0)
    try:
        yield info.bootstrap, info.pid
    finally:
        broker.stop(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--carriers", nargs="+", choices=CARRIERS, default=list(CARRIERS))
    parser.add_argument("--seconds", type=float, default=20.0, help="that each load is measured for, at least")
    parser.add_argument("--json", action="store_true", help="keep the result in bench/results/scale.json")
    args = parser.parse_args()
    kafka = any(carrier != "local" for carrier in args.carriers)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, own_broker(Path(folder) / "broker", kafka) as at:
        bench = Bench(args.seconds, *at)
        costs, rows = calibrate(bench, args.carriers)
        found = compare(bench, costs, args.sizes, args.carriers)
        fastest = {carrier: flat_out(bench, costs, carrier) for carrier in args.carriers}
    worst = max((abs(row["off"][name]), f"{name} with {row['actors']} actors, {row['carrier']}")
                for row in found for name in HELD)  # fmt: skip
    print(f"furthest off: {worst[1]}: {worst[0]:.0%}; at most {AT_MOST_OFF:.0%} is asked")
    if args.json:
        kept = {"calibrated_at": [CALIBRATED_AT, MANY], "seconds": args.seconds, "costs": asdict(costs), "loads": rows}
        print(save("scale", {**kept, "furthest_off": list(worst), "compared": found, "flat_out": fastest}).name)
    return 0 if worst[0] <= AT_MOST_OFF else 1


if __name__ == "__main__":
    raise SystemExit(main())
