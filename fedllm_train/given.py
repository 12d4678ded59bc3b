"""Which settings were given explicitly, even with their default: only then can one that nothing reads be refused.

A config remembers the names it was made with (`records_given`). A command line and a file name theirs; what a preset
sets does not count as given. A call that names every field is a copy (`dataclasses.replace`): what differs from the
default counts then. Imports no torch.
"""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from fedllm_train.flag_names import name_of

__all__ = ["flat_fields", "given_flags", "given_of", "records_given", "with_given"]

Config = TypeVar("Config")
_NAMES = "_given_names"


def records_given(
    config_class: type[Config], *, prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> type[Config]:
    """Let the objects of a frozen dataclass remember which names they were made with.

    Args:
        config_class: the dataclass, changed in place.
        prepare: called with what an object is made with, returns the dataclass's own fields.

    >>> from dataclasses import dataclass, replace
    >>> @records_given
    ... @dataclass(frozen=True, kw_only=True)
    ... class Settings:
    ...     steps: int = 10
    ...     rounds: int = 3
    >>> sorted(given_of(Settings(steps=10))), sorted(given_of(replace(Settings(steps=10), rounds=5)))
    (['steps'], ['rounds'])
    """
    make = config_class.__init__

    @functools.wraps(make)
    def remember(self: Any, *unnamed: Any, **named: Any) -> None:
        is_copy = all(each.name in named for each in fields(config_class))  # type: ignore[arg-type]
        object.__setattr__(self, _NAMES, frozenset() if is_copy else frozenset(named))
        make(self, *unnamed, **prepare(named))

    config_class.__init__ = remember  # type: ignore[method-assign]
    return config_class


def given_of(config: Any) -> frozenset[str]:
    """Return the fields that were set, or that differ from their default; a field that is None counts as left out."""
    named = getattr(config, _NAMES, frozenset())
    return frozenset(
        each.name
        for each in flat_fields(config)
        if (value := getattr(config, each.name)) is not None and (each.name in named or value != each.default)
    )


def flat_fields(config: Any) -> list[Field[Any]]:
    """Return the fields of a config, with the fields of the method's settings instead of `method`."""
    own = [each for each in fields(config) if each.name != "method"]
    method = getattr(config, "method", None)
    return own if method is None else [*own, *fields(method)]


def with_given(config: Config, names: Collection[str], **changes: Any) -> Config:
    """Return a copy, with some changes, that remembers these names and what differs from its default as given."""
    changed = {
        each.name: getattr(config, each.name)
        for each in flat_fields(config)
        if each.name in names or each.default is MISSING or getattr(config, each.name) != each.default
    }
    return type(config)(**(changed | changes))


def given_flags(argv: Sequence[str]) -> frozenset[str]:
    """Return the names of the flags on a command line, as fields are called; `--no_x` also names x.

    >>> sorted(given_flags(["--lora-r", "8", "--seed=3", "--no_packing", "-1"]))
    ['lora_r', 'no_packing', 'packing', 'seed']
    """
    names = {name_of(flag) for flag in argv if flag.startswith("--")}
    return frozenset(names | {name.removeprefix("no_") for name in names})
