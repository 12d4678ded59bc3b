"""`--config FILE.yaml`: the settings of a command in a file, which flags on the command line override.

A key is a flag or an argument by its name, with dashes or underscores. A value stands for what the flag takes: true
for a flag without a value, a list where a flag may be repeated or takes several values, a mapping for NAME=VALUE.
Imports the standard library only, and PyYAML once there is a file.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError

__all__ = ["apply_settings", "given_file", "read_settings"]

_OF_COMMAND_LINE = ("config", "help", "version", "dry_run")
_REPEATED = type(argparse.ArgumentParser().add_argument("--any", action="append"))
"""The class of a flag that may be repeated, whatever its default."""


def given_file(given: Sequence[str]) -> str | None:
    """Return the file that `--config` names, or None.

    >>> given_file(["--out", "x", "--config=build.yaml"]), given_file(["--out", "x"])
    ('build.yaml', None)
    """
    for position, word in enumerate(given):
        if word == "--":
            break
        flag, equals, value = word.partition("=")
        if flag == "--config" and (equals or position + 1 < len(given)):
            return value if equals else given[position + 1]
    return None


def read_settings(path: str) -> dict[str, Any]:
    """Return the content of a file of settings, its keys as written.

    Raises:
        ConfigError: if it cannot be read or holds no mapping.

    >>> read_settings("no/such.yaml")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: --config no/such.yaml cannot be read (No such file or directory); name a YAML file
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read ({error.strerror}); name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is no YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path} holds no settings; write one a line, such as seed: 3")
    return {str(name): value for name, value in content.items()}


def apply_settings(
    path: str,
    words: Sequence[str],
    actions: Sequence[argparse.Action],
    exclusive: Iterable[Any] = (),
) -> None:
    """Make the settings of a file the defaults of a parser's flags and arguments.

    Args:
        path: the file.
        words: the command line with dashes: what it gives is left as it is.
        actions: of the parser; their defaults are changed.
        exclusive: the parser's groups of flags that exclude one another.

    Raises:
        ConfigError: for a key that is none, or a value that its flag does not take.
    """
    by_name = _by_name(actions)
    flags = {word.partition("=")[0] for word in words}
    given = {each.dest for each in actions if flags.intersection(each.option_strings)}
    for group in exclusive:
        members = [each.dest for each in group._group_actions]
        given.update(members if given.intersection(members) else ())
    seen: dict[str, str] = {}
    for key, value in read_settings(path).items():
        name = key.replace("-", "_")
        if name in _OF_COMMAND_LINE:
            raise ConfigError(f"{key} stands in the --config file; it is a flag of the command line alone")
        if name not in by_name:
            hint = did_you_mean(name, by_name) or f"it can say {', '.join(by_name)}"
            raise ConfigError(f"--config {path} says {key}, which is no setting of this command; {hint.rstrip()}")
        action = by_name[name]
        if action.dest in seen:
            raise ConfigError(f"--config {path} says {seen[action.dest]} and {key}, which are one; leave one out")
        seen[action.dest] = key
        if value is not None and action.dest not in given:
            action.default = _value_of(action, key, value, path)
            action.required = False
            if not action.option_strings:
                action.nargs = argparse.ZERO_OR_MORE if action.nargs == argparse.ONE_OR_MORE else argparse.OPTIONAL
    for group in exclusive:
        chosen = [each.dest for each in group._group_actions if each.dest in seen and each.default]
        if len(chosen) > 1:
            raise ConfigError(f"--config {path} says {' and '.join(chosen)}, which exclude one another; leave one out")
        if chosen:
            group.required = False


def _by_name(actions: Sequence[argparse.Action]) -> dict[str, argparse.Action]:
    named: dict[str, argparse.Action] = {}
    for each in actions:
        names = [each.dest, *(flag.lstrip("-").replace("-", "_") for flag in each.option_strings)]
        for name in names:
            if name not in _OF_COMMAND_LINE and name not in ("h", argparse.SUPPRESS):
                named.setdefault(name, each)
    return named


def _value_of(action: argparse.Action, key: str, value: Any, path: str) -> Any:
    """What the flag would read from the command line."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise ConfigError(f"{key} is {value!r} in --config {path}; it is true or false")
        return value
    several = action.nargs in (argparse.ONE_OR_MORE, argparse.ZERO_OR_MORE) or isinstance(action, _REPEATED)
    items = [f"{name}={each}" for name, each in value.items()] if isinstance(value, Mapping) else value
    if not several:
        if isinstance(items, list):
            raise ConfigError(f"{key} is a list in --config {path}; it takes one value")
        return _converted(action, key, items, path)
    return [_converted(action, key, each, path) for each in (items if isinstance(items, list) else [items])]


def _converted(action: argparse.Action, key: str, value: Any, path: str) -> Any:
    kind: Any = action.type or str
    if isinstance(value, bool):
        # YAML reads no and on as false and true; a language code or a name must be in quotes.
        raise ConfigError(f"{key} is {str(value).lower()} in --config {path}; put text in quotes, such as 'no'")
    try:
        made = kind(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise ConfigError(f"{key} is {value!r} in --config {path}; it takes {kind.__name__}") from error
    if action.choices is not None and made not in action.choices:
        hint = did_you_mean(str(made), [str(each) for each in action.choices])
        raise ConfigError(
            f"{key} is {made!r} in --config {path}; {hint}choose from {', '.join(map(str, action.choices))}"
        )
    return made
