"""What attackers send in place of their honest changes; on changes alone.

Symbols: Delta an attacker's own honest change; mu and sigma mean and standard deviation, by coordinate, of the changes
that the colluders know: here their own honest ones, and nobody else's; n updates of the round, f of attackers.

    ALIE    mu - z sigma, z = Phi^-1((n - f - s) / (n - f)), s = floor(n / 2 + 1) - f     (Baruch et al. 2019, 4.1)
    IPM     -epsilon mu                                                                   (Xie et al. 2020, section 4)
    MinMax  mu - gamma sigma with the largest gamma whose distance from each known change is at most the largest
            between two of them                             (Shejwalkar and Houmansadr 2021, equation 4, with std)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.lazy_torch import torch

__all__ = ["alie_z", "colluding_change", "lone_change"]

_GAMMA_UP_TO, _GAMMA_STEP = 5.0, 0.01


def lone_change(attack: str, change: Adapter, scale: float) -> Adapter:
    """Return what an attacker that works alone sends.

    Args:
        attack: `sign_flip`, `scaling` or `nan`.
        change: its honest change.
        scale: how many times as long.
    """
    factor = {"sign_flip": -scale, "scaling": scale, "nan": math.nan}[attack]
    return {name: factor * tensor for name, tensor in change.items()}


def colluding_change(attack: str, known: Sequence[Adapter], *, num_updates: int, scale: float) -> Adapter:
    """Return what all colluders of a round send.

    Args:
        attack: `alie`, `ipm` or `min_max`.
        known: their honest changes, in float64.
        num_updates: updates of the round, theirs among them.
        scale: epsilon of IPM.
    """
    mean = {name: torch.stack([each[name] for each in known]).mean(dim=0) for name in known[0]}
    if attack == "ipm":
        return {name: -scale * tensor for name, tensor in mean.items()}
    spread = {name: torch.stack([each[name] for each in known]).std(dim=0, correction=0) for name in known[0]}
    factor = alie_z(num_updates, len(known)) if attack == "alie" else _largest_gamma(known, mean, spread)
    return {name: mean[name] - factor * spread[name] for name in mean}


def alie_z(num_updates: int, num_bad: int) -> float:
    """Return ALIE's z for n updates, f of them bad; 0 where the attackers are the majority anyway.

    >>> [round(alie_z(n, f), 3) for n, f in ((50, 12), (50, 24), (10, 3), (100, 20))]
    [0.336, 1.426, 0.18, 0.286]
    """
    honest = num_updates - num_bad
    supporters = num_updates // 2 + 1 - num_bad
    if honest < 1 or not 0 < (share := (honest - supporters) / honest) < 1:
        return 0.0
    return max(0.0, NormalDist().inv_cdf(share))


def _largest_gamma(known: Sequence[Adapter], mean: Mapping[str, torch.Tensor], spread: Adapter) -> float:
    """By bisection between 0 and 5."""
    squares = torch.tensor([[_squared(one, other) for other in known] for one in known])
    allowed = float(squares.max())
    low, high = 0.0, _GAMMA_UP_TO
    while high - low > _GAMMA_STEP:
        middle = (low + high) / 2
        bad = {name: mean[name] - middle * spread[name] for name in mean}
        low, high = (middle, high) if max(_squared(bad, each) for each in known) <= allowed else (low, middle)
    return low


def _squared(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return sum(float((one[name] - other[name]).square().sum()) for name in one)
