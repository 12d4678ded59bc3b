"""What a reader asks of the protocols: budgets such as `bytes=20MB,hours=2` and targets such as `heldout_loss=1.5`."""

import math
import re
from collections.abc import Sequence

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import MetricError
from fedllm_eval.running.round_costs import COSTS
from fedllm_eval.scores import SCORES

__all__ = ["parse_budget", "parse_targets"]

_SIZES = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_SIZE = re.compile(r"([0-9.eE+-]+?)\s*([kMGT]?B|)")


def parse_budget(text: str) -> dict[str, float]:
    """Return cost -> the most that may be spent.

    Args:
        text: costs with their limits, joined by commas; bytes may have a unit (kB, MB, GB, TB, powers of 1,000).

    Raises:
        MetricError: if a cost is unknown or given twice, or a limit is no number of 0 or more.

    >>> parse_budget("bytes=20MB,hours=2,money=5,epsilon=8")
    {'bytes': 20000000.0, 'hours': 2.0, 'money': 5.0, 'epsilon': 8.0}
    """
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, equals, amount = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise MetricError(
                f"budget {text!r}: {part.strip()!r} is not of the form COST=LIMIT; write bytes=20MB,hours=2"
            )
        if name not in COSTS:
            raise MetricError(
                f"budget {text!r}: no cost {name!r}; {did_you_mean(name, COSTS)}costs are {', '.join(COSTS)}"
            )
        if name in limits:
            raise MetricError(f"budget {text!r} limits {name} twice; keep one")
        limits[name] = _limit(name, amount, text)
    return limits


def parse_targets(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Return scores with the values to reach.

    Raises:
        MetricError: if a score is unknown, or a value is no finite number.

    >>> parse_targets(["heldout_loss=1.5"])
    [('heldout_loss', 1.5)]
    """
    targets: list[tuple[str, float]] = []
    for text in texts:
        name, equals, amount = (piece.strip() for piece in text.partition("="))
        if not equals:
            raise MetricError(f"target {text!r} is not of the form SCORE=VALUE; write heldout_loss=1.5")
        if name not in SCORES:
            raise MetricError(
                f"target {text!r}: no score {name!r}; {did_you_mean(name, list(SCORES))}scores are {', '.join(SCORES)}"
            )
        value = _number(amount)
        if not math.isfinite(value):
            raise MetricError(f"target {text!r}: {amount!r} is no number; write heldout_loss=1.5")
        targets.append((name, value))
    return targets


def _limit(name: str, amount: str, text: str) -> float:
    factor = 1.0
    if name == "bytes" and (match := _SIZE.fullmatch(amount)):
        amount, factor = match[1], _SIZES[match[2]]
    value = _number(amount) * factor
    if not (math.isfinite(value) and value >= 0):
        hint = "a size such as 20MB or 1.5GB" if name == "bytes" else "a number of 0 or more"
        raise MetricError(f"budget {text!r}: the limit of {name} is {amount!r}; give {hint}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
