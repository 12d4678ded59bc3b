"""Who was left behind: each speed and language group's share of a run, whether chance explains it, and its score.

Groups are those of `running/client_groups.py`. Counted are the steps that counted: those of visits that
became part of a server step.

Clients are what is drawn: a group made fewer steps than its share if random labels on the same clients would hardly
give it so few (the permutation distribution of its sum of steps, drawn as a multivariate hypergeometric over the
distinct numbers of steps; Pitman 1937), corrected by Holm over the groups. Whether it is served worse is Welch's test
of its clients' scores against the others', corrected alike. Pure counting: no file is read, nobody is named.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_eval.running.client_groups import ALL_ALIKE, MIN_CLIENTS, OTHER, UNKNOWN
from fedllm_eval.scoring.comparisons import holm
from fedllm_eval.scoring.intervals import mean_interval

__all__ = ["left_behind", "permuted_p"]

ALPHA = 0.05
NUM_DRAWS = 9_999
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Served:
    """How a group is served beside the others."""

    mean: float
    low: float
    high: float
    num_clients: int
    """With a score."""
    others: float | None
    """The mean of the clients outside of the group."""
    difference_low: float | None
    """95 % interval of group minus others, by Welch's t."""
    difference_high: float | None
    p_value: float
    """NaN where the two cannot be set against one another."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What a group's clients gave."""

    kind: str
    name: str
    num_clients: int
    client_fraction: float
    """Its share of all clients."""
    row_fraction: float | None
    """Its share of all rows; None where some client's rows are not known."""
    num_asked: int
    """Visits that were asked for."""
    asked_fraction: float | None
    num_steps: int
    """That counted."""
    step_fraction: float | None
    lost_fraction: float | None
    """Share of its asked visits that came to nothing without being late; None where none was asked."""
    late_fraction: float | None
    p_value: float
    """Two-sided, of its steps; NaN where all clients are of the group or nothing was counted."""


