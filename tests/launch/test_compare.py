"""headrace compare: runs and seeds that are there, told and drawn on the environment's own return."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from headrace.launch.cli import main
from headrace.launch.sides import read_sides

from .runs import headrace
from .seeds import SETS


@pytest.fixture(scope="module")
def folder(three_seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one, and a run of another whose reward is doubled."""
    made = tmp_path_factory.mktemp("compare")
    (made / "doubled.py").write_text("def scale(reward):\n    return 2 * reward\n")
    (made / "doubled.toml").write_text(
        '[task]\nenv = "CartPole-v1"\nwrappers = [{ name = "TransformReward", func = "doubled:scale" }]\n'
    )
    shutil.copytree(three_seeds, made / "plain")
    done = headrace("train", "doubled.toml", *SETS, "--run-dir", "doubled", "--episodes", "4", cwd=made)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    return folder


def test_seeds_and_a_run_are_told_and_drawn(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "plain", "doubled", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    there = in_folder / "runs" / "compare-1"
    assert found == json.loads((there / "compare.json").read_text())
    assert found["env"] == "CartPole-v1"
    wrapper = [{"name": "TransformReward", "func": "doubled:scale"}]
    assert found["settings"]["task.wrappers"] == {"plain": [], "doubled": wrapper}
    assert not {"run.id", "run.seed", "weights.address", "transport.url"} & set(found["settings"])
    plain, doubled = found["sides"]["plain"], found["sides"]["doubled"]
    seeds = json.loads((in_folder / "plain" / "seeds.json").read_text())
    assert (plain["evaluation"]["over"], plain["evaluation"]["n"]) == ("seeds", 3)
    assert plain["evaluation"]["iqm"] == seeds["evaluation"]["iqm"]
    result = json.loads((in_folder / "doubled" / "result.json").read_text())
    assert (doubled["evaluation"]["over"], doubled["evaluation"]["n"]) == ("episodes", 4)
    assert doubled["evaluation"]["mean"] == result["evaluation"]["mean"]
    assert doubled["env_steps"] == [result["env_steps"]]
    apart = found["difference"]["doubled"]
    assert apart["iqm"] == pytest.approx(doubled["evaluation"]["iqm"] - plain["evaluation"]["iqm"])
    assert apart["low"] <= apart["iqm"] <= apart["high"]
    with Image.open(there / "compare.png") as curves:
        assert curves.width > 1.5 * curves.height, "two panels: over steps, over time"
    with Image.open(there / "compare.gif") as both, Image.open(in_folder / "doubled" / "final.gif") as one:
        assert both.width == 2 * one.width
        assert both.n_frames > 1


def test_people_read_a_table(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "plain", "doubled", "plain/seed-1", "--dir", "mine"]) == 0
    out = capsys.readouterr().out
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert re.split("  +", out.splitlines()[0].strip()) == ["plain", "doubled", "plain/seed-1"]
    assert re.search(r"^greedy +[\d.]+ \[[\d.]+, [\d.]+\] +[\d.]+ \[", out, re.M)
    assert re.search(r"over\) +3 seeds +4 episodes of one seed +3 episodes of one seed$", out, re.M)
    assert re.search(r"^difference +[+-][\d.]+ \[[+-]", out, re.M)
    assert rows["steps"].split()[1:] == ["2,048"] * 3
    assert f"curves: {in_folder / 'mine' / 'compare.png'}" in out
    assert not (in_folder / "mine" / "compare.gif").exists(), "seed 1 has no film"


def test_a_run_that_was_not_evaluated_is_told_without(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("doubled", "begun")
    (in_folder / "begun" / "result.json").unlink()
    assert main(["compare", "begun", "plain", "--dir", "mine"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^greedy +not evaluated +[\d.]+ \[", out, re.M)
    assert "difference" not in out


def test_names_are_as_long_as_they_must_be(in_folder: Path) -> None:
    for side in ("a/run", "b/run"):
        shutil.copytree("doubled", side)
    names = [side.name for side in read_sides([Path("a/run"), Path("b/run"), Path("plain")])]
    assert names == ["a/run", "b/run", "plain"]


def test_what_cannot_be_compared_is_one_line(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = in_folder / "other"
    shutil.copytree("doubled", other)
    text = (other / "config.toml").read_text()
    (other / "config.toml").write_text(text.replace('env = "CartPole-v1"', 'env = "Acrobot-v1"'))
    for words, says in (
        (["doubled"], "give two directories or more"),
        (["doubled", "nowhere"], "nowhere: no such directory"),
        (["doubled", "../" + in_folder.name + "/doubled"], "is named twice"),
        (["doubled", "lunarlander-ppo"], "is a preset; train it first, by `headrace train lunarlander-ppo --seeds"),
        (["doubled", "other"], "doubled is of CartPole-v1 and other of Acrobot-v1: their returns have nothing in"),
        (["doubled", "plain", "--dir", "doubled.toml"], "File exists; name a directory that can be written"),
    ):
        assert main(["compare", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
