"""headrace config: every setting with its value in a preset or file (or its default), what it may be, what it is for.

headrace config                              the defaults
headrace config lunarlander-ppo              what a preset makes of them
headrace config lunarlander-ppo gae_lambda   one key, or all of a section
headrace config --markdown > docs/configuration.md
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from headrace.algorithms import ALGORITHMS, nearest
from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.launch.load import load, presets
from headrace.launch.roles import add_config_arguments
from headrace.launch.settings import Setting, about, as_toml, named, settings

_WIDEST_COLUMNS = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="[PRESET|FILE] [KEY]", help="whose values (else the defaults); which key or section"
    )
    add_config_arguments(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON")
    shape.add_argument("--markdown", action="store_true", help="print the page docs/configuration.md")


def run(args: argparse.Namespace) -> int:
    if args.markdown:
        if args.words or args.overrides:
            raise UsageError("config --markdown: is of all settings and their defaults; leave the other words out")
        print(_page())
        return 0
    preset, key = _preset_and_key(args.words, args.overrides)
    config = load({} if preset is None else preset, args.overrides)
    found = settings(config)
    if key is not None:
        found = _matching(found, key)
    if args.json:
        print(json.dumps([asdict(setting) for setting in found], indent=2))
    else:
        print("\n".join(_lines(found, config, whole=key is None)))
    return 0


def _preset_and_key(words: Sequence[str], overrides: Sequence[str]) -> tuple[str | None, str | None]:
    """Which word is which: a single one is a preset or file if there is one of that name, else a key."""
    if len(words) > 2:
        raise UsageError(f"config: too many words ({words[2]!r}); say headrace config [PRESET|FILE] [KEY]")
    if len(words) == 2:
        return words[0], words[1]
    if not words:
        return None, None
    (word,) = words
    if word in presets() or os.path.isfile(word):
        return word, None
    known = settings(load({}, overrides))
    if word in Config.model_fields or named(word) or any(word in _both(setting) for setting in known):
        return None, word
    near = nearest(word, [*presets(), *_words(known)], "`headrace config`")
    raise UsageError(f"config: {word!r} is no preset, no file and no key{near}")


def _matching(found: Sequence[Setting], key: str) -> list[Setting]:
    """Those of a section, or of the name ``section.key`` or ``key``. Raises :class:`UsageError` where there is none."""
    chosen = [s for s in found if key == s.key.partition(".")[0] or key in _both(s)]
    if chosen:
        return chosen
    if elsewhere := [name for name in ALGORITHMS if any(key in _both(s) for s in settings(_of(name)))]:
        known = " or ".join(f"--set algorithm.name={name}" for name in elsewhere)
        raise UsageError(f"config: {key} is no setting of this algorithm; ask with {known}")
    raise UsageError(f"config: there is no key {key!r}{nearest(key, _words(found), '`headrace config`')}")


def _both(setting: Setting) -> tuple[str, str]:
    return setting.key, setting.key.partition(".")[2]


def _words(found: Sequence[Setting]) -> list[str]:
    """Keys with and without their sections: whoever mistypes one writes either."""
    return sorted({word for setting in found for word in _both(setting)})


def _of(algorithm: str) -> Config:
    return load({}, [f"algorithm.name={algorithm}"])


# --- for people -------------------------------------------------------------------------------------------------------


def _lines(found: Sequence[Setting], config: Config, whole: bool) -> Iterator[str]:
    """The key and its value as a file would have them, then what it may be, then what it is for."""
    width = min(shutil.get_terminal_size().columns, _WIDEST_COLUMNS)
    for section, inside in groupby(found, lambda setting: setting.key.partition(".")[0]):
        if whole:
            yield textwrap.fill(f"[{section}]  {about(section, config)}", width) + "\n"
        for setting in inside:
            yield f"{setting.key} = {as_toml(setting.value)}"
            changed = f" (default {as_toml(setting.default)})" if setting.value != setting.default else ""
            said = f"{setting.kind}{changed}. {setting.explanation}".replace("``", "`")
            yield textwrap.indent(textwrap.fill(said, width - 4, break_on_hyphens=False), "    ")
        if whole:
            yield ""


def _page() -> str:
    config = load({})
    head = """# Configuration

Every setting: in a file (`headrace train my.toml`) as a table of TOML, or one by one, `--set section.key=value`.
`headrace config PRESET` prints the values of a preset, `headrace config KEY` one of them. Made by
`headrace config --markdown > docs/configuration.md`."""
    parts = [head]
    for section in Config.model_fields:
        inside = [s for s in settings(config) if s.key.startswith(f"{section}.")]
        if section != "algorithm":
            parts.append(f"## {section}\n\n{about(section, config)}\n\n{_table(inside)}")
            continue
        parts.append(f"## algorithm\n\n{_table(inside[:1])}")
        for name in sorted(ALGORITHMS):
            own = [s for s in settings(_of(name)) if s.key.startswith("algorithm.")][1:]
            parts.append(f"### {name}\n\n{about('algorithm', _of(name))}\n\n{_table(own)}")
    return "\n\n".join(parts)


def _table(found: Sequence[Setting]) -> str:
    lines = ["| key | default | may be | what it is |", "|---|---|---|---|"]
    for s in found:
        default = "" if s.default is None else f"`{as_toml(s.default)}`"
        cells = (f"`{s.key}`", default, s.kind, s.explanation.replace("<", "&lt;"))
        escaped = (cell.replace("|", r"\|") for cell in cells)
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)
