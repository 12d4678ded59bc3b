"""Shifts of the base weights: what methods with exact aggregation add to the model beside the adapter.

A LoRA module computes W0 x + s B A x; with a shift it computes W0 x + s M x + s B A x, where s is the module's own
scaling, so that M adds up with products B A. M is kept as factors of as low a rank as it has, in float64 on the
server: `{module}.left` (d, q) and `{module}.right` (q, m), or, where that is fewer numbers, as `{module}.matrix`
(d, m). It travels in float32, and is what a client downloads that may not have been there in the rounds before.

W0 itself is never written to: the shift is computed beside it, in float32, like a second adapter. So the base stays
what it was to the bit, a shift far below bfloat16's resolution of W0 still counts (merged, it would be rounded away),
quantised bases work, and whatever switches the trained adapter off, as TRL does for DPO's reference, switches the
shift off too: the reference stays the starting policy. What that costs (SmolLM2-135M, LoRA on all linear layers, 4 x
128 tokens, float32, one core): a step takes 1.2 times as long with a shift of rank 80 and 1.45 times with one of full
rank; on q_proj and v_proj alone 1.1 times at most.

`adapters/shifted_model.py` says how a model computes with a shift. Imports no torch before it is needed.

Symbols: d outputs, m inputs, r LoRA rank, q rank of the shift.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedllm_train.adapters.arithmetic import Adapter, Parts, adapter_sha256, distance
from fedllm_train.adapters.lora import Factors, factor_names, side_by_side, squared_norm
from fedllm_train.lazy_torch import torch

__all__ = [
    "PART",
    "add_to_shift",
    "compressed",
    "finished_factors",
    "shift_change",
    "shift_of_products",
    "state_sha256",
    "travelling",
    "update_norm",
]

PART = "base_shift"
"""The part of a server's state and of its messages that holds the shift; not there while nothing is shifted."""


def add_to_shift(shift: Mapping[str, torch.Tensor], terms: Mapping[str, Factors]) -> Adapter:
    """Return a shift with a matrix added per module, recompressed; exact to float64.

    >>> column = torch.tensor([[1.0], [0.0], [0.0]]).double()
    >>> once = add_to_shift({}, {"q": Factors(column, column.mT)})
    >>> {name: tuple(tensor.shape) for name, tensor in once.items()}
    {'q.left': (3, 1), 'q.right': (1, 3)}
    >>> add_to_shift(once, {"q": Factors(-column, column.mT)})
    {}
    """
    result = dict(shift)
    for module, term in terms.items():
        if f"{module}.matrix" in result:
            result[f"{module}.matrix"] = result[f"{module}.matrix"] + term.product()
            continue
        before = [Factors(result.pop(f"{module}.left"), result.pop(f"{module}.right"))] if _has(result, module) else []
        factors = compressed(side_by_side([*before, term]))
        (d, q), m = factors.left.shape, factors.right.shape[1]
        if q * (d + m) >= d * m:
            result[f"{module}.matrix"] = factors.product()
        elif q:
            result[f"{module}.left"], result[f"{module}.right"] = factors.left, factors.right
    return result


def shift_of_products(adapter: Mapping[str, torch.Tensor]) -> Adapter:
    """Return the products of a trained adapter as a shift, in its own factors; empty for a fresh one, whose B is 0.

    >>> one = torch.ones(1, 1)
    >>> sorted(shift_of_products({"q.lora_A.weight": one, "q.lora_B.weight": one}))
    ['q.left', 'q.right']
    >>> shift_of_products({"q.lora_A.weight": one, "q.lora_B.weight": 0 * one})
    {}
    """
    shift = {}
    for module, (a, b) in factor_names(adapter).items():
        if adapter[b].any():
            shift[f"{module}.left"], shift[f"{module}.right"] = adapter[b].double(), adapter[a].double()
    return shift


def compressed(factors: Factors) -> Factors:
    """Return the same matrix as factors of its own rank: singular values that float64 cannot tell from 0 are dropped.

    A matrix of as many columns as it is wide or high comes back as itself times the identity, unless it is zero.
    """
    d, m = factors.left.shape[0], factors.right.shape[1]
    # What rounding alone leaves where terms of this size cancel.
    zero = torch.finfo(torch.float64).eps * max(d, m) * float(factors.left.norm() * factors.right.norm())
    if factors.left.shape[1] >= min(d, m):
        matrix, identity = factors.product(), torch.eye(min(d, m), dtype=torch.float64)
        if float(matrix.norm()) <= zero:
            return Factors(factors.left[:, :0], factors.right[:0])
        return Factors(identity, matrix) if d <= m else Factors(matrix, identity)
    left_q, left_r = torch.linalg.qr(factors.left)
    right_q, right_r = torch.linalg.qr(factors.right.mT)
    u, singular, vt = torch.linalg.svd(left_r @ right_r.mT)
    kept = int((singular > zero).sum())
    root = singular[:kept].sqrt()
    return Factors(left_q @ u[:, :kept] * root, root[:, None] * (vt[:kept] @ right_q.mT))


