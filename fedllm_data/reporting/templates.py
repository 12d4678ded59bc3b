"""The Jinja environment of all pages: how numbers, chance and text from data are shown. It draws nothing.

Every page of the three packages looks like the heterogeneity report, whose templates and styles it finds here.
"""

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fedllm_data.reporting.fact_lines import plain_facts
from fedllm_data.reporting.null_scale import own_strip
from fedllm_data.reporting.numbers import format_chance, format_number
from fedllm_data.reporting.report_words import VERDICT_WORDS, distance_words, method_words, visible
from fedllm_data.wording import forms
from fedllm_data.wording.catalogue import catalogue_of, language_now, plural_words, words
from fedllm_data.wording.glossary import glossary
from fedllm_data.wording.recorded import again, is_known

__all__ = ["page_environment"]

MAX_TEXT_CHARS = 5000


def page_environment() -> Environment:
    """Return the environment of the pages, with the filters and functions that templates call.

    >>> page_environment().from_string("{{ '<b>' }} {{ 0.12345|number }}").render()
    '&lt;b&gt; 0.123'
    """
    environment = Environment(
        loader=PackageLoader("fedllm_data", "reporting"),
        autoescape=True,
        finalize=_seen,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    # `{% trans %}` calls these two; unlike Jinja's own they show what hides in a value.
    environment.newstyle_gettext = True  # type: ignore[attr-defined]
    filters: dict[str, Callable[..., Any]] = {
        "number": lambda value: _minus(format_number(value)),
        "place": lambda position: f"{position:.1f}",
        "tick": lambda tick: (f"{tick // 1000}k" if tick >= 1000 else str(tick)).replace("-", "−"),
        "strip": own_strip,
        "plain_facts": plain_facts,
        "anchor": lambda name: re.sub(r"[^a-z0-9-]+", "-", name.lower()),
        "cell": lambda value: "–" if value is None else f"{value:,}",
        "again": _again,
        "plainly": again,
        "percent": forms.percent,
        "listed": forms.listed,
        "keep": lambda text: text.replace(" %", "\u00a0%"),
        "bytes": forms.bytes_text,
    }
    environment.filters |= filters
    environment.globals |= {
        "chance": lambda mean, std: _minus(format_chance(mean, std)),
        "distance_words": distance_words,
        "method_words": method_words,
        "verdict_words": VERDICT_WORDS,
        "gettext": _gettext,
        "ngettext": _ngettext,
        "words": words,
        "plural_words": plural_words,
        "interval_text": forms.interval_text,
        "glossary": glossary,
        "language": language_now,
        "bdi": lambda name: Markup("<bdi>{}</bdi>").format(_seen(name)),
    }
    return environment


def _gettext(message: str, /, **values: Any) -> Markup:
    return _filled(catalogue_of(language_now()).gettext(message), values)


def _ngettext(one: str, many: str, num: int, /, **values: Any) -> Markup:
    return _filled(catalogue_of(language_now()).ngettext(one, many, num), values)


def _filled(message: str, values: dict[str, Any]) -> Markup:
    return Markup(message) % {name: escape(_seen(value)) for name, value in values.items()}


def _again(text: str) -> Any:
    """A text that a file holds in English, in the language of the page; marked as English where nobody knows it."""
    if not text or is_known(text):
        return again(text)
    return Markup('<span lang="en">{}</span>').format(visible(text, MAX_TEXT_CHARS))


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _seen(value: Any) -> Any:
    # Whatever text reaches a page: no letter of it hides or turns the line around.
    return visible(value, MAX_TEXT_CHARS) if isinstance(value, str) and not isinstance(value, Markup) else value
