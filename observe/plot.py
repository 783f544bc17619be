"""returns.png: the learning curve of a run, from its metrics.jsonl; seeds.png, compare.png: those of several."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.observe.rows import Row
from headrace.observe.statistics import CONFIDENCE, interval, iqm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2563a8", "#d95f02", "#6b7280"
#: One a side, told apart by whoever sees fewer colours as well (Dark2 of ColorBrewer behind our own two).
COLORS = (BLUE, ORANGE, "#1b9e77", "#7570b3", "#e7298a", "#a6761d", "#66a61e", "#4b5563")
_AXES = {"env_steps": "environment steps", "time_s": "seconds of training"}
_CURVE_POINTS, _CURVE_RESAMPLES = 200, 1000
_DASHED, _LEGEND_COLUMNS = (0, (3, 2)), 4


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Greedy episodes after ``env_steps``: their mean return and an interval around it."""

    env_steps: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Side:
    """One or several runs of the same settings, what was evaluated while each of them went on (evaluations.py), and the
    final greedy evaluation over all of them."""

    name: str
    runs: Sequence[Sequence[Row]]
    evaluated: Sequence[Sequence[Mapping[str, Any]]] = ()
    evaluation: Evaluation | None = None


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
    figure, (axes,) = _canvas()
    drawn = [row for row in rows if row["return_mean"] is not None]
    if drawn:
        steps = np.array([row["env_steps"] for row in drawn], float)
        means = np.array([row["return_mean"] for row in drawn], float)
        low, high, what = _band(drawn, steps, means)
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.15, linewidth=0, label=what)
        _line(axes, steps, means, color=BLUE, linewidth=2, label="training, mean of 100 episodes")
    if evaluations:
        at, mean = [e.env_steps for e in evaluations], [e.mean for e in evaluations]
        bars = [[e.mean - e.low for e in evaluations], [e.high - e.mean for e in evaluations]]
        axes.errorbar(at, mean, bars, None, "o", color=ORANGE, capsize=3, clip_on=False, label="greedy evaluation")
    _frame(axes, title, threshold)
    if rows:
        last = rows[-1]
        took = f"{last['env_steps']:,} steps in {last['time_s']:,.0f} s"
        _note(axes, took)
        axes.set_xlim(0, max(last["env_steps"], 1, *(e.env_steps for e in evaluations)))
    _style(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False, fontsize=9)
    _save(figure, path)


def plot_sides(
    sides: Sequence[Side],
    path: Path,
    *,
    title: str,
    over: Sequence[Literal["env_steps", "time_s"]] = ("env_steps",),
    threshold: float | None = None,
) -> None:
    """Draw the training return of each side over each of ``over``, a panel each, into the PNG ``path``: its
    interquartile mean over the runs, the bootstrap interval of that as a band, and every run as a thin line; dashed,
    greedy evaluations where every run has some."""
    figure, panels = _canvas(len(over))
    for axes, axis in zip(panels, over, strict=True):
        for side, color in zip(sides, cycle(COLORS), strict=False):
            _draw_side(axes, side, axis, color)
        _explain(axes, sides, axis)
        _frame(axes, title if axes is panels[0] else "", threshold)
        if axes is panels[-1] and any(len(side.runs) > 1 for side in sides):
            _note(axes, f"interquartile mean, {CONFIDENCE:.0%} interval")
        axes.set_xlim(left=0)
        _style(axes, axis)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=_LEGEND_COLUMNS, frameon=False, fontsize=9)
    _save(figure, path)


def _line(axes: Axes, at: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """A line; a dot where there is but one point, of which no line can be drawn."""
    axes.plot(at, values, marker="o" if len(at) == 1 else "", **style)


def _draw_side(axes: Axes, side: Side, axis: str, color: str) -> None:
    trained = [curve for rows in side.runs if len((curve := _curve(rows, axis, "return_mean"))[0])]
    if trained:
        at, values = _in_common(trained)
        if len(trained) > 1:
            low, high = interval(iqm, [values], resamples=_CURVE_RESAMPLES)
            axes.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(at, values, color=color, linewidth=0.6, alpha=0.35)
        label = side.name if len(trained) == 1 else f"{side.name}, {len(trained)} seeds"
        _line(axes, at, iqm(values), color=color, linewidth=2, label=label)
    if evaluated := _evaluated(side, axis):
        at, values = _in_common(evaluated)
        _line(axes, at, iqm(values), color=color, linewidth=1.5, linestyle=_DASHED)
    if side.evaluation is not None and axis == "env_steps":
        e = side.evaluation
        bar = [[e.mean - e.low], [e.high - e.mean]]
        axes.errorbar([e.env_steps], [e.mean], bar, None, "o", color=color, capsize=3, zorder=5, clip_on=False)


def _evaluated(side: Side, axis: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Curves of greedy evaluations; none unless every run has one."""
    curves = [_curve(found, axis, "mean") for found in side.evaluated]
    return curves if all(len(at) > 1 for at, _ in curves) else []


def _curve(rows: Sequence[Mapping[str, Any]], axis: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where there is a return, and what it is."""
    drawn = [row for row in rows if row.get(name) is not None and row.get(axis) is not None]
    return np.array([row[axis] for row in drawn], float), np.array([row[name] for row in drawn], float)


def _in_common(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Points [P] where all of the curves have something, and values [P, curves] there, each read between its own."""
    first, last = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
    points = np.linspace(first, last, _CURVE_POINTS) if last > first else np.array([first])
    return points, np.stack([np.interp(points, at, values) for at, values in curves], axis=-1)


def _explain(axes: Axes, sides: Sequence[Side], axis: str) -> None:
    """What is the same for all sides, once."""
    if any(_evaluated(side, axis) for side in sides):
        axes.plot([], [], color=GREY, linewidth=1.5, linestyle=_DASHED, label="greedy evaluation")
    if axis == "env_steps" and any(side.evaluation for side in sides):
        axes.plot([], [], "o", color=GREY, label="greedy evaluation at the end")


def _canvas(panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A picture with panels beside each other that share what the return is measured by."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8 if panels == 1 else 6.4 * panels, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])


def _frame(axes: Axes, title: str, threshold: float | None) -> None:
    if threshold is not None:
        axes.axhline(threshold, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label=f"solved: {threshold:g}")
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=10)


def _note(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="right", fontsize=10, color=GREY, pad=10)


def _save(figure: Figure, path: Path) -> None:
    """Replaced whole: nobody sees half a picture."""
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", facecolor="white")
    os.replace(temporary, path)


def _style(axes: Axes, axis: str = "env_steps") -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel(_AXES[axis])
    axes.set_ylabel("episode return")
    axes.label_outer()  # panels beside each other share it
    if axis == "env_steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    axes.tick_params(colors="#374151", length=0)


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
