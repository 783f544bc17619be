"""Generate deploy/grafana/dashboards/headrace.json, with Grafana's own foundation SDK.

    make dashboards                 (python deploy/grafana/generate.py [--out FILE])

The SDK writes what Grafana 11.6 and later read; it does not validate. tests/dashboards does, against real answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from learning_rows import algorithm, balance, episodes, overview, staleness
from panels import SOURCE
from system_rows import carrier, checkpoints, errors, machine, weights

#: Heading -> its panels, from top to bottom.
ROWS = {
    "Is it learning, how fast, and what holds it up?": overview,
    "Is the pipeline in balance?": balance,
    "Staleness: how far off-policy": staleness,
    "The algorithm's own figures": algorithm,
    "Episodes": episodes,
    "Weights and leases": weights,
    "Carrier: Kafka or local": carrier,
    "Machine and GPU": machine,
    "Errors and recoveries": errors,
    "Checkpoints": checkpoints,
}
FILE = Path(__file__).resolve().parent / "dashboards" / "headrace.json"


def generate() -> str:
    """The dashboard as Grafana's JSON."""
    board = (
        dashboards.Dashboard("Headrace")
        .uid("headrace")
        .description("One training run: is it learning, how fast, what holds it up, and is everything well?")
        .tags(["headrace", "reinforcement-learning"])
        .readonly()
        .time("now-30m", "now")
        .refresh("10s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .timezone("browser")
        .with_variable(_source())
        .with_variable(_run())
    )
    for heading, panels in ROWS.items():
        board.with_row(dashboards.Row(heading))
        for panel in panels():
            board.with_panel(panel)
    built = board.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number  # the SDK leaves them to Grafana, whose numbers would differ from one import to the next
    return str(JSONEncoder(sort_keys=True, indent=2).encode(built)) + "\n"


def _source() -> dashboards.DatasourceVariable:
    return (
        dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus")
        .current(models.VariableOption(selected=True, text="Prometheus", value="prometheus"))
    )  # fmt: skip


def _run() -> dashboards.QueryVariable:
    """Runs that share a Prometheus have a label of that name on their targets; All also means those without one."""
    return (
        dashboards.QueryVariable("run").label("Run").datasource(SOURCE).query("label_values(headrace_role_info, run)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True).include_all(True).all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE")
    parser.parse_args().out.write_text(generate())


if __name__ == "__main__":
    main()
