"""The algebra of LoRA factors: products, sums of products, and what averaging A and B apart loses.

A LoRA module adds s B A to its weight; B is (d, r), A is (r, m), s = lora_alpha / r. Clients k have weights p_k that
sum to 1; bars are p-weighted means. Averaging the factors apart loses

    sum_k p_k B_k A_k - Bbar Abar = sum_k p_k (B_k - Bbar)(A_k - Abar),

and the aggregation error of a round is ||that||_F / ||sum_k p_k B_k A_k||_F over all modules together. Scaling s
is the same for all clients and cancels. All sums in float64. Symbols: d rows, m columns, r rank, K clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.lazy_torch import torch

__all__ = [
    "Factors",
    "ProductSum",
    "aggregation_error",
    "check_factors_only",
    "factor_names",
    "is_a",
    "is_b",
    "side_by_side",
    "squared_norm",
    "truncated_factors",
    "with_fixed_signs",
]

_A, _B = ".lora_A.", ".lora_B."


@dataclass(frozen=True)
class Factors:
    """A matrix of low rank, kept as left (d, r) times right (r, m)."""

    left: torch.Tensor
    right: torch.Tensor

    def product(self) -> torch.Tensor:
        """Return the matrix itself, (d, m)."""
        return self.left @ self.right


def factor_names(adapter: Mapping[str, torch.Tensor]) -> dict[str, tuple[str, str]]:
    """Return the names of A and B of every LoRA module in an adapter; empty for an adapter without LoRA factors.

    >>> names = ["m.q.lora_A.weight", "m.q.lora_B.weight", "m.head.weight"]
    >>> factor_names({name: torch.zeros(1) for name in names})
    {'m.q': ('m.q.lora_A.weight', 'm.q.lora_B.weight')}
    """
    names = {}
    for name in sorted(adapter):
        if _A in name and (partner := name.replace(_A, _B)) in adapter:
            names[name.split(_A)[0]] = (name, partner)
    return names


def is_a(name: str) -> bool:
    """Whether a tensor's name is that of a factor A.

    >>> is_a("m.q.lora_A.weight"), is_b("m.q.lora_A.weight")
    (True, False)
    """
    return _A in name


def is_b(name: str) -> bool:
    """Whether a tensor's name is that of a factor B.

    >>> is_b("m.q.lora_B.weight")
    True
    """
    return _B in name


def side_by_side(terms: Sequence[Factors]) -> Factors:
    """Return the sum of matrices of one shape: their left factors beside one another, their right factors stacked.

    >>> one = torch.ones(1, 1)
    >>> side_by_side([Factors(2 * one, one), Factors(3 * one, one)]).product().tolist()
    [[5.0]]
    """
    return Factors(torch.cat([term.left for term in terms], dim=1), torch.cat([term.right for term in terms], dim=0))


def check_factors_only(adapter: Mapping[str, torch.Tensor], method: str) -> None:
    """Refuse an adapter that holds anything but LoRA factors of linear layers: a method's identity says nothing of it.

    Raises:
        ConfigError: if there are tensors of DoRA, biases, whole modules or embeddings, or no LoRA at all.
    """
    factors = {name for pair in factor_names(adapter).values() for name in pair}
    if odd := [name for name in sorted(adapter) if name not in factors or adapter[name].ndim != 2]:
        raise ConfigError(
            f"strategy {method} is defined for LoRA factors of linear layers alone, and the adapter also "
            f"holds {odd[0]}; leave out use_dora, lora_bias, bias, modules_to_save and the like, or use fedavg"
        )


class ProductSum:
    """Running sum of w_k B_k A_k for every module, as factors as long as they are smaller than the matrix itself.

    Memory is bounded by one (d, m) matrix a module, however many clients are added.
    """

    def __init__(self) -> None:
        """Start from nothing."""
        self._factors: dict[str, Factors] = {}
        self._dense: dict[str, torch.Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, adapter: Adapter, weight: float) -> None:
        """Add the products of an adapter with a weight."""
        for module, (a, b) in factor_names(adapter).items():
            self._add(module, Factors(adapter[b].double() * weight, adapter[a].double()))
            self._weights[module] = self._weights.get(module, 0.0) + weight

    def mean(self) -> dict[str, Factors]:
        """Return the weighted mean of the products, by module over those that have it: exact, at any rank."""
        return {module: self._scaled(module) for module in sorted(self._factors.keys() | self._dense.keys())}

    def _add(self, module: str, term: Factors) -> None:
        if module in self._dense:
            self._dense[module] += term.product()
            return
        before = self._factors.get(module)
        if before is None:
            self._factors[module] = term
            return
        joined = side_by_side([before, term])
        if joined.left.shape[1] > min(joined.left.shape[0], joined.right.shape[1]):
            del self._factors[module]
            self._dense[module] = joined.product()
        else:
            self._factors[module] = joined

    def _scaled(self, module: str) -> Factors:
        if module in self._dense:
            dense = self._dense[module] / self._weights[module]
            wide = dense.shape[0] <= dense.shape[1]
            identity = torch.eye(min(dense.shape), dtype=torch.float64)
            return Factors(identity, dense) if wide else Factors(dense, identity)
        factors = self._factors[module]
        return Factors(factors.left / self._weights[module], factors.right)


def truncated_factors(factors: Factors, rank: int) -> tuple[Factors, torch.Tensor]:
    """Return the best approximation of a rank (Eckart and Young 1936) and all singular values.

    The singular values stand in the left factor: left = U S, right = V', whose rows are orthonormal. Signs are fixed
    (the largest entry of each column of U is positive), so that the result depends on the matrix alone. Where the
    matrix has a smaller rank, the rest of the left factor is zero and that of the right one any orthonormal rows.

    Args:
        factors: the matrix, of any rank.
        rank: columns of the result's left factor.

    >>> matrix = torch.diag(torch.tensor([3.0, 2.0])).double()
    >>> best, singular = truncated_factors(Factors(torch.eye(2).double(), matrix), 1)
    >>> best.product().round(decimals=9).tolist(), singular.tolist()
    ([[3.0, 0.0], [0.0, 0.0]], [3.0, 2.0])
    """
    left_q, left_r = torch.linalg.qr(factors.left)
    right_q, right_r = torch.linalg.qr(factors.right.mT)
    u, singular, vt = torch.linalg.svd(left_r @ right_r.mT)
    count = min(rank, len(singular))
    u, vt = left_q @ u[:, : len(singular)], vt[: len(singular)] @ right_q.mT
    u, vt = with_fixed_signs(u, vt)
    left = torch.zeros(u.shape[0], rank, dtype=u.dtype)
    left[:, :count] = u[:, :count] * singular[:count]
    return Factors(left, _with_more_rows(vt[:count], rank)), singular


def _with_more_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return orthonormal rows with others below them, up to `count`: a row of zeros could never be trained again.

    Where `count` is more than there are orthonormal rows, the last ones are zero all the same.
    """
    others = torch.eye(rows.shape[1], max(0, min(count, rows.shape[1]) - len(rows)), dtype=rows.dtype)
    basis = torch.linalg.qr(torch.cat([rows.mT, others], dim=1)).Q.mT
    result = torch.zeros(count, rows.shape[1], dtype=rows.dtype)
    result[: len(basis)] = basis
    result[: len(rows)] = rows
    return result


