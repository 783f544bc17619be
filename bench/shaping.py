"""LunarLander with its own rewards against a potential's beside them: headrace compare, its figures and pictures kept.

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "shaping"
        argv = [sys.executable, "-m", "headrace.launch.cli", "compare", *SIDES, "--seeds", str(args.seeds)]
        subprocess.run([*argv, "--dir", str(kept)], check=True)
        print(save("shaping", {"sides": json.loads((kept / "compare.json").read_text())}))
        for name in ("png", "gif"):
            shutil.copy(kept / f"compare.{name}", ROOT / "docs" / "images" / f"shaping.{name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
