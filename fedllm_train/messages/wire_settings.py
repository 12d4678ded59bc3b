"""Settings of what travels: how updates are packed, and which are refused. Imports no torch."""

from dataclasses import dataclass, field

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.given import given_of
from fedllm_train.settings import Settings

__all__ = ["CODEC_NAMES", "WireSettings"]

CODEC_NAMES = ("none", "topk", "int8", "int4")
"""Codecs of `messages/packing.py`."""


@dataclass(frozen=True, kw_only=True)
class WireSettings(Settings):
    """How messages are packed."""

    upload_codec: str = field(
        default="none",
        metadata={"help": "How clients pack their adapter's change: none (whole values), topk, int8 or int4."},
    )
    topk_fraction: float = field(
        default=0.1, metadata={"help": "With upload_codec topk: share of values sent, those of the largest size."}
    )
    error_feedback: bool = field(
        default=False,
        metadata={"help": "With upload_codec topk: clients keep what they did not send and add it the next time."},
    )
    max_update_norm: float | None = field(
        default=None, metadata={"help": "Leave out a client whose update's Euclidean norm is larger."}
    )

    def check(self) -> None:
        """Refuse settings of the upload that contradict one another.

        Raises:
            ConfigError: naming the setting.
        """
        if self.upload_codec not in CODEC_NAMES:
            hint = did_you_mean(self.upload_codec, CODEC_NAMES)
            raise ConfigError(
                f"upload_codec {self.upload_codec!r} is unknown; {hint}choose from {', '.join(CODEC_NAMES)}"
            )
        if not 0 < self.topk_fraction <= 1:
            raise ConfigError(f"topk_fraction is {self.topk_fraction}; it must be above 0 and at most 1")
        if self.upload_codec != "topk":
            for name in ("topk_fraction", "error_feedback"):
                if name in given_of(self) and getattr(self, name) is not False:
                    raise ConfigError(
                        f"{name} is given and upload_codec is {self.upload_codec!r}, which does not look at it; use "
                        "upload_codec topk"
                    )
        if self.max_update_norm is not None and self.max_update_norm <= 0:
            raise ConfigError(f"max_update_norm is {self.max_update_norm}; it must be positive")
