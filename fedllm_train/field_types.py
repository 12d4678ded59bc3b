"""Values have the type that a config's field declares: a number given as text is refused before anything adds to it.

Imports no torch.
"""

from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fedllm_data.errors import ConfigError

__all__ = ["kind_of", "plain_value", "refuse_text_for_numbers"]

_WANTED = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def plain_value(name: str, value: Any, hint: Any) -> Any:
    """Return a value as the plain Python kind its field has; numpy's numbers and paths become Python's.

    Args:
        name: the field's name.
        value: what the field was given.
        hint: the field's annotation, made of bool, int, float, str, Literal and None.

    Raises:
        ConfigError: for a value of another kind.

    >>> plain_value("num_rounds", "3", int)
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: num_rounds is '3', a str; pass a whole number, such as num_rounds=3
    """
    kinds = _kinds(hint)
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b":
        made: Any = bool(value) if bool in kinds else None
    elif isinstance(value, Integral) and int in kinds:
        made = int(value)
    elif isinstance(value, Real) and float in kinds:
        made = float(value) if type(value) not in (int, float) else value
    elif isinstance(value, Real) and int in kinds and float(value).is_integer():
        made = int(value)
    elif str in kinds and (isinstance(value, str) or hasattr(value, "__fspath__")):
        made = str(value)
    else:
        made = None
    if made is None:
        wanted = next((words for kind, words in _WANTED.items() if kind in kinds), None)
        if wanted is None:
            raise ConfigError(f"{name} is declared as {hint}, which no flag can give; declare bool, int, float or str")
        shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."
        example = f", such as {name}={value}" if isinstance(value, str) and _is_number(value) else ""
        raise ConfigError(f"{name} is {shown}{'' if value is None else f', {kind_of(value)}'}; pass {wanted}{example}")
    return made


def refuse_text_for_numbers(config: Any) -> None:
    """Refuse text in a field of another library's config that takes numbers and no text.

    Args:
        config: a dataclass, such as TRL's `SFTConfig` or PEFT's `LoraConfig`.

    Raises:
        ConfigError: naming the field.

    >>> from dataclasses import make_dataclass
    >>> refuse_text_for_numbers(make_dataclass("LoraConfig", [("r", int, 8)])(r="16"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: r of LoraConfig is '16', a str; pass the number 16
    """
    hints = get_type_hints(type(config))
    for each in fields(config):
        value, kinds = getattr(config, each.name), _kinds(hints.get(each.name))
        if isinstance(value, str) and str not in kinds and kinds & {int, float}:
            number = f"the number {value}" if _is_number(value) else "a number"
            raise ConfigError(f"{each.name} of {type(config).__name__} is {value!r}, a str; pass {number}")


def kind_of(value: Any) -> str:
    """Return what a value is, in words for an error.

    >>> kind_of({}), kind_of(None), kind_of(int), kind_of(3)
    ('a dict', 'None', 'the class int', 'an int')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    vowels = "AEFHILMNORSX" if name[:2].isupper() else "AEIOUaeiou"  # an SFTConfig, a DPOConfig
    return "None" if value is None else f"{'an' if name[0] in vowels else 'a'} {name}"


def _kinds(hint: Any) -> set[Any]:
    """The plain types that an annotation names; what a Literal lists counts by its type."""
    if get_origin(hint) is Literal:
        return {type(value) for value in get_args(hint)}
    if parts := get_args(hint):
        return {kind for part in parts for kind in _kinds(part)} if get_origin(hint) not in (list, dict) else {list}
    return {hint}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
