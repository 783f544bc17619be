"""The board's web server: a socket on loopback, the guard, the videos of runs, and the page (NiceGUI)."""

from __future__ import annotations

import contextlib
import errno
import secrets
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from headrace.common.errors import UsageError
from headrace.launch.board.folder import Folder
from headrace.launch.board.guard import Guard
from headrace.launch.board.launcher import Launcher
from headrace.launch.board.look import Looker, videos
from headrace.launch.board.page import Board, Page

#: Where it listens unless it is told otherwise.
PORT = 8260
_HOST, _TOKEN_BYTES, _LAST_WORDS_S = "127.0.0.1", 24, 2


def serve(folder: Folder, port: int | None, ready: Callable[[str], None]) -> None:
    """Serve until a signal. ``port`` None: the usual one, or any while that is taken. ``ready`` is told the address,
    token included. Raises :class:`UsageError` for a port that is not to be had."""
    listening = _listen(port)
    token, number = secrets.token_urlsafe(_TOKEN_BYTES), listening.getsockname()[1]
    app = FastAPI(openapi_url=None)
    app.add_api_route("/run/{path:path}", _files(folder), methods=["GET"])
    board = Board(folder, Looker(folder), Launcher(folder))

    @ui.page("/")
    def page(runs: str = "") -> None:
        Page(board, [name for name in runs.split(",") if name]).build()

    ui.run_with(app, title="Headrace board", favicon="🌊", dark=None, tailwind=False, show_welcome_message=False)
    guarded = Guard(app, token, f"headrace_board_{number}")
    config = uvicorn.Config(guarded, log_level="warning", timeout_graceful_shutdown=_LAST_WORDS_S)
    ready(f"http://{_HOST}:{number}/?token={token}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises the signal again after its own end
    with contextlib.closing(listening), contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int | None) -> socket.socket:
    for number in [PORT, 0] if port is None else [port]:
        try:
            return socket.create_server((_HOST, number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port is not None:
                raise UsageError(f"cannot listen on {_HOST}:{number}: {error.strerror}") from error
    raise AssertionError("some port is free")


def _files(folder: Folder) -> Callable[[str], FileResponse]:
    """Of a run's files, its videos alone."""

    def video(path: str) -> FileResponse:
        name, mark, inner = path.partition("/file/")
        try:
            found = folder.file(name, inner)
        except UsageError as error:
            raise HTTPException(404) from error
        if not mark or inner not in videos(folder.run(name)):
            raise HTTPException(404)
        return FileResponse(found, headers={"Cache-Control": "no-cache"})

    return video
