"""RAVAN (Raje et al. 2025, arXiv 2506.05568, NeurIPS): h heads of frozen factors, small trained cores between them.

    W = W0 + s sum_{i <= h} s_i B_i H_i A_i,        B_i (d, r), A_i (r, m) frozen and shared, H_i (r, r)

Client rule: from the global H_i and s_i = 1, train every H_i and its scale s_i; send the products s_i H_i.
Server rule: H_i <- sum_k p_k s_i^k H_i^k, p_k = n_k / n, and s_i is 1 again in the next round.

With one B_i and A_i for all, sum_k p_k s_i^k B_i H_i^k A_i = B_i H_i A_i: the average is exact, and under differential
privacy the noise enters linearly. A module sends h r^2 numbers, whatever the model's width, and its change has rank up
to h r; Fed-SB's one core of as many numbers has rank sqrt(h) r.

The h heads share the adapter's rank: `lora_r` is h r, and `ravan_heads` must divide it. s is the adapter's own
scaling. B and A are drawn once from the run's seed, so every client draws the same and nothing of them is sent: with
`head_frame orthogonal` the rows of all A_i together are orthonormal, and so are the columns of all B_i (Gram and
Schmidt across heads, of the two the paper studies the one in which no two heads overlap), with `normal` they are
independent normal numbers of the same expected length. H_i = 0 at first, so round 0 begins at the base. A run that
starts from a trained adapter has its product in a constant shift of the base (`adapters/base_shift.py`), which every
client knows.

As the rows of every A_i and the columns of every B_i have length 1, a step of H_i moves W by much less than one of
plain LoRA does: give a learning rate some ten times as large (`benchmarks/results/methods.md`).

The rule is that of the abstract and of another library's implementation (FedLLM-Factory); the authors' code was not at
hand. Of the paper left out: clients that train only some of the heads, whose choice it makes by a score that we could
not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.adapters.base_shift import PART, shift_of_products, travelling
from fedllm_train.adapters.lora import check_factors_only, factor_names
from fedllm_train.adapters.lora_core import (
    core_name,
    folded,
    is_head_scale,
    is_r,
    normal_frame,
    random_frame,
    scale_name,
    zero_cores,
)
from fedllm_train.method_settings import MeanSettings
from fedllm_train.settings import check_at_least_one
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["Ravan", "check_heads"]

_FRAME, _CORE = "frame", "core"


class Ravan(OneAdapter):
    """Train and average the small cores of several heads between frozen factors."""

    traits = Traits(
        title="RAVAN",
        source="Raje et al. 2025, arXiv 2506.05568",
        choose_when="uploads must be about as small as fed_sb's and the change of a higher rank for the same bytes",
        family="lora",
        exact_aggregation=True,
        weights="rows",
        sees="mean",
        needs_lora=True,
        down="a core a head",
        up="a core a head",
        shifts_base=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(MeanSettings):
        """The settings of this method."""

        ravan_heads: int = field(
            default=4, metadata={"help": "With ravan: heads that share the rank lora_r, which they must divide."}
        )
        head_frame: Literal["orthogonal", "normal"] = field(
            default="orthogonal",
            metadata={
                "help": "With ravan: how the frozen factors are drawn from the run seed: orthogonal (across all "
                "heads) or normal (independent numbers)."
            },
        )

        def check(self) -> None:
            """Refuse no heads and an unknown frame."""
            check_at_least_one(self, "ravan_heads")
            if self.head_frame not in ("orthogonal", "normal"):
                raise ConfigError(f"head_frame is {self.head_frame!r}; it must be orthogonal or normal")

    def __init__(self, federation: Federation) -> None:
        """Take the heads and the run seed."""
        super().__init__(federation)
        self._seed = federation.seed
        self._num_heads = federation.settings.ravan_heads
        self._is_normal = federation.settings.head_frame == "normal"

    def start(self, adapter: Adapter) -> Parts:
        """Begin with H = 0; what the starting adapter adds, if anything, is in the shift.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors, its rank cannot be shared among the heads, or
                it is above a module's side.
        """
        check_heads(adapter, self._num_heads)
        frame, core = self._frame(adapter), zero_cores(adapter, self._num_heads)
        state = {"adapter": folded(frame, core), _FRAME: frame, _CORE: core}
        shift = shift_of_products(adapter)
        return state | {PART: shift} if shift else state

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the cores."""
        return {"adapter": state[_CORE]}

    def client_update(self, visit: Visit) -> Parts:
        """Train the cores and their scales in the frame; send their products."""
        core, start = visit.received["adapter"], visit.start_adapter
        modules = [*factor_names(start)]
        scales = {scale_name(module): core[core_name(module)].new_ones(self._num_heads) for module in modules}
        trained = visit.fit(
            self._frame(start) | core | scales,
            trains=lambda name: is_r(name) or is_head_scale(name),
            base_shift=travelling(shift_of_products(start)),
        )
        sent = {}
        for module in modules:
            head, scale = trained[core_name(module)], trained[scale_name(module)]
            sent[core_name(module)] = (head.double() * scale.double()[:, None, None]).to(head.dtype)
        return {"adapter": sent}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect the cores."""
        return shapes_of({"adapter": state[_CORE]})

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return the client's cores in the frame of all, as plain factors."""
        return folded(state[_FRAME], update["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average the cores."""
        core = sums["adapter"].mean()
        return state | {"adapter": folded(state[_FRAME], core), _CORE: core}

    def _frame(self, like: Adapter) -> Adapter:
        return normal_frame(like, self._seed) if self._is_normal else random_frame(like, self._seed)


def check_heads(adapter: Adapter, num_heads: int) -> None:
    """Refuse an adapter whose modules cannot have that many heads.

    Raises:
        ConfigError: if it holds anything but LoRA factors, or the heads do not divide a module's rank.

    >>> from torch import zeros
    >>> check_heads({"q.lora_A.weight": zeros(6, 9), "q.lora_B.weight": zeros(9, 6)}, 3)
    """
    check_factors_only(adapter, "ravan")
    for module, (a, _) in factor_names(adapter).items():
        rank = adapter[a].shape[0]
        if rank % num_heads:
            raise ConfigError(
                f"ravan_heads is {num_heads}, which does not divide the LoRA rank {rank} of {module}; give a lora_r "
                "that is a multiple of it, or another number of heads"
            )
