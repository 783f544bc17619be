"""returns.png: the learning curve of a run, from its metrics.jsonl; compare.png: those of two configs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.observe.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2563a8", "#d95f02", "#6b7280"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Greedy episodes after ``env_steps``: their mean return and an interval around it."""

    env_steps: int
    mean: float
    low: float
    high: float


def plot_returns(
    rows: Sequence[Row],
    path: Path,
    *,
    title: str,
    threshold: float | None = None,
    evaluations: Sequence[Evaluation] = (),
) -> None:
    """Draw the mean training return over environment steps into the PNG ``path`` (replaced whole).

    The band is one standard deviation of the last 100 episodes where the rows have it, else the range of the mean
    within a window of a twentieth of the run.
    """
    figure, axes = _canvas()
    drawn = [row for row in rows if row["return_mean"] is not None]
    if drawn:
        steps = np.array([row["env_steps"] for row in drawn], float)
        means = np.array([row["return_mean"] for row in drawn], float)
        low, high, what = _band(drawn, steps, means)
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, linewidth=0, label=what)
        axes.plot(steps, means, color=BLUE, linewidth=2, label="training, mean of 100 episodes")
    if evaluations:
        at, mean = [e.env_steps for e in evaluations], [e.mean for e in evaluations]
        bars = [[e.mean - e.low for e in evaluations], [e.high - e.mean for e in evaluations]]
        axes.errorbar(at, mean, bars, None, "o", color=ORANGE, capsize=3, clip_on=False, label="greedy evaluation")
    _frame(axes, title, threshold)
    if rows:
        last = rows[-1]
        took = f"{last['env_steps']:,} steps in {last['time_s']:,.0f} s"
        axes.set_title(took, loc="right", fontsize=10, color=GREY, pad=10)
        axes.set_xlim(0, max(last["env_steps"], 1, *(e.env_steps for e in evaluations)))
    _save(figure, axes, path)


def plot_sides(
    sides: Mapping[str, Sequence[Sequence[Row]]], path: Path, *, title: str, threshold: float | None = None
) -> None:
    """Draw the mean training return of each side over its seeds, with the range they span, into the PNG ``path``."""
    figure, axes = _canvas()
    for (name, runs), color in zip(sides.items(), (BLUE, ORANGE), strict=True):
        drawn = [[row for row in rows if row["return_mean"] is not None] for rows in runs]
        curves = [
            (np.array([row["env_steps"] for row in rows], float), np.array([row["return_mean"] for row in rows], float))
            for rows in drawn
            if rows
        ]
        if not curves:
            continue
        # Where all of them have one: each is read between its own rows.
        first, last = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
        at = np.linspace(first, max(first, last), 200)
        values = np.stack([np.interp(at, steps, means) for steps, means in curves])
        axes.fill_between(at, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
        axes.plot(at, values.mean(0), color=color, linewidth=2, label=f"{name}, mean and range of {len(curves)}")
    _frame(axes, title, threshold)
    _save(figure, axes, path)


def _canvas() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _frame(axes: Axes, title: str, threshold: float | None) -> None:
    if threshold is not None:
        axes.axhline(threshold, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=f"solved: {threshold:g}")
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=10)


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    """Replaced whole: nobody sees half a picture."""
    _style(axes)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", facecolor="white")
    os.replace(temporary, path)


def _style(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel("environment steps")
    axes.set_ylabel("episode return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    axes.tick_params(colors="#374151", length=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False, fontsize=9)


def _band(rows: Sequence[Row], steps: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    spread = [row.get("return_std") for row in rows]
    if all(s is not None for s in spread):
        std = np.array(spread, float)
        return means - std, means + std, "one standard deviation"
    what = "range within a twentieth of the run"
    half = (steps[-1] - steps[0]) / 40
    first, last = np.searchsorted(steps, steps - half), np.searchsorted(steps, steps + half, side="right")
    windows = [means[a:b] for a, b in zip(first, last, strict=True)]
    return np.array([w.min() for w in windows]), np.array([w.max() for w in windows]), what
