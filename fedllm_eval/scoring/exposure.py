"""How far a planted secret stands out among the secrets it could have been: exposure, in bits.

Symbols: R the space of secrets a canary was drawn from, C of them sampled as candidates that were not planted. The
exposure of a canary is log2 |R| - log2 rank (Carlini et al. 2019, definition 2), its rank by loss among R. A canary
that nothing was learned of has rank uniform in 1..C + 1 and an exposure of log2 (C + 1) - log2 ((C + 1)!) / (C + 1)
bits on average: half a bit against one candidate, log2 e = 1.44 against many. One that is likelier than every
candidate has log2 (C + 1), the most that ranking against C candidates can show.

`extrapolated_exposure` goes beyond that ceiling as the paper does (section 4.3): a skew-normal distribution is fitted
to the candidates' losses, and the exposure is -log2 of its mass below the canary's loss. It refuses where the losses
are not skew-normal (Kolmogorov-Smirnov), since it then extrapolates from a shape that is not there.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import integrate, special, stats

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.intervals import Interval, mean_interval
from fedllm_eval.scoring.rounding import RELATIVE
from fedllm_eval.scoring.safe_scale import power_of_two

__all__ = [
    "Extrapolation",
    "chance_exposure",
    "exposure",
    "exposure_p_value",
    "extrapolated_exposure",
    "mean_exposure",
]

Array = npt.NDArray[np.float64]
FARTHEST = 1e100
"""Standard deviations beyond which the fitted density has no logarithm that a double holds."""
MIN_FIT = 100
MIN_FIT_P = 0.01


@dataclass(frozen=True)
class Extrapolation:
    """Exposure beyond the ranking's ceiling."""

    bits: float
    """NaN where the candidates' losses are not skew-normal, or nothing can be extrapolated from them."""
    fit_p_value: float
    """Of the Kolmogorov-Smirnov test, conservative because the shape was fitted to the same losses."""
    reason: str | None


def exposure(canary_loss: float, candidate_losses_C: npt.ArrayLike) -> float:
    """Return the exposure of one canary against sampled candidates.

    Args:
        canary_loss: loss of the planted secret in its context, in nats.
        candidate_losses_C: (C,) losses of secrets of the same space in the same context that were not planted.

    Returns:
        Bits in [0, log2(C + 1)]; a tie counts half.

    Raises:
        MetricError: if there are no candidates or a loss is not finite.

    >>> exposure(1.0, [2.0, 3.0, 4.0])  # first of four
    2.0
    >>> exposure(5.0, [2.0, 3.0, 4.0])  # last of four
    0.0
    """
    rank = _rank(canary_loss, candidate_losses_C)
    return float(np.log2(np.asarray(candidate_losses_C).size + 1) - np.log2(rank))


def mean_exposure(bits: npt.ArrayLike, num_candidates: npt.ArrayLike) -> tuple[Interval, float]:
    """Return the mean exposure of canaries with its interval, and its ceiling, which the interval does not pass.

    Args:
        bits: exposures, as `exposure` gives them.
        num_candidates: how many candidates each was ranked against.

    Returns:
        The interval lies in [0, ceiling]; the ceiling is what the mean would be if every canary were the likeliest.

    Raises:
        MetricError: if there are no canaries, or not a number of candidates for each.

    >>> interval, ceiling = mean_exposure([2.0, 2.0, 0.5], [3, 3, 3])
    >>> interval.mean, interval.high, ceiling
    (1.5, 2.0, 2.0)
    """
    bits_N, num_N = np.asarray(bits, dtype=np.float64), np.asarray(num_candidates, dtype=np.float64)
    if bits_N.shape != num_N.shape or not (num_N >= 1).all():
        raise MetricError(f"{bits_N.size} exposures need {bits_N.size} numbers of candidates, 1 or more each")
    ceiling = float(np.log2(num_N + 1).mean())
    interval = mean_interval(bits_N)
    # Bounds of the mean, not of each canary: one with more candidates may lie above the mean of the ceilings.
    low, high = (float(np.clip(bound, 0.0, ceiling)) for bound in (interval.low, interval.high))
    return Interval(interval.mean, low, high, interval.num_clients), ceiling


def chance_exposure(num_candidates: npt.ArrayLike) -> float:
    """Return the exposure in bits that canaries show on average if nothing was learned of them.

    Args:
        num_candidates: how many candidates each was ranked against, 1 or more.

    >>> chance_exposure([1])  # rank 1 or 2: (1 + 0) / 2
    0.5
    >>> round(chance_exposure([1_000_000]), 3)
    1.443
    """
    num_ranks_N = np.asarray(num_candidates, dtype=np.float64) + 1
    return float((np.log2(num_ranks_N) - special.gammaln(num_ranks_N + 1) / np.log(2) / num_ranks_N).mean())


