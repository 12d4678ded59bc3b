"""The Jinja environment of all pages: how numbers, chance and text from data are shown. It draws nothing.

Every page of the three packages looks like the heterogeneity report, whose templates and styles it finds here.
"""

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedllm_data.reporting.fact_lines import plain_facts
from fedllm_data.reporting.null_scale import own_strip
from fedllm_data.reporting.numbers import format_chance, format_number
from fedllm_data.reporting.report_words import VERDICT_WORDS, distance_words, method_words, visible

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
    )
    filters: dict[str, Callable[..., Any]] = {
        "number": lambda value: _minus(format_number(value)),
        "place": lambda position: f"{position:.1f}",
        "tick": lambda tick: (f"{tick // 1000}k" if tick >= 1000 else str(tick)).replace("-", "−"),
        "strip": own_strip,
        "plain_facts": plain_facts,
        "anchor": lambda name: re.sub(r"[^a-z0-9-]+", "-", name.lower()),
        "cell": lambda value: "–" if value is None else f"{value:,}",
    }
    environment.filters |= filters
    environment.globals |= {
        "chance": lambda mean, std: _minus(format_chance(mean, std)),
        "distance_words": distance_words,
        "method_words": method_words,
        "verdict_words": VERDICT_WORDS,
    }
    return environment


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _seen(value: Any) -> Any:
    # Whatever text reaches a page: no letter of it hides or turns the line around.
    return visible(value, MAX_TEXT_CHARS) if isinstance(value, str) and not isinstance(value, Markup) else value
