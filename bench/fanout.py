"""How long until a thousand subscribers have the newest version, and what does it cost the root?

    python bench/fanout.py [--subscribers 1000] [--bytes 1000000] [--versions 10] [--every-s 10] [--relays K] [--json]
    python bench/fanout.py --actors [--fragment-s 5] [--seconds 30] [--relays K] [--json]
                                        -> bench/results/fanout.json, fanout-relays.json, fanout-actors.json, ...

A real parameter server, a real publisher, and simulated subscribers in --processes processes, a connection each
(bench/swarm.py). The clock of a version runs from the call of publish() until a subscriber holds it, or a newer one,
whole and with the right digest; p50, p99 and max are over all subscribers and versions. With --relays the subscribers
are shared out over K parameter servers with --upstream, and only those are the root's children.

With --actors each of them takes leases, beats, and puts fragments (of 1,024 steps, over local://) to a learner that
counts them; measured are the calls and the bytes a second at the parents, whom the actors ask (the root, or all relays
together), and at the root.

Exit code 1 where the p99 of followers is over --target-s, 5.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from counting_learner import Plan, learn, version
from hardware import save
from swarm import Crowd
from swarm_rig import MOST_OF_A_HOST, Rig, Server, Workers, growth, look, shares

from headrace.common.metrics import Metrics
from headrace.common.weights.base import Progress
from headrace.common.weights.grpc import GrpcPublisher

READY_S, ARRIVE_S, POLL_S = 120.0, 120.0, 0.5
PLENTY = Progress(1 << 40)
FRAGMENT_STEPS, ENVS = 128, 8


def follow(rig: Rig, args: argparse.Namespace) -> dict[str, Any]:
    root, parents = tree(rig, args.relays)
    publisher = GrpcPublisher(root.address, rig.run_id, "", Metrics("learner"))
    rig.at_end(publisher.close)
    publisher.publish(version(rig.run_id, 0, args.bytes), PLENTY)
    crowds = rig.crowds(subscribers(rig, parents, args))
    arrivals = {client: [(0, 0.0)] for client in range(args.subscribers)}
    everybody_has(crowds, 0, args.subscribers, arrivals)
    began_s, before = time.monotonic(), (look(crowds)[0], root.look(), summed(parents))
    published = []
    for number in range(1, args.versions + 1):
        time.sleep(max(0.0, began_s + (number - 1) * args.every_s - time.monotonic()))
        weights = version(rig.run_id, number, args.bytes)
        published.append(time.monotonic())
        publisher.publish(weights, PLENTY)
    everybody_has(crowds, args.versions, args.subscribers, arrivals)
    took_s = time.monotonic() - began_s
    waits = until(arrivals, published)
    after = (look(crowds)[0], root.look(), summed(parents))
    counts, roots, servers = (growth(*pair) for pair in zip(before, after, strict=True))
    children = args.relays or args.subscribers
    return {
        "subscribers": args.subscribers, "relays": args.relays, "bytes": args.bytes, "versions": args.versions,
        "every_s": args.every_s, "processes": len(crowds),
        "seconds": {"p50": quantile(waits, 0.5), "p99": quantile(waits, 0.99), "max": quantile(waits, 1.0)},
        "seconds_until_all_have_it": [round(float(row.max()), 3) for row in waits],
        "root": {
            "weight_bytes_a_version": roots["weights_bytes_total"] / args.versions,
            "of_children": roots["weights_bytes_total"] / (args.versions * args.bytes * children),
            "cpu_s_a_version": round(roots["cpu_s"] / args.versions, 4),
            "peak_memory_bytes": after[1]["peak_bytes"],
        },
        "parents": {"weight_bytes_a_version": servers["weights_bytes_total"] / args.versions,
                    "cpu_s_a_version": round(servers["cpu_s"] / args.versions, 4)},
        "clients": {"weight_bytes": counts["weight_bytes"], "versions_taken": counts["versions"],
                    "cpu_s_a_version": round(counts["cpu_s"] / args.versions, 4), "errors": errors(counts)},
        "took_s": round(took_s, 1),
    }  # fmt: skip


def act(rig: Rig, args: argparse.Namespace) -> dict[str, Any]:
    root, parents = tree(rig, args.relays)
    url, rate = f"local://{rig.folder}/t", 1 / args.every_s
    plan = Plan(root.address, rig.run_id, url, rig.folder, args.bytes, rate, 4 * args.subscribers, FRAGMENT_STEPS, ENVS)
    learner = rig.start(learn, plan)
    crowds = rig.crowds(subscribers(rig, parents, args, url))
    time.sleep(2 * args.fragment_s + args.warm_up_s)
    before_s, before = time.monotonic(), (look(crowds)[0], learner.look(), root.look(), summed(parents))
    time.sleep(args.seconds)
    after_s, after = time.monotonic(), (look(crowds)[0], learner.look(), root.look(), summed(parents))
    counts, learnt, roots, servers = (growth(*pair) for pair in zip(before, after, strict=True))
    each_s = 1 / (after_s - before_s)
    return {
        "subscribers": args.subscribers, "relays": args.relays, "bytes": args.bytes, "every_s": args.every_s,
        "fragment_s": args.fragment_s, "processes": len(crowds), "seconds": round(1 / each_s, 1),
        "parents": {
            "lease_calls_a_second": round(counts["next_calls"] * each_s, 1),
            "heartbeat_calls_a_second": round(counts["beats"] * each_s, 1),
            "ask_ms": round(counts["asked_us"] / counts["leases"] / 1e3, 2),
            "weight_bytes_a_second": round(servers["weights_bytes_total"] * each_s),
            "cores": round(servers["cpu_s"] * each_s, 3),
        },
        "root": {
            "leases_a_second": round(roots["leases_issued_total"] * each_s, 1),
            "leases_expired": roots["leases_expired_total"],
            "learner_calls_a_second": round(learnt["tells"] * each_s, 1),
            "weight_bytes_a_second": round(roots["weights_bytes_total"] * each_s),
            "cores": round(roots["cpu_s"] * each_s, 3),
            "peak_memory_bytes": after[2]["peak_bytes"],
        },
        "learner": {"fragments_a_second": round(learnt["fragments"] * each_s, 1),
                    "refused": {name: n for name, n in after[1].items() if name.startswith("refused")}},
        "clients": {"cores": round(counts["cpu_s"] * each_s, 3), "errors": errors(counts)},
    }  # fmt: skip


def tree(rig: Rig, relays: int) -> tuple[Server, list[Server]]:
    """The root, and whom the subscribers ask."""
    root = rig.server()
    return root, [rig.server(upstream=root) for _ in range(relays)] or [root]


def summed(servers: list[Server]) -> dict[str, float]:
    """What all of them used and sent together."""
    seen = [server.look() for server in servers]
    return {name: sum(one[name] for one in seen) for name in ("cpu_s", "weights_bytes_total")}


def subscribers(rig: Rig, parents: list[Server], args: argparse.Namespace, url: str = "") -> list[Crowd]:
    """Each process holds as many, of as few parents as can be."""
    crowds = []
    for i, numbers in enumerate(shares(args.subscribers, max(args.processes, len(parents)))):
        collects = {"url": url, "envs": ENVS, "fragment_steps": FRAGMENT_STEPS, "fragment_s": args.fragment_s}
        address = parents[i % len(parents)].address
        crowds.append(Crowd(address, rig.run_id, numbers.start, len(numbers), **(collects if url else {})))
    return crowds


def everybody_has(crowds: list[Workers], number: int, n: int, arrivals: dict[int, list[tuple[int, float]]]) -> None:
    """Wait until all ``n`` have version ``number``, and keep when each had which."""
    until_s = time.monotonic() + ARRIVE_S
    while True:
        for client, version_, at_s in look(crowds)[1]:
            arrivals[client].append((version_, at_s))
        have = sum(1 for came in arrivals.values() if came[-1][0] >= number and came[-1][1] > 0)
        if have == n:
            return
        if time.monotonic() > until_s:
            raise SystemExit(f"{have} of {n} subscribers have version {number} after {ARRIVE_S:g} s")
        time.sleep(POLL_S)


def until(arrivals: dict[int, list[tuple[int, float]]], published: list[float]) -> np.ndarray:
    """Seconds from each publication (version 1 first) until each subscriber held that version or a newer one."""
    waits = np.zeros((len(published), len(arrivals)))
    for column, came in enumerate(arrivals.values()):
        for row, began_s in enumerate(published):
            waits[row, column] = next(at_s for number, at_s in came if number > row) - began_s
    return waits


def quantile(waits: np.ndarray, share: float) -> float:
    return round(float(np.quantile(waits, share)), 3)


def errors(counts: dict[str, float]) -> dict[str, float]:
    return {name: n for name, n in counts.items() if name.startswith("errors")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1000, metavar="N")
    parser.add_argument("--bytes", type=int, default=1_000_000, help="of weights, a version")
    parser.add_argument("--versions", type=int, default=10, help="published while it is measured")
    parser.add_argument("--every-s", type=float, default=10.0, help="between two versions")
    parser.add_argument("--relays", type=int, default=0, metavar="K", help="0: all subscribers are the root's children")
    parser.add_argument("--processes", type=int, default=2, help="that hold the subscribers; with relays one each")
    parser.add_argument("--actors", action="store_true", help="that take leases, instead of followers")
    parser.add_argument("--fragment-s", type=float, default=5.0, help="that an actor's fragment takes")
    parser.add_argument("--seconds", type=float, default=30.0, help="for which actors are watched")
    parser.add_argument("--warm-up-s", type=float, default=10.0)
    parser.add_argument("--target-s", type=float, default=5.0)
    parser.add_argument("--json", action="store_true", help="keep the result in bench/results/")
    args = parser.parse_args()
    of_one = -(-args.subscribers // max(1, args.relays))
    if of_one > MOST_OF_A_HOST:
        parser.error(f"{of_one} subscribers to a server: it takes {MOST_OF_A_HOST} of one host; use more --relays")
    with Rig() as rig:
        found = act(rig, args) if args.actors else follow(rig, args)
    for name, value in found.items():
        print(f"{name:26} {value}")
    if args.json:
        parts = ["fanout", *(["actors"] if args.actors else []), *(["relays"] if args.relays else [])]
        print(save("-".join(parts), found).name)
    return 1 if not args.actors and found["seconds"]["p99"] > args.target_s else 0


if __name__ == "__main__":
    raise SystemExit(main())
