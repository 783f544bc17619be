"""headrace config: every setting is explained, its value is what a file would say, and the page is current."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from headrace.algorithms import ALGORITHMS
from headrace.launch.attribute_docs import attribute_docs
from headrace.launch.cli import main
from headrace.launch.config import Config
from headrace.launch.load import load, presets
from headrace.launch.settings import about, as_toml, in_words, settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
MAKE = "headrace config --markdown > docs/configuration.md"


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_setting_is_explained(algorithm: str) -> None:
    config = load({}, [f"algorithm.name={algorithm}"])
    found = settings(config)
    assert {setting.key.partition(".")[0] for setting in found} == set(Config.model_fields)
    for setting in found:
        assert len(setting.explanation) > 5, f"{setting.key}: put a docstring under the field"
        assert setting.explanation.endswith((".", ")")), setting
        assert setting.kind, setting
    assert all(about(section, config) for section in Config.model_fields)


@pytest.mark.parametrize("preset", sorted(presets()))
def test_values_are_written_as_a_file_has_them(preset: str) -> None:
    table = load(preset).model_dump(mode="json")
    found = {setting.key: setting for setting in settings(load(preset))}
    assert len(found) > 60
    for key, setting in found.items():
        section, _, name = key.partition(".")
        assert setting.value == table[section].get(name)
        if setting.value is not None:
            assert tomllib.loads(f"v = {as_toml(setting.value)}")["v"] == setting.value


def test_the_page_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8"), f"run: {MAKE}"
    assert MAKE in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1}, "integer >= 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "number > 0 and <= 0.5"),
        ({"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}, "path"),
        ({"enum": ["a", "b"], "type": "string"}, '"a" or "b"'),
        ({"const": "a", "type": "string"}, '"a"'),
        ({"type": "array", "items": {"type": "integer", "minimum": 1}}, "list of (integer >= 1)"),
        ({"type": "array", "items": {"type": "string"}}, "list of text"),
        ({"type": "string", "pattern": "^x$"}, "text that matches `^x$`"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "integer", "minimum": 1 << 20}, "integer >= 1_048_576"),
        ({}, "value"),
    ],
)
def test_ranges_are_told_in_words(schema: dict[str, object], words: str) -> None:
    assert in_words(schema) == words


class Base:
    a: int = 1
    """Of the base,
    in two lines."""
    b: int = 2
    """Of b."""


class Derived(Base):
    a: int = 3
    b: int = 4
    """Said anew."""
    c: int = 5
    """Its own."""

    def method(self) -> None:
        """Of no field."""


def test_docstrings_are_inherited_and_said_anew() -> None:
    assert attribute_docs(Derived) == {"a": "Of the base, in two lines.", "b": "Said anew.", "c": "Its own."}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_a_key_of_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "lunarlander-ppo", "gae_lambda", "--set", "algorithm.gae_lambda=0.9"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "algorithm.gae_lambda = 0.9"
    said = "number >= 0 and <= 1 (default 0.95). Lambda of the generalised advantage estimate."
    assert second.strip() == said
    assert main(["config", "weights", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {setting["key"].partition(".")[0] for setting in found} == {"weights"}
    ttl = next(setting for setting in found if setting["key"] == "weights.lease_ttl_s")
    assert (ttl["value"], ttl["default"], ttl["kind"]) == (3.5, 3.5, "number > 1")


def test_the_whole_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "pendulum-sac"]) == 0
    out = capsys.readouterr().out
    assert "[run]  How long, from which seed, and what is kept of it.\n" in out
    assert "run.total_steps = 20_000\n" in out
    assert 'algorithm.activation = "relu"\n    "tanh" or "relu". Of an MLP; of the critics in any case.\n' in out
    assert max(map(len, out.splitlines())) <= 110


def test_an_algorithm_of_ones_own_is_explained_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "explained_ppo.py").write_text(
        "from dataclasses import dataclass\nfrom headrace.algorithms import ppo\n"
        "from headrace.algorithms.ppo import PPO, policy, schema\n\n\n"
        '@dataclass(frozen=True)\nclass Config(ppo.Config):\n    """Mine."""\n\n'
        '    warmth: float = 0.5\n    """How warm."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    for words in (["warmth"], ["cartpole-ppo", "warmth"]):
        assert main(["config", *words, "--set", "algorithm.name=explained_ppo:PPO"]) == 0
        assert capsys.readouterr().out == "algorithm.warmth = 0.5\n    number. How warm.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run.sede"], "'run.sede' is no preset, no file and no key; did you mean 'run.seed'?"),
        (["cartpole-pppo"], "did you mean 'cartpole-ppo'?"),
        (["grid:Nope"], "'grid:Nope' is no preset, no file and no key; `headrace config` lists them"),
        (["cartpole-ppo", "zzz"], "there is no key 'zzz'; `headrace config` lists them"),
        (["gama"], "did you mean 'gamma'?"),
        (["cartpole-ppo", "gea_lambda"], "there is no key 'gea_lambda'; did you mean 'gae_lambda'?"),
        (["cartpole-ppo", "tau"], "tau is no setting of this algorithm; ask with --set algorithm.name=dqn or "),
        (["cartpole-ppo", "run.seed", "more"], "too many words ('more')"),
        (["cartpole-poo", "run.seed"], "neither a preset nor a file; did you mean 'cartpole-ppo'"),
        (["cartpole-ppo", "--markdown"], "leave the other words out"),
    ],
)
def test_an_unknown_key_is_one_line_with_what_is_near(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
