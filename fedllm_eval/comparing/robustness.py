"""The third standard protocol: how score and cost hold up when clients are lost (EdgeFlowerTune, 2605.08636).

Runs of one method that differ in nothing but who was lost, and what was done about it, are a group: their
`config.yaml` agrees in everything but seeds, places and the settings of participation. Within a group the score is set
against the share of asked visits that came to nothing. The slope is taken client by client (least squares over the
runs) and averaged over clients, so that its interval is over clients, as all intervals of a comparison are; it does
not cover other seeds.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedllm_eval.comparing.compared_methods import without_free
from fedllm_eval.comparing.method_costs import ChargedMethod, ChargedRun
from fedllm_eval.comparing.paired_scores import client_scores
from fedllm_eval.policy.run_folder import is_private, section
from fedllm_eval.running.client_groups import UNKNOWN, speed_groups
from fedllm_eval.running.round_costs import COSTS
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.intervals import mean_interval

__all__ = ["LOSS_SETTINGS", "lost_visits", "robustness"]

LOSS_SETTINGS = frozenset(
    (
        *("participation", "drop_out", "deadline_seconds", "over_selection", "min_clients", "late", "partial_work"),
        *("buffer_size", "concurrency", "staleness_exponent", "max_staleness"),
    )
)
"""Settings of a federation in which the runs of a group may differ."""


@dataclass(frozen=True)
class LostVisits:
    """What became of the visits of a run that were asked for."""

    num_asked: int
    by_kind: Mapping[str, int]
    """Kind -> visits that came to nothing; `not recorded` of older runs."""

    @property
    def fraction(self) -> float | None:
        """Share of the asked visits that came to nothing; None where nothing was asked."""
        return sum(self.by_kind.values()) / self.num_asked if self.num_asked else None


def lost_visits(rounds: Sequence[Mapping[str, Any]]) -> LostVisits:
    """Return how many visits were asked for, and how many came to nothing, by kind.

    >>> found = lost_visits([{"clients": [{}, {}, {}], "left_out": [{"client_id": "ann", "kind": "lost"}]}])
    >>> found.num_asked, found.fraction
    (4, 0.25)
    """
    left_out = [one for record in rounds for one in record.get("left_out") or ()]
    kinds = Counter(one.get("kind") or "not recorded" for one in left_out)
    return LostVisits(len(left_out) + sum(len(record["clients"]) for record in rounds), dict(sorted(kinds.items())))


def robustness(charged: Sequence[ChargedMethod], score: str) -> list[dict[str, Any]]:
    """Return the groups of methods that differ in who was lost alone.

    Args:
        charged: the methods with their costs.
        score: which score.

    Returns:
        One item per group of two methods or more: `strategy`, `score`, `split`, `rows` (a method each, the fewest lost
        first: `label`, `settings` (those in which the group differs), `num_seeds`, `num_asked`, `lost_fraction`,
        `by_kind`, `by_speed` (share of the asked visits of slow, middle and fast clients that came to nothing; empty
        where that is not known or not to be told), `mean` with `ci_low` and `ci_high`, `costs`, and
        why some are `unknown`), and `slope` (`mean`,
        `ci_low`, `ci_high` of the change of the score for each tenth of the visits that is lost, `num_clients`,
        `num_runs`; None where all lost alike).
    """
    groups: dict[str, list[ChargedMethod]] = {}
    for one in charged:
        key = _group_key(one.runs[0])
        if key is not None:
            groups.setdefault(key, []).append(one)
    found = [_group(members, score) for members in groups.values() if len(members) > 1]
    return [group for group in found if len(group["rows"]) > 1]


def _group_key(run: ChargedRun) -> str | None:
    if run.config is None or not run.rounds:
        return None
    config = without_free(run.config)
    federated = section(config, "federated")
    config["federated"] = {name: value for name, value in federated.items() if name not in LOSS_SETTINGS}
    return json.dumps(config, sort_keys=True, default=str)


def _group(members: Sequence[ChargedMethod], score: str) -> dict[str, Any]:
    settings = [_settings(one) for one in members]
    varied = [name for name in sorted(LOSS_SETTINGS) if len({str(each.get(name)) for each in settings}) > 1]
    split = next(iter(members[0].method.runs[0].results.summary["splits"]))
    rows = []
    for one, own in zip(members, settings, strict=True):
        asked = [lost_visits(run.rounds) for run in one.runs]
        kinds: Counter[str] = Counter()
        for each in asked:
            kinds.update(each.by_kind)
        num_asked = sum(each.num_asked for each in asked)
        scores = [client_scores(run.run, split, score) for run in one.runs]
        clients = sorted(set.intersection(*map(set, scores)))
        if not clients:
            continue
        means_K = np.mean([[each[client] for client in clients] for each in scores], axis=0)
        interval = mean_interval(means_K, bounds=SCORES[score].bounds)
        rows.append(
            {
                "label": one.label,
                "settings": {name: own.get(name) for name in varied},
                "num_seeds": len(one.runs),
                "num_asked": num_asked,
                "lost_fraction": sum(kinds.values()) / num_asked if num_asked else None,
                "by_kind": {kind: kinds[kind] / num_asked for kind in sorted(kinds)},
                "by_speed": _lost_by_speed(one.runs),
                "mean": interval.mean,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "costs": {cost: one.by_name[cost].mean for cost in COSTS},
                "unknown": {cost: why for cost in COSTS if (why := one.by_name[cost].why_unknown) is not None},
            }
        )
    rows.sort(key=lambda row: (row["lost_fraction"] is None, row["lost_fraction"] or 0.0, row["label"]))
    return {
        "strategy": section(members[0].runs[0].config or {}, "federated").get("strategy"),
        "score": score,
        "split": split,
        "unit": SCORES[score].unit,
        "higher_is_better": SCORES[score].higher_is_better,
        "rows": rows,
        "slope": _slope([run for one in members for run in one.runs], split, score),
    }


def _lost_by_speed(runs: Sequence[ChargedRun]) -> dict[str, float]:
    """Speed group -> share of its asked visits that came to nothing, over all seeds."""
    asked: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for one in runs:
        if not one.machines or one.config is None or is_private(one.config):
            return {}
        groups = speed_groups(one.machines, one.rounds, sorted(one.machines))
        for record in one.rounds:
            left_out = [each["client_id"] for each in record.get("left_out") or ()]
            asked.update(groups.get(client, UNKNOWN) for client in left_out)
            asked.update(groups.get(visit["client_id"], UNKNOWN) for visit in record["clients"])
            lost.update(groups.get(client, UNKNOWN) for client in left_out)
    return {name: lost[name] / asked[name] for name in ("slow", "middle", "fast") if asked[name]}


def _slope(runs: Sequence[ChargedRun], split: str, score: str) -> dict[str, Any] | None:
    """The mean over clients of each client's change for a tenth more of the visits lost."""
    known = [(lost_visits(run.rounds).fraction, client_scores(run.run, split, score)) for run in runs]
    found = [(share, scores) for share, scores in known if share is not None]
    share_R = np.array([share for share, _ in found])
    clients = sorted(set.intersection(*(set(scores) for _, scores in found))) if found else []
    if len(found) < 2 or np.ptp(share_R) == 0 or not clients:
        return None
    score_RK = np.array([[scores[client] for client in clients] for _, scores in found])
    centred_R = share_R - share_R.mean()
    slope_K = 0.1 * (centred_R @ score_RK) / (centred_R @ centred_R)
    interval = mean_interval(slope_K)
    return {
        "mean": interval.mean,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "num_clients": len(clients),
        "num_runs": len(found),
    }


def _settings(one: ChargedMethod) -> Mapping[str, Any]:
    return section(one.runs[0].config or {}, "federated")
