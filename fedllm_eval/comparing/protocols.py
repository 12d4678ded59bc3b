"""Two standard protocols of trade-offs: quality under a budget, and cost to a target (EdgeFlowerTune, 2605.08636).

Both follow a run through its rounds, by the scores on held-out rows that were taken in training (`eval` in
`rounds.jsonl`). Where a run has none, its finished scores stand for its last round, and the table says so: the two are
scores of other clients, and of another time. The third protocol is in `comparing/robustness.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.wording.catalogue import marked
from fedllm_eval.comparing.method_costs import NOT_AT_HAND, ChargedMethod, ChargedRun
from fedllm_eval.running.round_costs import COSTS, RoundCost
from fedllm_eval.scores import SCORES

__all__ = ["cost_to_target", "quality_under_budget"]

BY_ROUNDS, BY_FINISHED = "rounds", "finished"
"""Where scores come from."""
NO_SCORE = marked("it has no such score")


def quality_under_budget(charged: Sequence[ChargedMethod], score: str, limits: Mapping[str, float]) -> dict[str, Any]:
    """Return the best score that each method reaches within a budget.

    Of the scored rounds that fit, the one with the best mean is taken. Over several seeds means and bounds are
    averaged: a mean of intervals of the same clients is wider than the interval of the mean, never narrower.

    Args:
        charged: the methods with their costs.
        score: by which score.
        limits: cost -> the most that may be spent, all of them at once.

    Returns:
        `score`, `limits`, and `rows`, one per method: `label`, `outcome` (`fits`, `nothing fits` or `unknown`, then
        with a `reason`), `mean`, `ci_low`, `ci_high`, `least` and `most` of a seed, `rounds` (of each seed, from 0),
        `from` (`rounds` or `finished`), `spent` (cost -> mean over seeds), `unknown` (cost -> why it is not
        known), `num_seeds`.
    """
    rows = []
    for one in charged:
        found = [_best_within(run, score, limits) for run in one.runs]
        row: dict[str, Any] = {"label": one.label, "num_seeds": len(one.runs)}
        reasons = [why for why in found if isinstance(why, str)]
        if reasons:
            rows.append(row | {"outcome": "unknown", "reason": reasons[0]})
            continue
        fitting = [each for each in found if each is not None and not isinstance(each, str)]
        if len(fitting) < len(found):
            rows.append(row | {"outcome": "nothing fits"})
            continue
        means = [scored["mean"] for _, scored, _ in fitting]
        rows.append(
            row
            | {
                "outcome": "fits",
                "mean": _mean(means),
                "ci_low": _mean([scored["ci_low"] for _, scored, _ in fitting]),
                "ci_high": _mean([scored["ci_high"] for _, scored, _ in fitting]),
                "least": min(means),
                "most": max(means),
                "rounds": [cost.round_index for cost, _, _ in fitting],
                "from": _one_source([source for _, _, source in fitting]),
                "spent": {name: _mean([cost.of(name) for cost, _, _ in fitting]) for name in COSTS},
                "unknown": {name: why for run in one.runs for name, why in run.costs.unknown.items()},
            }
        )
    return {"score": score, "limits": dict(limits), **_about(score), "rows": rows}


def cost_to_target(charged: Sequence[ChargedMethod], score: str, value: float) -> dict[str, Any]:
    """Return what each method had cost when it first reached a value of a score.

    The cost has an interval as the score has one: from the first round whose better bound reaches the value to the
    first round whose worse bound does, if there is one.

    Args:
        charged: the methods with their costs.
        score: which score.
        value: to reach.

    Returns:
        `score`, `value`, and `rows`, one per method and seed: `label`, `run`, `outcome` (`reached`, `not reached` or
        `unknown`, then with a `reason`), `round_index` (from 0), `cost` (of `COSTS` up to there), `early` and `sure`
        (the same costs at the ends of the interval; None where there is no such round), `unknown` (cost ->
        why it is not known), `is_clear` (whether the whole
        interval has reached the value there), `from`, and `best`, the best mean.
    """
    rows = []
    for one in charged:
        for run in one.runs:
            row: dict[str, Any] = {"label": one.label, "run": run.run.label}
            scored, source = _scored_rounds(run, score)
            if not scored:
                reason = NO_SCORE if run.costs.rounds else NOT_AT_HAND
                rows.append(row | {"outcome": "unknown", "reason": reason})
                continue
            sign = 1 if SCORES[score].higher_is_better else -1
            better_end, worse_end = ("ci_high", "ci_low") if sign == 1 else ("ci_low", "ci_high")
            reached = {
                end: next((cost for cost, record in scored if _reaches(record.get(end), value, sign)), None)
                for end in ("mean", better_end, worse_end)
            }
            at = reached["mean"]
            best = max(sign * record["mean"] for _, record in scored) * sign
            row |= {"best": best, "from": source}
            if at is None:
                rows.append(row | {"outcome": "not reached", "early": _costs(reached[better_end])})
                continue
            sure = reached[worse_end]
            rows.append(
                row
                | {
                    "outcome": "reached",
                    "round_index": at.round_index,
                    "cost": _costs(at),
                    "unknown": dict(run.costs.unknown),
                    "early": _costs(reached[better_end] or at),
                    "sure": _costs(sure),
                    "is_clear": sure is not None and sure.round_index <= at.round_index,
                }
            )
    return {"score": score, "value": value, **_about(score), "rows": rows}


def _best_within(
    run: ChargedRun, score: str, limits: Mapping[str, float]
) -> tuple[RoundCost, Mapping[str, Any], str] | str | None:
    """The best scored round that fits; None where none does, a reason where that is not known."""
    for name in limits:
        if run.costs.total is None or run.costs.total.of(name) is None:
            return run.costs.unknown.get(name, NOT_AT_HAND)
    scored, source = _scored_rounds(run, score)
    if not scored:
        return NO_SCORE
    fitting = [(cost, record) for cost, record in scored if all(_fits(cost.of(name), limits[name]) for name in limits)]
    if not fitting:
        return None
    sign = 1 if SCORES[score].higher_is_better else -1
    # The earliest of equal ones: it cost least.
    cost, record = max(fitting, key=lambda each: (sign * each[1]["mean"], -each[0].round_index))
    return cost, record, source


def _scored_rounds(run: ChargedRun, score: str) -> tuple[list[tuple[RoundCost, Mapping[str, Any]]], str]:
    """The rounds that were scored with their costs, in order, and where the scores come from."""
    found = [
        (cost, record["eval"][score])
        for cost, record in zip(run.costs.rounds, run.rounds, strict=False)
        if isinstance((record.get("eval") or {}).get(score), Mapping) and record["eval"][score].get("mean") is not None
    ]
    if found:
        return found, BY_ROUNDS
    splits = run.run.results.summary["splits"].values()
    finished = next((part["scores"][score] for part in splits if score in part["scores"]), None)
    return ([] if finished is None or run.costs.total is None else [(run.costs.total, finished)]), BY_FINISHED


def _fits(spent: float | None, limit: float) -> bool:
    return spent is not None and spent <= limit


def _reaches(value: float | None, target: float, sign: int) -> bool:
    return value is not None and sign * value >= sign * target


def _costs(cost: RoundCost | None) -> dict[str, float | None] | None:
    return None if cost is None else {name: cost.of(name) for name in COSTS}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _one_source(sources: Sequence[str]) -> str:
    return sources[0] if len(set(sources)) == 1 else BY_FINISHED


def _about(score: str) -> dict[str, Any]:
    return {"unit": SCORES[score].unit, "higher_is_better": SCORES[score].higher_is_better}
