"""How many 84x84 frames a second does one learner take in, and what limits it?

    python bench/image_rate.py [--records 300] [--repeats 3] [--producers 2] [--only WORD ...] [--json NAME]

Fragments as the preset pong-ppo has them (128 steps in 4 environments, every frame sent once: 3.7 MB) are put by
producer processes and taken in by one process with the learner's own parts: source, intake with the run's validation
and a lease for each, and the batches that PPO would be given (two fragments side by side). No network is trained.

    frames    pong: ALE's own, of random play; noise: random bytes, which no compression helps
    carrier   local://; Kafka with kafka-python and with confluent-kafka, each with ?compression=lz4 (the default) and
              none (for noise they are the same: a sample says that it would not pay)
    load      live: producers put while the learner takes. log (Kafka): all was put before, so that the learner
              alone is measured

Frames a second are new frames, T x B of a fragment, from the start signal to the last one joined. Beside them: CPU
milliseconds a fragment by phase and by process, the learner's busiest thread as a share of the time, and how much of
the machine all of them took together. What limits follows from these: a thread, or the cores. "reach": what the busiest
thread would come to, were there cores enough. A broker of our own keeps its log in TMPDIR. Exit code 1 where a target
is missed: 20,000 over local://, 10,000 live over Kafka with confluent-kafka.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from hardware import relative, save
from image_sides import DIFFERENT, Case
from kafka_clients import delete_topic

from headrace.common.types import Array
from headrace.launch import broker
from headrace.launch.build import Blueprint
from headrace.tasks import make_batch

#: name -> client and options of a Kafka address; None: local://
CARRIERS = {
    "local": None,
    "kafka-python": "client=kafka-python",
    "kafka-python, none": "client=kafka-python&compression=none",
    "confluent": "client=confluent",
    "confluent, none": "client=confluent&compression=none",
}
TARGETS = {("local", "live"): 20_000, ("confluent", "live"): 10_000, ("confluent, none", "live"): 10_000}
FRAMES = ("pong", "noise")
#: A share of a thread, or of the machine, that counts as all of it.
BUSY = 0.9


def shown(frames: str, blueprint: Blueprint) -> Array:
    """uint8 [DIFFERENT, T + 1, B, 84, 84]: of Pong one stretch of random play."""
    config, rng = blueprint.config, np.random.default_rng(0)
    n, T = config.actors.envs, config.actors.fragment_steps
    if frames == "noise":
        return rng.integers(0, 256, (DIFFERENT, T + 1, n, *blueprint.spaces.obs_shape), np.uint8)
    envs = make_batch(config.task.env, n, kwargs=config.task.kwargs, wrappers=config.task.wrappers)
    played = [envs.reset(range(n))]
    for _ in range(DIFFERENT * T):
        played.append(envs.step(rng.integers(blueprint.spaces.n_actions, size=n)).obs)
    envs.close()
    return np.stack([np.stack(played[i * T : (i + 1) * T + 1]) for i in range(DIFFERENT)])


def measure(case: Case) -> dict[str, Any]:
    """One run of one case, in a process of its own."""
    sides = str(Path(__file__).with_name("image_sides.py"))
    command = [sys.executable, sides, "take", json.dumps(asdict(case))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return row(json.loads(done.stdout), case)


def row(found: Mapping[str, Any], case: Case) -> dict[str, Any]:
    records, wall_s = case.records, found["wall_s"]

    def ms(seconds: Mapping[str, float]) -> dict[str, float]:
        return {name: 1e3 * s / records for name, s in seconds.items() if s / wall_s > 0.001}

    put_s = total([one["phases_s"] for one in found["put"]])
    together = found["cpu_s"] + found["broker_cpu_s"] + (0 if case.before else sum(put_s.values()))
    thread, busiest_s = max(found["threads_s"].items(), key=lambda item: item[1])
    frames_s = found["frames"] / wall_s
    shares = {
        f"the learner's thread {thread}": busiest_s / wall_s,
        "a producer": 0.0 if case.before else max(one["cpu_s"] / one["wall_s"] for one in found["put"]),
        "the cores": together / wall_s / len(os.sched_getaffinity(0)),
    }
    limit = max(shares, key=shares.__getitem__)
    return {
        "frames_s": frames_s,
        "mb_s": frames_s * found["frame_record_bytes"] * records / found["frames"] / 1e6,
        "put_frames_s": sum(found["frames"] / case.producers / one["wall_s"] for one in found["put"]),
        "limit": limit if shares[limit] >= BUSY else f"nothing is used up (most: {limit})",
        "shares": shares,
        "reach_frames_s": frames_s / shares[f"the learner's thread {thread}"],
        "learner_ms": ms(found["phases_s"]),
        "learner_threads": {name: s / wall_s for name, s in found["threads_s"].items() if s / wall_s > 0.01},
        "producers_ms": ms(put_s),
        "broker_ms": 1e3 * found["broker_cpu_s"] / records,
        "rss_mb": found["rss_mb"],
    }


def total(rows: list[Mapping[str, float]]) -> dict[str, float]:
    return {key: sum(one.get(key, 0.0) for one in rows) for key in {key: None for one in rows for key in one}}


def middle(rows: list[Any]) -> Any:
    """Medians, leaf by leaf; of words the most frequent one. A leaf that some repeat lacks is left out."""
    if isinstance(rows[0], dict):
        return {key: middle([r[key] for r in rows]) for key in rows[0] if all(key in r for r in rows)}
    if isinstance(rows[0], str):
        return statistics.mode(rows)
    value = statistics.median(rows)
    return round(value) if value >= 1000 else round(value, 3)


def cases(args: argparse.Namespace, folder: Path, broker_at: broker.BrokerInfo | None) -> dict[str, Case]:
    """Name -> case, new addresses each time. Noise is not measured twice where compression makes no difference."""
    made = {}
    for frames in FRAMES:
        for carrier, options in CARRIERS.items():
            for before in (False, True) if options else (False,):
                name = f"{frames}, {carrier}, {'log' if before else 'live'}"
                if (frames == "noise" and "none" in carrier) or not _wanted(name, args.only):
                    continue
                url, pid = f"local://{folder}/images", 0
                if options:
                    assert broker_at is not None
                    url = f"kafka://{broker_at.bootstrap}/images-{uuid.uuid4().hex[:8]}?{options}"
                    pid = broker_at.pid
                of_frames = str(folder / f"{frames}.npy")
                made[name] = Case(url, of_frames, args.records, args.producers, before, pid)
    return made


def _wanted(name: str, words: list[str]) -> bool:
    return all(word in name.replace(",", "").split() for word in words)


def run(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        blueprint = Case("local:///images", "", 0, 0).blueprint
        for frames in FRAMES:
            np.save(folder / f"{frames}.npy", shown(frames, blueprint))
        serve = "local" not in args.only
        info = (
            broker.start(folder / "broker", port=0, settings={"log.segment.delete.delay.ms": "1000"}) if serve else None
        )
        try:
            for _ in range(args.repeats):
                for what, case in cases(args, folder, info).items():
                    found = measure(case)
                    rows.setdefault(what, []).append(found)
                    print(f"{what:36} {found['frames_s']:9,.0f} frames/s   {found['limit']}", flush=True)
                    if info is not None and case.broker_pid:
                        delete_topic(info.bootstrap, case.url.rpartition("/")[2].partition("?")[0])
        finally:
            if info is not None:
                broker.stop(folder / "broker")
    return rows


def report(rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The table, and what is kept."""
    kept, missed = {}, []
    print(f"\n{'medians':36} {'frames/s':>9} {'MB/s':>6} {'reach':>9}  limit, and CPU ms a fragment")
    for what, found in rows.items():
        kept[what] = {**middle(found), "all_frames_s": [round(one["frames_s"]) for one in found]}
        one = kept[what]
        took = "  ".join(
            f"{who} " + " + ".join(f"{phase} {ms:.2f}" for phase, ms in one[f"{who}_ms"].items())
            for who in ("learner", "producers")
        )
        print(f"{what:36} {one['frames_s']:9,.0f} {one['mb_s']:6.0f} {one['reach_frames_s']:9,.0f}  {one['limit']}")
        print(f"{'':36} {took}  broker {one['broker_ms']:.2f}")
        _, carrier, load = _split(what)
        if one["frames_s"] < TARGETS.get((carrier, load), 0):
            missed.append(what)
    return {"cases": kept, "targets": {", ".join(key): value for key, value in TARGETS.items()}, "missed": missed}


def _split(what: str) -> tuple[str, str, str]:
    frames, _, rest = what.partition(", ")
    carrier, _, load = rest.rpartition(", ")
    return frames, carrier, load


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300, help="fragments a run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--producers", type=int, default=2, help="processes that put")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases with all these words: pong live")
    parser.add_argument("--json", metavar="NAME", help="keep the figures as bench/results/NAME.json")
    args = parser.parse_args()
    result = {
        "what": "new 84x84 frames a second taken in by one learner process; medians",
        "records": args.records, "producers": args.producers, "repeats": args.repeats, **report(run(args)),
    }  # fmt: skip
    if args.json:
        print(relative(str(save(args.json, result))))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
