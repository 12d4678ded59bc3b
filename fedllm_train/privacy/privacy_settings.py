"""Settings of user-level differential privacy, and what contradicts them. Imports no torch."""

import math
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.settings import Settings

__all__ = ["PrivacySettings"]


@dataclass(frozen=True, kw_only=True)
class PrivacySettings(Settings):
    """Clip, noise and the guarantee asked for."""

    dp_clip: float | None = field(
        default=None,
        metadata={
            "help": "Differential privacy of clients: shorten each update to this norm and add noise to their sum; "
            "with cohort_rule poisson or all."
        },
    )
    dp_noise_multiplier: float | None = field(
        default=None,
        metadata={"help": "With dp_clip: standard deviation of the noise on the sum, in multiples of dp_clip."},
    )
    dp_epsilon: float | None = field(
        default=None,
        metadata={"help": "With dp_clip, in place of dp_noise_multiplier: the epsilon that all rounds may spend."},
    )
    dp_delta: float | None = field(
        default=None,
        metadata={"help": "With dp_clip: the delta of the guarantee; well below 1 / number of clients."},
    )

    def check(self) -> None:
        """Refuse settings of differential privacy that contradict one another.

        Raises:
            ConfigError: naming the setting.
        """
        given = [n for n in ("dp_noise_multiplier", "dp_epsilon", "dp_delta") if getattr(self, n) is not None]
        if self.dp_clip is None:
            if given:
                raise ConfigError(
                    f"{given[0]} is given without dp_clip, so there is nothing to add noise to; give both"
                )
            return
        if not 0 < self.dp_clip < math.inf:
            raise ConfigError(f"dp_clip is {self.dp_clip}; it must be positive")
        if (self.dp_noise_multiplier is None) == (self.dp_epsilon is None):
            raise ConfigError("dp_clip needs either dp_noise_multiplier or dp_epsilon, not both; give one of them")
        if self.dp_noise_multiplier is not None and not 0 <= self.dp_noise_multiplier < math.inf:
            raise ConfigError(f"dp_noise_multiplier is {self.dp_noise_multiplier}; it must not be negative")
        if self.dp_epsilon is not None and not 0 < self.dp_epsilon < math.inf:
            raise ConfigError(f"dp_epsilon is {self.dp_epsilon}; it must be positive")
        if self.dp_delta is None or not 0 < self.dp_delta < 1:
            raise ConfigError(f"dp_delta is {self.dp_delta}; with dp_clip it must lie between 0 and 1")

    @property
    def adds_noise(self) -> bool:
        """Whether there is a guarantee to account for; clipping alone gives none."""
        return self.dp_clip is not None and self.dp_noise_multiplier != 0

    def check_beside(
        self, *, cohort_rule: str, min_clients: int, chooses_by_scores: bool, is_sampled: bool = True
    ) -> None:
        """Refuse what would break the guarantee.

        Args:
            cohort_rule: who takes part.
            min_clients: updates that a step takes.
            chooses_by_scores: whether scores on clients' rows decide which adapter is finished.
            is_sampled: whether the guarantee rests on the cohort rule; not where it is accounted for without
                amplification (`private_turnout.py`).

        Raises:
            ConfigError: naming the setting.
        """
        if self.dp_clip is None:
            return
        if is_sampled and cohort_rule not in ("poisson", "all"):
            raise ConfigError(
                f"cohort_rule is {cohort_rule!r}, for which the privacy accountant has no bound; with dp_clip use "
                "cohort_rule poisson, or all"
            )
        if min_clients > 1:
            raise ConfigError(
                f"min_clients is {min_clients}; with dp_clip a step that depends on who was there would tell it, "
                "so leave it out"
            )
        if chooses_by_scores:
            raise ConfigError(
                "early_stopping_patience and load_best choose by scores on clients' rows, which dp_clip does not "
                "protect; leave them out"
            )