def exposure_p_value(canary_loss: float, candidate_losses_C: npt.ArrayLike) -> float:
    """Return the chance of a rank this good for a canary that nothing was learned of: rank / (C + 1).

    >>> exposure_p_value(1.0, [2.0, 3.0, 4.0])
    0.25
    """
    return _rank(canary_loss, candidate_losses_C) / (np.asarray(candidate_losses_C).size + 1)


def extrapolated_exposure(canary_loss: float, candidate_losses_C: npt.ArrayLike) -> Extrapolation:
    """Return -log2 of the fitted probability that a random secret is at least as likely as the canary.

    Args:
        canary_loss: as in `exposure`.
        candidate_losses_C: as in `exposure`, at least `MIN_FIT` of them.

    Raises:
        MetricError: if there are too few candidates or a loss is not finite.

    >>> losses = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    >>> round(extrapolated_exposure(-3.0, losses).bits, 1)  # -log2 of the normal's mass below -3
    9.5
    """
    losses = _losses(candidate_losses_C)
    if losses.size < MIN_FIT or not np.isfinite(canary_loss):
        raise MetricError(f"{losses.size} candidates and a loss of {canary_loss}; a fit needs {MIN_FIT} and a number")
    nan = float("nan")
    unit = power_of_two(losses)
    losses = losses / unit
    if np.ptp(losses) <= RELATIVE * np.abs(losses).max():
        return Extrapolation(nan, nan, "all candidates have one loss, to rounding")
    centre, scale = losses.mean(), losses.std()
    z = (losses - centre) / scale
    # Moments first: the likelihood of a skew-normal has a flat ridge at no skewness, where a bare start gets stuck.
    skewness = float(np.clip(stats.skew(z), -0.95, 0.95))
    delta = np.sign(skewness) * np.sqrt(
        np.pi / 2 * abs(skewness) ** (2 / 3) / (abs(skewness) ** (2 / 3) + ((4 - np.pi) / 2) ** (2 / 3))
    )
    shape = delta / np.sqrt(1 - delta**2)
    spread = 1 / np.sqrt(1 - 2 * delta**2 / np.pi)
    shape, location, width = stats.skewnorm.fit(z, shape, loc=-spread * delta * np.sqrt(2 / np.pi), scale=spread)
    p_value = float(stats.kstest(z, stats.skewnorm(shape, location, width).cdf).pvalue)
    if p_value < MIN_FIT_P:
        return Extrapolation(nan, p_value, f"the candidates' losses are not skew-normal (p = {p_value:.2g})")
    at = (canary_loss / unit - centre) / scale
    if not abs(at) < FARTHEST:
        return Extrapolation(nan, p_value, f"the canary lies {abs(at):.2g} standard deviations from the candidates")
    return Extrapolation(float(-_log_mass_below(at, shape, location, width) / np.log(2)), p_value, None)


def _log_mass_below(at: float, shape: float, location: float, width: float) -> float:
    """Log of the skew-normal's mass below a point, by quadrature relative to the density there.

    SciPy's `cdf` loses all digits below 1e-16, which is where an extrapolation is wanted.
    """
    if stats.skewnorm.cdf(at, shape, location, width) > 1e-6:
        return float(np.log(stats.skewnorm.cdf(at, shape, location, width)))
    z = (at - location) / width
    # The density is log-concave, so it falls at least as fast as its slope here: nothing is left beyond 50 such steps.
    step = 1 / (shape * _hazard(shape * z) - z)
    peak = _log_density(z, shape)

    def relative(steps: float) -> float:
        return float(np.exp(_log_density(z - steps * step, shape) - peak))

    mass, _ = integrate.quad(relative, 0, 50, limit=200, points=[0.1, 1, 5])
    return peak + float(np.log(mass * step))


def _log_density(z: float, shape: float) -> float:
    """Log of the standard skew-normal density, 2 phi(z) Phi(shape z)."""
    return float(np.log(2) - z**2 / 2 - np.log(2 * np.pi) / 2 + special.log_ndtr(shape * z))


def _hazard(h: float) -> float:
    """phi(h) / Phi(h), which is -h far to the left."""
    return -h if h < -1e6 else float(np.exp(-(h**2) / 2 - np.log(2 * np.pi) / 2 - special.log_ndtr(h)))


def _rank(canary_loss: float, candidate_losses_C: npt.ArrayLike) -> float:
    losses = _losses(candidate_losses_C)
    if not np.isfinite(canary_loss):
        raise MetricError(f"the canary's loss is {canary_loss}; it must keep a token within max_length")
    return float(1 + (losses < canary_loss).sum() + (losses == canary_loss).sum() / 2)


def _losses(values: npt.ArrayLike) -> Array:
    losses = np.asarray(values, dtype=np.float64)
    if losses.ndim != 1 or losses.size == 0 or not np.isfinite(losses).all():
        raise MetricError(f"candidates must be a list of at least one finite loss, got {losses.size} values")
    return losses
