"""What `import headrace` gives: a short list, nothing of it before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import headrace

#: Closed: a name more is a promise more.
PUBLIC = {"Agent", "HeadraceError", "Result", "Row", "Run", "SerialRun", "UsageError", "__version__", "load", "train",
          "train_serial"}  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert set(headrace.__all__) == PUBLIC
    assert len(headrace.__all__) == len(PUBLIC)
    assert set(dir(headrace)) == PUBLIC
    for name in PUBLIC:
        found = getattr(headrace, name)
        assert name == "__version__" or (found.__name__ == name and found.__doc__), name
    assert headrace.__version__ == version("headrace")
    with pytest.raises(AttributeError, match="module 'headrace' has no attribute 'tarin'"):
        _ = headrace.tarin  # type: ignore[attr-defined]


def test_what_is_called_says_what_it_raises() -> None:
    agent, run = headrace.Agent, headrace.Run
    called = [headrace.load, headrace.train, headrace.train_serial]
    called += [agent.act, agent.reset, agent.export, agent.make_env, run.rows, run.wait, run.stop]
    assert [one.__qualname__ for one in called if "raises" not in (one.__doc__ or "").lower()] == []


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import pkgutil, sys, typing\n"
        "before = set(sys.modules)\n"
        "import headrace\n"
        "dir(headrace), headrace.__all__, headrace.__doc__\n"
        "print(sorted(set(sys.modules) - before))\n"
        "headrace.UsageError\n"
        "print('numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['headrace']", "False"], done.stderr
