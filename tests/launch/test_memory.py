"""How much memory an actor may take, and how much it is said to take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from headrace.common.errors import UsageError
from headrace.launch import memory
from headrace.launch.begun import begin
from headrace.launch.load import load


def test_what_the_config_says_is_the_limit_for_everybody() -> None:
    config = load("cartpole-ppo", ["actors.memory_bytes=1_000_000_000"])
    assert [memory.limit_bytes(config, supervised) for supervised in (True, False)] == [1_000_000_000] * 2


@pytest.mark.parametrize(("limit", "machine"), [("8000000000\n", 8_000_000_000), ("max\n", None), (None, None)])
def test_else_it_is_a_share_of_the_container_or_machine_where_all_run_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, machine: int | None
) -> None:
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "memory.max")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    total = psutil.virtual_memory().total
    config = load("cartpole-ppo", ["actors.processes=3"])
    assert memory.limit_bytes(config, supervised=True) == min(machine or total, total) // 4
    assert memory.limit_bytes(config, supervised=False) == 0


def test_as_many_actors_as_fit_are_let_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10 * memory.LEAST_BYTES)
    memory.check(load("cartpole-ppo", ["actors.processes=9"]))
    with pytest.raises(UsageError, match=r"actors\.processes = 10: at most 9 fit into the 0\.9 GiB of this machine"):
        begin("cartpole-ppo", ["actors.processes=10"], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    memory.check(load("cartpole-ppo", ["actors.processes=10", "actors.memory_bytes=1_000_000"]))


def test_what_environments_start_counts() -> None:
    before = memory.taken_bytes()
    assert abs(before - psutil.Process().memory_info().rss) < 50 << 20
    code = "kept = bytearray(200 << 20); print(len(kept), flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 190 << 20 < memory.taken_bytes() - before < 300 << 20
        child.communicate("\n")
