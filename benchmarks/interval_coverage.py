"""How often the intervals over clients contain the truth: simulated clients of realistic sizes, many data sets.

Every data set draws clients afresh: a size (log-normal, 1 to 150 rows, median 3, the largest tenth above 10, as the
users of Stack Exchange and OASST are), a score of the client's own, and the noise of its rows, which shrinks with its
size. The truth is that of the infinite population of such clients, from a million draws. An interval should contain
it in 95 % of the data sets; the noise of counting 3,000 of them is 0.4 points (one standard error).

    python benchmarks/interval_coverage.py [--num-datasets 3000]
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from machine import write_result

from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.proportion import wilson_interval
from fedllm_eval.scoring.tail_interval import worst_decile_interval

NUM_CLIENTS = (20, 50, 100, 200, 400, 800)
POPULATION = 1_000_000


def sizes(rng: np.random.Generator, num_clients: int) -> np.ndarray:
    """Rows of each client."""
    return np.clip(np.ceil(np.exp(rng.normal(0.9, 1.1, num_clients))), 1, 150)


def loss(rng: np.random.Generator, num_clients: int) -> tuple[np.ndarray, np.ndarray]:
    """Nats per token: skewed between clients, and lower for clients who write more."""
    n_K = sizes(rng, num_clients)
    mu_K = 2.2 - 0.1 * np.log(n_K) + rng.gamma(6.0, 0.2, num_clients)
    return mu_K + rng.normal(0, 0.8, num_clients) / np.sqrt(n_K), n_K


def accuracy(rng: np.random.Generator, num_clients: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of a client's rows that come out right; half of the clients have three rows or fewer."""
    n_K = sizes(rng, num_clients)
    return rng.binomial(n_K.astype(int), rng.beta(4.0, 2.5, num_clients)) / n_K, n_K


def gain(rng: np.random.Generator, num_clients: int) -> tuple[np.ndarray, np.ndarray]:
    """Difference of two losses of the same clients: small, with a few clients far out (Student's t, 5 degrees)."""
    n_K = sizes(rng, num_clients)
    return 0.05 + 0.1 * rng.standard_t(5, num_clients) + rng.normal(0, 0.3, num_clients) / np.sqrt(n_K), n_K


DRAWS = {"loss": loss, "accuracy": accuracy, "gain": gain}


def cases() -> dict[str, tuple[str, Callable[..., float], Callable[..., tuple[float, float]]]]:
    """Name -> whose scores, the truth from a population, and the bounds from a data set."""

    def of_mean(method: str, weighted: bool) -> Callable[..., tuple[float, float]]:
        def bounds(x_K: np.ndarray, n_K: np.ndarray, seed: int) -> tuple[float, float]:
            weights = n_K if weighted else None
            interval = mean_interval(x_K, weights, method=method, num_resamples=1000, seed=seed)
            return interval.low, interval.high

        return bounds

    def of_pair(x_K: np.ndarray, n_K: np.ndarray, seed: int) -> tuple[float, float]:
        # What `paired_difference` gives, without the sign flips, which are nine tenths of its time.
        interval = mean_interval(x_K)
        return interval.low, interval.high

    def of_tail(x_K: np.ndarray, n_K: np.ndarray, seed: int) -> tuple[float, float]:
        interval = worst_decile_interval(x_K, higher_is_better=False, num_resamples=1000, seed=seed)
        return interval.low, interval.high

    def of_share(x_K: np.ndarray, n_K: np.ndarray, seed: int) -> tuple[float, float]:
        share = wilson_interval(int((x_K > 0).sum()), x_K.size)
        return share.low, share.high

    def mean(x: np.ndarray, n: np.ndarray) -> float:
        return float(x.mean())

    def weighted_mean(x: np.ndarray, n: np.ndarray) -> float:
        return float((x * n).sum() / n.sum())

    def tail_mean(x: np.ndarray, n: np.ndarray) -> float:
        return float(np.sort(x)[-x.size // 10 :].mean())

    def share(x: np.ndarray, n: np.ndarray) -> float:
        return float((x > 0).mean())

    found: dict[str, tuple[str, Callable[..., float], Callable[..., tuple[float, float]]]] = {
        "mean, loss": ("loss", mean, of_mean("t", False)),
        "mean, accuracy": ("accuracy", mean, of_mean("t", False)),
        "weighted mean, loss": ("loss", weighted_mean, of_mean("t", True)),
        "weighted mean, accuracy": ("accuracy", weighted_mean, of_mean("t", True)),
        "worst decile, loss": ("loss", tail_mean, of_tail),
        "worst decile, gain": ("gain", tail_mean, of_tail),
        "paired difference, gain": ("gain", mean, of_pair),
        "share better off, gain": ("gain", share, of_share),
    }
    for method in ("bca", "percentile"):
        found[f"for comparison: mean, loss, {method}"] = ("loss", mean, of_mean(method, False))
        found[f"for comparison: weighted mean, loss, {method}"] = ("loss", weighted_mean, of_mean(method, True))
    return found


def coverage(case: str, num_clients: int, num_datasets: int) -> dict[str, float | None]:
    """Count how often the interval of a case contains the truth, lies above it, and lies below it."""
    name, truth_of, bounds_of = cases()[case]
    truth = truth_of(*DRAWS[name](np.random.default_rng(0), POPULATION))
    bounds = []
    for seed in range(num_datasets):
        rng = np.random.default_rng([seed, num_clients])
        bounds.append(bounds_of(*DRAWS[name](rng, num_clients), seed))
    low, high = np.array(bounds).T
    if np.isnan(low).all():
        return {"coverage": None, "truth": truth, "why": "too few clients for an interval of the worst tenth"}
    return {
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "too_high": float((low > truth).mean()),
        "too_low": float((high < truth).mean()),
        "median_width": float(np.median(high - low)),
        "truth": truth,
    }


def main() -> None:
    """Run every case at every number of clients and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-datasets", type=int, default=3000)
    arguments = parser.parse_args()
    results: dict[str, dict[str, dict[str, float | None]]] = {}
    for case in cases():
        results[case] = {}
        for num_clients in NUM_CLIENTS:
            begin = time.perf_counter()
            found = coverage(case, num_clients, arguments.num_datasets)
            results[case][str(num_clients)] = found
            print(
                f"{case}, {num_clients} clients: {found['coverage']} ({time.perf_counter() - begin:.1f} s)", flush=True
            )
    print(write_result("interval_coverage", {"num_datasets": arguments.num_datasets, "coverage": results}))


if __name__ == "__main__":
    main()
