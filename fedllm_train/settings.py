"""What all settings have in common: they live with what they set, and each owner checks its own.

A group of settings is a frozen dataclass beside the code that reads it, with one sentence of help for each field. The
groups of the federation are joined in `config.py`; a method's group is in the method's file (`Strategy.Settings`).
Names are unique over all groups, so that flags and YAML keys are flat. Imports no torch.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

from fedllm_data.errors import ConfigError
from fedllm_train.field_types import plain_value

__all__ = ["NoSettings", "Settings", "check_at_least_one", "part_of"]


Group = TypeVar("Group", bound="Settings")


class Settings:
    """Base of a group of settings, to be made a frozen dataclass with fields by keyword only."""

    def __post_init__(self) -> None:
        """Make values plain, then let every group that this one is joined from check its own.

        Raises:
            ConfigError: naming the setting, its value and what to do.
        """
        for name, hint in get_type_hints(type(self)).items():
            if hint is not Any:
                object.__setattr__(self, name, plain_value(name, getattr(self, name), hint))
        for owner in reversed(type(self).__mro__):
            if check := vars(owner).get("check"):
                check(self)
        for each in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, each.name), float) and not math.isfinite(value):
                raise ConfigError(f"{each.name} is {value}; it must be a finite number")


@dataclass(frozen=True, kw_only=True)
class NoSettings(Settings):
    """The settings of a method that has none."""


def check_at_least_one(settings: Any, *names: str) -> None:
    """Refuse counts below one; None means not given and passes.

    Raises:
        ConfigError: naming the first such count.
    """
    for name in names:
        if (value := getattr(settings, name)) is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")


def part_of(kind: type[Group], settings: Any) -> Group:
    """Return one group alone of settings that were joined from several.

    Args:
        kind: the group.
        settings: settings joined from it and others.
    """
    return kind(**{each.name: getattr(settings, each.name) for each in fields(kind)})  # type: ignore[arg-type]
