"""Runs that are attacked: kept over the tests of a file, started anew where an attack has ended them."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import new_run

from .forge import Forger
from .roles import HEADRACE, Run, environ

__all__ = ["new_run"]


class Target:
    """The run under attack."""

    def __init__(self, root: Path, url: str = "", **sections: dict[str, Any]):
        self._root, self._url, self._sections = root, url, sections
        self._lives = 0
        self.run: Run | None = None
        self._forger: Forger | None = None

    def alive(self) -> Run:
        """The run; a new one where the last attack ended it."""
        if self.run is None or self.run.dead():
            self.close()
            self._lives += 1
            url = f"{self._url}-{secrets.token_hex(4)}?compression=none" if self._url else ""
            self.run = Run(self._root / str(self._lives), url, **self._sections)
            self.run.start()
        return self.run

    def undisturbed(self) -> Run:
        """The run, making versions; a new one where the last attack stopped it (that test said so itself)."""
        try:
            self.alive().goes_on("the attacks before this one", versions=3)
        except AssertionError:
            self.close()
        return self.alive()

    def forger(self) -> Forger:
        """An attacker who knows the run as it is now."""
        run = self.undisturbed()
        if self._forger is None:
            self._forger = Forger(run)
        return self._forger

    def close(self) -> None:
        """End it."""
        if self._forger is not None:
            self._forger.close()
            self._forger = None
        if self.run is not None:
            self.run.close()
            self.run = None


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A run over local://."""
    one = Target(tmp_path_factory.mktemp("h"))
    yield one
    one.close()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real broker's address, started by `headrace broker start`."""
    data = str(tmp_path_factory.mktemp("broker"))
    command = [HEADRACE, "broker", "start", "--data-dir", data, "--port", "0", "--timeout-s", "120"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environ())
    found = re.search(r"ready at (\S+)", done.stdout)
    assert done.returncode == 0, f"no broker: {done.stdout}{done.stderr}"
    assert found is not None, f"no address: {done.stdout}"
    yield found.group(1)
    subprocess.run([HEADRACE, "broker", "stop", "--data-dir", data], timeout=60, check=True, env=environ())


@pytest.fixture(scope="module")
def kafka_target(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A run over kafka://."""
    one = Target(tmp_path_factory.mktemp("k"), f"kafka://{broker}/hostile")
    yield one
    one.close()
