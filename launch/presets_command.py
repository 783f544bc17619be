"""headrace presets: what can be trained out of the box, with the first comment line of each file."""

from __future__ import annotations

import argparse
import json

from headrace.launch.load import presets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    found = {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in presets().items()}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        width = max(map(len, found))
        for name, line in found.items():
            print(f"{name:{width}}  {line}")
    return 0
