"""The board's curves as options of Apache ECharts: plain data from rows, drawn in the browser.

Each run has a colour of its own; its training return is a line (alone: with a band of one standard deviation), its
greedy evaluations are diamonds with their 95 % intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from headrace.launch.board.look import Look
from headrace.observe.rows import Row

#: Told apart with and without colour vision, on white and on black.
COLORS = ("#2f81f7", "#e5801a", "#1aa179", "#c64fd0", "#d9534f", "#8a7f00", "#5b6ee1", "#0f9bb4")
_INK, _LINE = "#8891a0", "rgba(136,145,160,0.22)"
Over = Literal["steps", "time"]
_X: dict[Over, str] = {"steps": "env_steps", "time": "time_s"}


def returns(looks: Sequence[Look], colors: Mapping[str, str], over: Over) -> dict[str, Any]:
    """Training return and greedy evaluations of all ``looks``."""
    series: list[dict[str, Any]] = []
    for look in looks:
        name, color = look.glance.name, colors[look.glance.name]
        rows = [row for row in look.rows if row["return_mean"] is not None]
        if len(looks) == 1:
            series += _band(rows, color, over)
        series.append(_line(name, color, [[_x(row, over), _short(row["return_mean"])] for row in rows]))
        if found := [said for said in look.evaluations if isinstance(said.get(_X[over]), int | float)]:
            series.append(_greedy(f"{name}, greedy", color, found, over))
    threshold = next((look.threshold for look in looks if look.threshold is not None), None)
    if threshold is not None and series and len({look.threshold for look in looks}) == 1:
        series.append(_solved(threshold))
    return _options(series, over)


def figure(
    looks: Sequence[Look], colors: Mapping[str, str], over: Over, value: Callable[[Row], float | None]
) -> dict[str, Any]:
    """One figure of the rows."""
    return _options(
        [
            _line(look.glance.name, colors[look.glance.name],
                  [[_x(row, over), _short(value(row))] for row in look.rows if value(row) is not None])
            for look in looks
        ],
        over,
    )  # fmt: skip


def _x(row: Row, over: Over) -> float:
    return row["env_steps"] if over == "steps" else round(row["time_s"], 2)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _solved(threshold: float) -> dict[str, Any]:
    """A line across, as a series without points."""
    label = {"formatter": f"solved: {threshold:g}", "position": "insideStartTop", "color": _INK}
    line = {"type": "dashed", "color": _INK, "width": 1}
    mark = {"yAxis": threshold, "label": label, "lineStyle": line}
    return {"type": "line", "data": [], "markLine": {"symbol": "none", "silent": True, "data": [mark]}}


def _line(name: str, color: str, points: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A line through ``points``; a dot where there is but one, of which no line can be drawn."""
    return {"type": "line", "name": name, "data": points, "color": color, "showSymbol": len(points) == 1,
            "symbol": "circle", "symbolSize": 8, "lineStyle": {"width": 2}, "emphasis": {"disabled": True}}  # fmt: skip


def _band(rows: Sequence[Row], color: str, over: Over) -> list[dict[str, Any]]:
    """One standard deviation up and down: two lines one upon the other, of which the area between is painted."""
    known = [row for row in rows if row.get("return_std") is not None]
    low = [[_x(row, over), _short((row["return_mean"] or 0.0) - (row.get("return_std") or 0.0))] for row in known]
    width = [[_x(row, over), _short(2 * (row.get("return_std") or 0.0))] for row in known]
    hidden = {"type": "line", "stack": "band", "stackStrategy": "all", "showSymbol": False, "silent": True,
              "lineStyle": {"opacity": 0}, "tooltip": {"show": False}, "color": color,
              "emphasis": {"disabled": True}}  # fmt: skip
    return [{**hidden, "data": low}, {**hidden, "data": width, "areaStyle": {"color": color, "opacity": 0.14}}]


def _greedy(name: str, color: str, found: Sequence[Mapping[str, Any]], over: Over) -> dict[str, Any]:
    points = [[said[_X[over]], _short(said["mean"])] for said in found]
    bars = [
        [{"coord": [x, mean - said["interval95"]]}, {"coord": [x, mean + said["interval95"]]}]
        for (x, mean), said in zip(points, found, strict=True)
        if isinstance(said.get("interval95"), int | float) and math.isfinite(said["interval95"])
    ]
    return {
        "type": "line", "name": name, "data": points, "color": color, "symbol": "diamond", "symbolSize": 9, "z": 5,
        "lineStyle": {"width": 1, "type": "dotted"}, "itemStyle": {"borderColor": "#ffffff", "borderWidth": 1},
        "markLine": {"symbol": "none", "silent": True, "data": bars, "label": {"show": False},
                     "lineStyle": {"color": color, "type": "solid", "width": 1.5}},
    }  # fmt: skip


def _options(series: Sequence[Mapping[str, Any]], over: Over) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "axisLabel": {"color": _INK, "fontSize": 11},
        "axisLine": {"show": False},
        "axisTick": {"show": False},
        "splitLine": {"lineStyle": {"color": _LINE}},
        "nameTextStyle": {"color": _INK, "fontSize": 11},
    }
    unit = "value => Math.abs(value) >= 1e6 ? value / 1e6 + 'M' : Math.abs(value) >= 1e4 ? value / 1e3 + 'k' : value"
    shown = {**axis["axisLabel"], ":formatter": unit, "hideOverlap": True}
    name = "environment steps" if over == "steps" else "seconds of training"
    x = {**axis, "type": "value", "min": 0, "max": "dataMax", "axisLabel": shown, "splitLine": {"show": False},
         "name": name, "nameLocation": "middle", "nameGap": 26}  # fmt: skip
    said = "Math.round(at.value).toLocaleString('en') + ' steps'" if over == "steps" else "at.value.toFixed(1) + ' s'"
    x["axisPointer"] = {"label": {":formatter": f"at => {said}"}}
    y = {**axis, "type": "value", "scale": True, "axisLabel": shown}
    tooltip = {"trigger": "axis", "backgroundColor": "rgba(22,27,34,0.94)", "borderWidth": 1, "borderColor": _LINE,
               "confine": True, "textStyle": {"color": "#f0f3f6", "fontSize": 12},
               "axisPointer": {"lineStyle": {"color": _INK}}}  # fmt: skip
    return {"animation": False, "grid": {"left": 8, "right": 18, "top": 14, "bottom": 22, "containLabel": True},
            "xAxis": x, "yAxis": y, "tooltip": tooltip, "series": list(series)}  # fmt: skip
