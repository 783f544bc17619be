"""What the images are made from (deploy/docker/), without an engine. `make test-cluster` builds them."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from tests.faults.run import Run

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
OVERRIDES = ROOT / "deploy" / "docker" / "actor-overrides.txt"


def left_out() -> list[str]:
    lines = [line for line in OVERRIDES.read_text().splitlines() if not line.startswith("#")]
    return [line.partition(" ")[0] for line in lines]


def test_the_context_is_what_the_wheel_is_made_from() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {path.split("/")[0] for path in setuptools["package-dir"].values()}
    first, *lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert first == "*"
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert allowed == packages | {"LICENSE", "README.md", "constraints.txt", "pyproject.toml", "deploy/docker"}


def test_results_run_without_rights_and_hold_no_tools() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    results = {name for base, name in stages if base == "runtime"}
    assert results == {"actor", "learner", "learner-cuda"}
    runtime = DOCKERFILE.partition("AS runtime")[2].partition("\nFROM ")[0]
    assert "USER 10001:10001" in runtime
    assert "pip" not in runtime
    copied = re.findall(r"^COPY --from=build-\S+ (.*)$", DOCKERFILE, re.MULTILINE)
    assert set(copied) == {"/opt/headrace /opt/headrace", "/rest/opt/headrace /opt/headrace"}


def test_what_is_left_out_is_one_of_our_dependencies() -> None:
    locked = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(left_out()) <= locked


def test_roles_of_the_image_without_torch_need_nothing_that_it_leaves_out(tmp_path: Path) -> None:
    launcher = tmp_path / "without.py"
    launcher.write_text(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({left_out()!r}))\n"  # None there: importing it raises
        "from headrace.launch.cli import main\n"
        "sys.exit(main())\n"
    )
    run = Run(tmp_path, "ppo", "task.env='LunarLander-v3'", "actors.processes=1")
    try:
        evaluator = tmp_path / "evaluator"
        for role, *more in (("paramserver",), ("actor",), ("evaluator", "--episodes", "2", "--every-s", "1")):
            where = evaluator if role == "evaluator" else run.dir
            words = [role, "--config", str(run.file), "--run-dir", str(where), *more]
            run.start([sys.executable, str(launcher), *words], role)
        run.role("learner")
        run.wait_for_version(2)
        run.wait_until(lambda: (evaluator / "evaluations.jsonl").exists(), "an evaluation")
    finally:
        run.close()
