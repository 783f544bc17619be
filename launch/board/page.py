"""The board's page, one object for every browser window that shows it.

header                       the folder, a new run, light or dark
run_list.RunList   left      every run: state, return, progress; chosen by a click, compared by its box
detail.Detail      right     what is chosen: figures, bottleneck, curves, videos, rows, settings, logs
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from nicegui import run, ui

from headrace.common.errors import UsageError
from headrace.launch.board.charts import COLORS
from headrace.launch.board.detail import Detail
from headrace.launch.board.dialogs import new_run, train_on
from headrace.launch.board.folder import Folder
from headrace.launch.board.launcher import Launcher
from headrace.launch.board.look import ALIVE, Glance, Look, Looker
from headrace.launch.board.run_list import RunList

_EVERY_S = 1.0
_CSS = Path(__file__).with_name("board.css")


@dataclass(frozen=True)
class Seen:
    """What there is to show now; ``more``: runs that are not listed."""

    glances: Sequence[Glance]
    more: int
    looks: Sequence[Look]


class Board:
    """What all windows share. ``told``: lines to show once in each."""

    def __init__(self, folder: Folder, looker: Looker, launcher: Launcher) -> None:
        self.folder, self.launcher = folder, launcher
        self.told: list[str] = []
        self._looker, self._one = looker, threading.Lock()
        self._stopping: set[str] = set()

    def see(self, chosen: Sequence[str]) -> Seen:
        """May take a while: not for the thread that serves."""
        with self._one:
            self.told += self.launcher.failures()
            glances, more = self._looker.glance()
            alive = {glance.name for glance in glances if glance.state in ALIVE}
            self._stopping &= alive
            looks = self._looker.look(chosen)
            looks = [replace(look, glance=self._now(look.glance)) for look in looks]
            return Seen([self._now(glance) for glance in glances], more, looks)

    def stop(self, name: str) -> None:
        self.launcher.stop(name)
        self._stopping.add(name)

    def _now(self, glance: Glance) -> Glance:
        """What the directory cannot say yet: asked to stop, or only just started."""
        if glance.name in self._stopping:
            return replace(glance, state="stopping")
        if glance.state not in ALIVE and self.launcher.runs(glance.name):
            return replace(glance, state="starting")
        return glance


class Page:
    """One window's."""

    def __init__(self, board: Board, chosen: Sequence[str] = ()) -> None:
        self._board, self._chosen = board, list(dict.fromkeys(chosen))[: len(COLORS)]
        self._told = len(board.told)
        self._seen: Sequence[Look] = ()
        self._detail: Detail | None = None

    def build(self) -> None:
        ui.add_css(_CSS)
        ui.colors(primary="#1f6feb")
        self._dark = ui.dark_mode(None)
        with ui.element("header").classes("top"):
            ui.label("Headrace").classes("brand")
            ui.label(_shown(self._board.folder.root)).classes("path")
            ui.element("div").classes("grow")
            ui.button("New run", icon="add", on_click=self._new).props("unelevated no-caps dense").classes("primary")
            ui.button(icon="contrast", on_click=self._flip).props('flat round dense aria-label="light or dark"')
        with ui.element("div").classes("shell"):
            with ui.element("aside").classes("runs"):
                self._list = RunList(self._choose)
            self._main = ui.element("main").classes("detail")
            with self._main:
                ui.label("Looking …").classes("hint")
        ui.timer(_EVERY_S, self.turn)

    async def turn(self) -> None:
        """Look again, and show it."""
        chosen = list(self._chosen)
        seen = await run.io_bound(self._board.see, chosen)
        if seen is None or self._chosen != chosen:  # the board is ending; or something else was chosen meanwhile
            return
        for line in self._board.told[self._told :]:
            ui.notify(line, type="negative", timeout=0, close_button="OK", multi_line=True)
        self._told = len(self._board.told)
        there = [glance.name for glance in seen.glances]
        self._chosen = [look.glance.name for look in seen.looks]
        if not self._chosen and there:
            alive = [glance.name for glance in seen.glances if glance.state in ALIVE]
            self._chosen = (alive or there)[:1]
            await self.turn()
            return
        colors = dict(zip(self._chosen, COLORS, strict=False))
        self._list.show(seen.glances, seen.more, colors)
        self._show(seen.looks, colors)

    def _show(self, looks: Sequence[Look], colors: dict[str, str]) -> None:
        self._seen, names = looks, [look.glance.name for look in looks]
        if self._detail is None or self._detail.names != names:
            self._main.clear()
            with self._main:
                if not looks:
                    ui.label("No run here yet.").classes("hint")
                    ui.label("Start one with New run, or with headrace train in a terminal.").classes("hint small")
                    self._detail = None
                    return
                self._detail = Detail(names, colors, self._board.folder, self._act, self._detail)
        self._detail.show(looks)

    # --- what a person does ----------------------------------------------------------------------------------------

    async def _choose(self, name: str, beside: bool) -> None:
        """One run alone; or, ``beside`` the others, in or out."""
        if not beside:
            self._chosen = [name]
        elif name in self._chosen:
            self._chosen.remove(name)
        elif len(self._chosen) < len(COLORS):
            self._chosen.append(name)
        else:
            ui.notify(f"{len(COLORS)} runs side by side are the most", type="warning")
        ui.navigate.history.replace(f"/?runs={quote(','.join(self._chosen))}")
        await self.turn()

    async def _act(self, verb: str, name: str) -> None:
        """A button of the run in focus."""
        if verb == "stop":
            await self._try(lambda: self._board.stop(name))
        elif verb == "resume":
            await self._try(lambda: self._board.launcher.resume(name))
        else:
            row = self._seen[0].glance.row if self._seen else None
            steps, total = (row["env_steps"], row["total_steps"]) if row else (0, 0)
            given = await train_on(name, total, solved=steps < total)
            if given is not None:
                await self._try(lambda: self._board.launcher.resume(name, given))

    async def _new(self) -> None:
        given = await new_run()
        if given is not None:
            preset, settings = given
            name = await self._try(lambda: self._board.launcher.start(preset, settings))
            if name is not None:
                await self._choose(name, beside=False)

    async def _try(self, action: Callable[[], str | None]) -> str | None:
        """What the action gives; None after it was refused, with a line that says why."""
        try:
            return await run.io_bound(action)
        except UsageError as error:
            ui.notify(str(error), type="negative", timeout=0, close_button="OK", multi_line=True)
            return None
        finally:
            await self.turn()

    async def _flip(self) -> None:
        if self._dark.value is None:
            self._dark.value = not await ui.run_javascript("Quasar.Dark.isActive")
        else:
            self._dark.value = not self._dark.value


def _shown(root: Path) -> str:
    """The folder, as people write one below their own."""
    home = Path.home()
    return f"~/{root.relative_to(home)}" if root.is_relative_to(home) else str(root)
