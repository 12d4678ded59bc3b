"""How many values the methods train whose server is content with a noisy mean, by the shapes of an adapter's factors.

Noise grows with the root of their number, so it is what a private run is chosen by. Symbols: a module of m by n with
rank r has A (r, n) and B (m, r).

fedavg     A and B: r (m + n) a module
ffa_lora   B alone: r m (Sun et al. 2024, arXiv 2403.12313)
fed_sb     a core between frozen factors: r^2, with core_frame random (Singhal et al. 2025, arXiv 2502.15436)

Imports no torch.
"""

import math
from collections.abc import Mapping

from fedllm_train.adapters.lora import is_a, is_b

__all__ = ["values_by_method"]


def values_by_method(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return how many values each method would train on the modules of an adapter; empty where it has other tensors.

    Args:
        shapes: name -> shape of the adapter's tensors.

    >>> values_by_method({"x.lora_A.weight": (4, 100), "x.lora_B.weight": (50, 4)})
    {'fedavg': 600, 'ffa_lora': 200, 'fed_sb': 16}
    """
    if not shapes or not all(len(shape) == 2 and (is_a(name) or is_b(name)) for name, shape in shapes.items()):
        return {}
    return {
        "fedavg": sum(math.prod(shape) for shape in shapes.values()),
        "ffa_lora": sum(math.prod(shape) for name, shape in shapes.items() if is_b(name)),
        "fed_sb": sum(shape[0] ** 2 for name, shape in shapes.items() if is_a(name)),
    }
