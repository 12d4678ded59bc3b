"""How much privacy a run spends: its guarantee, from settings, and epsilon of it after any number of rounds.

Symbols: z the noise multiplier (standard deviation of the noise / clipping norm), q the probability with which a
client takes part in a round, T rounds. What is claimed is the epsilon of privacy loss distributions, where they know
the mechanism; Renyi and zero-concentrated accounting stand beside it (`accountants.py`). For Poisson-subsampled
Gaussians the claim was 0.1 % above a grid ten times as fine and 6 to 50 % below Renyi accounting in the settings we
tried.

mechanism                               accounted as                                             claim
Poisson cohorts, or everybody           Poisson-subsampled Gaussians, one client added/removed   pld
cohorts of one size from the roster     the same without replacement; replacing a client moves   rdp
                                        the sum by twice the clip, so z counts half
deadline, buffer                        Gaussians that everybody is in, updates set to zero      pld
related noise (tree, matrix)            one Gaussian of the matrix's sensitivity                 pld

The package comes with the extra `privacy`. Imports no torch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.privacy.accountants import (
    check_accountant,
    gaussian_epsilons,
    poisson_epsilon,
    poisson_epsilons,
    without_replacement_epsilons,
)
from fedllm_train.privacy.adaptive_clip import AdaptiveClip, split_noise
from fedllm_train.privacy.assumptions import NEIGHBOURS, Sampling, assumptions_of
from fedllm_train.privacy.privacy_settings import PrivacySettings
from fedllm_train.privacy.related_noise import RelatedNoise, related_noise

__all__ = [
    "RANDOMNESS",
    "Guarantee",
    "check_accountant",
    "check_delta",
    "check_noise",
    "epsilon_spent",
    "least_noise",
    "noise_for_epsilon",
    "run_guarantee",
]

RANDOMNESS = "a secret of the run, drawn from the system"
"""Where noise and cohorts of a run with a guarantee come from; in its config."""

_ACCOUNTANTS = {
    "poisson": "dp-accounting, privacy loss distributions of the Poisson-subsampled Gaussian",
    "without_replacement": "dp-accounting, Renyi divergences of the Gaussian on cohorts without replacement",
    "none": "dp-accounting, privacy loss distributions of the Gaussian, not amplified by sampling",
    "turns": "dp-accounting, privacy loss distribution of the Gaussian at the sensitivity of related rounds, not "
    "amplified by sampling",
}
_ORDER = ("pld", "rdp", "zcdp")
"""The accountant whose epsilon is claimed is the first of them that knows the mechanism."""
_LEAST_NOISE = 0.1
_LEFT_OUT = ("is_sampled", "num_clients", "adaptive", "related", "rows_are_public")
"""Fields that the record holds only where they are not the default, and then in other words."""


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """The privacy of a run: its mechanism and what it costs."""

    clip: float
    """Largest norm of a client's contribution to a round; of the first round, where it adapts."""
    noise_multiplier: float
    sampling_rate: float
    expected_cohort: int
    """Clients expected in a round, by sampling rate times clients: what the noisy sum is divided by."""
    delta: float
    num_rounds: int
    is_sampled: bool = True
    """Whether it rests on sampling; if not, every client is taken to be in every round, or in as many as its turns
    allow, and the sampling rate is 1."""
    num_clients: int | None = None
    """Clients that cohorts of one size are drawn from, without replacement; None for all other mechanisms."""
    adaptive: AdaptiveClip | None = None
    """How the clip moves; None where it stays."""
    related: RelatedNoise | None = None
    """How the noise of rounds is related; None where it is independent."""
    rows_are_public: bool = False
    """Whether numbers of rows decide who takes part."""

    @property
    def sampling(self) -> Sampling:
        """How who takes part is accounted for."""
        if self.related is not None:
            return "turns"
        if not self.is_sampled:
            return "none"
        return "poisson" if self.num_clients is None else "without_replacement"

    @property
    def update_noise_multiplier(self) -> float:
        """Noise on the sum of updates, in clips: a little more than counts, where some of it goes into the clip."""
        return self.noise_multiplier if self.adaptive is None else self.adaptive.update_noise_multiplier

    def epsilon(self, num_rounds: int) -> float | None:
        """Return the epsilon spent after some rounds; None if there is no bound, since there is no noise."""
        if self.sampling in ("poisson", "none"):
            spent = epsilon_spent(self.noise_multiplier, self.sampling_rate, num_rounds, self.delta)
            return spent if math.isfinite(spent) else None
        by_accountant = self.by_accountant(num_rounds)
        return by_accountant[_claimed(by_accountant)]

    def by_accountant(self, num_rounds: int) -> dict[str, float | None]:
        """Return epsilon after some rounds by each accountant; None where one does not know the mechanism."""
        z = self.noise_multiplier
        if not self.has_noise:
            return dict.fromkeys(_ORDER)
        if num_rounds == 0:
            return dict.fromkeys(_ORDER, 0.0)
        check_noise(z)
        if self.related is not None:
            spent = gaussian_epsilons(z / self.related.sensitivity(num_rounds), self.delta)
        elif self.num_clients is not None:  # replacing a client moves the sum by 2 clips
            spent = without_replacement_epsilons(z / 2, self.num_clients, self.expected_cohort, num_rounds, self.delta)
        else:
            spent = poisson_epsilons(z, self.sampling_rate, num_rounds, self.delta)
        return {name: value if value is not None and math.isfinite(value) else None for name, value in spent.items()}

    def claim(self, num_rounds: int) -> str:
        """Return the name of the accountant whose epsilon is claimed.

        >>> made = Guarantee(
        ...     clip=1.0, noise_multiplier=2.0, sampling_rate=0.1, expected_cohort=10, delta=1e-5, num_rounds=9
        ... )
        >>> made.claim(9)
        'pld'
        """
        if self.sampling in ("poisson", "none"):
            return _ORDER[0]
        return _claimed(self.by_accountant(num_rounds))

    @property
    def has_noise(self) -> bool:
        """Whether there is anything to keep secret: clipping alone guarantees nothing."""
        return self.noise_multiplier > 0

    def spent_in_words(self, num_rounds: int) -> str:
        """Return what some rounds spent, for people.

        >>> mechanism = {"clip": 1.0, "sampling_rate": 0.1, "expected_cohort": 10, "delta": 1e-05, "num_rounds": 3}
        >>> Guarantee(noise_multiplier=0.0, **mechanism).spent_in_words(3)
        'no epsilon: updates were clipped, and no noise was added'
        """
        epsilon = self.epsilon(num_rounds)
        if epsilon is None:
            return "no epsilon: updates were clipped, and no noise was added"
        about = {
            "poisson": "",
            "without_replacement": ", for one client replaced by another",
            "none": ", without amplification by sampling",
            "turns": ", without amplification by sampling",
        }
        return f"epsilon {epsilon:.4g} at delta {self.delta:g}, unit: client{about[self.sampling]}"

    def as_record(self) -> dict[str, Any]:
        """Return the guarantee after all rounds with what it rests on, JSON-ready."""
        made = {name: value for name, value in asdict(self).items() if name not in _LEFT_OUT}
        return {
            "unit": "client",
            "epsilon": self.epsilon(self.num_rounds),
            **made,
            **({} if self.is_sampled else {"is_sampled": False}),
            **({} if self.num_clients is None else {"sampling": self.sampling, "num_clients": self.num_clients}),
            **({} if self.adaptive is None else {"adaptive_clip": asdict(self.adaptive)}),
            **({} if self.related is None else {"related_noise": self.related.as_record(self.num_rounds)}),
            "accountant": _ACCOUNTANTS[self.sampling],
            "claim": self.claim(self.num_rounds),
            "by_accountant": self.by_accountant(self.num_rounds),
            "neighbours": NEIGHBOURS[self.sampling],
            "randomness": RANDOMNESS if self.has_noise else None,
            "assumptions": assumptions_of(
                self.sampling,
                how_often="" if self.related is None else self.related.how_often(),
                is_adaptive=self.adaptive is not None,
                rows_are_public=self.rows_are_public,
            ),
        }


