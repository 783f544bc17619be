"""Who may use the board: no foreign name, no foreign page, nobody without the token, nothing outside its folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .boards import RunningBoard, board

SOCKET = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
          "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw=="}  # fmt: skip
#: Where the page's calls and its socket go (NiceGUI's own).
CALLS = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
TALK = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBoard]:
    """A board of a folder with one run that has one video, beside what must not be seen."""
    folder = tmp_path_factory.mktemp("guard")
    run = folder / "runs" / "one"
    (run / "videos").mkdir(parents=True)
    (run / "metrics.jsonl").write_text("")
    (run / "videos" / "100.gif").write_bytes(b"GIF8 mine")
    (run / "config.toml").write_text("secret = 1")
    (folder / "secret.gif").write_bytes(b"GIF8 secret")
    (run / "videos" / "away.gif").symlink_to(folder / "secret.gif")
    (folder / "elsewhere" / "videos").mkdir(parents=True)
    (folder / "elsewhere" / "metrics.jsonl").write_text("")
    (folder / "elsewhere" / "videos" / "1.gif").write_bytes(b"GIF8 secret")
    (folder / "runs" / "led").symlink_to(folder / "elsewhere")
    with board(folder / "runs") as running:
        yield running


def test_the_printed_address_lets_in_and_its_cookie_from_then_on(there: RunningBoard) -> None:
    assert there.ask(f"/?token={there.token}")[0] == 303
    status, page = there.ask("/", there.allowed())
    assert (status, "Headrace board" in page) == (200, True)


@pytest.mark.parametrize("target", ["/", f"/?token={'x' * 32}", "/?token=", "/run/one/file/videos/100.gif", CALLS])
def test_without_the_token_nothing_is_told(there: RunningBoard, target: str) -> None:
    for headers in ({}, {"Cookie": f"headrace_board_{there.port}=guess"}):
        status, said = there.ask(target, headers)
        assert (status, "open the address that `headrace board` printed" in said) == (401, True)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8260", "127.0.0.1.evil.example", "192.168.0.1", ""])
def test_a_foreign_name_is_refused(there: RunningBoard, host: str) -> None:
    assert there.ask("/", {**there.allowed(), "Host": host})[0] == 403
    assert there.ask(f"/?token={there.token}", {"Host": host})[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", ""])
def test_a_call_from_another_page_is_refused(there: RunningBoard, origin: str) -> None:
    foreign = {**there.allowed(), "Origin": origin}
    assert there.ask("/", foreign)[0] == 403
    assert there.ask(CALLS, foreign, "POST")[0] == 403
    assert there.ask(TALK, {**foreign, **SOCKET})[0] == 403


def test_a_call_that_does_not_say_where_it_comes_from_changes_nothing(there: RunningBoard) -> None:
    assert there.ask(CALLS, there.allowed(), "POST")[0] == 403
    assert there.ask(TALK, {**there.allowed(), **SOCKET})[0] == 403


def test_the_pages_own_socket_needs_the_token_as_well(there: RunningBoard) -> None:
    own = {"Origin": f"http://127.0.0.1:{there.port}", **SOCKET}
    assert there.ask(TALK, own)[0] == 403


def test_a_video_is_given_and_no_other_file(there: RunningBoard) -> None:
    assert there.ask("/run/one/file/videos/100.gif", there.allowed()) == (200, "GIF8 mine")
    assert there.ask("/run/one/file/config.toml", there.allowed())[0] == 404


@pytest.mark.parametrize(
    "target",
    ["/run/one/file/videos/away.gif", "/run/led/file/videos/1.gif", "/run/../elsewhere/file/videos/1.gif",
     "/run/one/file/../../../secret.gif", "/run/one/file/videos/..%2f..%2f..%2fsecret.gif",
     "/run/%2e%2e/file/secret.gif", "/run//etc/file/passwd", "/run/one/file/%2fetc%2fpasswd",
     "/run/one%00/file/videos/100.gif", "/run/./one/file/x"],
)  # fmt: skip
def test_nothing_outside_the_folder_is_reached(there: RunningBoard, target: str) -> None:
    status, said = there.ask(target, there.allowed())
    assert status in (400, 404)
    assert "secret" not in said.replace("secret.gif", "")


def test_it_listens_on_loopback_alone(there: RunningBoard) -> None:
    import psutil

    listening = [c.laddr.ip for c in psutil.Process(there.process.pid).net_connections("inet") if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_without_its_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['nicegui'] = None; from headrace.launch.cli import main; sys.exit(main(['board']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    line = "headrace board: the board needs its extra: pip install 'headrace[board]'\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_a_port_that_is_taken_is_one_line(there: RunningBoard) -> None:
    argv = [sys.executable, "-m", "headrace.launch.cli", "board", str(there.runs), "--port", str(there.port)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"cannot listen on 127.0.0.1:{there.port}" in done.stderr
