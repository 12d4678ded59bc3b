"""What a partner's own rows can tell of its gain: an interval for each, and how many rows would tell.

A partner's score is a mean over its held-out rows. Where they are few, "worse off" may be chance of the rows, and more
partners would not change that; more rows of each would.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from fedllm_eval.comparing.compared_methods import Method
from fedllm_eval.comparing.paired_scores import ROWS_FILE
from fedllm_eval.deciding.effects import Effect
from fedllm_eval.deciding.evidence_needed import clients_for_gain
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.intervals import mean_interval

__all__ = ["OwnRows", "own_rows", "rows_needed"]


@dataclass(frozen=True)
class OwnRows:
    """What the rows of single partners say about one effect."""

    intervals: Mapping[str, tuple[float, float]]
    """Client id -> 95 % interval of its mean gain over its own rows; without clients of one row."""
    num_shown_worse: int
    """Clients whose own rows show the loss beyond chance."""
    rows_needed: int | None
    """Rows from which on one partner's own would show a gain or loss of the average size; None where none would."""


def own_rows(before: Method, after: Method, effect: Effect) -> OwnRows | None:
    """Return what single partners' rows say; None where a side keeps no rows.

    Args:
        before: what the effect is over.
        after: the candidate; rows are those of its first run.
        effect: of the one over the other.
    """
    sides = [before.runs[0].folder / ROWS_FILE, after.runs[0].folder / ROWS_FILE]
    if not all(side.is_file() for side in sides):
        return None
    columns = ["split", "client_id", "row_id", "num_tokens", effect.score]
    sign = 1 if effect.higher_is_better else -1
    scores = []
    for side in sides:
        table = pq.read_table(side, columns=columns)
        rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
        scores.append(
            {(client, row): (value, num) for split, client, row, num, value in rows if split == effect.split}
        )
    gains: dict[str, list[tuple[float, float]]] = {}
    weighted = SCORES[effect.score].weight == "num_tokens"
    for key, (value, num) in scores[1].items():
        earlier = scores[0].get(key, (None, 0))[0]
        if value is not None and earlier is not None:
            gains.setdefault(key[0], []).append((sign * (value - earlier), float(num) if weighted else 1.0))
    intervals = {}
    for client, pairs in gains.items():
        if len(pairs) > 1:
            interval = mean_interval([gain for gain, _ in pairs], [max(weight, 1e-9) for _, weight in pairs])
            intervals[client] = (interval.low, interval.high)
    worse = (client for client, gain in zip(effect.clients, effect.gain_K, strict=True) if gain < 0)
    return OwnRows(
        intervals=intervals,
        num_shown_worse=sum(intervals.get(client, (math.nan, math.nan))[1] < 0 for client in worse),
        rows_needed=rows_needed([[gain for gain, _ in pairs] for pairs in gains.values()], effect.gain),
    )


def rows_needed(gains: Sequence[Sequence[float]], gain: float) -> int | None:
    """Return from how many rows on a partner's own rows would show a gain of a size, four times in five.

    The spread is that of rows within a partner, pooled over partners; rows are taken as equally long.

    Args:
        gains: of every partner, those of its rows.
        gain: to be shown.

    >>> rows_needed([[0.0, 1.0], [1.0, 0.0, 1.0]], 0.5), rows_needed([[1.0]], 0.5)
    (15, None)
    """
    several = [np.asarray(own, float) for own in gains if len(own) > 1]
    degrees = sum(own.size - 1 for own in several)
    if not degrees or gain == 0:
        return None
    spread = math.sqrt(sum(float(((own - own.mean()) ** 2).sum()) for own in several) / degrees)
    return clients_for_gain(gain, spread)
