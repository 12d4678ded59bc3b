"""Which methods no other one beats, when a score is set against what it cost: bytes, hours, money, privacy.

A method beats another on a front if it is shown to score better (the paired test of the comparison, corrected by Holm
over all pairs of methods and all splits) and costs no more on average over its seeds. So two methods that these
clients cannot tell apart never beat one another, whatever they cost; where one of them costs less, that is said.
A method whose cost is not known is on no front of that cost, and is named with the reason.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from fedllm_eval.comparing.compared_methods import Method
from fedllm_eval.comparing.comparison_verdicts import ALPHA, MIN_CLIENTS, Family
from fedllm_eval.comparing.method_costs import ChargedMethod
from fedllm_eval.comparing.paired_scores import client_scores, paired_difference, paired_table, rows_std_error
from fedllm_eval.running.round_costs import COSTS
from fedllm_eval.running.worst_served import HEADLINES
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.comparisons import holm
from fedllm_eval.scoring.intervals import mean_interval

__all__ = ["beaten_by", "cheaper_ties", "fronts_of", "headline_score"]


def beaten_by(costs: Mapping[str, float], better: Collection[tuple[str, str]]) -> dict[str, list[str]]:
    """Return label -> the methods that beat it, the cheapest first; an empty list is a method that nobody beats.

    Of those that beat a method, the ones that are beaten themselves are left out, unless there are no others: so one
    beaten method more changes nothing that is said of the rest.

    Args:
        costs: label -> what it cost.
        better: pairs (a, b) of labels of which a is shown to score better than b.

    >>> beaten_by({"a": 1.0, "b": 2.0, "c": 3.0}, {("b", "c"), ("c", "a")})
    {'a': [], 'b': [], 'c': ['b']}
    """
    every = {
        label: sorted(
            (other for other in costs if (other, label) in better and costs[other] <= cost),
            key=lambda other: (costs[other], other),
        )
        for label, cost in costs.items()
    }
    return {label: [other for other in by if not every[other]] or by for label, by in every.items()}


def cheaper_ties(
    costs: Mapping[str, float], better: Collection[tuple[str, str]], tested: Collection[frozenset[str]]
) -> dict[str, list[str]]:
    """Return label -> the methods that cost less and that no test tells apart from it, the cheapest first.

    Args:
        costs: label -> what it cost.
        better: as in `beaten_by`.
        tested: pairs that were set against one another; of others nothing is known.

    >>> cheaper_ties({"a": 1.0, "b": 2.0}, (), {frozenset("ab")})
    {'a': [], 'b': ['a']}
    """
    return {
        label: sorted(
            (
                other
                for other in costs
                if costs[other] < cost
                and frozenset((label, other)) in tested
                and (label, other) not in better
                and (other, label) not in better
            ),
            key=lambda other: (costs[other], other),
        )
        for label, cost in costs.items()
    }


def headline_score(methods: Sequence[Method]) -> str | None:
    """Return the score that the fronts are drawn of: the headline one that all results have, if there is one."""
    tables = [run.results.per_client.column_names for method in methods for run in method.runs]
    for name in (*HEADLINES, *SCORES):
        if all(name in columns for columns in tables):
            return name
    return None


def fronts_of(charged: Sequence[ChargedMethod], score: str, *, seed: int = 0) -> dict[str, Any]:
    """Return the fronts of one score, one item per split and cost.

    Args:
        charged: the methods with their costs.
        score: which score; a split that a run was not scored on, or in which no client is common to all, has none.
        seed: seeds the bootstrap and the sign flips.

    Returns:
        `score`, `correction` (Holm, over how many tests), `covers_seeds` (whether what is shown holds for other seeds,
        too), and `items`: each with `split`, `score`, `unit`, `higher_is_better`, `cost`, `num_clients`, `points`
        (`label`, `mean` with `ci_low` and `ci_high` over clients, `cost` with `cost_low` and `cost_high` over seeds,
        `num_seeds`, `hours_from`, `beaten_by`, `ties`), `unknown` (`label` and `reason`), and `is_tested` (whether any
        two of them were set against one another).
    """
    methods = [one.method for one in charged]
    splits = [split for split in methods[0].runs[0].results.summary["splits"] if _clients(methods, split, score)]
    better, tested, family, covers_seeds = _tests(methods, splits, score, seed)
    items = [_front(charged, split, score, cost, better[split], tested[split]) for split in splits for cost in COSTS]
    return {
        "score": score,
        "correction": {"method": "Holm", "over": ["pairs of methods", "splits"], "alpha": ALPHA, **asdict(family)},
        "covers_seeds": covers_seeds,
        "items": items,
    }


def _front(
    charged: Sequence[ChargedMethod],
    split: str,
    score: str,
    cost: str,
    better: Collection[tuple[str, str]],
    tested: Collection[frozenset[str]],
) -> dict[str, Any]:
    clients = _clients([one.method for one in charged], split, score)
    about = SCORES[score]
    costs: dict[str, float] = {}
    sources: dict[str, str | None] = {}
    unknown: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for one in charged:
        found, label = one.by_name[cost], one.label
        if found.mean is None:
            unknown.append({"label": label, "reason": found.why_unknown})
            continue
        costs[label], sources[label] = found.mean, found.hours_from
        means_K = np.mean(
            [[client_scores(run, split, score)[client] for client in clients] for run in one.method.runs], axis=0
        )
        interval = mean_interval(means_K, bounds=about.bounds)
        points.append(
            {
                "label": label,
                "mean": interval.mean,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "cost": found.mean,
                "cost_low": found.low,
                "cost_high": found.high,
                "num_seeds": len(one.runs),
                "hours_from": found.hours_from,
            }
        )

    def alike(a: str, b: str) -> bool:
        # Hours of a simulated clock say nothing about hours of the machine that happened to train.
        return sources[a] == sources[b] or None in (sources[a], sources[b])

    known = {pair for pair in better if pair[0] in costs and pair[1] in costs and alike(*pair)}
    compared = {pair for pair in tested if pair <= costs.keys() and alike(*sorted(pair))}
    beaten, ties = beaten_by(costs, known), cheaper_ties(costs, known, compared)
    for point in points:
        point |= {"beaten_by": beaten[point["label"]], "ties": ties[point["label"]]}
    return {
        "split": split,
        "score": score,
        "unit": about.unit,
        "higher_is_better": about.higher_is_better,
        "cost": cost,
        "num_clients": len(clients),
        "points": points,
        "unknown": unknown,
        "is_tested": bool(compared),
    }


def _tests(
    methods: Sequence[Method], splits: Sequence[str], score: str, seed: int
) -> tuple[dict[str, set[tuple[str, str]]], dict[str, set[frozenset[str]]], Family, bool]:
    """Split -> pairs of which the first is shown to be better, split -> pairs that were tested, and over what.

    The last value says whether all of it holds for other seeds as well.
    """
    planned = [(split, a, b) for split in splits for a, b in combinations(methods, 2)]
    found = []
    for split, a, b in planned:
        clients, a_SK, b_TK, _ = paired_table(a, b, split, score)
        error = rows_std_error(a, b, split, score, clients, seed)
        found.append(paired_difference(a, b, score, (a_SK, b_TK), std_error=error, num_tests=len(planned), seed=seed))
    family = Family(num_tests=len(planned), num_methods=len(methods), num_scores=1, num_splits=len(splits))
    corrected = holm([one.p_value for one in found])
    better: dict[str, set[tuple[str, str]]] = {split: set() for split in splits}
    tested: dict[str, set[frozenset[str]]] = {split: set() for split in splits}
    for (split, a, b), one, p_holm in zip(planned, found, corrected, strict=True):
        # So few clients could not have shown any difference: to call two alike by them would say too much.
        needed = family.min_clients if one.by_sign_flips else MIN_CLIENTS
        if math.isnan(one.p_value) or one.num_clients < needed:
            continue
        tested[split].add(frozenset((a.label, b.label)))
        if not one.low <= 0 <= one.high and p_holm < ALPHA:
            b_is_better = (one.difference > 0) == SCORES[score].higher_is_better
            better[split].add((b.label, a.label) if b_is_better else (a.label, b.label))
    return better, tested, family, all(one.covers_seeds for one in found)


def _clients(methods: Sequence[Method], split: str, score: str) -> list[str]:
    """Clients that all runs of all methods scored."""
    runs = [run for method in methods for run in method.runs]
    if any(score not in run.results.per_client.column_names for run in runs):
        return []
    return sorted(set.intersection(*(set(client_scores(run, split, score)) for run in runs)))
