"""The report's page and table: what a config holds is text there, nothing is loaded, every figure has its verdict."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from headrace.observe.report import pictures, table
from headrace.observe.report.findings import Findings, Seed
from headrace.observe.report.page import render

from .reported import HOSTILE, findings


class Tags(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render(findings())


def test_whatever_a_config_says_is_text() -> None:
    page = Tags(render(findings(word=HOSTILE)))
    kinds = {tag for tag, _ in page.tags}
    assert "script" not in kinds
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 6


def test_nothing_is_loaded(page: str) -> None:
    addresses = [value or "" for _, attributes in Tags(page).tags for name, value in attributes.items()
                 if name in ("src", "srcset", "href", "data", "action")]  # fmt: skip
    assert len(addresses) == 6, "three pictures, each for a light and a dark page"
    for address in addresses:
        kind, _, content = address.partition(",")
        assert kind == "data:image/svg+xml;base64"
        drawing = ElementTree.fromstring(base64.b64decode(content))
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        links = [value for part in drawing.iter() for name, value in part.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)
    assert not re.search(r"@import|url\(", page)


def test_every_figure_stands_with_target_and_verdict(page: str) -> None:
    cards = [attributes for tag, attributes in Tags(page).tags if (attributes.get("class") or "").startswith("card ")]
    assert {card["id"]: card["class"] for card in cards} == {
        "steps_to_target": "card reached",
        "reward_per_sample": "card reached",
        "spread_over_seeds": "card reached",
        "steps_to_adapt": "card reached",
    }
    alone = Tags(render(findings(seeds=1, adapted=False)))
    assert {a["id"]: a["class"] for _, a in alone.tags if (a.get("class") or "").startswith("card ")} == {
        "steps_to_target": "card reached",
        "reward_per_sample": "card reached",
        "spread_over_seeds": "card unknown",
        "steps_to_adapt": "card unknown",
    }


def test_the_same_findings_are_the_same_picture() -> None:
    assert pictures.curves(findings(), pictures.DARK) == pictures.curves(findings(), pictures.DARK)


def test_the_table_says_the_same_and_what_it_rests_on() -> None:
    said = io.StringIO()
    table.show(findings(), said)
    lines = [line.strip() for line in said.getvalue().splitlines()]
    assert lines[0] == "PPO on CartPole-v1, 2 seeds (0, 1)"
    (steps,) = [line for line in lines if line.startswith("Environment steps to the target")]
    assert re.split(r"\s{2,}", steps)[1:] == ["30,000", "≤ 50,000", "reached", "2 of 2 seeds got there"]
    (adapt,) = [line for line in lines if line.startswith("Environment steps to adapt")]
    assert re.split(r"\s{2,}", adapt)[1:4] == ["512", "≤ 1,000", "reached"]
    assert "judged by greedy evaluation during training (seed 0, 1)" in lines


@pytest.mark.parametrize("word", ["[bold red]x", "$\\frac{"])
def test_no_word_is_taken_for_a_style(word: str) -> None:
    said = io.StringIO()
    table.show(findings(word=word), said)
    assert said.getvalue().startswith(f"PPO on {word}, ")


def test_what_actors_report_is_never_shown_as_anything_else() -> None:
    said, told = io.StringIO(), findings(source="training", adapted=False)
    table.show(told, said)
    assert "judged by what actors report, not by greedy evaluation" in said.getvalue()
    assert "NOT a greedy evaluation" in Tags(render(told)).text
    assert "by what actors report" in told.to_json()["figures"][1]["note"]


def test_a_figure_that_is_never_reached_is_null_and_missed() -> None:
    never = findings()
    seeds = tuple(Seed(s.run_dir, s.seed, s.source, s.curve[:2], 100_000, 100_000, 100.0) for s in never.seeds)
    steps, *_ = Findings(**{**{k: getattr(never, k) for k in never.__dataclass_fields__}, "seeds": seeds}).figures()
    assert (steps.to_json()["value"], steps.verdict, steps.shown(steps.value)) == (None, "missed", "never")
