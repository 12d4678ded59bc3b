"""Who learns from whom across languages: scores by language trained on and language tested on.

Symbols: R rows of the matrix, languages (or clients, or domains) trained on; C columns, those tested on. A cell is a
mean score with the number of items behind it; a cell without items is NaN, never 0. `in` is the mean of cells whose
languages agree, `out` of the others; the transfer gap is in minus out, in the direction of better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.rounding import difference_beyond_rounding

__all__ = ["TransferMatrix", "transfer_matrix"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TransferMatrix:
    """Mean scores by language trained on (rows) and tested on (columns)."""

    trained_on: tuple[str, ...]
    tested_on: tuple[str, ...]
    mean_RC: Array
    """NaN where there is no item."""
    num_items_RC: npt.NDArray[np.int64]
    in_language: float
    """Unweighted mean of the cells with the same language on both sides; NaN where there is none."""
    out_of_language: float
    """Unweighted mean of the other cells; NaN where there is none."""
    transfer_gap: float
    """How much better a policy is in the language it was trained on, 0 where that is rounding; NaN where a side is
    missing."""
    best_source: dict[str, str]
    """Language tested on -> language whose policy serves it best; ties, and what differs by rounding alone, go to the
    first by name."""


def transfer_matrix(
    score_N: npt.ArrayLike,
    trained_on_N: Sequence[str],
    tested_on_N: Sequence[str],
    *,
    higher_is_better: bool,
    rounding: float = 0.0,
) -> TransferMatrix:
    """Return the matrix of mean scores and its gap.

    Args:
        score_N: (N,) finite scores, one per item under one policy; an item under three policies has three entries.
        trained_on_N: (N,) language that the policy was trained on; `all` or the like for policies of several.
        tested_on_N: (N,) language of the item.
        higher_is_better: False for losses.
        rounding: an absolute difference that is none, as in `rounding.difference_beyond_rounding`.

    Returns:
        Rows and columns in order of their names; cells weigh alike in the summaries, however many items they hold.

    Raises:
        MetricError: if there are no items, lengths differ, or a score is not finite.

    >>> matrix = transfer_matrix([0.9, 0.5, 0.3, 0.7], ["de", "de", "it", "it"], ["de", "it", "de", "it"],
    ...                          higher_is_better=True)
    >>> matrix.mean_RC.tolist(), round(matrix.transfer_gap, 3), matrix.best_source["it"]
    ([[0.9, 0.5], [0.3, 0.7]], 0.4, 'it')
    """
    score = np.asarray(score_N, dtype=np.float64)
    if score.ndim != 1 or not score.size == len(trained_on_N) == len(tested_on_N):
        raise MetricError(
            f"{score.size} scores, {len(trained_on_N)} languages trained on, {len(tested_on_N)} tested on; give one "
            "of each an item"
        )
    if score.size == 0:
        raise MetricError("no items: a transfer matrix of nothing is undefined; give at least one item")
    if not np.isfinite(score).all():
        item = int(np.flatnonzero(~np.isfinite(score))[0])
        raise MetricError(f"item {item} has score {score[item]}; drop items without a score first")
    rows, row_N = np.unique(np.asarray(trained_on_N, dtype=str), return_inverse=True)
    columns, column_N = np.unique(np.asarray(tested_on_N, dtype=str), return_inverse=True)
    cell_N = row_N * columns.size + column_N
    shape = (rows.size, columns.size)
    num_RC = np.bincount(cell_N, minlength=rows.size * columns.size).reshape(shape)
    sum_RC = np.bincount(cell_N, score, rows.size * columns.size).reshape(shape)
    mean_RC = np.divide(sum_RC, num_RC, out=np.full(shape, np.nan), where=num_RC > 0)
    same_RC = rows[:, None] == columns[None, :]
    inside, outside = (_mean(mean_RC[side & (num_RC > 0)]) for side in (same_RC, ~same_RC))
    sign = 1.0 if higher_is_better else -1.0
    filled_RC = np.where(num_RC > 0, sign * mean_RC, -np.inf)
    best_C = filled_RC.max(axis=0)
    with np.errstate(invalid="ignore"):  # a cell without items is -inf, and none is the best
        is_best_RC = (num_RC > 0) & (difference_beyond_rounding(filled_RC, best_C[None, :], rounding) <= 0)
    return TransferMatrix(
        trained_on=tuple(rows.tolist()),
        tested_on=tuple(columns.tolist()),
        mean_RC=mean_RC,
        num_items_RC=num_RC.astype(np.int64),
        in_language=inside,
        out_of_language=outside,
        transfer_gap=float(difference_beyond_rounding(sign * outside, sign * inside, rounding)),
        best_source={str(name): str(rows[is_best_RC[:, at].argmax()]) for at, name in enumerate(columns)},
    )


def _mean(cells: Array) -> float:
    return float(cells.mean()) if cells.size else float("nan")
