"""A core R between the factors of a LoRA module: it adds s B R A to its weight, and R may be all that is trained.

R is kept beside the factors as `{module}.lora_R.weight`. It is in the model only while it trains
(`adapters/cored_model.py`): a parameter of the module that holds A, and a forward hook on it that multiplies by R,
so that the layer computes s B R A x as it computed s B A x. Outside, B R stands for B (`folded`), and whoever reads
the adapter sees plain LoRA. Whatever switches the trained adapter off, as TRL does for DPO's reference, switches the
core off with it.

The gradient is dL/dR = s B' G A' for G = dL/dW. Where A and B are orthonormal, a frame, a step of R moves the weight
by exactly as much as it moves R, times s.

A core may be made of heads: h blocks (r / h, r / h) on the diagonal of R, kept as one tensor (h, r / h, r / h), so
that B R A = sum_i B_i R_i A_i for the i-th columns B_i of B and rows A_i of A. While it trains, each head may have a
scale beside it, `{module}.lora_S.weight` (h,): the model then computes with s_i R_i.

Symbols: d outputs, m inputs, r LoRA rank, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.adapters.lora import Factors, factor_names, with_fixed_signs
from fedllm_train.lazy_torch import torch
from fedllm_train.seeds import stream_seed

__all__ = [
    "core_name",
    "dense_core",
    "folded",
    "is_head_scale",
    "is_r",
    "module_of_core",
    "normal_frame",
    "random_frame",
    "scale_name",
    "singular_frame",
    "split_cores",
    "zero_cores",
]

_R, _S = ".lora_R.", ".lora_S."


def core_name(module: str) -> str:
    """Return the name of a module's core.

    >>> core_name("m.q")
    'm.q.lora_R.weight'
    """
    return f"{module}{_R}weight"


def scale_name(module: str) -> str:
    """Return the name of the scales of a core's heads.

    >>> scale_name("m.q")
    'm.q.lora_S.weight'
    """
    return f"{module}{_S}weight"


def module_of_core(name: str) -> str:
    """Undo `core_name` and `scale_name`.

    >>> module_of_core("m.q.lora_R.weight"), module_of_core("m.q.lora_S.weight")
    ('m.q', 'm.q')
    """
    return name.split(_R)[0].split(_S)[0]


def is_r(name: str) -> bool:
    """Whether a tensor's name is that of a core.

    >>> is_r("m.q.lora_R.weight"), is_r("m.q.lora_A.weight")
    (True, False)
    """
    return _R in name


def is_head_scale(name: str) -> bool:
    """Whether a tensor's name is that of the scales of a core's heads.

    >>> is_head_scale("m.q.lora_S.weight"), is_head_scale("m.q.lora_R.weight")
    (True, False)
    """
    return _S in name


def split_cores(adapter: Mapping[str, torch.Tensor]) -> tuple[Adapter, Adapter]:
    """Return what PEFT knows of an adapter, and its cores with the scales of their heads.

    >>> one = torch.ones(1, 1)
    >>> [list(each) for each in split_cores({"q.lora_A.weight": one, "q.lora_R.weight": one})]
    [['q.lora_A.weight'], ['q.lora_R.weight']]
    """
    cores = {name: tensor for name, tensor in adapter.items() if is_r(name) or is_head_scale(name)}
    return {name: tensor for name, tensor in adapter.items() if name not in cores}, cores


def dense_core(core: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """Return R itself, (r, r), of a core that may be made of heads.

    Args:
        core: (r, r), or (h, r / h, r / h) in heads.
        scale: of every head, (h,); None for 1.

    >>> dense_core(torch.ones(2, 1, 1), torch.tensor([2.0, 3.0])).tolist()
    [[2.0, 0.0], [0.0, 3.0]]
    """
    if core.ndim == 2:
        return core
    return torch.block_diag(*(core if scale is None else core * scale[:, None, None]))


def zero_cores(adapter: Mapping[str, torch.Tensor], num_heads: int | None = None) -> Adapter:
    """Return R = 0 for every LoRA module of an adapter: (r, r), or (h, r / h, r / h) where there are heads.

    >>> adapter = {"q.lora_A.weight": torch.zeros(4, 5), "q.lora_B.weight": torch.zeros(3, 4)}
    >>> zero_cores(adapter)["q.lora_R.weight"].shape, zero_cores(adapter, 2)["q.lora_R.weight"].shape
    (torch.Size([4, 4]), torch.Size([2, 2, 2]))
    """
    cores = {}
    for module, (a, _) in factor_names(adapter).items():
        rank = adapter[a].shape[0]
        shape = (rank, rank) if num_heads is None else (num_heads, rank // num_heads, rank // num_heads)
        cores[core_name(module)] = adapter[a].new_zeros(shape)
    return cores


def folded(factors: Mapping[str, torch.Tensor], cores: Mapping[str, torch.Tensor]) -> Adapter:
    """Return plain LoRA factors A and B R, multiplied in float64.

    >>> factors = {"q.lora_A.weight": torch.ones(1, 1), "q.lora_B.weight": torch.full((1, 1), 2.0)}
    >>> folded(factors, {"q.lora_R.weight": torch.full((1, 1), 3.0)})["q.lora_B.weight"].item()
    6.0
    """
    result = dict(factors)
    for module, (_, b) in factor_names(factors).items():
        result[b] = (factors[b].double() @ dense_core(cores[core_name(module)].double())).to(factors[b].dtype)
    return result


def random_frame(like: Mapping[str, torch.Tensor], seed: int) -> Adapter:
    """Return orthonormal A (rows) and B (columns) of an adapter's shapes, drawn from a run's seed: all can draw them.

    Raises:
        ConfigError: if a module has fewer rows or columns than the LoRA rank.

    >>> like = {"q.lora_A.weight": torch.zeros(2, 5), "q.lora_B.weight": torch.zeros(3, 2)}
    >>> a = random_frame(like, 0)["q.lora_A.weight"]
    >>> bool((a @ a.mT - torch.eye(2)).abs().max() < 1e-6)
    True
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "core frame"))
    frame = {}
    for module, (a, b) in factor_names(like).items():
        rank, m = like[a].shape
        _check_rank(module, like[b].shape[0], m, rank)
        for name, size in ((a, m), (b, like[b].shape[0])):
            drawn = torch.randn(size, rank, generator=generator, dtype=torch.float64)
            columns = torch.linalg.qr(drawn).Q
            frame[name] = (columns.mT if name == a else columns).contiguous().to(like[name].dtype)
    return frame


