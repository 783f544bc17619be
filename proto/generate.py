"""Generate common/wire/ from proto/*.proto: messages, type stubs, and gRPC stubs for the files that hold a service.

    python proto/generate.py [--out DIR]

The virtual folder headrace/common/wire gives the generated files their import path.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PACKAGE = "headrace/common/wire"


def generate(out: Path) -> list[str]:
    """Write the generated files into ``out``; returns their names. Raises RuntimeError when protoc fails."""
    protos = sorted(HERE.glob("*.proto"))
    services = [p for p in protos if re.search(r"^service ", p.read_text(), re.MULTILINE)]
    with tempfile.TemporaryDirectory() as tmp:
        _protoc(protos, f"--python_out={tmp}", f"--mypy_out=quiet:{tmp}")
        if services:
            _protoc(services, f"--grpc_python_out={tmp}", f"--mypy_grpc_out=quiet:{tmp}")
        made = sorted((Path(tmp) / PACKAGE).iterdir())
        out.mkdir(parents=True, exist_ok=True)
        for path in made:
            shutil.copyfile(path, out / path.name)
        return [path.name for path in made]


def _protoc(protos: list[Path], *outputs: str) -> None:
    plugins = [f"--plugin={p}={Path(sys.executable).parent / p}" for p in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    well_known = files("grpc_tools") / "_proto"
    sources = [f"{PACKAGE}/{p.name}" for p in protos]
    if protoc.main(["protoc", f"-I{PACKAGE}={HERE}", f"-I{well_known}", *plugins, *outputs, *sources]) != 0:
        raise RuntimeError("protoc failed; its message is above")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "common" / "wire")
    print("\n".join(generate(parser.parse_args().out)))
