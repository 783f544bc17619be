"""That the watch over a run under attack sees a run that stands still, a role that died, and books that were cooked.

Otherwise every other test of this folder might pass whatever happens.
"""

from __future__ import annotations

import json
import signal

import pytest

from . import books, roles
from .conftest import Target

pytestmark = pytest.mark.timeout(300)


def test_a_run_that_stands_still_is_seen(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    run = target.alive()
    monkeypatch.setattr(roles, "PROMISE_S", 1.0)
    monkeypatch.setattr(run, "slack_s", 1.0)
    for actor in range(run.actors):
        run.roles[f"actor-{actor}"].send_signal(signal.SIGSTOP)
    with pytest.raises(AssertionError, match=r"after nothing: no version"):
        run.goes_on("nothing", versions=5)
    for actor in range(run.actors):
        run.roles[f"actor-{actor}"].send_signal(signal.SIGCONT)


def test_a_role_that_died_is_seen(target: Target) -> None:
    run = target.alive()
    run.roles["actor-0"].kill()
    run.roles["actor-0"].wait()
    with pytest.raises(AssertionError, match=r"after nothing: .*actor-0 ended with -9"):
        run.goes_on("nothing", versions=200)


@pytest.mark.parametrize(
    ("key", "value"),
    [("env_steps", 2**31), ("staleness_max", 2), ("length_mean", 1e12), ("rejected", {"nan": 2**62}), ("episodes", -1)],
)
def test_cooked_books_are_seen(target: Target, key: str, value: object) -> None:
    run = target.alive()
    path = run.dir / "metrics.jsonl"
    with open(path, "a") as f:
        f.write(json.dumps({**run.row(), key: value}) + "\n")
    with pytest.raises(AssertionError):
        books.check(run)
    target.close()
