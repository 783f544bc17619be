"""A report as one HTML file that loads nothing: no script, no font, no address; light or dark as its reader has it.

Whatever comes from a config or a run directory is escaped by the template engine (page.html), and the pictures are SVG
in data addresses, where a browser runs nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib import resources
from typing import Any

from headrace.observe.report import pictures
from headrace.observe.report.findings import Findings
from headrace.observe.report.pictures import Theme
from headrace.observe.report.table import lines

#: What is seen in each picture.
_SAYS = {
    "Learning curves": "Mean return over environment steps, a line a seed.",
    "Reward per sample": "The area under each curve between the random policy (0) and the target (1); the band is one "
    "standard deviation over seeds.",
    "After the change": "Greedy return in the changed environment while training goes on in it; the diamond is the "
    "return before.",
}


def render(findings: Findings) -> str:
    """The whole page."""
    from jinja2 import Environment, StrictUndefined

    template = (resources.files("headrace.observe.report") / "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn = [
        _picture(findings, "Learning curves", pictures.curves),
        _picture(findings, "Reward per sample", pictures.scores),
    ]
    if findings.adapted:
        drawn.append(_picture(findings, "After the change", pictures.adaptation))
    return environment.from_string(template).render(
        f=findings, figures=findings.figures(), lines=lines(findings), pictures=drawn, rows=_rows(findings)
    )


def _picture(findings: Findings, title: str, draw: Callable[[Findings, Theme], bytes]) -> dict[str, str]:
    def address(theme: Theme) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(draw(findings, theme)).decode()

    return {"title": title, "says": _SAYS[title], "light": address(pictures.LIGHT), "dark": address(pictures.DARK)}


def _rows(findings: Findings) -> list[dict[str, Any]]:
    """A line for each seed, as it is shown."""
    figures = {figure.name: figure for figure in findings.figures()}
    adapt = {adapted.seed: adapted for adapted in findings.adapted}
    rows = []
    for i, seed in enumerate(findings.seeds):
        to_target, score = figures["steps_to_target"], figures["reward_per_sample"]
        after = adapt.get(seed.seed)
        rows.append({
            "seed": seed.seed,
            "run_dir": seed.run_dir,
            "source": "training returns" if seed.source == "training" else seed.source,
            "evaluations": len(seed.curve),
            "env_steps": f"{seed.env_steps:,}",
            "final": "not known" if seed.final is None else f"{seed.final:.1f}",
            "steps_to_target": to_target.shown(to_target.per_seed[i]),
            "score": score.shown(score.per_seed[i]),
            "adapt": "" if after is None else figures["steps_to_adapt"].shown(after.steps),
        })  # fmt: skip
    return rows
