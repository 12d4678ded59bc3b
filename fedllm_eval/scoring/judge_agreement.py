"""How far one judge's labels agree with another's: accuracy, macro-F1 and Cohen's kappa.

Symbols: N items, L labels. Macro-F1 is the plain mean over the labels that either side uses, so that a judge who never
says "tie" is not helped by ties being rare. Kappa (Cohen 1960) is agreement beyond what the two label distributions
would give by chance.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedllm_data.errors import MetricError

__all__ = ["Agreement", "agreement", "majority"]

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Agreement:
    """Agreement of predictions with labels."""

    accuracy: float
    macro_f1: float
    kappa: float
    """1 for full agreement, 0 for what chance gives, NaN where both sides use one and the same label only."""
    num_items: int


def agreement(labels: Sequence[Hashable], predictions: Sequence[Hashable]) -> Agreement:
    """Compare predictions with labels, item by item.

    Args:
        labels: N labels held to be right.
        predictions: N labels of the judge.

    Raises:
        MetricError: if the lengths differ or there are no items.

    >>> result = agreement([1, 1, 2, 0], [1, 2, 2, 2])
    >>> result.accuracy, round(result.macro_f1, 4)  # F1 of 0, 1, 2: 0, 2/3, 1/2
    (0.5, 0.3889)
    """
    if len(labels) != len(predictions) or not labels:
        raise MetricError(f"{len(labels)} labels against {len(predictions)} predictions; pair at least one item")
    names = list(dict.fromkeys([*labels, *predictions]))
    at = {name: index for index, name in enumerate(names)}
    counts_LL = np.zeros((len(names), len(names)))
    for label, prediction in zip(labels, predictions, strict=True):
        counts_LL[at[label], at[prediction]] += 1
    hits_L, said_L, true_L = np.diag(counts_LL), counts_LL.sum(axis=0), counts_LL.sum(axis=1)
    accuracy = float(hits_L.sum() / len(labels))
    chance = float(said_L @ true_L) / len(labels) ** 2
    return Agreement(
        accuracy=accuracy,
        macro_f1=float((2 * hits_L / (said_L + true_L)).mean()),
        kappa=(accuracy - chance) / (1 - chance) if chance < 1 else math.nan,
        num_items=len(labels),
    )


def majority(votes: Sequence[T], otherwise: T) -> T:
    """Return the label that more than half of the votes name, or `otherwise` where there is none.

    >>> majority([1, 2, 1], otherwise=0), majority([0, 1, 2], otherwise=0)
    (1, 0)
    """
    if not votes:
        return otherwise
    label, count = Counter(votes).most_common(1)[0]
    return label if 2 * count > len(votes) else otherwise
