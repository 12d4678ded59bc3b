"""Settings of what travels: how updates are packed, and which are refused. Imports no torch."""

from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.messages.wire_names import PRESETS, parse_wire
from fedllm_train.settings import Settings

__all__ = ["FORMER_SETTINGS", "WireSettings", "check_former"]

FORMER_SETTINGS = {"upload_codec": "int8", "topk_fraction": "topk:0.1"}
"""Settings of earlier versions -> a value of `wire` that says what they said."""


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
    error_feedback: bool = field(
        default=False,
        metadata={"help": "With a wire that has topk: clients keep what they did not send and add it the next time."},
    )
    max_update_norm: float | None = field(
        default=None, metadata={"help": "Leave out a client whose update's Euclidean norm is larger."}
    )

    def check(self) -> None:
        """Refuse settings of the upload that contradict one another.

        Raises:
            ConfigError: naming the setting.
        """
        stages = parse_wire(self.wire)
        if self.error_feedback and (stages is None or stages.topk is None):
            raise ConfigError(
                f"error_feedback is given and wire is {self.wire!r}, which does not look at it; use a wire with topk"
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
