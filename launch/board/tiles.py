"""Figures of the newest row as tiles; those of several runs as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nicegui import ui

from headrace.launch.board.look import Look
from headrace.observe import table


class Tiles:
    def __init__(self) -> None:
        with ui.element("div").classes("tiles"):
            self._tiles = {
                name: _Tile(name) for name in ("Return", "Greedy", "Speed", "Version", "Staleness", "Episodes")
            }
        self._trouble = ui.label().classes("trouble")

    def show(self, look: Look) -> None:
        for name, (value, beneath) in _figures(look).items():
            self._tiles[name].show(value, beneath)
        row = look.glance.row
        trouble = "" if row is None else table.troubles({}, row["rejected"])
        self._trouble.set_text(trouble)
        self._trouble.set_visibility(bool(trouble))


class _Tile:
    def __init__(self, name: str) -> None:
        with ui.element("div").classes("tile"):
            ui.label(name).classes("caption")
            self._value, self._beneath = ui.label().classes("value"), ui.label().classes("hint small")

    def show(self, value: str, beneath: str) -> None:
        self._value.set_text(value)
        self._beneath.set_text(beneath)


def _figures(look: Look) -> dict[str, tuple[str, str]]:
    row = look.glance.row
    if row is None:
        return dict.fromkeys(("Return", "Speed", "Version", "Staleness", "Episodes"), ("–", "")) | {
            "Greedy": _greedy(look)
        }
    std, length = row.get("return_std"), row["length_mean"]
    spread = "mean" if std is None else f"± {std:.1f}"
    return {
        "Return": (_number(row["return_mean"]), f"{spread} of 100 episodes"),
        "Greedy": _greedy(look),
        "Speed": (f"{row['steps_per_s']:,.0f}", "steps a second"),
        "Version": (f"{row['version']:,}", "of the policy"),
        "Staleness": (f"{row['staleness_mean']:.1f}", f"versions, at most {row['staleness_max']}"),
        "Episodes": (f"{row['episodes']:,}", "" if length is None else f"of {length:,.0f} steps"),
    }  # fmt: skip


def _greedy(look: Look) -> tuple[str, str]:
    """The latest evaluation."""
    if not look.evaluations:
        return "–", "not evaluated yet"
    said = look.evaluations[-1]
    half, steps = said.get("interval95"), said.get("env_steps")
    near = f"± {half:.1f}" if isinstance(half, int | float) and math.isfinite(half) else ""
    return _number(said["mean"]), " ".join(
        filter(None, (near, f"at {steps:,} steps" if isinstance(steps, int) else ""))
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


class SideBySide:
    """One line for each run chosen."""

    _COLUMNS = ("run", "state", "steps", "return", "greedy", "steps/s", "time")

    def __init__(self, colors: Mapping[str, str]) -> None:
        self._colors = colors
        with ui.element("section").classes("card"):
            ui.label("Side by side").classes("caption")
            self._grid = ui.element("div").classes("grid")
        self._shown: object = None

    def show(self, looks: Sequence[Look]) -> None:
        lines = [_line(look) for look in looks]
        if lines == self._shown:
            return
        self._shown = lines
        self._grid.clear()
        with self._grid:
            for word in self._COLUMNS:
                ui.label(word).classes("hint small")
            for line in lines:
                ui.label(line[0]).classes("name").style(f"--run: {self._colors[line[0]]}")
                for cell in line[1:]:
                    ui.label(cell)


def _line(look: Look) -> tuple[str, ...]:
    row, name, state = look.glance.row, look.glance.name, look.glance.state
    value, near = _greedy(look)
    greedy = value if not look.evaluations else f"{value} {near.partition(' at ')[0]}"
    if row is None:
        return name, state, "–", "–", greedy, "–", "–"
    speed = row["env_steps"] / max(row["time_s"], 1e-9)
    return (
        name,
        state,
        f"{row['env_steps']:,}",
        _number(row["return_mean"]),
        greedy,
        f"{speed:,.0f}",
        f"{row['time_s']:,.0f} s",
    )
