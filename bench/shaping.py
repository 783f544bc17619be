"""LunarLander with its own rewards against a potential's beside them: seeds of both, and headrace compare's figures and
pictures kept.

python bench/shaping.py --seeds 3    ->  bench/results/shaping.json, docs/images/shaping.png and shaping.gif
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hardware import ROOT, save

SIDES = ("lunarlander-ppo", "lunarlander-shaped")


def headrace(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "headrace.launch.cli", *words], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in SIDES:
            headrace("train", side, "--seeds", f"0:{args.seeds}", "--run-dir", str(folder / side), "--episodes", "100")
        headrace("compare", *(str(folder / side) for side in SIDES), "--dir", str(folder / "both"))
        found = json.loads((folder / "both" / "compare.json").read_text())
        for side in found["sides"].values():  # no name of a place of this machine
            side["runs"] = [str(Path(run).relative_to(folder)) for run in side["runs"]]
        print(save("shaping", found))
        for ending in ("png", "gif"):
            shutil.copy(folder / "both" / f"compare.{ending}", ROOT / "docs" / "images" / f"shaping.{ending}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
