"""Who was left behind: each speed and language group's share of a run, whether chance explains it, and its score.

A client's speed is how long a visit takes on its machine in the run's client table; slow, middle and fast are thirds
of the clients by that time (equal machines stay together). Counted are the steps that counted: those of visits that
became part of a server step.

Clients are what is drawn: a group made fewer steps than its share if random labels on the same clients would hardly
give it so few (the permutation distribution of its sum of steps, drawn as a multivariate hypergeometric over the
distinct numbers of steps; Pitman 1937), corrected by Holm over the groups. Whether it is served worse is Welch's test
of its clients' scores against the others', corrected alike. Pure counting: no file is read, nobody is named.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_eval.machines.machine import Machine, visit_seconds
from fedllm_eval.scoring.comparisons import holm
from fedllm_eval.scoring.intervals import mean_interval

__all__ = [
    "ALL_ALIKE",
    "LANGUAGE",
    "MIN_CLIENTS",
    "OTHER",
    "SPEED",
    "UNKNOWN",
    "language_groups",
    "left_behind",
    "permuted_p",
    "speed_groups",
]

SPEED, LANGUAGE = "speed", "language"
UNKNOWN = "unknown"
ALL_ALIKE = "all alike"
OTHER = "other"
"""Languages of too few clients to be told apart."""
MIN_CLIENTS = 5
"""Of a group with fewer clients no score is said: it would be nearly that of single ones."""
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
    """Of all clients."""
    row_fraction: float | None
    """Of all rows; None where they are not known of all clients."""
    num_asked: int
    """Visits that were asked for."""
    asked_fraction: float | None
    num_steps: int
    """That counted."""
    step_fraction: float | None
    lost_fraction: float | None
    """Of its asked visits, those that came to nothing but were not late; None where none was asked."""
    late_fraction: float | None
    p_value: float
    """Two-sided, of its steps; NaN where all clients are of the group or nothing was counted."""


def speed_groups(machines: Mapping[str, Machine], rounds: Sequence[Record], clients: Sequence[str]) -> dict[str, str]:
    """Return client -> slow, middle, fast, all alike, or unknown.

    Args:
        machines: client -> its machine, as far as the run's client table names it.
        rounds: for the length of messages and the work of a visit: their means over the run.
        clients: everybody.

    >>> fast, slow = (Machine(download_mbit=8, upload_mbit=8, flops=flops) for flops in (4e9, 1e9))
    >>> speed_groups({"ann": fast, "bob": slow}, [], ["ann", "bob", "eve"])
    {'ann': 'fast', 'bob': 'slow', 'eve': 'unknown'}
    """
    visits = [(visit["client_id"], visit) for record in rounds for visit in record["clients"]]
    down, up = (_mean([visit.get(name) for _, visit in visits]) for name in ("download_bytes", "upload_bytes"))
    work = _mean(
        [
            visit["compute_seconds"] * (machines[client].flops or math.nan)
            for client, visit in visits
            if client in machines and visit.get("compute_seconds") is not None
        ]
    )
    seconds: dict[str, float] = {}
    for client in clients:
        machine = machines.get(client)
        if machine is None or None in (machine.download_mbit, machine.upload_mbit, machine.flops):
            continue
        # Without a record of the work, one visit of 10^12 operations: it orders machines of like lines by their speed.
        took = visit_seconds(
            machine, download_bytes=int(down), flops=work or 1e12, upload_bytes=int(up), client_id=client
        )
        seconds[client] = took.total
    if not seconds:
        return dict.fromkeys(clients, UNKNOWN)
    ordered = sorted(seconds.values())
    if ordered[0] == ordered[-1]:
        return {client: ALL_ALIKE if client in seconds else UNKNOWN for client in clients}
    return {client: _third(seconds[client], ordered) if client in seconds else UNKNOWN for client in clients}


def _third(took: float, ordered: Sequence[float]) -> str:
    """The third that the middle rank of equal times lies in; the fastest are always fast, the slowest always slow."""
    if took in (ordered[0], ordered[-1]):
        return "fast" if took == ordered[0] else "slow"
    rank = (bisect_left(ordered, took) + bisect_right(ordered, took)) / (2 * len(ordered))
    return "fast" if rank < 1 / 3 else "slow" if rank > 2 / 3 else "middle"


def language_groups(languages: Mapping[str, str], clients: Sequence[str]) -> dict[str, str]:
    """Return client -> its main language, `other` for one of fewer than five clients, or unknown.

    >>> mains = {f"c{i}": "de" for i in range(5)} | {"ann": "ja"}
    >>> found = language_groups(mains, [*mains, "bob"])
    >>> found["c0"], found["ann"], found["bob"]
    ('de', 'other', 'unknown')
    """
    known = {client: languages[client] for client in clients if languages.get(client) not in (None, "", "und")}
    sizes = Counter(known.values())
    few = {language for language, num in sizes.items() if num < MIN_CLIENTS}
    return {
        client: UNKNOWN if client not in known else OTHER if known[client] in few else known[client]
        for client in clients
    }


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
        groups: kind (`SPEED`, `LANGUAGE`) -> client -> name of its group; the same clients for each kind, all that
            were registered.
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


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(known) / len(known) if known else 0.0
