"""The pictures of a report as SVG, for a light page or a dark one. Numbers only: no word of a config is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.observe.report.findings import PER_SAMPLE, STEPS_TO_ADAPT, STEPS_TO_TARGET, Findings
from headrace.observe.report.metrics import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Theme:
    """Colours; ``seeds`` are told apart in the order of the seeds (Okabe & Ito 2008, safe for the colour-blind)."""

    ink: str
    faint: str
    grid: str
    goal: str
    seeds: tuple[str, ...]


LIGHT = Theme("#1f2937", "#6b7280", "#e5e7eb", "#111827",
              ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9"))  # fmt: skip
DARK = Theme("#e5e7eb", "#9ca3af", "#374151", "#f9fafb",
             ("#56b4e9", "#ff8a3d", "#2dd4a7", "#f0a3cd", "#f0e442", "#7dd3fc"))  # fmt: skip


def curves(findings: Findings, theme: Theme) -> bytes:
    """Mean return over environment steps, a line a seed; the target, the random policy, and the steps allowed."""

    def draw(axes: Axes) -> None:
        for number, seed in enumerate(findings.seeds):
            _curve(axes, seed.curve, theme.seeds[number % len(theme.seeds)], f"seed {seed.seed}")
        _level(axes, findings.target, f"target {findings.target:g}", theme.goal, "--")
        _level(axes, findings.floor, f"random {findings.floor:.0f}", theme.faint, ":")
        if 1.2 * max(seed.env_steps for seed in findings.seeds) > STEPS_TO_TARGET:
            _deadline(axes, STEPS_TO_TARGET, theme)
        axes.set_ylabel("mean return" if findings.greedy else "mean return, training")
        axes.set_xlim(left=0)

    return _svg(draw, theme, (7.2, 3.9))


def scores(findings: Findings, theme: Theme) -> bytes:
    """The mean normalised reward per sample, a bar a seed; their mean and standard deviation."""

    def draw(axes: Axes) -> None:
        found = [score or 0.0 for score in findings.scores()]
        names = [f"seed {seed.seed}: {score:.3f}" for seed, score in zip(findings.seeds, found, strict=True)]
        colors = [theme.seeds[number % len(theme.seeds)] for number in range(len(found))]
        axes.barh(range(len(found)), found, height=0.6, color=colors)
        axes.set_yticks(range(len(found)), names)
        mean, spread = (figure.value for figure in findings.figures()[1:3])
        axes.axvline(PER_SAMPLE, color=theme.goal, linestyle="--", linewidth=1.4, label=f"target {PER_SAMPLE:g}")
        if mean is not None and spread is not None:
            axes.axvspan(mean - spread, mean + spread, color=theme.faint, alpha=0.25, linewidth=0,
                         label="mean ± standard deviation")  # fmt: skip
            axes.axvline(mean, color=theme.ink, linewidth=1.4)
        axes.set_xlim(0, 1)
        axes.invert_yaxis()
        axes.set_xlabel("mean normalised reward per sample")

    return _svg(draw, theme, (7.2, 1.4 + 0.36 * len(findings.seeds)), steps=False)


def adaptation(findings: Findings, theme: Theme) -> bytes:
    """Greedy return in the changed environment over the steps since the change, a line a seed."""

    def draw(axes: Axes) -> None:
        for number, adapted in enumerate(findings.adapted):
            color = theme.seeds[number % len(theme.seeds)]
            _curve(axes, adapted.curve, color, f"seed {adapted.seed}")
            axes.plot([0], [adapted.before], "D", color=color, markersize=6, clip_on=False, fillstyle="none",
                      label="before the change" if number == 0 else None)  # fmt: skip
        goals = {round(adapted.goal, 1) for adapted in findings.adapted}
        for goal in sorted(goals):
            _level(axes, goal, f"goal {goal:g}", theme.goal, "--")
        _deadline(axes, STEPS_TO_ADAPT, theme)
        axes.set_ylabel("mean greedy return, changed")
        axes.set_xlabel("environment steps since the change")
        axes.set_xlim(left=0)

    return _svg(draw, theme, (7.2, 3.9))


def _curve(axes: Axes, curve: Sequence[Point], color: str, label: str) -> None:
    at, means = [point.env_steps for point in curve], [point.mean for point in curve]
    marker = "o" if len(curve) <= 60 else None
    axes.plot(at, means, color=color, linewidth=1.8, marker=marker, markersize=4, label=label, clip_on=False)


def _level(axes: Axes, value: float, label: str, color: str, linestyle: str) -> None:
    axes.axhline(value, color=color, linestyle=linestyle, linewidth=1.4, label=label)


def _deadline(axes: Axes, steps: int, theme: Theme) -> None:
    axes.axvline(steps, color=theme.goal, linestyle="-.", linewidth=1.2, label=f"{steps:,} steps")


def _svg(draw: Callable[[Axes], None], theme: Theme, size: tuple[float, float], steps: bool = True) -> bytes:
    """Text becomes paths, so that the picture looks the same without a font of ours; the same numbers give the same
    bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    with rc_context({"svg.hashsalt": "headrace", "text.parse_math": False}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        if steps:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.grid(color=theme.grid, linewidth=0.8)
            if not axes.get_xlabel():
                axes.set_xlabel("environment steps")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.faint)
        axes.tick_params(colors=theme.ink, length=0)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(theme.ink)
        figure.legend(loc="outside lower center", frameon=False, labelcolor=theme.ink, ncols=5)
        out = io.BytesIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        return out.getvalue()
