"""The side-by-side run's own arithmetic: the rule "first reaches a greedy R", ratios within a repeat, the page."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

BENCH = Path(__file__).resolve().parents[2] / "bench"


def load(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    """The scripts of bench/ import one another as neighbours; they are no package."""
    monkeypatch.syspath_prepend(str(BENCH))
    return __import__(name)


def constant_policy(action: int, obs_size: int = 4, actions: int = 2) -> dict[str, Any]:
    """A network that always prefers one action."""
    weights = {"pi.0.weight": np.zeros((obs_size, 3), np.float32), "pi.0.bias": np.zeros(3, np.float32)}
    weights |= {
        "pi.1.weight": np.zeros((3, actions), np.float32),
        "pi.1.bias": np.eye(actions, dtype=np.float32)[action],
    }
    return weights


def angle_policy() -> dict[str, Any]:
    """Push the cart towards where the pole falls: some 40 steps on CartPole, where a constant action lasts about 9."""
    weight = np.zeros((4, 2), np.float32)
    weight[2] = [-1, 1]
    return {"pi.0.weight": weight, "pi.0.bias": np.zeros(2, np.float32)}


def test_mlp_normalises_and_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = load(monkeypatch, "greedy")
    rng = np.random.default_rng(0)
    tensors = {
        "pi.0.weight": rng.normal(size=(4, 3)), "pi.0.bias": rng.normal(size=3), "obs_mean": rng.normal(size=4),
        "pi.1.weight": rng.normal(size=(3, 2)), "pi.1.bias": rng.normal(size=2), "obs_scale": np.array([1, 2, 3, 1e6]),
    }  # fmt: skip
    obs = rng.normal(size=(5, 4))
    x = np.clip((obs - tensors["obs_mean"]) * tensors["obs_scale"], -10, 10)
    hidden = np.tanh(x @ tensors["pi.0.weight"] + tensors["pi.0.bias"])
    np.testing.assert_allclose(greedy.mlp(tensors)(obs), hidden @ tensors["pi.1.weight"] + tensors["pi.1.bias"])
    with pytest.raises(KeyError, match=r"pi\.0\.weight"):
        greedy.mlp({"vf.0.weight": obs})


def test_first_pass_stops_at_the_first_snapshot_that_is_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = load(monkeypatch, "greedy")
    snapshots = [(100, 1.0, constant_policy(0)), (200, 2.0, angle_policy()), (300, 3.0, angle_policy())]
    found = greedy.first_pass(iter(snapshots), 20.0, "CartPole-v1")
    assert found["passed"]
    assert (found["steps"], found["time_s"]) == (200, 2.0)
    assert [point["steps"] for point in found["curve"]] == [100, 200]
    assert not greedy.first_pass(iter(snapshots), 400.0, "CartPole-v1")["passed"]


def test_time_to_counts_by_the_wall_clock_where_that_is_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time_to = load(monkeypatch, "time_to")
    folder = tmp_path / "snapshots"
    folder.mkdir()
    rows = [{"steps": 0, "time_s": 0.0}, {"steps": 200, "time_s": 5.0}, {"steps": 100, "time_s": 2.0}]
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for steps, wall, policy in [(0, 0, constant_policy(0)), (100, 1, constant_policy(1)), (200, 7, angle_policy())]:
        path = folder / f"{steps}.safetensors"
        save_file(policy, path)
        os.utime(path, (1_000_000, 1_000_000 + wall))
    found = time_to.time_to(tmp_path, 20.0, "CartPole-v1")
    assert found["passed"]
    assert [(point["steps"], point["time_s"]) for point in found["curve"]] == [(0, 0.0), (100, 2.0), (200, 7.0)]


def test_ratios_are_taken_within_a_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    side_by_side = load(monkeypatch, "side_by_side")

    def row(name: str, repeat: int, rate: float, seconds: float, passed: bool = True) -> dict[str, Any]:
        found = {"passed": passed, "steps": 100, "time_s": seconds}
        return {"contestant": name, "repeat": repeat, "steps_per_s": rate, "to_greedy": found}

    rows = [row("headrace", 0, 100, 10), row("bare", 0, 50, 20), row("headrace", 1, 10, 100), row("bare", 1, 1, 400)]
    rows += [row("headrace", 2, 40, 10), row("bare", 2, 10, 5, passed=False), {**row("sf-same", 0, 1, 1), "error": "x"}]
    ours, bare, failed = side_by_side.summary(rows, "headrace")
    assert (ours["steps_per_s"], ours["base_steps_per_s_ratio"], ours["base_time_ratio"]) == (40, 1, 1)
    assert bare["base_steps_per_s_ratio"] == 4  # of 2, 10 and 4
    assert (bare["passed"], bare["base_time_ratio"]) == (2, 3)  # of 2 and 4; the third never got there
    assert (failed["runs"], failed["failed"], failed["steps_per_s"]) == (0, 1, None)


def test_a_page_says_where_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    side_by_side, hardware = load(monkeypatch, "side_by_side"), load(monkeypatch, "hardware")
    rows = [{"contestant": "bare", "repeat": 0, "steps_per_s": 31000.0}]
    asked = {"hardware": hardware.record(), "steps": 1000, "repeats": 1, "threshold": None, "base": "bare"}
    page = side_by_side.table({**asked, "summary": side_by_side.summary(rows, "bare"), "runs": rows})
    assert "| bare script, fused Adam | 31,000 | 1.00x |" in page
    assert hardware.record()["cpu"] in page


def test_records_name_no_path_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware = load(monkeypatch, "hardware")
    monkeypatch.setattr(sys, "argv", [str(BENCH / "bare.py"), "--json", "/somewhere/else/out.json"])
    assert hardware.record()["command"] == "python bench/bare.py --json out.json"
    assert "/somewhere" not in json.dumps(hardware.record())
