"""What private steps cost a row, and a person with several rows: epsilon of DP-SGD inside a client's visits.

Symbols: z the noise over the clip, q the probability with which a row is in a step, T steps over all visits, K rows of
a person at one client.

A row alone is the Poisson-subsampled Gaussian (`accountants.py`). A person with K rows moves a step's sum by as many
clips as there are coins among theirs that fall for them: a mixture of Gaussians whose sensitivity is Binomial(K, q)
(Choquette-Choo et al. 2024, arXiv 2312.15551; "user level from example noise" of Charles et al. 2024, arXiv
2407.07737). Its privacy loss distribution is dp-accounting's, rounded up to a grid; the grid is the finer the smaller
epsilon is, and every grid gives an upper bound. Imports no torch.
"""

import math
from functools import lru_cache
from typing import Any

from fedllm_train.privacy.accountants import check_accountant, gaussian_epsilons, poisson_epsilon

__all__ = ["person_epsilon", "row_epsilon"]

_GRIDS = ((1.0, 1e3), (0.1, 50.0), (5e-3, 5.0), (1e-3, 0.0))
"""Grid of the loss, and the epsilon above which it is fine enough; from coarse to fine."""
_FEW_ROWS = 64
"""With so many rows of a person at most, the coarsest grid is left out: it would cost more than it tells."""
_TAIL = 1e-3
"""Share of delta that pays for steps with more of a person's rows than are accounted for."""


def row_epsilon(z: float, q: float, num_steps: int, delta: float) -> float:
    """Return epsilon of one row over some steps.

    Args:
        z: positive.
        q: in (0, 1].
        num_steps: T, not negative.
        delta: in (0, 1).

    >>> round(row_epsilon(1.0, 0.01, 1000, 1e-6), 3)
    2.125
    """
    return poisson_epsilon(z, q, num_steps, delta) if num_steps else 0.0


@lru_cache(maxsize=512)
def person_epsilon(z: float, q: float, num_steps: int, delta: float, *, num_rows: int) -> float:
    """Return epsilon of a person with several rows at one client over some steps.

    Args:
        z: positive.
        q: in (0, 1].
        num_steps: T, not negative.
        delta: in (0, 1).
        num_rows: K, at least 1.

    >>> round(person_epsilon(1.0, 0.01, 1000, 1e-6, num_rows=8), 1)
    23.1
    """
    if num_steps == 0:
        return 0.0
    if num_rows == 1:
        return row_epsilon(z, q, num_steps, delta)
    if q == 1:  # all K rows in every step: one Gaussian, K times as sensitive
        spent = gaussian_epsilons(z / (num_rows * math.sqrt(num_steps)), delta)["pld"]
        assert spent is not None
        return spent
    # Without its tail a step is 1 - tail times as likely at least: that costs tail of delta one way round, and
    # -log(1 - tail) of epsilon the other.
    tail = _TAIL * delta / num_steps
    found = 0.0
    for grid, enough in _GRIDS[1 if num_rows <= _FEW_ROWS else 0 :]:
        steps = _one_step(z, q, num_rows, grid, tail).self_compose(num_steps)
        found = float(steps.get_epsilon_for_delta(delta * (1 - _TAIL)))
        if found > enough:
            break
    return found - num_steps * math.log1p(-tail)


@lru_cache(maxsize=16)
def _one_step(z: float, q: float, num_rows: int, grid: float, tail: float) -> Any:
    check_accountant()
    from dp_accounting.pld.privacy_loss_distribution import from_mixture_gaussian_mechanism
    from scipy.stats import binom

    most = min(num_rows, int(binom.isf(tail, num_rows, q)))
    chances = {float(count): float(binom.pmf(count, num_rows, q)) for count in range(most + 1)}
    chances = {count: chance for count, chance in chances.items() if chance > 0}
    # What lies beyond is in `tail`; what rounding left goes to the largest sensitivity, which only makes it worse.
    chances[max(chances)] += 1.0 - sum(chances.values())
    return from_mixture_gaussian_mechanism(z, [*chances], [*chances.values()], value_discretization_interval=grid)
