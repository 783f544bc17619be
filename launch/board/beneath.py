"""Beneath the curves: videos of the agent, the latest rows, the settings in force, what the processes said."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from nicegui import ui

from headrace.common.errors import UsageError
from headrace.launch.board.folder import Folder
from headrace.launch.board.look import Look, end_of, logs, settings
from headrace.observe import table
from headrace.observe.rows import Row

_ROWS = 12


class Beneath:
    """Of the run ``name``."""

    def __init__(self, name: str, folder: Folder) -> None:
        self._name, self._folder = name, folder
        self._films = _Films(name)
        with ui.element("section").classes("card"):
            with ui.tabs().props("dense no-caps align=left inline-label").classes("tabs") as tabs:
                for tab in ("Rows", "Settings", "Logs"):
                    ui.tab(tab)
            self._tabs = tabs
            with ui.tab_panels(tabs, value="Rows", animated=False).classes("panels"):
                with ui.tab_panel("Rows"):
                    self._rows = ui.label().classes("mono block")
                with ui.tab_panel("Settings"):
                    self._settings = ui.label().classes("mono block")
                with ui.tab_panel("Logs"):
                    self._log = ui.select([], label="Log").props("dense options-dense outlined").classes("pick")
                    self._words = ui.label().classes("mono block")

    def show(self, look: Look) -> None:
        self._films.show(look.videos)
        try:
            path = self._folder.run(self._name)
            match self._tabs.value:
                case "Rows":
                    self._rows.set_text(_lines(look.rows) or "none yet")
                case "Settings":
                    self._settings.set_text(settings(path))
                case "Logs":
                    self._show_log(logs(path))
        except UsageError:  # it was taken away meanwhile
            return

    def _show_log(self, names: Sequence[str]) -> None:
        if list(names) != self._log.options:
            kept = self._log.value if self._log.value in names else next(iter(names), None)
            self._log.set_options(list(names), value=kept)
        if self._log.value in names:
            self._words.set_text(end_of(self._folder.file(self._name, f"logs/{self._log.value}")) or "(nothing)")


def _lines(rows: Sequence[Row]) -> str:
    return "\n".join(table.one_line(row) for row in reversed(rows[-_ROWS:]))


class _Films:
    """GIFs and MP4s, newest first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown: Sequence[str] = ()
        self._card = ui.element("section").classes("card")
        with self._card:
            ui.label("The agent").classes("caption")
            self._box = ui.element("div").classes("films")
        self._card.set_visibility(False)

    def show(self, videos: Sequence[str]) -> None:
        if videos == self._shown:
            return
        self._shown = videos
        self._card.set_visibility(bool(videos))
        self._box.clear()
        with self._box:
            for video in videos:
                self._film(video)

    def _film(self, video: str) -> None:
        stem = video.rpartition("/")[2].partition(".")[0]
        words = "at its end" if video == "final.gif" else f"at {int(stem):,} steps" if stem.isdecimal() else stem
        with ui.element("figure"):
            if video.endswith(".mp4"):
                shown = ui.element("video").props("autoplay loop muted playsinline")
            else:
                shown = ui.element("img").props("loading=lazy")
            shown.props["src"] = f"/run/{quote(self._name)}/file/{quote(video)}"
            shown.props["alt"] = f"the agent {words}"
            ui.label(words).classes("hint small")