def run_guarantee(
    settings: PrivacySettings,
    *,
    num_rounds: int,
    num_clients: int,
    cohort_size: int,
    is_sampled: bool = True,
    rows_are_public: bool = False,
) -> Guarantee | None:
    """Return the privacy of a run, with the noise that a wanted epsilon needs; None if no privacy is asked for.

    Args:
        settings: clip, noise and the guarantee asked for.
        num_rounds: number of rounds in the run.
        num_clients: clients that may take part.
        cohort_size: how many of them take part in a round, on average.
        is_sampled: whether each is in a round by a coin of its own, so that sampling hides it.
        rows_are_public: whether numbers of rows decide who takes part.

    Raises:
        ConfigError: if delta is so large that one client might be published whole, epsilon cannot be reached, the
            file of a matrix cannot be used, or the cohort is too small for a clip that adapts.
    """
    if settings.dp_clip is None or settings.dp_delta is None or settings.protects_rows:
        return None
    check_delta(settings.dp_delta, num_clients)
    related = None
    if settings.dp_mechanism != "gaussian":
        related = related_noise(
            None if settings.dp_matrix is None else Path(settings.dp_matrix),
            num_rounds=num_rounds,
            min_separation=settings.dp_min_separation,
            max_participations=settings.dp_max_participations,
        )
    is_sampled = is_sampled and related is None
    without_replacement = is_sampled and settings.dp_sampling == "without_replacement"
    given = settings.dp_noise_multiplier

    def made(noise: float, adaptive: AdaptiveClip | None = None) -> Guarantee:
        assert settings.dp_clip is not None
        assert settings.dp_delta is not None
        return Guarantee(
            clip=settings.dp_clip,
            noise_multiplier=noise,
            sampling_rate=cohort_size / num_clients if is_sampled else 1.0,
            expected_cohort=cohort_size,
            delta=settings.dp_delta,
            num_rounds=num_rounds,
            is_sampled=is_sampled,
            num_clients=num_clients if without_replacement else None,
            adaptive=adaptive,
            related=related,
            rows_are_public=rows_are_public,
        )

    if given is None:
        assert settings.dp_epsilon is not None, "the config refuses one without the other"

        def spent(z: float) -> float:
            epsilon = made(z).epsilon(num_rounds)
            return math.inf if epsilon is None else epsilon

        given = least_noise(spent, settings.dp_epsilon, settings.dp_delta)
    if settings.dp_clip_quantile is None:
        return made(given)
    count_noise, on_updates = split_noise(given, settings.dp_count_noise, cohort_size)
    return made(
        given,
        AdaptiveClip(
            quantile=settings.dp_clip_quantile,
            learning_rate=settings.dp_clip_learning_rate,
            count_noise=count_noise,
            update_noise_multiplier=on_updates,
        ),
    )