def travelling(shift: Mapping[str, torch.Tensor]) -> Adapter:
    """Return the shift as it is sent: in float32."""
    return {name: tensor.to(torch.float32) for name, tensor in shift.items()}


def shift_change(before: Parts, after: Parts) -> dict[str, Factors]:
    """Return what a server step added to the base weights, by module; empty if the method shifts nothing."""
    old, new = _factors_of(before.get(PART, {})), _factors_of(after.get(PART, {}))
    changes = {}
    for module in sorted(old.keys() | new.keys()):
        terms = [new[module]] if module in new else []
        terms += [Factors(-old[module].left, old[module].right)] if module in old else []
        changes[module] = side_by_side(terms)
    return changes


def update_norm(before: Parts, after: Parts) -> float:
    """Return how far a server step moved the model.

    Without a shift that is the Euclidean distance of the two adapters. With one, factors alone say little (FLoRA's
    are drawn again in every round): it is the Frobenius norm of the change of all B A + M together.

    >>> one = {"q.lora_A.weight": torch.ones(1, 1), "q.lora_B.weight": torch.zeros(1, 1)}
    >>> update_norm({"adapter": one}, {"adapter": one, "base_shift": {"q.matrix": torch.full((1, 1), 3.0).double()}})
    3.0
    """
    if not before.get(PART) and not after.get(PART):
        return distance(after["adapter"], before["adapter"])
    shifts = shift_change(before, after)
    squares = 0.0
    for module, (a, b) in factor_names(after["adapter"]).items():
        terms = [Factors(after["adapter"][b].double(), after["adapter"][a].double())]
        terms += [Factors(-before["adapter"][b].double(), before["adapter"][a].double())]
        terms += [shifts[module]] if module in shifts else []
        squares += squared_norm(side_by_side(terms))
    return float(squares**0.5)


def state_sha256(state: Parts) -> str:
    """Return the digest of all that a server's state adds to the base: the adapter, and the shift if there is one."""
    return adapter_sha256(state["adapter"] | state.get(PART, {}))


def finished_factors(adapter: Mapping[str, torch.Tensor], shift: Mapping[str, torch.Tensor]) -> Adapter:
    """Return an adapter whose products are B A + M: what the run learned, on the original base.

    A module's rank is that of the sum (at least 1); its scaling must stay the adapter's.

    >>> one = torch.ones(1, 1)
    >>> adapter = {"q.lora_A.weight": one, "q.lora_B.weight": 2 * one}
    >>> done = finished_factors(adapter, {"q.matrix": 3 * one.double()})
    >>> round(float(done["q.lora_B.weight"] @ done["q.lora_A.weight"]), 6)
    5.0
    """
    shifts = _factors_of(shift)
    result = dict(adapter)
    for module, (a, b) in factor_names(adapter).items():
        if module not in shifts:
            continue
        factors = compressed(side_by_side([Factors(adapter[b].double(), adapter[a].double()), shifts[module]]))
        if factors.left.shape[1] == 0:
            factors = Factors(torch.zeros_like(adapter[b][:, :1]), torch.zeros_like(adapter[a][:1]))
        result[a], result[b] = factors.right.to(adapter[a].dtype), factors.left.to(adapter[b].dtype)
    return result


def _has(shift: Mapping[str, torch.Tensor], module: str) -> bool:
    return f"{module}.left" in shift


def _factors_of(shift: Mapping[str, torch.Tensor]) -> dict[str, Factors]:
    factors = {}
    for name, tensor in shift.items():
        module, kind = name.rsplit(".", 1)
        if kind == "matrix":
            d, m = tensor.shape
            identity = torch.eye(min(d, m), dtype=tensor.dtype)
            factors[module] = Factors(identity, tensor) if d <= m else Factors(tensor, identity)
        elif kind == "left":
            factors[module] = Factors(tensor, shift[f"{module}.right"])
    return factors