def left_behind(
    rounds: Sequence[Record],
    groups: Mapping[str, Mapping[str, str]],
    *,
    num_rows: Mapping[str, int] | None = None,
    scores: Mapping[str, float] | None = None,
    higher_is_better: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what each group gave, and how it is served.

    Args:
        rounds: the lines of a run's `rounds.jsonl`.
        groups: kind (`SPEED`, `LANGUAGE` of `running/client_groups.py`) -> client -> name of its group; the same
            clients for each kind, all that were registered.
        num_rows: client -> rows it can train on.
        scores: client -> its score under the run's policy, as far as it has one.
        higher_is_better: of the score.
        seed: seeds the permutations.

    Returns:
        `counted` (`steps`, or `visits` where a run names no steps), `num_clients`, and `groups`: one item per kind and
        name with the fields of `Counted`, `p_holm`, `gave_less` (whether fewer steps than its share are shown),
        `served` (the fields of `Served`, `p_holm` and `is_worse`; None for fewer than five clients with a score).
    """
    clients = sorted(next(iter(groups.values())))
    steps, counted = _steps(rounds)
    asked, lost, late = _asked(rounds)
    found = [
        _counted(kind, name, of_client, clients, (steps, asked, lost, late), num_rows, seed)
        for kind, of_client in groups.items()
        for name in _names(of_client)
    ]
    corrected = holm([one.p_value for one in found])
    served = [_served(groups[one.kind], one.name, scores or {}) for one in found]
    served_p = holm([math.nan if one is None else one.p_value for one in served])
    items = []
    for one, p_holm, how, how_p in zip(found, corrected, served, served_p, strict=True):
        item = asdict(one) | {"p_holm": p_holm, "served": None}
        share = one.step_fraction
        item["gave_less"] = bool(p_holm < ALPHA and share is not None and share < one.client_fraction)
        if how is not None:
            worse = how.others is not None and (how.mean < how.others) == higher_is_better
            item["served"] = asdict(how) | {"p_holm": how_p, "is_worse": bool(how_p < ALPHA and worse)}
        items.append(item)
    return {"counted": counted, "num_clients": len(clients), "groups": items}


def _names(of_client: Mapping[str, str]) -> list[str]:
    """The groups, the slowest and then the largest first, unknown last."""
    sizes = Counter(of_client.values())
    order = {"slow": 0, "middle": 1, "fast": 2, OTHER: 4, UNKNOWN: 5}
    return sorted(sizes, key=lambda name: (order.get(name, 3), -sizes[name], name))


def _steps(rounds: Sequence[Record]) -> tuple[dict[str, int], str]:
    """Client -> its steps that counted, or its visits where a visit names no steps."""
    visits = [visit for record in rounds if record.get("server_step") is not False for visit in record["clients"]]
    named = all(visit.get("num_steps") is not None for visit in visits)
    steps: Counter[str] = Counter()
    for visit in visits:
        steps[visit["client_id"]] += int(visit["num_steps"]) if named else 1
    return steps, "steps" if named else "visits"


def _asked(rounds: Sequence[Record]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Client -> visits asked for, lost, and late."""
    asked: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    late: Counter[str] = Counter()
    for record in rounds:
        asked.update(visit["client_id"] for visit in record["clients"])
        for one in record.get("left_out") or ():
            asked[one["client_id"]] += 1
            (late if one.get("kind") == "late" else lost)[one["client_id"]] += 1
    return asked, lost, late


def _counted(
    kind: str,
    name: str,
    of_client: Mapping[str, str],
    clients: Sequence[str],
    counts: tuple[Mapping[str, int], ...],
    num_rows: Mapping[str, int] | None,
    seed: int,
) -> Counted:
    members = [client for client in clients if of_client[client] == name]
    sums, totals = ([sum(count.get(client, 0) for client in of) for count in counts] for of in (members, clients))
    steps, asked, lost, late = sums
    rows = None
    if num_rows is not None and all(client in num_rows for client in clients):
        rows = _share(sum(num_rows[client] for client in members), sum(num_rows[client] for client in clients))
    steps_K = np.array([counts[0].get(client, 0) for client in clients])
    return Counted(
        kind=kind,
        name=name,
        num_clients=len(members),
        client_fraction=len(members) / len(clients),
        row_fraction=rows,
        num_asked=asked,
        asked_fraction=_share(asked, totals[1]),
        num_steps=steps,
        step_fraction=_share(steps, totals[0]),
        lost_fraction=_share(lost, asked),
        late_fraction=_share(late, asked),
        p_value=math.nan if name in (UNKNOWN, ALL_ALIKE) else permuted_p(steps_K, len(members), steps, seed=seed),
    )


def permuted_p(steps_K: npt.NDArray[np.int64], num_members: int, num_steps: int, *, seed: int = 0) -> float:
    """Return how often random clients, as many as a group has, made steps as far from what is expected.

    Args:
        steps_K: (K,) steps of every client.
        num_members: clients of the group.
        num_steps: their steps together.
        seed: seeds the draws.

    Returns:
        Twice the smaller tail, at most 1; NaN where the group is nobody or everybody, or no step was made.

    >>> permuted_p(np.array([5, 5, 5, 5]), 2, 10)
    1.0
    """
    if not 0 < num_members < steps_K.size or not steps_K.any():
        return math.nan
    values, sizes = np.unique(steps_K, return_counts=True)
    if values.size == 1:
        return 1.0
    rng = np.random.default_rng(np.random.SeedSequence([seed, num_members]))
    sums = rng.multivariate_hypergeometric(sizes, num_members, size=NUM_DRAWS, method="marginals") @ values
    tails = [(1 + int((sums <= num_steps).sum())), (1 + int((sums >= num_steps).sum()))]
    return min(1.0, 2 * min(tails) / (NUM_DRAWS + 1))


def _served(of_client: Mapping[str, str], name: str, scores: Mapping[str, float]) -> Served | None:
    inside = [scores[client] for client in sorted(scores) if of_client.get(client) == name]
    outside = [scores[client] for client in sorted(scores) if of_client.get(client, name) != name]
    if len(inside) < MIN_CLIENTS:
        return None
    interval = mean_interval(inside)
    low = high = others = None
    p_value = math.nan
    if name not in (UNKNOWN, ALL_ALIKE) and len(outside) > 1:
        from scipy import stats

        others = math.fsum(outside) / len(outside)
        if np.ptp(inside) > 0 or np.ptp(outside) > 0:
            found = stats.ttest_ind(inside, outside, equal_var=False)
            bounds = found.confidence_interval()
            low, high, p_value = float(bounds.low), float(bounds.high), float(found.pvalue)
    return Served(
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        num_clients=len(inside),
        others=others,
        difference_low=low,
        difference_high=high,
        p_value=p_value,
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
