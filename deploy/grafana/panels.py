"""The few kinds of panels the dashboard is made of, in one look, and how metrics are selected in them.

Every selector goes through :func:`m`, so that the variable ``run`` reaches all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: One colour a thing, wherever it is drawn.
COLOURS = {
    "actor": "blue", "actors": "blue", "learner": "orange", "weights": "purple", "carrier": "green",
    "parameter server": "purple", "paramserver": "purple", "evaluator": "yellow",
    "env": "blue", "policy": "light-blue", "lease": "super-light-yellow", "put": "green",
    "wait": "super-light-yellow", "assemble": "dark-orange", "update": "orange", "publish": "purple",
    "checkpoint": "red",
    "training": "orange", "greedy": "yellow", "slowest actor": "light-blue", "median actor": "blue",
    "0": "dark-green", "1": "green", "2": "yellow", "3 and 4": "orange", "more": "red",
    "p10": "light-blue", "median": "blue", "p90": "dark-blue", "p95": "orange", "p99": "red",
}  # fmt: skip
#: In the colour of the part they blame.
VERDICTS = {
    "actors too few": "blue", "learner too slow": "orange", "weights too slow": "purple", "broker too slow": "green",
    "balanced": "text", "not known yet": "text", "everything is refused": "red", "waiting for a worker": "red",
}  # fmt: skip
NONE = "none yet"
Steps = Sequence[tuple[float | None, str]]


def m(name: str, labels: str = "") -> str:
    """A selector of one of our metrics (without its prefix) or of a recorded one (with it), in the run looked at."""
    full = name if ":" in name or name.startswith("process_") else f"headrace_{name}"
    return f'{full}{{run=~"$run"{", " if labels else ""}{labels}}}'


def rate(name: str, labels: str = "") -> str:
    return f"rate({m(name, labels)}[$__rate_interval])"


def quantile(q: float, name: str) -> str:
    return f"histogram_quantile({q}, sum by (le) ({rate(name + '_bucket')}))"


def quantiles(name: str, *wanted: tuple[float, str]) -> list[tuple[str, str]]:
    """Targets for some quantiles of a histogram: (0.5, "median"), ..."""
    return [(quantile(q, name), legend) for q, legend in wanted]


def by_role(expression: str) -> str:
    """What every process has, with the role of each."""
    return f"{expression} * on (instance) group_left (role) {m('role_info')}"


def lines(
    title: str,
    about: str,
    unit: str,
    targets: Sequence[tuple[str, str]],
    *,
    width: int = 8,
    stacked: bool = False,
    limits: tuple[float | None, float | None] = (0, None),
    soft_max: float | None = None,
    bad_above: float | None = None,
    units: Mapping[str, str] | None = None,
    decimals: int | None = None,
    none: str = NONE,
) -> timeseries.Panel:
    """Curves over time. ``soft_max``: the axis reaches there though the values do not. ``bad_above``: where red begins.
    ``units``: series (by name) that have another unit, drawn on an axis at the right."""
    panel = timeseries.Panel().line_width(2).show_points(common.VisibilityMode.NEVER)
    panel.fill_opacity(70 if stacked else 15)
    panel.gradient_mode(common.GraphGradientMode.NONE if stacked else common.GraphGradientMode.OPACITY)
    _dress(panel, title, about, unit, targets, width, 8, none, scheme=models.FieldColorModeId.PALETTE_CLASSIC)
    panel.legend(
        looks.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM).show_legend(True).calcs(["lastNotNull"])
    )  # fmt: skip
    panel.tooltip(looks.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(looks.StackingConfig().mode(common.StackingMode.NORMAL).group("A")).line_width(1)
    low, high = limits
    if low is not None:
        panel.axis_soft_min(low)
    if high is not None:
        panel.max(high)
    if soft_max is not None:
        panel.axis_soft_max(soft_max)
    if decimals is not None:
        panel.decimals(decimals)
    if bad_above is not None:
        panel.thresholds(_steps(((None, "transparent"), (bad_above, "red"))))
        style = looks.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED_AND_AREA)
        panel.thresholds_style(style)
    for name, other in (units or {}).items():
        panel.override_by_name(
            name,
            [
                models.DynamicConfigValue(id_val="unit", value=other),
                models.DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
            ],
        )
    return panel


def number(
    title: str,
    about: str,
    unit: str,
    targets: Sequence[tuple[str, str]],
    *,
    width: int = 3,
    height: int = 4,
    named: bool = False,
    decimals: int | None = None,
    colour: str = "text",
    thresholds: Steps = (),
    mappings: Mapping[str, str] | None = None,
    none: str = NONE,
) -> stat.Panel:
    """The present value, large. ``named``: the series' name is the news."""
    panel = stat.Panel()
    _dress(panel, title, about, unit, targets, width, height, none, instant=True)
    panel.reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.graph_mode(common.BigValueGraphMode.NONE).color_mode(common.BigValueColorMode.VALUE)
    panel.text_mode(common.BigValueTextMode.NAME if named else common.BigValueTextMode.VALUE)
    panel.thresholds(_steps(thresholds or ((None, colour),)))
    if decimals is not None:
        panel.decimals(decimals)
    if mappings:
        texts = {value: models.ValueMappingResult(text=text) for value, text in mappings.items()}
        panel.mappings([models.ValueMap(options=texts)])
    return panel


