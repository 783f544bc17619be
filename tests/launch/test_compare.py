"""headrace compare: two trainings a seed, told and drawn on the environment's own return."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .runs import headrace

SHORT = ["--set", "run.total_steps=2048", "--set", "learner.device=cpu", "--episodes", "3"]


def test_two_sides_are_trained_told_and_drawn(tmp_path: Path) -> None:
    doubled = tmp_path / "doubled.toml"
    wrapper = '{ name = "TransformReward", func = "odd:scale" }'
    (tmp_path / "odd.py").write_text("def scale(reward):\n    return 2 * reward\n")
    doubled.write_text(f'[task]\nenv = "CartPole-v1"\nwrappers = [{wrapper}]\n')
    done = headrace(
        "compare", "cartpole-ppo", str(doubled), *SHORT, "--seeds", "2", "--dir", "both", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "both" / "compare.json").read_text())
    assert found.keys() == {"cartpole-ppo", "doubled"}
    for results in found.values():
        assert [result["seed"] for result in results] == [0, 1]
        assert all(result["lowest"] <= result["mean"] <= 500 for result in results)
    assert (tmp_path / "both" / "compare.png").stat().st_size > 10_000
    from PIL import Image

    with Image.open(tmp_path / "both" / "compare.gif") as both:
        with Image.open(tmp_path / "both" / "doubled-0" / "final.gif") as one:
            assert both.width == 2 * one.width
        assert both.n_frames > 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["cartpole-ppo", "cartpole-ppo", "--dir", "new"], "both sides are called 'cartpole-ppo'"),
        (
            ["cartpole-ppo", "lunarlander-ppo", "--dir", "new"],
            "CartPole-v1 and LunarLander-v3 have no return in common",
        ),
        (["cartpole-ppo", "cartpole-dqn", "--dir", "."], "is there already; name a new one"),
        (["cartpole-ppo", "cartpole-dqn", "--dir", "new", "--seeds", "0"], "--seeds and --episodes are at least 1"),
        (["cartpole-ppo", "cartpole-dnq", "--dir", "new"], "did you mean 'cartpole-dqn'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path: Path, words: list[str], says: str) -> None:
    done = headrace("compare", *words, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert says in line
    assert list(tmp_path.iterdir()) == []
