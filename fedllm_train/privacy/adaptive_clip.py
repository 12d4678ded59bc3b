"""A clip that follows the clients: differentially private learning with adaptive clipping (Andrew et al. 2021).

arXiv 1905.03871, Algorithm 1 and theorem 1. Symbols: C_t the clip of round t, gamma the share of updates that should
not be longer than it, eta the learning rate of the clip, m the expected cohort, z the noise multiplier that the
accountant counts, sigma_b the standard deviation of the noise on the count, z_Delta that of the noise on the sum of
updates, in multiples of C_t. The server sees whether a client's update was not longer than C_t, b_k = 1, or was,
b_k = 0, and

    b~ = 1/2 + (sum_k (b_k - 1/2) + N(0, sigma_b^2)) / m,      C_{t+1} = C_t exp(-eta (b~ - gamma)).

A client moves the count by 1/2 and the sum of updates by C_t. Both together are one Gaussian mechanism of noise
multiplier z where

    z_Delta = (z^-2 - (2 sigma_b)^-2)^(-1/2),

a little above z. The paper's b~ is taken as it comes; here it is kept within [-1, 2], so that much noise on the count
of few clients cannot throw the clip away in one round (post-processing: epsilon is the same). There is no such number
if z >= 2 sigma_b: by default sigma_b is m / 20, so cohorts of 10 z clients and fewer are too small. C_t is calculated
from noisy counts, so it is released with the adapters. Imports no torch.
"""

import math
from dataclasses import dataclass

from fedllm_data.errors import ConfigError

__all__ = ["AdaptiveClip", "default_count_noise", "noise_on_updates", "split_noise"]

_COHORT_OVER_COUNT_NOISE = 20
_SHARES = (-1.0, 2.0)
_CLIPS = (1e-30, 1e30)
"""Between which a clip stays, whatever the updates are: it can be neither 0 nor infinite."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveClip:
    """The rule by which the clip moves."""

    quantile: float
    """gamma, in (0, 1)."""
    learning_rate: float
    """eta, positive."""
    count_noise: float
    """sigma_b; 0 where nothing is noisy."""
    update_noise_multiplier: float
    """z_Delta."""

    def next_clip(self, clip: float, votes: float, expected_cohort: int) -> float:
        """Return the clip of the next round.

        Args:
            clip: C_t.
            votes: the noisy sum of b_k - 1/2.
            expected_cohort: m.

        >>> rule = AdaptiveClip(quantile=0.5, learning_rate=0.2, count_noise=5.0, update_noise_multiplier=1.0)
        >>> rule.next_clip(1.0, 0.0, 100), round(rule.next_clip(1.0, 50.0, 100), 6)
        (1.0, 0.904837)
        """
        share = min(max(0.5 + votes / expected_cohort, _SHARES[0]), _SHARES[1])
        moved = clip * math.exp(-self.learning_rate * (share - self.quantile))
        return min(max(moved, _CLIPS[0]), _CLIPS[1])


def default_count_noise(expected_cohort: int) -> float:
    """Return sigma_b as the paper's experiments, TensorFlow Federated and Flower choose it: m / 20.

    >>> default_count_noise(100)
    5.0
    """
    return expected_cohort / _COHORT_OVER_COUNT_NOISE


def noise_on_updates(noise_multiplier: float, count_noise: float) -> float:
    """Return z_Delta, the noise multiplier of the sum of updates.

    Args:
        noise_multiplier: z; 0 for none.
        count_noise: sigma_b, above z / 2.

    >>> [round(noise_on_updates(z, m / 20), 6) for z, m in ((1.0, 100), (1.0, 1000), (0.5, 50))]
    [1.005038, 1.00005, 0.502519]
    """
    if noise_multiplier == 0:
        return 0.0
    return float((noise_multiplier**-2 - (2 * count_noise) ** -2) ** -0.5)


def split_noise(noise_multiplier: float, count_noise: float | None, expected_cohort: int) -> tuple[float, float]:
    """Return sigma_b and z_Delta.

    Args:
        noise_multiplier: z; 0 for none.
        count_noise: sigma_b; None for the default.
        expected_cohort: m.

    Raises:
        ConfigError: if z is 2 sigma_b or more, with the cohort that it would take.

    >>> split_noise(0.0, None, 100)
    (0.0, 0.0)
    """
    if noise_multiplier == 0:
        return 0.0, 0.0
    sigma = default_count_noise(expected_cohort) if count_noise is None else count_noise
    if noise_multiplier < 2 * sigma:
        return sigma, noise_on_updates(noise_multiplier, sigma)
    z, least = noise_multiplier, noise_multiplier / 2
    if count_noise is not None:
        raise ConfigError(
            f"dp_count_noise is {sigma:g}, and with a noise multiplier of {z:.4g} the noise on the count of clients "
            f"must be above {least:.4g}; choose more"
        )
    needed = math.floor(_COHORT_OVER_COUNT_NOISE * least) + 1
    raise ConfigError(
        f"dp_clip_quantile is given, and with {expected_cohort} clients expected in a round the noise on their count, "
        f"{sigma:g}, is too little for a noise multiplier of {z:.4g}: it must be above {least:.4g}; use a cohort_size "
        f"of {needed} or more, a dp_count_noise above {least:.4g} (the clip then wanders by chance), or a fixed clip"
    )
