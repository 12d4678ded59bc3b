"""The four fates of a setting, and the check that no value is lost in silence.

A field of TRL's or PEFT's configs is passed on, honoured in another place, refused with the setting to use instead, or
of no effect by nature. The tables (`client_settings.py`, `base_settings.py`, `adapter_settings.py`) know every field
of the installed versions; one that they do not know, of a newer version, is refused where it is set. Imports no torch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["Elsewhere", "Fate", "NoEffect", "Passed", "Refused", "check_fates", "differs"]


@dataclass(frozen=True)
class Passed:
    """The trainer or the adapter that clients train with holds the value as it was given."""


@dataclass(frozen=True)
class Elsewhere:
    """The value is honoured by other means than TRL's or PEFT's."""

    where: str


@dataclass(frozen=True)
class Refused:
    """A value other than the default could not be honoured."""

    instead: str
    """What to do instead; the end of a sentence."""
    kept: tuple[Any, ...] = ()
    """Values that a federated run has anyway, or that mean the same there."""
    is_secret: bool = False
    """Whether the value must not be shown."""


@dataclass(frozen=True)
class NoEffect:
    """On one device TRL and PEFT do the same whatever the value."""

    why: str


Fate = Passed | Elsewhere | Refused | NoEffect


def check_fates(
    config: Any, fates: Mapping[str, Fate], *, default: Any, given: Collection[str] = (), flag: str = ""
) -> None:
    """Refuse what cannot be honoured.

    Args:
        config: a dataclass.
        fates: the fate of each field.
        default: a dataclass of the same type, or of the type that the table is for, with nothing set.
        given: fields that were set explicitly, even to the default; from Python it is empty, since nothing tells, and
            a value that equals the default passes.
        flag: the prefix of a field's name on a command line.

    Raises:
        ConfigError: naming field and value, and what to use instead.

    >>> from dataclasses import make_dataclass
    >>> Config = make_dataclass("Config", [("steps", int, 5)])
    >>> check_fates(Config(steps=6), {"steps": Refused("use local_steps")}, default=Config())
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: steps=6 cannot be honoured in a federated run; use local_steps
    """
    for each in fields(default):  # what a subclass adds is its own
        value, fate = getattr(config, each.name), fates.get(each.name)
        is_given = each.name in given or differs(value, getattr(default, each.name))
        if not is_given or not (fate is None or isinstance(fate, Refused)):
            continue
        if fate is None:
            raise ConfigError(
                f"{flag}{each.name}={value!r} is a setting of a newer {type(config).__name__}, and nobody has looked "
                "at what it would do to a federated run; leave it out"
            )
        if not any(not differs(value, kept) for kept in fate.kept):
            shown = f"{flag}{each.name} is given and" if fate.is_secret else f"{flag}{each.name}={_plain(value)!r}"
            raise ConfigError(f"{shown} cannot be honoured in a federated run; {fate.instead}")


def differs(value: Any, default: Any) -> bool:
    """Return whether a value differs from a default; enums equal their values, and all empty values are equal.

    >>> differs([], None), differs("no", "steps"), differs(0, False)
    (False, True, False)
    """
    value, default = _plain(value), _plain(default)
    if not value and not default:  # TRL fills some defaults of None in with False, [] or {}
        return False
    return bool(value != default)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
