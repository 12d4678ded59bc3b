"""What joining is worth to each partner: its own before, alone and together, how sure that is, and what it gave.

A partner with few held-out rows has a score that is mostly chance; its own interval is over its rows. Partners are
grouped by their rows, small beside large, to see who contributes much and gains little.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedllm_eval.comparing.compared_methods import Method
from fedllm_eval.deciding.effects import Effect
from fedllm_eval.deciding.own_rows import own_rows
from fedllm_eval.deciding.partner_costs import PartnerCost, RunPrice
from fedllm_eval.scoring.intervals import Interval, mean_interval

__all__ = ["FEW_ROWS", "Partner", "SizeGroup", "list_partners", "size_groups"]

FEW_ROWS = 5
"""With fewer held-out rows than this one row more or less turns a partner's score around."""
NUM_GROUPS = 3


@dataclass(frozen=True, kw_only=True)
class Partner:
    """One partner's own page."""

    client_id: str
    split: str
    num_rows: int
    """Held-out rows that were scored."""
    before: float
    together: float
    gain: float
    low: float
    """95 % interval of the gain over its own rows; NaN for one row, or where no rows are kept."""
    high: float
    alone: float | None
    """Its score under the adapter trained on its rows alone."""
    cost: PartnerCost | None
    """None for who took part in no round, or where that is not to be said."""

    @property
    def is_sure(self) -> bool:
        """Whether its own rows show a gain or a loss."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class SizeGroup:
    """Partners of about one size."""

    least: int
    most: int
    """Rows of the smallest and the largest."""
    before: float
    """Mean score before."""
    gain: Interval
    better_fraction: float
    worse_fraction: float
    share_of_rows: float


def list_partners(
    before: Method,
    candidate: Method,
    gain: Effect,
    newcomers: Effect | None,
    alone: Effect | None,
    price: RunPrice | None,
) -> tuple[Partner, ...]:
    """Return every scored partner, the largest first.

    Args:
        before: what was before.
        candidate: whose partners they are.
        gain: of the candidate over what was before.
        newcomers: the same for clients that were held out whole.
        alone: the candidate's gain over training alone.
        price: what each partner gave; under a guarantee of privacy nothing is said of single ones.
    """
    own = {} if alone is None else dict(zip(alone.clients, alone.before_K, strict=True))
    costs = {} if price is None or price.private else price.partners
    found = []
    for effect in (gain, newcomers):
        if effect is None:
            continue
        found_in_rows = own_rows(before, candidate, effect)
        intervals = {} if found_in_rows is None else found_in_rows.intervals
        rows = _num_rows(candidate, effect.split)
        for client, earlier, after, value in zip(
            effect.clients, effect.before_K, effect.after_K, effect.gain_K, strict=True
        ):
            low, high = intervals.get(client, (math.nan, math.nan))
            found.append(
                Partner(
                    client_id=client,
                    split=effect.split,
                    num_rows=rows.get(client, 0),
                    before=earlier,
                    together=after,
                    gain=value,
                    low=low,
                    high=high,
                    alone=own.get(client) if effect is gain else None,
                    cost=costs.get(client),
                )
            )
    return tuple(sorted(found, key=lambda one: (-one.num_rows, one.client_id)))


def size_groups(partners: Sequence[Partner], num_train_rows: Mapping[str, int] | None = None) -> list[SizeGroup]:
    """Return partners in three groups of about equal number by their rows, the smallest first.

    Fewer than six partners are one group each way and tell nothing: an empty list.

    Args:
        partners: of one split.
        num_train_rows: client -> rows it can train on; without, held-out rows stand for its size.
    """
    if len(partners) < 2 * NUM_GROUPS:
        return []
    rows = {
        one.client_id: one.num_rows if num_train_rows is None else num_train_rows[one.client_id] for one in partners
    }
    ordered = sorted(partners, key=lambda one: (rows[one.client_id], one.client_id))
    groups = []
    for part in np.array_split(np.arange(len(ordered)), NUM_GROUPS):
        members = [ordered[position] for position in part]
        groups.append(
            SizeGroup(
                least=rows[members[0].client_id],
                most=rows[members[-1].client_id],
                before=sum(one.before for one in members) / len(members),
                gain=mean_interval([one.gain for one in members]),
                better_fraction=sum(one.gain > 0 for one in members) / len(members),
                worse_fraction=sum(one.gain < 0 for one in members) / len(members),
                share_of_rows=sum(rows[one.client_id] for one in members) / max(1, sum(rows.values())),
            )
        )
    return groups


def _num_rows(method: Method, split: str) -> dict[str, int]:
    table = method.runs[0].results.per_client
    columns = (table[name].to_pylist() for name in ("client_id", "split", "num_rows"))
    return {client: num for client, where, num in zip(*columns, strict=True) if where == split}
