"""The learning rate of a round: cosine from the client's rate to a floor, constant inside a round.

lr(t) = lr_min + (lr_max - lr_min) (1 + cos(pi t / T)) / 2 for round t of T, counted from 0: the schedule of
FedLLM-Bench (Ye et al. 2024, arXiv 2406.04845) and OpenFedLLM (arXiv 2402.06954).
"""

import math

__all__ = ["cosine_learning_rate"]


def cosine_learning_rate(round_index: int, num_rounds: int, *, maximum: float, minimum: float) -> float:
    """Return the learning rate of every local step of a round.

    >>> cosine_learning_rate(0, 200, maximum=2e-5, minimum=1e-6)
    2e-05
    >>> round(cosine_learning_rate(100, 200, maximum=2e-5, minimum=1e-6), 10)
    1.05e-05
    """
    return minimum + 0.5 * (maximum - minimum) * (1.0 + math.cos(math.pi * round_index / num_rounds))
