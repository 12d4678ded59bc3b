"""How far the mean of the worst-served tenth could be off: a studentised bootstrap, clients resampled.

Symbols: K clients, m = max(1, floor(K / 10)) of them the worst; `y` their distance beyond the next better client. The
mean of a tail is biased towards the middle, and its own standard error varies much from sample to sample, so plain
bootstrap intervals miss the truth in a tenth to a third of the samples. Dividing by the standard error in every
resample (bootstrap-t, Efron 1982; Hall 1988) repairs that from about fifty clients on. With fewer, a tenth is under
five clients, and no interval is given.
"""

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.intervals import Interval
from fedllm_eval.scoring.safe_scale import power_of_two
from fedllm_eval.scoring.spread import worst_decile

__all__ = ["MIN_TAIL_CLIENTS", "sorted_tail", "worst_decile_interval"]

Array = npt.NDArray[np.float64]
MIN_TAIL_CLIENTS = 50
CHUNK = 2_000_000


def worst_decile_interval(
    x_K: npt.ArrayLike,
    *,
    higher_is_better: bool,
    confidence: float = 0.95,
    num_resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Return the mean score of the worst-served tenth of the clients with its interval.

    Args:
        x_K: (K,) finite scores, one per client.
        higher_is_better: False for losses.
        confidence: level of the two-sided interval, in (0, 1).
        num_resamples: resamples of the bootstrap.
        seed: seeds the bootstrap.

    Returns:
        The mean and its bounds; NaN bounds for fewer than `MIN_TAIL_CLIENTS` clients. Where the worst tenth all have
        the same score (accuracies of 0, say) the interval is that score, or one-sided up to the median.

    Raises:
        MetricError: if there are no clients, a value is not finite, or the confidence is none.

    >>> interval = worst_decile_interval(range(100), higher_is_better=True)
    >>> interval.mean, interval.low < 4.5 < interval.high
    (4.5, True)
    >>> worst_decile_interval(range(20), higher_is_better=True).low
    nan
    """
    mean = worst_decile(x_K, higher_is_better=higher_is_better)
    if not 0 < confidence < 1:
        raise MetricError(f"confidence is {confidence}; it is a number between 0 and 1, such as 0.95")
    # High is bad from here on.
    scale = power_of_two(x_K)
    x = np.sort(np.asarray(x_K, dtype=np.float64) / scale * (-1 if higher_is_better else 1))
    if x.size < MIN_TAIL_CLIENTS:
        return Interval(mean, float("nan"), float("nan"), x.size)
    tail, std_error = sorted_tail(x[None])
    rng = np.random.default_rng(seed)
    pivots = []
    for begin in range(0, num_resamples, step := max(1, CHUNK // x.size)):
        index = rng.integers(x.size, size=(min(step, num_resamples - begin), x.size))
        index.sort(axis=1)  # x is sorted, so this sorts the resampled scores
        tail_B, std_error_B = sorted_tail(x[index])
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots.append((tail_B - tail) / std_error_B)
    pivot_B = np.concatenate(pivots)
    # A resample whose tail is all ties has no standard error: no deviation, or an infinite one.
    pivot_B = np.where(np.isnan(pivot_B), 0.0, pivot_B)
    edges = [(1 + confidence) / 2, (1 - confidence) / 2]
    pivot_high, pivot_low = np.quantile(pivot_B, edges, method="closest_observation")
    error = float(std_error[0])
    low, high = (tail[0] - (error * pivot if error > 0 else 0.0) for pivot in (pivot_high, pivot_low))
    # Infinite only where ties left nothing to scale by: no better than the median, no worse than the worst.
    low, high = max(float(low), float(np.median(x))), float(high) if np.isfinite(high) else float(x[-1])
    low, high = low * scale, high * scale
    return Interval(mean, *((-high, -low) if higher_is_better else (low, high)), num_clients=x.size)


def sorted_tail(x_BK: Array) -> tuple[Array, Array]:
    """Return the mean of the highest tenth of every sorted row, and its standard error from the influence function."""
    num_clients = x_BK.shape[1]
    num_worst = max(1, num_clients // 10)
    beyond = x_BK[:, -num_worst:] - x_BK[:, -num_worst - 1, None]
    first, second = beyond.sum(axis=1) / num_clients, (beyond**2).sum(axis=1) / num_clients
    share = num_worst / num_clients
    variance = np.maximum(second - first**2, 0.0) / share**2 / (num_clients - 1)
    return x_BK[:, -num_worst:].mean(axis=1), np.sqrt(variance)
