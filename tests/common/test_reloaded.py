"""What is made of files follows them; what cannot be made of them leaves the former in use, said once."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.common.reloaded import Reloaded
from headrace.common.weights.tokens import read_tokens, shown

from ..certificates import replace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    return tmp_path / "token"


def test_a_replaced_file_is_read_and_one_that_is_not_is_not(file: Path) -> None:
    reads: list[str] = []

    def read() -> str:
        reads.append(file.read_text())
        return reads[-1]

    made = Reloaded((file,), read)
    assert [made.now(), made.now()] == ["first\n"] * 2
    assert len(reads) == 1
    replace(file, "second")
    assert [made.now(), made.now()] == ["second"] * 2
    file.write_text("third, as long as before..."[: len("second")])
    os.utime(file, ns=(0, 0))
    assert made.now() == "third,"
    assert len(reads) == 3


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes replaces the files of a secret."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    (tmp_path / "now").symlink_to("one")
    (tmp_path / "token").symlink_to("now/token")
    made = Reloaded((tmp_path / "token",), (tmp_path / "token").read_text)
    assert made.now() == "one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "now")
    assert made.now() == "two"


@pytest.mark.parametrize("how", ["gone", "empty", "a folder", "three", "not ASCII"])
def test_a_file_that_will_not_do_leaves_the_former_in_use_and_is_said_once(file: Path, how: str) -> None:
    said: list[str] = []
    made = Reloaded((file,), lambda: read_tokens(file, "weights.token_file"), said.append)
    match how:
        case "gone":
            file.unlink()
        case "a folder":
            file.unlink()
            file.mkdir()
        case _:
            replace(file, {"empty": "\n", "three": "a\nb\nc", "not ASCII": "tökén"}[how])
    for _ in range(3):
        assert made.now() == ("first",)
    (line,) = said
    assert line.startswith(f"weights.token_file {file}: ")
    assert line.endswith("; what was read before stays in use")
    assert "\n" not in line
    if how == "a folder":
        file.rmdir()
    replace(file, "new\nfirst\n")
    assert made.now() == ("new", "first")
    assert len(said) == 1


def test_what_is_wrong_at_the_start_is_raised(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights\.token_file .*No such file"):
        shown(tmp_path / "none", "weights.token_file")


def test_many_threads_see_one_thing(file: Path) -> None:
    """Whoever asks while it is made waits for it."""
    makes: list[list[str]] = []

    def make() -> list[str]:
        time.sleep(0.02)  # long enough for every thread to come by
        makes.append([file.read_text()])
        return makes[-1]

    made = Reloaded((file,), make)
    seen: list[list[str]] = []

    def look() -> None:
        for _ in range(200):
            seen.append(made.now())

    threads = [threading.Thread(target=look) for _ in range(4)]
    replace(file, "second")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [["second"]] * 800
    assert len(makes) == 2
    assert made.now() is makes[-1]


def test_a_client_shows_the_first_token_of_its_file(file: Path) -> None:
    token = shown(file, "weights.token_file")
    assert token() == "first"
    for now, shows in (("first\nsecond\n", "first"), ("second\nfirst\n", "second"), ("\n second \n", "second")):
        replace(file, now)
        assert token() == shows
