"""Settings of what travels: how updates are packed, and which are refused. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.given import given_of
from fedllm_train.messages.wire_names import PRESETS, parse_wire
from fedllm_train.settings import Settings

__all__ = ["FORMER_SETTINGS", "WireSettings", "check_former"]

FORMER_SETTINGS = {"upload_codec": "int8", "topk_fraction": "topk:0.1"}
"""Settings of earlier versions -> a value of `wire` that says what they said."""
_CHOICES = {"download_base": ("previous", "start", "zero"), "error_feedback": ("none", "ef14", "ef21")}


@dataclass(frozen=True, kw_only=True)
class WireSettings(Settings):
    """How messages are packed."""

    wire: str = field(
        default="none",
        metadata={
            "help": f"How clients pack their adapter's change: {', '.join(PRESETS)}; or stages joined by +, such as "
            "topk:0.05+int8+golomb. none sends whole values."
        },
    )
    download_wire: str = field(
        default="none", metadata={"help": "How the server packs the adapter that it sends, in the same words as wire."}
    )
    download_base: Literal["previous", "start", "zero"] = field(
        default="previous",
        metadata={
            "help": "With download_wire: what is packed: the change since the previous broadcast (clients are sent "
            "the changes they lack, or the whole if that is shorter), since the start, or, with zero, the values."
        },
    )
    error_feedback: Literal["none", "ef14", "ef21"] = field(
        default="none",
        metadata={
            "help": "With wire: ef14 (clients keep what they did not send and add it the next time) or ef21 (both "
            "ends keep what was sent so far, and clients send corrections; with cohort_rule all or fixed)."
        },
    )
    max_update_norm: float | None = field(
        default=None, metadata={"help": "Leave out a client whose update's Euclidean norm is larger."}
    )

    def check(self) -> None:
        """Refuse settings of the upload that contradict one another.

        Raises:
            ConfigError: naming the setting.
        """
        parse_wire(self.wire)
        parse_wire(self.download_wire, "download_wire")
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                former = " (it was on or off before; ef14 is what on was)" if name == "error_feedback" else ""
                hint = did_you_mean(value, choices)
                raise ConfigError(f"{name} {value!r} is unknown; {hint}choose from {', '.join(choices)}{former}")
        if self.error_feedback != "none" and self.wire == "none":
            raise ConfigError(
                f"error_feedback is {self.error_feedback!r} and wire is 'none', which sends whole values, so that "
                "nothing is held back; leave it out, or choose a wire"
            )
        if self.download_wire == "none" and "download_base" in given_of(self):
            raise ConfigError(
                "download_base is given without a download_wire, which looks at it; give both or neither"
            )
        if self.max_update_norm is not None and self.max_update_norm <= 0:
            raise ConfigError(f"max_update_norm is {self.max_update_norm}; it must be positive")


def check_former(name: str, spelt: str) -> None:
    """Refuse a setting of an earlier version, naming the one that replaced it.

    Args:
        name: of the setting.
        spelt: as it was written: a flag, or the name itself.

    Raises:
        ConfigError: if it is such a setting.

    >>> check_former("wire", "--wire")
    """
    if name in FORMER_SETTINGS:
        value = FORMER_SETTINGS[name]
        written = f"--wire {value}" if spelt.startswith("--") else f"wire: {value}"
        raise ConfigError(f"{spelt} is part of wire now; write for example {written}")
