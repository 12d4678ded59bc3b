"""Axis `length`: how different the clients' instruction and response lengths are.

Lengths are compared as natural logs of token counts, kept in fixed bins: counts 1 to 11 have a bin each, longer ones
eight bins per doubling (9 % wide); a text of 0 tokens counts as 1. The headline is ICC(1), the between-client share
of the variance of log response length, by one-way analysis of variance with unequal sizes (Donner 1986, eq. 2.1).
Symbols: K clients, L length bins; `counts_KL` row counts; `log_L` log-lengths of the bins. numpy only.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axis import Axis, Columns, Facts, Measure, Reading, Tile, Values
from fedllm_data.heterogeneity.null import deal_sampler
from fedllm_data.heterogeneity.profile import ClientProfile, Counts, CountTable, Stack
from fedllm_data.wording.catalogue import words

__all__ = [
    "LENGTH",
    "bin_log_length",
    "intraclass_correlation",
    "length_bin",
    "length_quantiles",
    "wasserstein_to_pool",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BINS_PER_DOUBLING = 8
MAX_DOUBLINGS = 24
"""Texts of 2^24 tokens and more share the last bin."""
MIN_ROWS = 2
SIDES = ("instruction", "response")
LOWEST_B: IntArray = np.unique(
    np.ceil(2 ** (np.arange(BINS_PER_DOUBLING * MAX_DOUBLINGS + 1) / BINS_PER_DOUBLING) - 1e-9).astype(np.int64)
)
"""Smallest token count of every bin, the same for all clients and releases: profiles depend on it."""
_HIGHEST_B: IntArray = np.append(LOWEST_B[1:] - 1, LOWEST_B[-1])
LOG_LENGTH_B: FloatArray = (np.log(LOWEST_B) + np.log(_HIGHEST_B)) / 2


def length_bin(num_tokens: IntArray) -> IntArray:
    """Return the bin of each token count.

    >>> length_bin(np.array([0, 1, 2, 3])).tolist()
    [0, 0, 1, 2]
    """
    return np.searchsorted(LOWEST_B, np.maximum(num_tokens, 1), side="right") - 1


def bin_log_length(labels: tuple[str, ...]) -> FloatArray:
    """Return the log-lengths that stand for bins: the middle, on the log scale, of the counts that share the bin.

    >>> np.exp(bin_log_length(("000", "002"))).round(6).tolist()
    [1.0, 3.0]
    """
    return LOG_LENGTH_B[[int(label) for label in labels]]


def intraclass_correlation(counts_KL: IntArray, log_L: FloatArray) -> tuple[float, float]:
    """Return ICC(1) and the raw between-client share of the variance (eta squared).

    Returns:
        ICC in [-1 / (n - 1), 1]: 1 when clients differ and rows of a client do not, 0 when clients are as different
        as chance makes them, below 0 when less; NaN without two clients, a client of two rows, or any variance.
        Eta squared in [0, 1], which chance alone lifts to about (K - 1) / (N - 1).

    >>> intraclass_correlation(np.array([[2, 0], [0, 2]]), np.array([0.0, 1.0]))
    (1.0, 1.0)
    """
    rows_K = counts_KL.sum(axis=1)
    num_clients, num_rows = len(rows_K), int(rows_K.sum())
    centred_L = log_L - counts_KL.sum(axis=0) @ log_L / num_rows
    sum_K = counts_KL @ centred_L
    between = float((sum_K**2 / rows_K).sum())
    total = float(counts_KL.sum(axis=0) @ centred_L**2)
    within = max(0.0, total - between)
    if num_clients < 2 or num_rows <= num_clients or total <= 1e-12 * num_rows:
        return float("nan"), float("nan")
    typical_rows = (num_rows - float((rows_K**2).sum()) / num_rows) / (num_clients - 1)
    mean_between, mean_within = between / (num_clients - 1), within / (num_rows - num_clients)
    icc = (mean_between - mean_within) / (mean_between + (typical_rows - 1) * mean_within)
    return icc, between / total


def wasserstein_to_pool(counts_KL: IntArray, log_L: FloatArray) -> FloatArray:
    """Return every client's Wasserstein-1 distance of log-lengths to the pool, in natural-log units.

    A distance of 0.69 = ln 2 means that lengths differ by a factor of two on average.

    >>> wasserstein_to_pool(np.array([[1, 0], [0, 1]]), np.array([0.0, 2.0])).tolist()
    [1.0, 1.0]
    """
    below_KL = counts_KL.cumsum(axis=1) / counts_KL.sum(axis=1, keepdims=True)
    pool_L = counts_KL.sum(axis=0).cumsum() / counts_KL.sum()
    return np.asarray(np.abs(below_KL - pool_L)[:, :-1] @ np.diff(log_L))


def length_quantiles(counts_KL: IntArray, log_L: FloatArray, fraction: float) -> FloatArray:
    """Return every client's quantile of the token count, within the resolution of a bin.

    >>> length_quantiles(np.array([[1, 1, 1]]), np.log([1.0, 2.0, 8.0]), 0.5).round(6).tolist()
    [2.0]
    """
    below_KL = counts_KL.cumsum(axis=1)
    wanted_K = np.maximum(1, np.ceil(fraction * below_KL[:, -1] - 1e-9))
    return np.asarray(np.exp(log_L[(below_KL < wanted_K[:, None]).sum(axis=1)]))


def _count(columns: Columns) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    for side in SIDES:
        num_tokens = np.asarray(columns[f"{side}_tokens"], np.int64)
        bins, rows = np.unique(length_bin(num_tokens), return_counts=True)
        counts[f"{side}_length"] = {f"{b:03d}": n for b, n in zip(bins.tolist(), rows.tolist(), strict=True)}
        counts[f"{side}_tokens"] = {"sum": int(num_tokens.sum()), "sum_squares": int((num_tokens**2).sum())}
    return counts


def _values(stack: Stack) -> Values:
    values: Values = {}
    for side in SIDES:
        table = stack.tables[f"{side}_length"]
        log_L = bin_log_length(table.labels)
        icc, between_fraction = intraclass_correlation(table.counts_KL, log_L)
        values |= {
            f"{side}_icc": icc,
            f"{side}_between_fraction": between_fraction,
            f"{side}_wasserstein_to_pool": float(wasserstein_to_pool(table.counts_KL, log_L).mean()),
        }
    return values


def _describe(stack: Stack, pool: ClientProfile) -> Facts:
    facts: Facts = {}
    for side in SIDES:
        sums = pool.counts[f"{side}_tokens"]
        mean = sums["sum"] / pool.num_rows
        # Exact integers: the difference of two large numbers is taken before anything is rounded.
        variance = (pool.num_rows * sums["sum_squares"] - sums["sum"] ** 2) / pool.num_rows**2
        facts |= {f"{side}_mean_tokens": mean, f"{side}_std_tokens": variance**0.5}
        table = stack.tables[f"{side}_length"]
        if stack.num_clients:
            medians_K = length_quantiles(table.counts_KL, bin_log_length(table.labels), 0.5)
            low, high = np.quantile(medians_K, [0.1, 0.9], method="inverted_cdf")
            facts |= {f"{side}_low_median": float(low), f"{side}_high_median": float(high)}
    return facts


def _sentence(values: Values, facts: Facts) -> str:
    return words(
        "Who wrote a row explains {responses} of the variation in response length and {instructions} in instruction"
        " length; the median response runs from {low} to {high} tokens (10th to 90th percentile of clients).",
        responses=_share(values["response_icc"]),
        instructions=_share(values["instruction_icc"]),
        low=f"{facts['response_low_median']:.0f}",
        high=f"{facts['response_high_median']:.0f}",
    )


def _share(icc: float) -> str:
    return words("an unknown share") if np.isnan(icc) else f"{max(0.0, icc):.0%}"


def _per_client(stack: Stack) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for side in SIDES:
        table: CountTable = stack.tables[f"{side}_length"]
        log_L = bin_log_length(table.labels)
        for name, fraction in (("p10", 0.1), ("median", 0.5), ("p90", 0.9)):
            quantiles = length_quantiles(table.counts_KL, log_L, fraction).tolist() if stack.num_clients else []
            columns[f"{side}_{name}_tokens"] = quantiles
    return columns


def _measures(side: str) -> dict[str, Measure]:
    return {
        f"{side}_icc": Measure(
            title=f"{side.capitalize()}: intraclass correlation",
            unit="fraction",
            meaning="ICC(1) of log token counts, the between-client share of the variance with chance taken out;"
            " 0: clients do not differ, 1: every client has one length. It may be slightly negative.",
            undefined="all texts are equally long, or no client has two rows",
        ),
        f"{side}_between_fraction": Measure(
            title=f"{side.capitalize()}: between-client variance",
            unit="fraction",
            meaning="Eta squared of log token counts: the raw share, which chance alone lifts when clients are small.",
            undefined="all texts are equally long, or no client has two rows",
        ),
        f"{side}_wasserstein_to_pool": Measure(
            title=f"{side.capitalize()}: Wasserstein-1 to the pool",
            unit="ln tokens",
            meaning="Mean over clients of the distance of log token counts; 0: as the pool, 0.69: a factor of two.",
        ),
    }


LENGTH = Axis(
    name="length",
    question="Do clients write and read texts of different length?",
    headline="response_icc",
    null="clients of these sizes to whom the lengths of all rows are dealt at random",
    tables=tuple(f"{side}_length" for side in SIDES),
    min_rows=MIN_ROWS,
    measures=_measures("response") | _measures("instruction"),
    count=_count,
    measure=_values,
    null_sampler=deal_sampler,
    describe=_describe,
    per_client=_per_client,
    sentence=_sentence,
    reading=Reading(
        means="Clients with longer texts take larger or more informative steps. Give losses per token and per"
        " row, normalise local work by tokens rather than rows, and look at length before calling a personalised"
        " model better.",
        alike="Texts are about equally long everywhere: a local step means the same work with all clients, and"
        " counting it in rows or in tokens makes no difference to the weights.",
        unknown="There are too few clients or rows to compare lengths",
        rests_on=("tokenizer",),
        plot="lengths",
        tiles=tuple(
            Tile(f"{side}_mean_tokens", f"tokens {article} {side}", spread=f"{side}_std_tokens")
            for article, side in (("an", "instruction"), ("a", "response"))
        ),
    ),
)
