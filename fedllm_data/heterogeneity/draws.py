"""Draws of the null and resamples of the clients: made one after the other, measured several at a time.

A draw takes its random numbers from its axis's stream in the same order however many are measured together, so that
the number of draws at once changes no figure. numpy only.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from fedllm_data.heterogeneity.axis import Axis, DrawnValues
from fedllm_data.heterogeneity.profile import Stack

__all__ = ["DRAWN_CELLS", "keep_freed_memory", "measured", "resample"]

DRAWN_CELLS = 1 << 18
"""Cells of tables, of all draws that are measured at once: 2 MB, which stay near the processor."""
KEPT_BYTES = 1 << 24


def measured(axis: Axis, draw: Callable[[], Stack], num_draws: int) -> DrawnValues:
    """Return the measures of this many draws, (draws,) each.

    Args:
        axis: what is measured.
        draw: makes the next draw; all have as many clients and the same labels.
        num_draws: how often to draw.

    >>> from fedllm_data.heterogeneity.quantity import QUANTITY
    >>> from fedllm_data.heterogeneity.profile import CountTable
    >>> stack = Stack(("a", "b"), {"rows": CountTable(("all",), np.array([[1], [3]]))}, np.arange(2))
    >>> measured(QUANTITY, lambda: stack, 2)["largest_fraction"].tolist()
    [0.75, 0.75]
    """
    parts: list[DrawnValues] = []
    while num_draws > 0:
        stacks = [draw()]
        if axis.measure_draws is None:
            parts.append({name: np.array([value]) for name, value in axis.measure(stacks[0]).items()})
        else:
            cells = max(1, sum(table.counts_KL.size for table in stacks[0].tables.values()))
            stacks += [draw() for _ in range(min(num_draws, DRAWN_CELLS // cells) - 1)]
            parts.append(axis.measure_draws(stacks))
        num_draws -= len(stacks)
    return {name: np.concatenate([np.zeros(0), *(part[name] for part in parts)]) for name in axis.measures}


def resample(stack: Stack, rng: Generator) -> Stack:
    """Return as many of the clients as there are, drawn with replacement.

    >>> stack = Stack(("a", "b"), {}, np.arange(2))
    >>> resample(stack, np.random.default_rng(0)).origin_K.tolist()
    [1, 1]
    """
    return stack.take(rng.integers(stack.num_clients, size=stack.num_clients))


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed, for what is allocated next.

    Once a large block was freed, glibc gives memory back to the system above twice its size only. Before, it does so
    after every few draws, and new pages for the next draws' arrays take longer than the arithmetic. The block itself
    is never written, and with other C libraries nothing happens.
    """
    np.empty(KEPT_BYTES, np.uint8)
