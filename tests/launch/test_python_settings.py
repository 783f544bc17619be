"""Settings of Python code come to a config as what they are."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.launch.load import load
from headrace.launch.python_settings import flat, plain, python_path, words

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_is_the_same_after_the_way_through_a_command_line(value: Any) -> None:
    (word,) = words(flat({"a.b": value}))
    assert tomllib.loads(f"v = {word.removeprefix('a.b=')}")["v"] == value


def test_sections_numbers_of_numpy_paths_and_classes() -> None:
    given = {
        "run": {"seed": np.int64(3), "init_from": Path("runs/a")},
        "algorithm.hidden": (np.int32(8), 16),
        "task": OrderedDict(env=gymnasium.Env, wrappers=[{"name": gymnasium.Wrapper, "low": np.array([1.0, 2.0])}]),
    }
    assert flat(given) == {
        "run.seed": 3,
        "run.init_from": "runs/a",
        "algorithm.hidden": [8, 16],
        "task.env": "gymnasium.core:Env",
        "task.wrappers": [{"name": "gymnasium.core:Wrapper", "low": [1.0, 2.0]}],
    }


def test_a_table_is_a_config_and_is_left_as_it_was() -> None:
    table = {"task": {"env": "Acrobot-v1"}, "algorithm": {"name": "dqn"}}
    config = load(plain(table, "settings"), words(flat({"run": {"seed": 5}, "algorithm.dueling": True})))
    assert (config.run.seed, config.task.env, config.algorithm["dueling"]) == (5, "Acrobot-v1", True)
    assert table == {"task": {"env": "Acrobot-v1"}, "algorithm": {"name": "dqn"}}


def test_processes_find_what_the_caller_s_path_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    places = python_path().split(os.pathsep)
    assert places[0] == str(tmp_path)
    assert str(Path(os.__file__).parent) not in places, "Python's own modules are found without"
    (tmp_path / "found_by_path.py").write_text("")
    argv = [sys.executable, "-c", "import found_by_path, random; print(random.__file__)"]
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": python_path()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