def normal_frame(like: Mapping[str, torch.Tensor], seed: int) -> Adapter:
    """Return independent normal A and B of an adapter's shapes, drawn from a run's seed: all can draw them.

    Rows of A have variance 1 / m and columns of B 1 / d, so that their expected length is 1, as in an orthonormal
    frame. The rank may be above a module's side.

    >>> like = {"q.lora_A.weight": torch.zeros(2, 4000), "q.lora_B.weight": torch.zeros(3, 2)}
    >>> a = normal_frame(like, 0)["q.lora_A.weight"]
    >>> bool((a @ a.mT - torch.eye(2)).abs().max() < 0.1)
    True
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "core frame"))
    frame = {}
    for a, b in factor_names(like).values():
        for name, size in ((a, like[a].shape[1]), (b, like[b].shape[0])):
            drawn = torch.randn(like[name].shape, generator=generator, dtype=torch.float64)
            frame[name] = (drawn / size**0.5).to(like[name].dtype)
    return frame


def singular_frame(module: str, matrix: torch.Tensor, rank: int) -> tuple[Factors, torch.Tensor]:
    """Return B and A as `left` and `right`, the first singular vectors of a matrix, and R, its singular values.

    B R A is the best approximation of that rank (Eckart and Young 1936). Signs are fixed (the largest entry of each
    column of B is positive), so that the result depends on the matrix alone.

    Args:
        module: whose matrix it is, for the message of an error.
        matrix: (d, m), in float64.
        rank: r.

    Raises:
        ConfigError: if the matrix has fewer rows or columns than that.

    >>> frame, core = singular_frame("q", torch.diag(torch.tensor([2.0, 3.0])).double(), 1)
    >>> frame.left.flatten().tolist(), core.tolist(), frame.right.tolist()
    ([0.0, 1.0], [[3.0]], [[0.0, 1.0]])
    """
    _check_rank(module, matrix.shape[0], matrix.shape[1], rank)
    u, singular, vt = torch.linalg.svd(matrix, full_matrices=False)
    return Factors(*with_fixed_signs(u[:, :rank], vt[:rank])), torch.diag(singular[:rank])


def _check_rank(module: str, d: int, m: int, rank: int) -> None:
    if rank > min(d, m):
        raise ConfigError(
            f"LoRA rank {rank} is more than {min(d, m)}, the smaller side of {module} ({d}, {m}), so its factors "
            "cannot be orthonormal; choose a smaller lora_r or other target_modules"
        )