def bars(
    title: str, about: str, unit: str, targets: Sequence[tuple[str, str]], *, width: int = 8, none: str = NONE
) -> bargauge.Panel:
    """Present shares side by side, from 0 to 1."""
    panel = bargauge.Panel()
    _dress(panel, title, about, unit, targets, width, 8, none, instant=True)
    panel.reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.GRADIENT)
    return panel.show_unfilled(True).min(0).max(1).thresholds(_steps(((None, "blue"),)))


def rows_of(
    title: str,
    about: str,
    columns: Mapping[str, tuple[str, str]],
    keys: Mapping[str, str],
    *,
    width: int = 24,
    height: int = 9,
) -> table.Panel:
    """A table with a row for every combination of labels. ``columns``: heading -> (expression, unit), shown; ``keys``:
    label -> the expression it comes from (several may come from one), by all labels that rows are told apart by."""
    panel = table.Panel().align(common.FieldTextAlignment.AUTO).title(title).description(about).datasource(SOURCE)
    panel.span(width).height(height).sort_by([looks.TableSortByFieldState().display_name(next(iter(keys)))])
    expressions = [*dict.fromkeys(keys.values()), *(expression for expression, _ in columns.values())]
    values = [f"Value #{letter}" for letter in "ABCDEFGHIJ"[: len(expressions)]]
    for letter, expression in zip("ABCDEFGHIJ", expressions, strict=False):
        panel.with_target(
            prometheus.Dataquery().expr(expression).legend_format(letter).ref_id(letter).instant()
            .format(PromQueryFormat.TABLE).datasource(SOURCE)
        )  # fmt: skip
    joined, shown = values[: -len(columns)], values[-len(columns) :]
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {name: True for name in ("Time", *joined)},
                "indexByName": {name: place for place, name in enumerate([*keys, *shown])},
                "renameByName": dict(zip(shown, columns, strict=True)),
            },
        )
    )
    for heading, (_, unit) in columns.items():
        panel.override_by_name(heading, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def _dress(
    panel: Any,
    title: str,
    about: str,
    unit: str,
    targets: Sequence[tuple[str, str]],
    width: int,
    height: int,
    none: str,
    instant: bool = False,
    scheme: models.FieldColorModeId = models.FieldColorModeId.THRESHOLDS,
) -> None:
    """What all panels have."""
    panel.title(title).description(about).datasource(SOURCE).unit(unit).span(width).height(height).no_value(none)
    panel.color_scheme(dashboards.FieldColor().mode(scheme))
    for letter, (expression, legend) in zip("ABCDEFGH", targets, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE)
        panel.with_target(query.instant() if instant else query.range())
    for name in _names(targets):
        colour = {"mode": "fixed", "fixedColor": (COLOURS | VERDICTS)[name]}
        panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=colour)])


#: The names that a label takes as a legend.
LABELS = {
    "headrace:bottleneck": list(VERDICTS),
    "sum by (role)": ["actor", "learner", "paramserver", "evaluator"],
    "max by (role)": ["actor", "learner", "paramserver", "evaluator"],
    "headrace:loop_part": ["actors", "learner", "weights", "carrier"],
    "headrace:learner_phase": ["wait", "assemble", "update", "publish", "checkpoint"],
    "headrace:actor_phase": ["env", "policy", "lease", "put"],
}


def _names(targets: Sequence[tuple[str, str]]) -> list[str]:
    """Those of the series of ``targets`` that have a colour of their own."""
    legends = [legend for _, legend in targets if legend in COLOURS]
    return legends + [name for metric, names in LABELS.items() for name in names if targets[0][0].startswith(metric)]


def _steps(steps: Steps) -> dashboards.ThresholdsConfig:
    return dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(
        [models.Threshold(value=value, color=colour) for value, colour in steps]
    )  # fmt: skip
