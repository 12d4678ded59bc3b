"""What `fedllm-data list` prints: every corpus with its client, task, licence, known sizes and how to build it.

A corpus takes a few lines of at most 100 columns; with its name, `list` shows all that is known of it.
"""

import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fedllm_data.cards.card_words import filter_words, obligation_words
from fedllm_data.source import Source

__all__ = ["corpora_json", "corpora_lines", "corpus_lines", "how_to_build"]

_WIDTH = 100


def corpora_lines(sources: Iterable[Source]) -> list[str]:
    """Return the overview of `fedllm-data list`.

    Args:
        sources: the corpora, in the order to show them.

    >>> from fedllm_data.sources import SOURCES
    >>> for line in corpora_lines([SOURCES["fed-synth-pa"]])[:2]:
    ...     print(line)
    name                      task        licence
    fed-synth-pa              preference  cc0-1.0
    """
    lines = [_row("name", "task", "licence")]
    for source in sources:
        lines.append(_row(source.name, source.task, source.licence))
        lines += _wrapped("    client  ", source.client)
        lines += _wrapped("    from    ", _origin(source))
        for size in source.sizes:
            counts = f"    size    {_number(size.num_clients):>9} clients {_number(size.num_rows):>11} rows  "
            lines += _wrapped(counts, size.of)
    return [
        *lines,
        "",
        *_wrapped("", "All of one corpus, its options, terms, sizes and limits: fedllm-data list NAME"),
    ]


def corpus_lines(source: Source) -> list[str]:
    """Return all that is known of one corpus, for `fedllm-data list NAME`.

    Args:
        source: the corpus.

    >>> from fedllm_data.sources import SOURCES
    >>> corpus_lines(SOURCES["fed-oasst"])[0]
    'fed-oasst (sft)'
    """
    lines = [f"{source.name} ({source.task})", "", *_wrapped("", source.summary), ""]
    fields = {
        "client": source.client,
        "from": _origin(source),
        "licence": f"{source.licence or 'not stated'} {source.licence_url}".strip(),
        "asks for": obligation_words(source.licence),
        "terms": source.terms,
        "gated": source.gate,
        "credit": source.attribution,
        "reasons": source.filter_reasons,
    }
    for name, text in fields.items():
        lines += _wrapped(f"{name + ':':<10}", text) if text else []
    lists = {
        "left out unless flags say otherwise": filter_words(asdict(source.filters)),
        "sizes known": [
            f"{_number(size.num_clients)} clients, {_number(size.num_rows)} rows: {size.of} ({size.reference})"
            for size in source.sizes
        ],
        "options": [f"--set {name}=...: {meaning}" for name, meaning in source.options.items()],
        "limits": source.limits,
    }
    for title, items in lists.items():
        lines += ["", f"{title}:"] if items else []
        for item in items:
            lines += _wrapped("  - ", item)
    return [*lines, "", "build it with:", f"  {how_to_build(source)}"]


def corpora_json(sources: Iterable[Source]) -> list[dict[str, Any]]:
    """Return what `fedllm-data list --json` prints: all fields of every corpus, but the function that reads it.

    Args:
        sources: the corpora.

    >>> from fedllm_data.sources import SOURCES
    >>> corpora_json([SOURCES["fed-oasst"]])[0]["build"]
    'fedllm-data build fed-oasst --out DIR'
    """
    return [
        {
            **{
                name: value
                for name, value in vars(source).items()
                if name not in ("read", "filters", "sizes", "limits")
            },
            "filters": {**asdict(source.filters), "languages": list(source.filters.languages)},
            "sizes": [asdict(size) for size in source.sizes],
            "limits": list(source.limits),
            "is_non_commercial": source.is_non_commercial,
            "streams_from_hub": "hub_id" in source.options,
            "build": how_to_build(source),
        }
        for source in sources
    ]


def how_to_build(source: Source) -> str:
    """Return the shortest command that builds a corpus.

    Args:
        source: the corpus.

    >>> from fedllm_data.sources import SOURCES
    >>> how_to_build(SOURCES["fed-synth"])
    'fedllm-data build fed-synth --out DIR'
    """
    is_local = source.upstream != "generated" and "hub_id" not in source.options
    flags = [*(["--source FILE_OR_DIR"] if is_local else []), *(["--salt-file FILE"] * source.ids_must_be_hashed)]
    return " ".join(["fedllm-data build", source.name, *flags, "--out DIR"])


def _origin(source: Source) -> str:
    """Where the rows are read from, and what a build needs for that."""
    if source.upstream == "generated":
        return "generated here"
    salt = "; needs --salt-file" if source.ids_must_be_hashed else ""
    gate = "; published behind a gate" if source.gate else ""
    if "hub_id" not in source.options:
        return f"files of {source.upstream}: needs --source{salt}{gate}"
    pinned = source.revision[:7] if len(source.revision) == 40 else source.revision
    return f"the Hub, {source.upstream} at {pinned}, or --source{salt}{gate}"


def _row(name: str, task: str, licence: str) -> str:
    return f"{name:<26}{task:<12}{licence}"


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        _WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _number(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
