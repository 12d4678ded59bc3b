"""Settings of secure sums, and what contradicts them. Imports no torch."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.settings import Settings

__all__ = ["SecureSumSettings"]

_NEEDS_SINGLE_UPDATES: dict[str, tuple[Any, str]] = {
    "wire": (
        "none",
        "packs each client's change by scales and places of its own, and what is packed otherwise does not add up",
    ),
    "error_feedback": ("none", "goes with a packed wire, which does not add up"),
    "max_update_norm": (None, "measures single updates, and the server sees none"),
    "robust_sum": ("none", "compares single updates, and the server sees none"),
    "participation": (
        "synchronous",
        "makes a step of clients that nobody knows beforehand, and masks cancel over those that were agreed on",
    ),
}
"""Setting -> its value with which single updates are not needed, and why it needs them otherwise."""
_NOT_BESIDE_SKELLAM: dict[str, tuple[Any, str]] = {
    "dp_clip_quantile": (None, "the norm is agreed on before the first round; the clip must be fixed"),
    "dp_mechanism": ("gaussian", "noise that hangs together over rounds is drawn by a server"),
    "dp_sampling": ("poisson", "the server draws cohorts, and hides nobody from itself"),
    "dp_unit": ("client", "the noise is on the sum over clients"),
}


@dataclass(frozen=True, kw_only=True)
class SecureSumSettings(Settings):
    """Whether the server sees no single update, and how sums are made then."""

    secure_sum: bool = field(
        default=False,
        metadata={
            "help": "Let the server learn what updates add up to and no single one (Bonawitz et al. 2017): against a "
            "server that follows the protocol and is curious."
        },
    )
    secure_sum_bits: int = field(
        default=32, metadata={"help": "With secure_sum: bits of each number that is sent, 32 or 64."}
    )
    secure_sum_clip: float = field(
        default=1.0,
        metadata={
            "help": "With secure_sum: no value of an update changes by more than this in a round; with "
            "secure_sum_skellam dp_clip bounds the whole change."
        },
    )
    secure_sum_fraction_bits: int | None = field(
        default=None,
        metadata={
            "help": "With secure_sum: values are sent in steps of 2 to minus this; by default as many as cannot wrap."
        },
    )
    secure_sum_threshold: float = field(
        default=0.67,
        metadata={
            "help": "With secure_sum: share of a round's clients that must be left for its sum to be opened, over 0.5."
        },
    )
    secure_sum_skellam: bool = field(
        default=False,
        metadata={
            "help": "With secure_sum and dp_clip: clients clip themselves and share the noise (Skellam), so that the "
            "guarantee holds against the server, too."
        },
    )

    def check(self) -> None:
        """Refuse settings of secure sums that contradict one another, or need what a sum does not show.

        Raises:
            ConfigError: naming the setting.
        """
        if not self.secure_sum:
            for each in fields(SecureSumSettings):
                if (value := getattr(self, each.name)) != each.default:
                    raise ConfigError(
                        f"{each.name} is {value}, and there is no secure_sum; give it, or leave both out"
                    )
            return
        if self.secure_sum_bits not in (32, 64):
            raise ConfigError(f"secure_sum_bits is {self.secure_sum_bits}; it must be 32 or 64")
        if not 0 < self.secure_sum_clip < math.inf:
            raise ConfigError(f"secure_sum_clip is {self.secure_sum_clip}; it must be positive")
        if not 0.5 < self.secure_sum_threshold <= 1:
            raise ConfigError(
                f"secure_sum_threshold is {self.secure_sum_threshold}; it must be above 0.5, or two halves of the "
                "clients could open different sums, and at most 1"
            )
        bits = self.secure_sum_fraction_bits
        if bits is not None and not 0 <= bits <= 40:
            raise ConfigError(f"secure_sum_fraction_bits is {bits}; it must lie between 0 and 40")
        self._check_others()

    def _check_others(self) -> None:
        for name, (harmless, reason) in _NEEDS_SINGLE_UPDATES.items():
            if (value := getattr(self, name, harmless)) != harmless:
                raise ConfigError(f"{name} is {value!r} and secure_sum is on: it {reason}; leave one of the two out")
        dp_clip = getattr(self, "dp_clip", None)
        if self.secure_sum_skellam:
            if dp_clip is None:
                raise ConfigError(
                    "secure_sum_skellam is on without dp_clip, so there is no norm that its noise could hide; give "
                    "dp_clip, dp_delta, and dp_epsilon or dp_noise_multiplier"
                )
            if getattr(self, "dp_noise_multiplier", None) == 0:
                raise ConfigError(
                    "dp_noise_multiplier is 0 and secure_sum_skellam is on, so there is no noise to share; give more, "
                    "or leave dp_clip and secure_sum_skellam out"
                )
            if self.secure_sum_clip != 1.0:
                raise ConfigError("secure_sum_clip is given, and with secure_sum_skellam dp_clip clips; leave it out")
            if getattr(self, "cohort_rule", "uniform") == "poisson":
                raise ConfigError(
                    "cohort_rule is 'poisson' and secure_sum_skellam is on: each client's share of the noise is sized "
                    "for a least number of clients, and a Poisson cohort has none; use cohort_rule uniform or all"
                )
            for name, (harmless, reason) in _NOT_BESIDE_SKELLAM.items():
                if (value := getattr(self, name, harmless)) != harmless:
                    raise ConfigError(f"{name} is {value!r} and secure_sum_skellam is on: {reason}; leave one out")
        elif dp_clip is not None and getattr(self, "dp_unit", "client") == "example":
            raise ConfigError(
                "dp_unit is example and secure_sum is on, which were never tried together; leave one out"
            )
        elif dp_clip is not None:
            raise ConfigError(
                "dp_clip and secure_sum are both given: a server that sees no single update can clip none; add "
                "secure_sum_skellam, with which clients clip themselves and share the noise"
            )
