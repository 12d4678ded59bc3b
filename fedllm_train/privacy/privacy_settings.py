"""Settings of differential privacy, of clients or of rows, and what contradicts them. Imports no torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.settings import Settings, check_at_least_one

__all__ = ["PrivacySettings"]

_OF_QUANTILE = {"dp_clip_learning_rate": 0.2, "dp_count_noise": None}
_OF_RELATED = {"dp_min_separation": None, "dp_max_participations": None}
_OF_CLIENTS = {
    **{"dp_clip_quantile": None, "dp_mechanism": "gaussian", "dp_matrix": None, "dp_sampling": "poisson"},
    **_OF_QUANTILE,
    **_OF_RELATED,
}
"""Settings of noise on clients' updates, which steps on rows do not look at."""
_OF_CLIP = {
    **{"dp_noise_multiplier": None, "dp_epsilon": None, "dp_delta": None, "dp_clip_quantile": None},
    **{"dp_mechanism": "gaussian", "dp_matrix": None, "dp_sampling": "poisson", **_OF_QUANTILE, **_OF_RELATED},
    **{"dp_unit": "client", "dp_rows_per_person": None},
}
"""Settings that mean nothing without another, and their defaults."""
_CHOSEN = (
    "early_stopping_patience and load_best choose by scores on clients' rows, which dp_clip does not protect; leave "
    "them out"
)


