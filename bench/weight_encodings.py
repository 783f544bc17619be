"""Would weights travel better as differences, or as halves? Consecutive versions of real trainings, encoded.

    python bench/weight_encodings.py --name weight-encodings

For each preset: bytes of a version as it travels today, of its lossless difference to the one before (XOR, bytes of the
same significance together, then a compressor), and as bfloat16; with the CPU time to make and to undo it.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections.abc import Callable
from itertools import pairwise

import lz4.frame
import numpy as np
from hardware import save

from headrace.common.types import Array
from headrace.launch.load import load
from headrace.launch.serial import run_serial

CASES: dict[str, tuple[str, ...]] = {
    "lunarlander-ppo": (),
    "lunarlander-ppo, 512 x 512": ("algorithm.hidden=[512,512]",),
    "cartpole-dqn": (),
}
SKIPPED = 5  # the first versions move more than all others


def versions(preset: str, settings: tuple[str, ...], count: int) -> list[Array]:
    """The float32 tensors of consecutive versions, flat, as uint32 [parameters] each."""
    made: list[Array] = []

    def keep(learner, _) -> None:  # type: ignore[no-untyped-def]
        tensors, _scalars = learner.algorithm.weights()
        flat = [np.ravel(tensor) for tensor in tensors.values() if tensor.dtype == np.float32]
        made.append(np.concatenate(flat).view(np.uint32).copy())

    run_serial(load(preset, [*settings, "run.seed=1"]), keep, count + SKIPPED)
    return made[SKIPPED:]


def difference(new: Array, old: Array) -> bytes:
    """Lossless: what changed, bytes of the same significance together."""
    return np.ascontiguousarray((new ^ old).view(np.uint8).reshape(-1, 4).T).tobytes()


def restored(shuffled: bytes, old: Array) -> Array:
    """The version again: uint32 [parameters]."""
    return np.ascontiguousarray(np.frombuffer(shuffled, np.uint8).reshape(4, -1).T).view(np.uint32).ravel() ^ old


def timed(call: Callable[[], bytes]) -> tuple[bytes, float]:
    """What it returns, and the milliseconds of its quickest of five."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        made = call()
        best = min(best, (time.perf_counter() - began) * 1e3)
    return made, best


def measure(made: list[Array]) -> dict[str, dict[str, float]]:
    """Means over the pairs of consecutive versions, each encoding undone and compared."""
    rows: dict[str, list[tuple[int, float, float]]] = {"difference, lz4": [], "difference, zlib 1": [], "bfloat16": []}
    codecs = {
        "difference, lz4": (lz4.frame.compress, lz4.frame.decompress),
        "difference, zlib 1": (lambda raw: zlib.compress(raw, 1), zlib.decompress),
    }
    for old, new in pairwise(made):
        for name, (pack, unpack) in codecs.items():
            packed, make_ms = timed(lambda pack=pack, new=new, old=old: pack(difference(new, old)))
            back, undo_ms = timed(lambda unpack=unpack, packed=packed, old=old: restored(unpack(packed), old).tobytes())
            assert back == new.tobytes()
            rows[name].append((len(packed), make_ms, undo_ms))
        halves, make_ms = timed(lambda new=new: ((new + 0x8000) >> 16).astype(np.uint16).tobytes())
        _, undo_ms = timed(lambda halves=halves: (np.frombuffer(halves, np.uint16).astype(np.uint32) << 16).tobytes())
        rows["bfloat16"].append((len(halves), make_ms, undo_ms))
    whole = made[0].nbytes
    return {
        name: {
            "of_today": round(float(np.mean([r[0] for r in found])) / whole, 3),
            "make_ms": round(float(np.mean([r[1] for r in found])), 3),
            "undo_ms": round(float(np.mean([r[2] for r in found])), 3),
        }
        for name, found in rows.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=12)
    parser.add_argument("--name", help="of the file in bench/results/ (default: keep nothing)")
    args = parser.parse_args()
    found = {}
    for case, settings in CASES.items():
        made = versions(case.partition(",")[0], settings, args.versions)
        found[case] = {"bytes": made[0].nbytes, "encodings": measure(made)}
        print(case, json.dumps(found[case]), flush=True)
    if args.name:
        print(save(args.name, {"cases": found}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
