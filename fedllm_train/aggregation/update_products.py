"""Inner products of clients' changes, taken as vectors, or as the matrices that LoRA factors stand for.

The factors (B, A) and (-B, -A) are one matrix B A and lie far apart as numbers, so that a rule that goes by distances
between clients must compare products. For changes M_k = B_k A_k - B_0 A_0 = [B_k, -B_0] [A_k; A_0] their inner product
is

    <M_i, M_j> = tr((L_i' L_j) (R_j R_i'))    for M = L R,

which takes matrices of 2 r x 2 r only. Where one factor is the same for all, this is the geometry of the other one as
seen through it. Tensors that are no factors count by their numbers. All sums in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.adapters.lora import Factors, factor_names, side_by_side
from fedllm_train.aggregation.robust_rules import Matrix
from fedllm_train.lazy_torch import torch

__all__ = ["gram_of_changes", "gram_of_products", "sends_both_factors"]


def sends_both_factors(adapter: Mapping[str, object]) -> bool:
    """Return whether an update holds both factors of a LoRA module, so that its numbers are no coordinates of B A.

    >>> sends_both_factors({"q.lora_A.weight": 0, "q.lora_B.weight": 0}), sends_both_factors({"q.lora_B.weight": 0})
    (True, False)
    """
    return any(name.replace(".lora_A.", ".lora_B.") in adapter for name in adapter if ".lora_A." in name)


def gram_of_changes(changes: Sequence[Adapter]) -> Matrix:
    """Return (n, n): the inner products of changes, all tensors of one taken as one vector.

    Args:
        changes: of the same names and shapes.
    """
    total = torch.zeros(len(changes), len(changes), dtype=torch.float64)
    for name in sorted(changes[0]):
        rows = torch.stack([change[name].double().flatten() for change in changes])
        total += rows @ rows.mT
    return total.numpy()


def gram_of_products(adapters: Sequence[Adapter], start: Adapter, frozen: Adapter | None = None) -> Matrix:
    """Return (n, n): the inner products of what clients changed in the weights.

    Args:
        adapters: what clients ended with, of the same names and shapes.
        start: what they started from.
        frozen: factors that are the same for all and not in `adapters`; by default none.
    """
    beside = dict(frozen or {})
    whole = [{**beside, **adapter} for adapter in adapters]
    begun = {**beside, **start}
    total = torch.zeros(len(adapters), len(adapters), dtype=torch.float64)
    factors = factor_names(whole[0])
    for a, b in factors.values():
        if whole[0][a].ndim != 2 or whole[0][b].ndim != 2:
            continue
        first = Factors(-begun[b].double(), begun[a].double())
        terms = [side_by_side([Factors(each[b].double(), each[a].double()), first]) for each in whole]
        for i, one in enumerate(terms):
            for j in range(i + 1):
                other = terms[j]
                value = ((one.left.mT @ other.left) * (one.right @ other.right.mT)).sum()
                total[i, j] += value
                if i != j:
                    total[j, i] += value
    in_products = {name for pair in factors.values() for name in pair if whole[0][name].ndim == 2}
    if plain := [name for name in adapters[0] if name not in in_products]:
        changes = [{name: each[name].double() - start[name].double() for name in plain} for each in adapters]
        total += torch.from_numpy(gram_of_changes(changes))
    return np.asarray(total.numpy())
