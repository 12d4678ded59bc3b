"""How far one judge's labels agree with another's: accuracy, macro-F1 and Cohen's kappa, as scikit-learn counts them.

Macro-F1 is the plain mean over the labels that either side uses, so that a judge who never says "tie" is not helped by
ties being rare. Kappa (Cohen 1960) is agreement beyond what the two label distributions would give by chance.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from fedllm_data.errors import MetricError

__all__ = ["Agreement", "agreement"]


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
    from sklearn import metrics

    # Numbers for labels: scikit-learn takes no mixture of types.
    number = {label: index for index, label in enumerate(dict.fromkeys([*labels, *predictions]))}
    right, said = ([number[label] for label in side] for side in (labels, predictions))
    return Agreement(
        accuracy=float(metrics.accuracy_score(right, said)),
        macro_f1=float(metrics.f1_score(right, said, average="macro", zero_division=0.0)),
        kappa=float(metrics.cohen_kappa_score(right, said)) if len(number) > 1 else math.nan,
        num_items=len(labels),
    )