@dataclass(frozen=True, kw_only=True)
class PrivacySettings(Settings):
    """Clip, noise and the guarantee asked for."""

    dp_clip: float | None = field(
        default=None,
        metadata={
            "help": "Differential privacy of clients: shorten each update to this norm and add noise to their sum; "
            "with cohort_rule poisson or all, or others with dp_sampling or dp_mechanism. With dp_unit example, of "
            "rows: shorten each row's gradient, and add noise to every step of a client."
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
    dp_unit: Literal["client", "example"] = field(
        default="client",
        metadata={
            "help": "With dp_clip: what the guarantee hides: a client with all of its rows, by noise on the sum of "
            "updates, or an example (one row, or one preference pair) of a client, by noise in the client's own steps."
        },
    )
    dp_rows_per_person: int | None = field(
        default=None,
        metadata={
            "help": "With dp_unit example: rows of one person at a client, at most; epsilon of a person is then for "
            "so many, and for all of a client's rows if not given."
        },
    )
    dp_clip_quantile: float | None = field(
        default=None,
        metadata={
            "help": "With dp_clip: let the clip follow this quantile of the updates' norms, privately (Andrew et al. "
            "2021); dp_clip is the first. 0.5 is the paper's."
        },
    )
    dp_clip_learning_rate: float = field(
        default=0.2, metadata={"help": "With dp_clip_quantile: how fast the clip moves."}
    )
    dp_count_noise: float | None = field(
        default=None,
        metadata={
            "help": "With dp_clip_quantile: standard deviation of the noise on the count of clients below the clip; a "
            "twentieth of the cohort by default."
        },
    )
    dp_sampling: Literal["poisson", "without_replacement"] = field(
        default="poisson",
        metadata={
            "help": "How cohorts are accounted for: poisson (cohort_rule poisson or all), or without_replacement "
            "(cohort_rule uniform: cohorts of one size, for one client replaced by another)."
        },
    )
    dp_mechanism: Literal["gaussian", "tree", "matrix"] = field(
        default="gaussian",
        metadata={
            "help": "Noise of the rounds: gaussian (independent), tree (a binary tree over the rounds) or matrix "
            "(dp_matrix). The last two count on no sampling, but on how often a client comes: for deadlines and fixed "
            "rosters."
        },
    )
    dp_matrix: str | None = field(
        default=None,
        metadata={
            "help": "With dp_mechanism matrix: the file of its coefficients; fedllm-train privacy-matrix writes one."
        },
    )
    dp_min_separation: int | None = field(
        default=None,
        metadata={
            "help": "With dp_mechanism tree and matrix: rounds from a client's update to its next, at least; 1 by "
            "default, which lets it come every round."
        },
    )
    dp_max_participations: int | None = field(
        default=None,
        metadata={
            "help": "With dp_mechanism tree and matrix: updates of a client in the run, at most; by default as many "
            "as fit."
        },
    )

    def check(self) -> None:
        """Refuse settings of differential privacy that contradict one another.

        Raises:
            ConfigError: naming the setting.
        """
        given = [name for name, default in _OF_CLIP.items() if getattr(self, name) != default]
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
        self._check_unit()
        self._check_mechanism()
        self._check_quantile()

    def _check_unit(self) -> None:
        """Refuse settings of one unit with the other."""
        if self.dp_unit not in ("client", "example"):
            hint = did_you_mean(self.dp_unit, ("client", "example"))
            raise ConfigError(f"dp_unit {self.dp_unit!r} is unknown; {hint}choose from client, example")
        check_at_least_one(self, "dp_rows_per_person")
        if not self.protects_rows:
            if self.dp_rows_per_person is not None:
                raise ConfigError(
                    "dp_rows_per_person is given, and with dp_unit client a client counts with all of its rows; use "
                    "dp_unit example, or leave it out"
                )
            return
        for name, default in _OF_CLIENTS.items():
            if getattr(self, name) != default:
                raise ConfigError(
                    f"{name} is given, and is about noise on the sum of clients' updates; with dp_unit example "
                    "clients add noise to their own steps, so leave one of them out"
                )

    def _check_mechanism(self) -> None:
        """Refuse settings of related noise without it, or with what it does not go with."""
        for name, choices in (
            ("dp_mechanism", ("gaussian", "tree", "matrix")),
            ("dp_sampling", ("poisson", "without_replacement")),
        ):
            if (value := getattr(self, name)) not in choices:
                hint = did_you_mean(value, choices)
                raise ConfigError(f"{name} {value!r} is unknown; {hint}choose from {', '.join(choices)}")
        check_at_least_one(self, *_OF_RELATED)
        if (self.dp_matrix is not None) != (self.dp_mechanism == "matrix"):
            raise ConfigError(
                f"dp_matrix goes with dp_mechanism matrix and nothing else, and dp_mechanism is "
                f"{self.dp_mechanism!r}; give both or neither (fedllm-train privacy-matrix writes a file)"
            )
        if not self.has_related_noise:
            for name in _OF_RELATED:
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name} is given, and independent noise does not look at how often a client comes; use "
                        "dp_mechanism tree or matrix, or leave it out"
                    )
            return
        if self.dp_sampling != "poisson":
            raise ConfigError(
                f"dp_sampling is {self.dp_sampling!r} and dp_mechanism {self.dp_mechanism!r}, which counts on no "
                "sampling; leave dp_sampling out"
            )
        if self.dp_noise_multiplier == 0:
            raise ConfigError(
                f"dp_mechanism is {self.dp_mechanism!r} and dp_noise_multiplier 0, so there is no noise to relate; "
                "leave dp_mechanism out"
            )

    def _check_quantile(self) -> None:
        """Refuse a clip that adapts to nothing, or does not go with the noise."""
        if self.dp_clip_quantile is None:
            for name, default in _OF_QUANTILE.items():
                if getattr(self, name) != default:
                    raise ConfigError(f"{name} is given without dp_clip_quantile, so the clip stays; give both")
            return
        if not 0 < self.dp_clip_quantile < 1:
            raise ConfigError(f"dp_clip_quantile is {self.dp_clip_quantile}; it must lie between 0 and 1")
        if not 0 < self.dp_clip_learning_rate <= 10:
            raise ConfigError(
                f"dp_clip_learning_rate is {self.dp_clip_learning_rate}; it must be positive, and at most 10"
            )
        if self.dp_count_noise is not None and not 0 < self.dp_count_noise < math.inf:
            raise ConfigError(f"dp_count_noise is {self.dp_count_noise}; it must be positive")
        if self.dp_count_noise is not None and self.dp_noise_multiplier == 0:
            raise ConfigError("dp_count_noise is given and dp_noise_multiplier is 0; leave it out, or add noise")
        if self.has_related_noise:
            raise ConfigError(
                f"dp_clip_quantile is given with dp_mechanism {self.dp_mechanism!r}: noise of different rounds "
                "cancels only where all of it has one scale, so the clip must stay; leave one of them out"
            )

    @property
    def has_related_noise(self) -> bool:
        """Whether the noise of different rounds is related, and sampling counts for nothing."""
        return self.dp_mechanism != "gaussian"

    @property
    def protects_rows(self) -> bool:
        """Whether the guarantee is for rows, by noise in clients' own steps."""
        return self.dp_clip is not None and self.dp_unit == "example"

    @property
    def protects_clients(self) -> bool:
        """Whether the guarantee is for clients with all of their rows, by noise on the sum of updates."""
        return self.dp_clip is not None and not self.protects_rows

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
            is_sampled: whether the server waits for the whole cohort; if not, it is accounted for without
                amplification (`private_turnout.py`).

        Raises:
            ConfigError: naming the setting.
        """
        if self.dp_clip is None:
            return
        if self.protects_rows:
            if chooses_by_scores:
                raise ConfigError(_CHOSEN)
            return
        if self.has_related_noise:
            if cohort_rule == "poisson":
                raise ConfigError(
                    f"cohort_rule is 'poisson' and dp_mechanism {self.dp_mechanism!r}, which counts on no sampling; "
                    "use cohort_rule uniform"
                )
        elif self.dp_sampling == "without_replacement":
            if not is_sampled:
                raise ConfigError(
                    "dp_sampling is 'without_replacement', and with participation deadline or buffered who comes is "
                    "no random sample; leave dp_sampling out, or use dp_mechanism tree or matrix"
                )
            if cohort_rule != "uniform":
                raise ConfigError(
                    f"dp_sampling is 'without_replacement' and cohort_rule {cohort_rule!r}; use cohort_rule uniform"
                )
        elif is_sampled and cohort_rule not in ("poisson", "all"):
            raise ConfigError(
                f"cohort_rule is {cohort_rule!r}, for which the privacy accountant has no bound; with dp_clip use "
                "cohort_rule poisson, or all; or dp_sampling without_replacement with cohort_rule uniform; or "
                "dp_mechanism tree or matrix, which count on no sampling"
            )
        if min_clients > 1:
            raise ConfigError(
                f"min_clients is {min_clients}; with dp_clip a step that depends on who was there would tell it, "
                "so leave it out"
            )
        if chooses_by_scores:
            raise ConfigError(_CHOSEN)
