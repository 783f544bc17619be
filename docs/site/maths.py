"""TeX between dollars and in blocks of ```math becomes MathML while the site is built: browsers draw it themselves,
without a script, a font or a line from elsewhere. GitHub reads the same notation."""

from __future__ import annotations

import re
import xml.etree.ElementTree as etree
from typing import Any

import latex2mathml.converter
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

#: A dollar that begins or ends a formula has no space inside and no digit behind: "$3 and $4" is money.
_INLINE = r"(?<![\\$\w])\$(?=[^\s$])([^$\n]*?[^\s\\$])\$(?![\w$])"
#: A logarithm stands apart from what it is of, which the translation forgets.
_LOG = re.compile(r"((?<!<msub>)(?<!<msup>)<mi>log</mi>)")
_BELOW_CODE = 185  # Python-Markdown's priority of `code` is 190: what stands there is no formula


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    fence = {"name": "math", "class": "math", "format": block}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    config.markdown_extensions.append(Formulas())  # type: ignore[arg-type]
    return config


def mathml(tex: str, display: str) -> str:
    """``tex`` as MathML, ``display`` "inline" or "block". Raises :class:`PluginError` for what has no translation."""
    try:
        made = latex2mathml.converter.convert(tex, display=display)
    except Exception as error:  # whatever it stumbles over: the page's line is what helps
        raise PluginError(f"no formula: {tex!r}: {type(error).__name__} {error}") from error
    if unknown := re.findall(r"\\[A-Za-z]+", made):
        raise PluginError(f"no formula: {tex!r}: unknown {', '.join(unknown)}")
    return _LOG.sub(r"\1<mspace width='0.17em' />", made)


def block(source: str, *_: Any, **__: Any) -> str:
    """What a block of ```math becomes: a formula a line, blank lines between them."""
    formulas = (mathml(" ".join(tex.split()), "block") for tex in re.split(r"\n\s*\n", source.strip()))
    return "".join(f'<div class="formula">{formula}</div>' for formula in formulas)


class Formulas(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_Inline(_INLINE, md), "formula", _BELOW_CODE)


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[etree.Element | str, int, int]:  # type: ignore[override]
        return self.md.htmlStash.store(mathml(m[1], "inline")), m.start(0), m.end(0)