def with_fixed_signs(u: torch.Tensor, vt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return singular vectors, columns of U and rows of V', such that the largest entry of each column of U is > 0.

    >>> with_fixed_signs(torch.tensor([[-1.0]]), torch.tensor([[1.0]]))
    (tensor([[1.]]), tensor([[-1.]]))
    """
    largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return u * sign, vt * sign.mT


def aggregation_error(
    mean_adapter: Adapter, products: dict[str, Factors], shift: Mapping[str, Factors] | None = None
) -> float | None:
    """Return ||sum p_k B_k A_k - Bbar Abar - M||_F / ||sum p_k B_k A_k||_F over all modules.

    Args:
        mean_adapter: the factors the server made, Abar and Bbar.
        products: the mean of the clients' products, from `ProductSum`.
        shift: M, what the server added to the base weights beside, by module; by default nothing.

    Returns:
        0 if nothing is lost; None if no module has LoRA factors or all products are zero.
    """
    lost, whole = 0.0, 0.0
    for module, mean, exact in _paired(mean_adapter, products):
        whole += squared_norm(exact)
        made = [mean, shift[module]] if shift and module in shift else [mean]
        lost += squared_norm(side_by_side([exact, *(Factors(-each.left, each.right) for each in made)]))
    return (lost / whole) ** 0.5 if whole > 0 else None


def _paired(mean_adapter: Adapter, products: dict[str, Factors]) -> Iterator[tuple[str, Factors, Factors]]:
    for module, (a, b) in factor_names(mean_adapter).items():
        if module in products:
            yield module, Factors(mean_adapter[b].double(), mean_adapter[a].double()), products[module]


def squared_norm(factors: Factors) -> float:
    """||L R||_F^2 through the triangular factors of L and R': exact also where the matrix nearly cancels."""
    if factors.left.shape[1] >= min(factors.left.shape[0], factors.right.shape[1]):
        return float(factors.product().square().sum())
    left_r = torch.linalg.qr(factors.left, mode="r").R
    right_r = torch.linalg.qr(factors.right.mT, mode="r").R
    return float((left_r @ right_r.mT).square().sum())
