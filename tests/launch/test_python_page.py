"""docs/python.md and docs/first-training.ipynb, run as they stand in empty folders."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXECUTE = """
import nbformat, sys
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
nbformat.write(notebook, "executed.ipynb")
"""


@pytest.mark.timeout(200)
def test_the_page_as_it_stands(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.M | re.S)
    (tmp_path / "page.py").write_text("\n\n".join(blocks))
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = done.stdout.splitlines()
    (first,) = [line for line in said if line.startswith(f"{tmp_path}/runs/cartpole-ppo-1 ")]
    assert float(first.split()[1]) > 50
    assert [line for line in said if line in ("True", "False")] == ["False", "True"]
    assert said[-1] == "1", "to the right"
    assert (tmp_path / "policy.onnx").exists()


@pytest.mark.timeout(200)
def test_the_notebook_as_it_stands(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", EXECUTE, str(DOCS / "first-training.ipynb")]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads((tmp_path / "executed.ipynb").read_text())["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 3
    words = "".join(map(text, outputs))
    assert re.search(r"\d+\.\d ± \d+\.\d after 8\d,\d+ steps\n", words)
    assert "array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1])" in words
    assert "Corridor is defined in this session" in words


def text(output: Any) -> str:
    return "".join(output.get("text", output.get("data", {}).get("text/plain", [])))


def test_the_notebook_is_kept_with_its_pictures_and_nothing_of_a_machine() -> None:
    kept = (DOCS / "first-training.ipynb").read_text()
    assert len(kept) < 200_000
    notebook = json.loads(kept)
    pictures = [o for cell in notebook["cells"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    assert not re.search(
        r"/(home|root|tmp|work|Users)/", "".join(text(o) for c in notebook["cells"] for o in c.get("outputs", ()))
    )
