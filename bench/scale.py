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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hardware import save
from scale_costs import CarrierCosts, Costs, ServerCosts, fit
from scale_loads import (
    CALIBRATED_AT,
    CARRIER_LOADS,
    FLAT_OUT,
    MANY,
    RELAY_LOADS,
    SERVER_LOADS,
    Bench,
    Load,
    Seen,
    compared,
)
from scale_model import Cluster, predict
from swarm import fragment

from headrace.common.codec import encode
from headrace.launch import broker

CARRIERS, AT_MOST_OFF = ("local", "kafka-python", "confluent"), 0.25


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
    found = predict(cluster, costs)
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
