"""What a plan reads of TRL's and PEFT's settings: they are TRL's flags, and its parser would bring torch.

`flags.py` has checked every name by then; here the few values on which bytes, operations and memory depend are read,
with TRL's defaults (a test compares them with TRL's own). Others change no cost that is planned, and are named in a
note. Imports no torch.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.flag_names import flag_of, name_of
from fedllm_train.flags import OurFlags
from fedllm_train.given import given_flags
from fedllm_train.models.adapter_shapes import AdapterSettings

__all__ = ["PlannedClient", "adapter_settings", "planned_client"]


@dataclass(frozen=True, kw_only=True)
class PlannedClient:
    """The settings of a client's training that costs depend on; the defaults are TRL's."""

    learning_rate: float = 2e-5
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    max_length: int = 1024
    gradient_checkpointing: bool = True
    activation_checkpointing: bool | None = None
    """The newer name of the same; where it is given, both have its value."""
    packing: bool = False
    loss_type: str | None = None
    """KTO's loss, which matters here since one of them also reads mismatched answers."""
    lora_r: int = 16
    lora_alpha: float = 32
    lora_target_modules: str | Sequence[str] | None = None
    use_dora: bool = False
    lora_modules_to_save: Sequence[str] | None = None
    lora_target_parameters: Sequence[str] | None = None

    @property
    def train_batch_size(self) -> int:
        """Rows that are in memory at once."""
        return self.per_device_train_batch_size


_LISTS = ("lora_target_modules", "lora_modules_to_save", "lora_target_parameters")
_BOOLS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False, "t": True, "f": False}
_REFUSED = ("lora_modules_to_save", "lora_target_parameters")


def planned_client(flags: OurFlags) -> tuple[PlannedClient, tuple[str, ...]]:
    """Return what a plan reads of TRL's settings, and the names of those given that it does not read.

    Args:
        flags: what the command line said.

    Raises:
        ConfigError: for a value that cannot be read, or one whose cost cannot be planned.
    """
    values = {**_of_mapping(flags.of_run), **_of_mapping(flags.defaults), **_of_argv(flags.rest)}
    known = {each.name for each in fields(PlannedClient)}
    unread = {name for name in {*given_flags(flags.rest), *flags.defaults} if name not in known}
    if values.get("activation_checkpointing") is not None:
        values["gradient_checkpointing"] = values["activation_checkpointing"]
    client = PlannedClient(**{name: value for name, value in values.items() if value is not None})
    for name in _REFUSED:
        if getattr(client, name):
            raise ConfigError(f"{name} is given, and what it trains cannot be planned; leave it out, or look at a run")
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "max_length"):
        if getattr(client, name) < 1:
            raise ConfigError(f"{name} is {getattr(client, name)}; it must be at least 1")
    return client, tuple(sorted(name for name in unread if not name.startswith("no_")))


def adapter_settings(flags: OurFlags, client: PlannedClient) -> AdapterSettings:
    """Return what decides the trained tensors, as `models/peft_kinds.py` makes PEFT's settings of the flags."""
    if flags.federated.full_finetuning:
        return AdapterSettings(kind="full")
    kind = "dora" if client.use_dora and flags.run.peft_type == "lora" else flags.run.peft_type
    targets = client.lora_target_modules or "all-linear"
    if not isinstance(targets, str) and len(targets) == 1 and not targets[0].isidentifier():
        targets = targets[0]  # TRL unpacks a list of one: a pattern or a shorthand
    return AdapterSettings(kind=kind, rank=client.lora_r, targets=targets)


def _of_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    known = {each.name for each in fields(PlannedClient)}
    return {name: _value(name, value) for name, value in values.items() if name in known}


def _of_argv(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for each in fields(PlannedClient):
        many = {"nargs": "+"} if each.name in _LISTS else {"nargs": "?", "const": "true"}
        parser.add_argument(flag_of(each.name), dest=each.name, **many)  # type: ignore[arg-type]
    values = {name: _value(name, value) for name, value in vars(parser.parse_known_args(list(argv))[0]).items()}
    for flag in argv:
        if flag.startswith("--no-") and (name := name_of(flag).removeprefix("no_")) in values.keys() | {
            *("gradient_checkpointing", "activation_checkpointing", "packing")
        }:
            values[name] = False
    return values


def _value(name: str, value: Any) -> Any:
    """A value of the field's kind, whether it was text or not."""
    usual = {each.name: each.default for each in fields(PlannedClient)}[name]
    if value is None or name in (*_LISTS, "loss_type"):
        return value
    try:
        if isinstance(usual, bool) or name == "activation_checkpointing":
            return _BOOLS[str(value).lower()]
        if isinstance(usual, int):
            number = float(value)
            if number != int(number):
                raise ValueError("no whole number")
            return int(number)
        return float(value)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        is_bool = isinstance(usual, bool) or usual is None
        kind = "true or false" if is_bool else "a whole number" if isinstance(usual, int) else "a number"
        raise ConfigError(f"{name} is {value!r}; it takes {kind}") from error
