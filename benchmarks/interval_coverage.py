"""How often the intervals over clients contain the truth: simulated clients of realistic sizes, many data sets.

Every data set draws clients afresh: a size (log-normal, 1 to 150 rows, median 3, the largest tenth above 10, as the
users of Stack Exchange and OASST are), a score of the client's own, and the noise of its rows, which shrinks with its
size. The truth is that of the infinite population of such clients, from a million draws. An interval should contain
it in 95 % of the data sets; the noise of counting 3,000 of them is 0.4 points (one standard error).

The second part is about two methods with few seeds each (`SEED_CELLS`): clients of 20 and 50, the difference of a
client's two scores with a standard deviation of 0.1, and seeds that move all clients of a method together. An interval
that says it covers other seeds should contain the true difference in at least 93 %; one that makes no such claim (a
trained method with one seed) is listed with what it covers all the same.

    python benchmarks/interval_coverage.py [--num-datasets 3000] [--part clients|seeds]
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import write_result
from scipy import stats

from fedllm_eval.scoring.comparisons import method_difference
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.proportion import wilson_interval
from fedllm_eval.scoring.tail_interval import worst_decile_interval

NUM_CLIENTS = (20, 50, 100, 200, 400, 800)
POPULATION = 1_000_000
SEED_CLIENTS = (20, 50)
CLIENT_METHOD_SD = 0.1
SEED_CELLS = [
    # Seeds of baseline and method, what is known of them, sd between seeds of either, sd of client and seed together.
    ((2, 2), "paired", (0.05, 0.05), 0.0),
    ((3, 3), "paired", (0.05, 0.05), 0.0),
    ((3, 3), "paired", (0.05, 0.05), 0.1),
    ((5, 5), "paired", (0.01, 0.01), 0.0),
    ((2, 2), "unpaired", (0.05, 0.05), 0.0),
    ((2, 2), "unpaired", (0.0, 0.05), 0.0),
    ((2, 3), "unpaired", (0.05, 0.05), 0.0),
    ((2, 5), "unpaired", (0.05, 0.01), 0.0),
    ((3, 3), "unpaired", (0.05, 0.05), 0.1),
    ((3, 3), "unpaired", (0.0, 0.05), 0.0),
    ((5, 5), "unpaired", (0.02, 0.02), 0.1),
    ((1, 2), "against a base model", (0.0, 0.05), 0.0),
    ((1, 2), "against a base model", (0.0, 0.01), 0.0),
    ((1, 3), "against a base model", (0.0, 0.05), 0.1),
    ((1, 5), "against a base model", (0.0, 0.01), 0.0),
    ((1, 2), "unpaired", (0.05, 0.05), 0.0),
    ((1, 3), "unpaired", (0.05, 0.02), 0.0),
]


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

    def ratio(x: np.ndarray, n: np.ndarray, axis: int) -> np.ndarray:
        return (x * n).sum(axis) / n.sum(axis)

    def of_mean(method: str, weighted: bool) -> Callable[..., tuple[float, float]]:
        def bounds(x_K: np.ndarray, n_K: np.ndarray, seed: int) -> tuple[float, float]:
            if method == "t":
                interval = mean_interval(x_K, n_K if weighted else None)
                return interval.low, interval.high
            found = stats.bootstrap(
                (x_K, n_K),
                ratio if weighted else lambda x, n, axis: x.mean(axis),
                paired=True,
                vectorized=True,
                method=method,
                n_resamples=1000,
                rng=np.random.default_rng(seed),
            ).confidence_interval
            return found.low, found.high

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
    for method in ("BCa", "percentile"):
        found[f"for comparison: mean, loss, {method.lower()}"] = ("loss", mean, of_mean(method, False))
        found[f"for comparison: weighted mean, loss, {method.lower()}"] = (
            "loss",
            weighted_mean,
            of_mean(method, True),
        )
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


def seed_coverage(
    num_clients: int,
    num_seeds: tuple[int, int],
    kind: str,
    seed_sds: tuple[float, float],
    together_sd: float,
    num_datasets: int,
) -> dict[str, Any]:
    """Count how often the interval of a difference of two methods contains the truth, which is 0."""
    inside, widths, covers = 0, [], True
    for seed in range(num_datasets):
        rng = np.random.default_rng([seed, num_clients])
        client_K = rng.normal(0, 1, num_clients)
        sides = []
        for num, sd, own_sd in zip(num_seeds, seed_sds, (0.0, CLIENT_METHOD_SD), strict=True):
            own_K = client_K + rng.normal(0, own_sd, num_clients)
            sides.append(own_K + rng.normal(0, sd, (num, 1)) + rng.normal(0, together_sd, (num, num_clients)))
        if kind == "against a base model":
            sides[0] = client_K[None]
        found = method_difference(*sides, paired_seeds=kind == "paired", a_fixed=kind == "against a base model")
        inside += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
        covers = found.covers_seeds
    return {
        "num_clients": num_clients,
        "num_seeds": list(num_seeds),
        "kind": kind,
        "seed_sds": list(seed_sds),
        "client_and_seed_sd": together_sd,
        "says_it_covers_seeds": covers,
        "coverage": inside / num_datasets,
        "median_width": float(np.median(widths)),
    }


def main() -> None:
    """Run every case at every number of clients and write the results; a part made alone leaves the other as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-datasets", type=int, default=3000)
    parser.add_argument("--part", choices=("clients", "seeds"), help="make this part again alone")
    arguments = parser.parse_args()
    path = Path(__file__).parent / "results" / "interval_coverage.json"
    result = json.loads(path.read_text(encoding="utf-8")) if arguments.part else {}
    if arguments.part != "seeds":
        result |= {"num_datasets": arguments.num_datasets, "coverage": over_clients(arguments.num_datasets)}
    if arguments.part != "clients":
        result["seeds"] = {"num_datasets": arguments.num_datasets, "cells": over_seeds(arguments.num_datasets)}
    print(write_result("interval_coverage", result))


def over_seeds(num_datasets: int) -> list[dict[str, Any]]:
    """Return the coverage of every cell of seeds."""
    cells = []
    for num_clients in SEED_CLIENTS:
        for cell in SEED_CELLS:
            cells.append(seed_coverage(num_clients, *cell, num_datasets))
            print(f"{num_clients} clients, {cell}: {cells[-1]['coverage']:.3f}", flush=True)
    return cells


def over_clients(num_datasets: int) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the coverage of every case at every number of clients."""
    results: dict[str, dict[str, dict[str, float | None]]] = {}
    for case in cases():
        results[case] = {}
        for num_clients in NUM_CLIENTS:
            begin = time.perf_counter()
            found = coverage(case, num_clients, num_datasets)
            results[case][str(num_clients)] = found
            print(
                f"{case}, {num_clients} clients: {found['coverage']} ({time.perf_counter() - begin:.1f} s)", flush=True
            )
    return results


if __name__ == "__main__":
    main()
