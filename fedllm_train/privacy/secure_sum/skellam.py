"""Skellam noise on whole numbers, which clients share: nobody adds all of it, and the sum has as much as is needed.

Symbols: mu the variance of the noise on the sum, m the fewest clients of which a sum is opened, s = 2^f steps a
unit, C the clipping norm, d values, D2 and D1 bounds on the Euclidean and the absolute norm of a client's numbers.
Each client adds Poi(mu / 2m) - Poi(mu / 2m) to every value; variances add up, and a sum of Skellam numbers is one.
A client that is lost takes its noise along, which is why each adds a share of 1/m and not of 1/n.

One round satisfies Renyi differential privacy (Agarwal, Kairouz and Liu 2021, arXiv 2110.04995, Theorem 3.5; the same
bound is in the code of Bao et al.'s SMM), for whole orders a > 1:

    eps(a) <= a D2^2 / 2 mu + min( ((2a - 1) D2^2 + 6 D1) / 4 mu^2,  3 D1 / 2 mu ).

D2: a change is shortened to C, then rounded at random to one of the two neighbours, again and again until its norm is
within Kairouz, Liu and Steinke's bound (2021, arXiv 2102.06387, Proposition 22, beta = e^-1/2):

    D2^2 = min( C^2 s^2 + d/4 + sqrt(2 ln(1/beta)) (C s + sqrt(d)/2),  (C s + sqrt(d))^2 ),
    D1 <= min(sqrt(d) D2, D2^2).

The Poisson numbers come from Hoermann's transformed rejection (PTRS, 1993) driven by a stream of ChaCha20, its
acceptance by Loader's saddle-point form of the probability (2000), which does not cancel at large means; below a mean
of 10 by inversion. It is exact up to float64: each probability to about 1e-9 of itself. Imports no torch.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_train.privacy.secure_sum.masks import KeyStream

__all__ = [
    "ORDERS",
    "epsilon_of_rdp",
    "norm_bounds",
    "rounded_at_random",
    "skellam_epsilon",
    "skellam_noise",
    "skellam_rdp",
]

ORDERS = (*range(2, 65), *range(72, 129, 8), *range(160, 513, 32), 1024, 2048, 4096, 8192)
"""Orders at which the bound is taken: whole, as it demands."""
_PIECE = 1 << 18
_FROM_REJECTION = 10.0
_LOG_INVERSE_BETA = 0.5

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def skellam_rdp(order: int, *, mu: float, norm_2: float, norm_1: float) -> float:
    """Return the bound on the Renyi divergence of one round.

    Args:
        order: a, whole, at least 2.
        mu: variance of the noise on the sum, in squared steps.
        norm_2: D2.
        norm_1: D1.

    >>> [round(skellam_rdp(a, mu=mu, norm_2=d, norm_1=d), 5) for mu, d, a in ((100, 10, 2), (400, 20, 4), (50, 3, 8))]
    [1.009, 2.00456, 0.7353]
    """
    square = norm_2**2
    first = ((2 * order - 1) * square + 6 * norm_1) / (4 * mu**2)
    return order * square / (2 * mu) + min(first, 3 * norm_1 / (2 * mu))


def epsilon_of_rdp(rdp: "dict[int, float]", delta: float) -> float:
    """Return epsilon of Renyi bounds (Canonne, Kamath and Steinke 2020, arXiv 2004.00010, Proposition 12).

    Args:
        rdp: order -> bound, of all rounds together.
        delta: in (0, 1).

    >>> round(epsilon_of_rdp({order: order / 2 for order in range(2, 65)}, 1e-5), 2)
    4.75
    """
    found = (
        bound + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order, bound in rdp.items()
    )
    return max(0.0, min(found))


def norm_bounds(clip: float, fraction_bits: int, num_values: int) -> tuple[float, float]:
    """Return D2 and D1: what one client's rounded change may have at most.

    Args:
        clip: C.
        fraction_bits: f.
        num_values: d.
    """
    steps, d = clip * 2.0**fraction_bits, num_values
    square = min(
        steps**2 + d / 4 + math.sqrt(2 * _LOG_INVERSE_BETA) * (steps + math.sqrt(d) / 2), (steps + math.sqrt(d)) ** 2
    )
    norm_2 = math.sqrt(square)
    return norm_2, min(math.sqrt(d) * norm_2, square)


@lru_cache(maxsize=256)
def skellam_epsilon(
    noise_multiplier: float, *, clip: float, fraction_bits: int, num_values: int, num_rounds: int, delta: float
) -> float:
    """Return epsilon after some rounds; infinite without noise, 0 without rounds.

    Args:
        noise_multiplier: standard deviation of the noise on the sum, in multiples of the clipping norm.
        clip: C.
        fraction_bits: f.
        num_values: d.
        num_rounds: T; every client is taken to be in all of them.
        delta: in (0, 1).

    >>> spent = skellam_epsilon(1.0, clip=1.0, fraction_bits=16, num_values=100, num_rounds=1, delta=1e-5)
    >>> round(spent, 2)  # the Gaussian of this multiplier has 4.75 by the same conversion
    4.75
    """
    if num_rounds == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    norm_2, norm_1 = norm_bounds(clip, fraction_bits, num_values)
    mu = (noise_multiplier * clip * 2.0**fraction_bits) ** 2
    rdp = {order: num_rounds * skellam_rdp(order, mu=mu, norm_2=norm_2, norm_1=norm_1) for order in ORDERS}
    return epsilon_of_rdp(rdp, delta)


def rounded_at_random(values: Floats, *, norm_2: float, stream: KeyStream) -> Integers:
    """Round each value to one of its two neighbours, so that its mean is kept, within a bound on the norm.

    Args:
        values: (d,) in steps.
        norm_2: D2; rounding is done again while the result is longer, which few tries are.
        stream: of this vector alone.

    Raises:
        ValueError: if a hundred tries were too long, which has a chance of (1 - e^-1/2)^100 where the values' own norm
            is within C s.
    """
    low = np.floor(values)
    above = values - low
    for _ in range(100):
        rounded = low + (_uniforms(stream, len(values)) < above)
        if float(rounded @ rounded) <= norm_2**2:
            return rounded.astype(np.int64)
    raise ValueError("the rounded change is longer than its bound, however it is rounded")


def skellam_noise(size: int, mu: float, stream: KeyStream) -> Integers:
    """Return independent Skellam numbers of mean 0.

    Args:
        size: how many.
        mu: their variance, up to 2^50.
        stream: of this noise alone.

    >>> drawn = skellam_noise(20000, 9.0, KeyStream(bytes(32)))
    >>> abs(drawn.mean()) < 0.1, abs(drawn.var() - 9.0) < 0.4
    (np.True_, np.True_)
    """
    found = np.empty(size, dtype=np.int64)
    for start in range(0, size, _PIECE):
        count = min(_PIECE, size - start)
        found[start : start + count] = _poisson(count, mu / 2, stream) - _poisson(count, mu / 2, stream)
    return found


def _uniforms(stream: KeyStream, count: int) -> Floats:
    """Numbers in (0, 1), in the middles of 2^52 equal parts."""
    words = stream.words(count, np.uint64)
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _poisson(count: int, mean: float, stream: KeyStream) -> Integers:
    if mean == 0:
        return np.zeros(count, dtype=np.int64)
    if mean < _FROM_REJECTION:
        return np.searchsorted(_small_table(mean), _uniforms(stream, count)).astype(np.int64)
    found = np.empty(count, dtype=np.int64)
    filled = 0
    while filled < count:
        fresh = _accepted(_uniforms(stream, count - filled), _uniforms(stream, count - filled), mean)
        found[filled : filled + len(fresh)] = fresh
        filled += len(fresh)
    return found


def _accepted(u: Floats, v: Floats, mean: float) -> Integers:
    """Those candidates of PTRS that are taken; Hoermann's constants."""
    root = math.sqrt(mean)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    u = u - 0.5
    us = 0.5 - np.abs(u)
    k = np.floor((2 * a / us + b) * u + mean + 0.43)
    possible = (k >= 0) & ((us >= 0.013) | (v <= us))
    log_v = np.log(v * inverse_alpha / (a / us**2 + b))
    taken = possible & (log_v <= _log_probability(np.maximum(k, 0.0), mean))
    at_once = (us >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
    return k[taken | (at_once & (k >= 0))].astype(np.int64)


def _log_probability(k: Floats, mean: float) -> Floats:
    """Loader's form: -stirling(k) - mean h(k / mean - 1) - log(2 pi k) / 2, h(x) = (1 + x) log(1 + x) - x."""
    safe = np.maximum(k, 1.0)
    x = (safe - mean) / mean
    deviance = mean * ((1 + x) * np.log1p(x) - x)
    found = -_stirling(safe) - deviance - 0.5 * np.log(2 * math.pi * safe)
    return np.where(k > 0, found, -mean)


def _stirling(k: Floats) -> Floats:
    """Return log k! - (k + 1/2) log k + k - log(2 pi) / 2, for k from 1."""
    from scipy.special import gammaln

    inverse = 1 / k
    series = inverse * (1 / 12 - inverse**2 * (1 / 360 - inverse**2 * (1 / 1260 - inverse**2 / 1680)))
    few = np.minimum(k, 16.0)
    exact = gammaln(few + 1) - (few + 0.5) * np.log(few) + few - 0.5 * math.log(2 * math.pi)
    return np.where(k < 16, exact, series)


@lru_cache(maxsize=8)
def _small_table(mean: float) -> Any:
    from scipy.stats import poisson

    return poisson.cdf(np.arange(128), mean)
