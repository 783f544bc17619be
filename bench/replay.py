"""What replay holds and what it costs: memory, inserts, prioritised samples, checkpoints.

    vectors    a million transitions of 8 floats, beside the implementation before (--former, from git), in turns
    images     a million transitions of four stacked frames of 84 x 84, from single frames
    checkpoint of those images: what it writes, and what memory it takes beside the buffer; and reading it back

    python bench/replay.py [--images 1_000_000] [--former COMMIT] [--json replay]

A million images need 7.8 GB of memory, and as much disk under TMPDIR.
Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from hardware import ROOT, relative, save

from headrace.algorithms.base import Replay
from headrace.common.types import Trajectory
from headrace.learner import checkpoint_reader, replay
from headrace.learner.checkpoint_writer import CheckpointWriter

#: The last commit at which a transition held both its observations.
FORMER = "f772bb12ea45accc811af17ad3c8cb03b64b5dfc"
#: Figures to reach on two cores.
TARGETS = {"vectors_sample_ms": 1.0, "images_sample_ms": 4.0, "vectors_inserts_per_s": 500_000,
           "images_gb_per_million": 8.0, "checkpoint_added_gb": 1.0}  # fmt: skip
STEPS, ENVS, SAMPLES = 64, 8, 300


def fragments(count: int, shape: tuple[int, ...], dtype: str) -> list[Trajectory]:
    """Fragments of one actor, one after the other, with an episode's end in each."""
    rng, made = np.random.default_rng(0), []
    none = np.zeros((STEPS, ENVS), bool)
    for seq in range(count):
        ended = none.copy()
        ended[STEPS // 2, seq % ENVS] = True
        obs = rng.integers(0, 255, (STEPS + 1, ENVS, *shape)).astype(dtype)
        obs[0] = made[-1].arrays["obs"][-1] if made else obs[0]
        reward = rng.normal(size=(STEPS, ENVS)).astype(np.float32)
        arrays = {"obs": obs, "action": rng.integers(0, 4, (STEPS, ENVS)), "reward": reward}
        arrays |= {"terminated": ended, "truncated": none, "final_obs": obs[0, :1]}
        made.append(Trajectory("run", 0, 0, 0, seq, 0, 0, "task", "", STEPS, ENVS, arrays))
    return made


def endless(of: list[Trajectory]) -> Iterator[Trajectory]:
    """The same fragments again and again: only the first of each round does not go on where the last one ended."""
    while True:
        yield from of


def former(commit: str) -> Any:
    """The module learner/replay.py as it was at ``commit``."""
    shown = subprocess.run(["git", "show", f"{commit}:learner/replay.py"], cwd=ROOT, capture_output=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "former_replay.py"
        path.write_bytes(shown.stdout)
        spec = importlib.util.spec_from_file_location("headrace_former_replay", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look themselves up
        spec.loader.exec_module(module)
    return module


def inserting(buffer: Any, coming: Iterator[Trajectory], count: int) -> float:
    """Transitions a second, over at least ``count``."""
    done, began = 0, time.perf_counter()
    while done < count:
        done += buffer.insert(next(coming))
    return done / (time.perf_counter() - began)


def sampling(buffer: Any, samples: int = SAMPLES) -> tuple[list[float], list[float]]:
    """Milliseconds of each minibatch, and of setting its priorities."""
    rng, drawn_ms, set_ms = np.random.default_rng(0), [], []
    for _ in range(samples):
        began = time.perf_counter()
        _, serials = buffer.sample()
        drawn = time.perf_counter()
        buffer.update_priorities(serials, rng.random(len(serials)))
        drawn_ms.append(1e3 * (drawn - began))
        set_ms.append(1e3 * (time.perf_counter() - drawn))
    return drawn_ms, set_ms


def told(ms: list[float]) -> dict[str, float]:
    return {"median": round(float(np.median(ms)), 3), "p90": round(float(np.quantile(ms, 0.9)), 3)}


def vectors(commit: str) -> dict[str, Any]:
    declared = Replay(1_000_000, 256, 1.0, priority_alpha=0.6, n_step=3)
    buffers = {"now": replay.ReplayBuffer, "former": former(commit).ReplayBuffer}
    held = {name: make(declared, np.random.default_rng(0)) for name, make in buffers.items()}
    coming, found = endless(fragments(16, (8,), "float32")), {}
    rates: dict[str, list[float]] = {name: [] for name in held}
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in held}
    for buffer in held.values():
        inserting(buffer, coming, declared.capacity)
    for _ in range(5):  # in turns
        for name, buffer in held.items():
            rates[name].append(inserting(buffer, coming, 100_000))
            for all_ms, ms in zip(times[name], sampling(buffer), strict=True):
                all_ms += ms
    for name, buffer in held.items():
        found[name] = {
            "bytes": buffer.nbytes,
            "inserts_per_s": round(float(np.median(rates[name]))),
            "sample_ms": told(times[name][0]),
            "update_priorities_ms": told(times[name][1]),
        }
    now, then = found["now"], found["former"]
    ratios = {
        "bytes": round(now["bytes"] / then["bytes"], 3),
        "inserts_per_s": round(now["inserts_per_s"] / then["inserts_per_s"], 2),
        "sample_ms": round(now["sample_ms"]["median"] / then["sample_ms"]["median"], 2),
    }
    return {"transitions": declared.capacity, "fragment": [STEPS, ENVS], **found, "now_to_former": ratios}


def images(transitions: int) -> dict[str, Any]:
    declared = Replay(transitions, 256, 1.0, priority_alpha=0.6, stack=4)
    coming = endless(fragments(8, (84, 84), "uint8"))
    before = psutil.Process().memory_info().rss
    buffer = replay.ReplayBuffer(declared, np.random.default_rng(0))
    buffer.insert(next(coming))
    inserting(buffer, coming, transitions)
    rate = inserting(buffer, coming, min(transitions, 100_000))
    drawn, priorities = sampling(buffer)
    found = {
        "transitions": len(buffer),
        "fragment": [STEPS, ENVS],
        "bytes": buffer.nbytes,
        "resident_bytes": psutil.Process().memory_info().rss - before,
        "inserts_per_s": round(rate),
        "sample_ms": told(drawn),
        "update_priorities_ms": told(priorities),
        "former_bytes": transitions * (2 * 4 * 84 * 84 + 16),
    }
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        found["checkpoint"] = checkpoints(Path(folder), buffer, coming)
        del buffer
        gc.collect()
        found["restore"] = restoring(Path(folder), declared)
    return found


def checkpoints(folder: Path, buffer: Any, coming: Iterator[Trajectory]) -> dict[str, Any]:
    """The first, which writes everything, and one after 10,000 more transitions."""
    found = {}
    with CheckpointWriter(folder) as writer:
        for name in ("first", "next"):
            taken = added(lambda: writer.save(1, {"experience": buffer.state()}, {}))
            newest = [p.stat() for p in checkpoint_reader.ordered(folder)[-1].iterdir()]
            written = sum(stat.st_size for stat in newest if stat.st_nlink == 1)
            found[name] = {**taken, "files": len(newest), "written_bytes": written}
            inserting(buffer, coming, 10_000)
    return found


def restoring(folder: Path, declared: Replay) -> dict[str, Any]:
    """The newest one, verified and read into a buffer of its own."""
    held = []

    def restore() -> None:
        saved = checkpoint_reader.latest(folder)
        assert saved is not None
        held.append(replay.ReplayBuffer(declared, np.random.default_rng(1)))
        held[0].restore(saved.parts["experience"])

    taken = added(restore)
    return {**taken, "beside_the_buffer_bytes": taken["added_bytes"] - held[0].nbytes}


def added(work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds, and how much more memory was resident at the most (the kernel's high-water mark, set back first)."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {"seconds": round(seconds, 2), "added_bytes": int(status["VmHWM"].split()[0]) * 1024 - before}


def reached(found: dict[str, Any]) -> dict[str, float]:
    pictures, plain = found["images"], found["vectors"]["now"]
    return {
        "vectors_sample_ms": plain["sample_ms"]["median"],
        "images_sample_ms": pictures["sample_ms"]["median"],
        "vectors_inserts_per_s": plain["inserts_per_s"],
        "images_gb_per_million": round(pictures["bytes"] / pictures["transitions"] / 1e3, 2),
        "checkpoint_added_gb": round(max(c["added_bytes"] for c in pictures["checkpoint"].values()) / 1e9, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help="transitions (default %(default)s)")
    parser.add_argument("--former", default=FORMER, metavar="COMMIT", help="default %(default)s")
    parser.add_argument(
        "--json", metavar="NAME", default="replay", help="bench/results/NAME.json (default %(default)s)"
    )
    args = parser.parse_args()
    found = {}
    for name, work, argument in (("vectors", vectors, args.former), ("images", images, args.images)):
        with multiprocessing.get_context("spawn").Pool(1) as alone:  # memory of its own
            found[name] = alone.apply(work, (argument,))
    figures = reached(found)
    met = {key: (value >= TARGETS[key]) == key.endswith("per_s") for key, value in figures.items()}
    path = save(args.json, {"targets": TARGETS, "reached": figures, "met": met, **found})
    for key, value in figures.items():
        print(f"{key}: {value:,} (target {TARGETS[key]:,}: {'met' if met[key] else 'NOT met'})")
    print(f"now to former: {found['vectors']['now_to_former']}; {relative(os.fspath(path))}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