def epsilon_spent(noise_multiplier: float, sampling_rate: float, num_rounds: int, delta: float) -> float:
    """Return epsilon after some rounds of the Poisson-subsampled Gaussian; infinite without noise, 0 without rounds.

    Args:
        noise_multiplier: z; 0, or at least 0.1, below which epsilon means nothing.
        sampling_rate: q, in (0, 1].
        num_rounds: T.
        delta: in (0, 1).

    Raises:
        ConfigError: if dp-accounting is not installed.

    >>> epsilon_spent(0.0, 0.5, 3, 1e-5)
    inf
    """
    if num_rounds == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    check_noise(noise_multiplier)
    return poisson_epsilon(noise_multiplier, sampling_rate, num_rounds, delta)


def noise_for_epsilon(epsilon: float, delta: float, sampling_rate: float, num_rounds: int) -> float:
    """Return the least noise multiplier, to one part in a thousand from above, that keeps a run within epsilon.

    Args:
        epsilon: positive.
        delta: in (0, 1).
        sampling_rate: q, in (0, 1].
        num_rounds: T.

    Raises:
        ConfigError: if the noise needed is so small that the guarantee means nothing, or no noise is enough.
    """
    return least_noise(lambda z: epsilon_spent(z, sampling_rate, num_rounds, delta), epsilon, delta)


def _claimed(by_accountant: Mapping[str, float | None]) -> str:
    """The first accountant that knows the mechanism."""
    return next((name for name in _ORDER if by_accountant[name] is not None), _ORDER[0])


def least_noise(spent: Callable[[float], float], epsilon: float, delta: float) -> float:
    """Return the least noise multiplier, to one part in a thousand from above, that keeps a run within epsilon.

    Args:
        spent: epsilon by noise multiplier.
        epsilon: positive.
        delta: named where no noise is enough.

    Raises:
        ConfigError: if the noise needed is so small that the guarantee means nothing, or no noise is enough.

    >>> 2.0 <= least_noise(lambda z: 4 / z, 2.0, 1e-5) <= 2.002
    True
    """

    def enough(z: float) -> bool:
        return spent(z) <= epsilon

    high = 1.0
    while not enough(high):
        high *= 2
        if high > 1e5:
            raise ConfigError(f"dp_epsilon {epsilon} cannot be reached with dp_delta {delta}; choose more")
    low = high / 2
    while enough(low):
        high, low = low, low / 2
        if low < _LEAST_NOISE:
            raise ConfigError(
                f"dp_epsilon is {epsilon}, which noise of {high} would already give; such a guarantee means nothing, "
                "so choose less"
            )
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def check_delta(delta: float, num_clients: int) -> None:
    """Refuse a delta that would let one of the clients be published whole.

    Raises:
        ConfigError: naming what it allows.
    """
    if delta >= 1 / num_clients:
        raise ConfigError(
            f"dp_delta is {delta} with {num_clients} clients; a delta of 1/{num_clients} allows publishing one of "
            "them whole, so choose much less"
        )


def check_noise(noise_multiplier: float) -> None:
    """Refuse noise so small that a guarantee would mean nothing.

    Raises:
        ConfigError: naming what to choose.
    """
    if noise_multiplier < _LEAST_NOISE:
        raise ConfigError(
            f"dp_noise_multiplier is {noise_multiplier}; below {_LEAST_NOISE} the guarantee means nothing, so choose "
            "more, or 0 to clip without noise"
        )
