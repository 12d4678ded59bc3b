"""How a corpus is built: all that decides what a client repo holds, beside the corpus itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.pipeline.filters import check_filters
from fedllm_data.source import Filters, Source

__all__ = ["UNFILTERED_OPTION", "BuildSettings", "resolve_settings"]

UNFILTERED_OPTION = "unfiltered"
"""A source that filters on its own lists this option; `BuildSettings(unfiltered=True)` sets it to "true"."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Settings of one build; equal settings and versions give a byte-identical folder."""

    source_path: Path | None = None
    """A local copy of the corpus, for sources that can read one."""
    source_files: tuple[Path, ...] = ()
    """Files that the source reads on its own account, for the record."""
    seed: int = 0
    """Decides the splits, and what generated sources generate."""
    filters: Filters | None = None
    """What to leave out; None takes the source's preset."""
    unfiltered: bool = False
    """Keep every client and every valid row, exact duplicates and pairs of equal texts included."""
    salt: bytes | None = None
    """Replaces client ids by keyed hashes (see `pipeline/salt.py`); some sources demand it."""
    scrub: bool = False
    """Replace e-mail addresses, phone numbers, IP addresses and keys in the texts by placeholders."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The source's own options."""
    overwrite: bool = False
    """Replace a folder made here that holds another dataset, a report, or files beside the repo's own."""
    memory_limit: str = "256MB"
    """What DuckDB may hold before it spills to disk (tried with 1.6 GB of text)."""


def resolve_settings(source: Source, settings: BuildSettings, **single: Any) -> tuple[BuildSettings, Filters]:
    """Return settings with single ones replaced, and the filters that follow from them.

    Args:
        source: the corpus, whose options and preset filters they are checked against.
        settings: the settings.
        single: fields of `BuildSettings` that replace those of `settings`.

    Raises:
        ConfigError: if an option is unknown, settings contradict one another, or a salt is missing.

    >>> from fedllm_data.sources import SOURCES
    >>> resolve_settings(SOURCES["fed-synth"], BuildSettings(), options={"num_clints": "9"})
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: fed-synth has no option 'num_clints'; did you mean num_clients? its options ...
    """
    settings = replace(settings, **single)
    options = dict(settings.options or {})
    unknown = sorted(set(options) - set(source.options))
    if unknown:
        known = ", ".join(source.options) or "none"
        hint = did_you_mean(unknown[0], source.options)
        raise ConfigError(f"{source.name} has no option {unknown[0]!r}; {hint}its options are: {known}")
    if source.ids_must_be_hashed and settings.salt is None:
        raise ConfigError(
            f"the client ids of {source.name} must not be published as they are; give --salt-file FILE "
            "(it is made where it does not exist; keep it secret, and keep it for the next release)"
        )
    if settings.unfiltered:
        if settings.filters is not None:
            raise ConfigError("unfiltered keeps every client and every row: leave out min_rows and the other filters")
        if UNFILTERED_OPTION in source.options:
            options.setdefault(UNFILTERED_OPTION, "true")
        filters = Filters.none()
    else:
        filters = source.filters if settings.filters is None else settings.filters
        check_filters(filters)
    return replace(settings, options=options, source_files=tuple(settings.source_files)), filters
