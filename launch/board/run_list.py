"""The board's list of runs, at the left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from nicegui import ui

from headrace.launch.board.look import Glance

#: (name, beside the others)
Choose = Callable[[str, bool], Awaitable[None]]


class RunList:
    """Built into the element that is open when it is made."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._items: dict[str, _Item] = {}
        self._filter = ui.input(placeholder="Filter").props("dense outlined clearable").classes("filter")
        self._box = ui.element("div").classes("items")
        self._more = ui.label().classes("hint small")

    def show(self, glances: Sequence[Glance], more: int, colors: Mapping[str, str]) -> None:
        """``colors``: of those that are chosen, in their order."""
        wanted = str(self._filter.value or "").lower()
        shown = [glance for glance in glances if wanted in glance.name.lower()]
        if [glance.name for glance in shown] != list(self._items):
            self._box.clear()
            with self._box:
                self._items = {glance.name: _Item(glance.name, self._choose) for glance in shown}
        for glance in shown:
            self._items[glance.name].show(glance, colors.get(glance.name))
        self._more.set_text(f"{more} older ones are not listed" if more else "")


class _Item:
    def __init__(self, name: str, choose: Choose) -> None:
        self._name, self._choose = name, choose
        self._shown: object = None
        self._box = ui.element("div").classes("item").props('role="button" tabindex="0"')
        self._box.on("click", lambda: choose(name, False)).on("keydown.enter", lambda: choose(name, False))
        with self._box:
            with ui.element("div").classes("line"):
                ui.label(name).classes("name").props["title"] = name
                with ui.element("div").on("click.stop", lambda: None):
                    self._beside = ui.checkbox().props("dense size=xs")
                    self._beside.props["aria-label"] = f"compare {name}"
                    self._beside.on("click", lambda: choose(name, True))
            with ui.element("div").classes("line"):
                self._state = ui.label().classes("chip")
                self._said = ui.label().classes("said")
            with ui.element("div").classes("thin"):
                self._bar = ui.element("div").classes("fill")

    def show(self, glance: Glance, color: str | None) -> None:
        self._beside.set_value(color is not None)
        if self._shown == (glance, color):
            return
        self._shown = glance, color
        row = glance.row
        share = 0.0 if row is None else min(1.0, row["env_steps"] / max(1, row["total_steps"]))
        chip(self._state, glance.state)
        known = row is not None and row["return_mean"] is not None
        self._said.set_text(f"{row['return_mean']:.1f} at {share:.0%}" if row is not None and known else f"{share:.0%}")
        self._bar.style(f"width: {share:.1%}")
        self._box.classes(add="chosen" if color else "", remove="" if color else "chosen")
        self._box.style(f"--run: {color or 'transparent'}")


def chip(label: ui.label, state: str) -> None:
    """A run's state as a word on a colour."""
    label.set_text(state)
    label.classes(replace=f"chip {state}")
