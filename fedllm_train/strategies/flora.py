"""FLoRA (Wang et al. 2024, arXiv 2409.05976, NeurIPS): stack the clients' factors, merge, begin with a fresh LoRA.

Client rule: train a fresh adapter (A drawn for this client and round, B = 0) on the shifted base; send both factors.
Server rule: A = [p_1 A_1; ...; p_K A_K], B = [B_1, ..., B_K], W0 <- W0 + s B A; p stands in one factor only, so that
B A = sum_k p_k B_k A_k exactly, with p_k = n_k / n, as in the paper's code.

Ranks may differ from client to client. The scaling s is the same for all of them (alpha_k = s r_k, as in the paper's
code). A client of rank r_k trains the resident adapter with all but its first r_k rows of A at zero; B = 0, so the
padded parts have no gradient and stay zero, and only the first r_k rows and columns travel.

What a client downloads is the sum of all stacks so far, as factors of its rank (`adapters/base_shift.py`): after a
round that is up to sum_k r_k, so the download grows with the cohort until the plain matrix is smaller. The fresh A is
not sent: every client draws its own from the run's seed, the round and its id, by PEFT's default rule (Kaiming,
uniform in [-1/sqrt(m), 1/sqrt(m)]). An A of each client's own, from the first round on, is what the paper's code has:
with one A for all, the clients' rows of A would stay close together and the stack would hold little beyond rank r. A
run that starts from a trained adapter has that adapter's product in the shift from the beginning; the global adapter
itself keeps the starting A and B = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.adapters.base_shift import add_to_shift, travelling
from fedllm_train.adapters.lora import Factors, ProductSum, check_factors_only, factor_names, is_a
from fedllm_train.adapters.ranks import check_ranks, padded, rank_of, sliced
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings, RankSettings
from fedllm_train.seeds import stream_seed
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FLoRA"]


class FLoRA(OneAdapter):
    """Stack the clients' factors and merge them into the base weights; every round begins with a fresh LoRA."""

    traits = Traits(
        title="FLoRA",
        source="Wang et al. 2024, arXiv 2409.05976",
        choose_when="clients have different ranks and the product should be exact; downloads grow with the cohort",
        family="lora",
        exact_aggregation=True,
        weights="rows",
        sees="each",
        mixed_ranks=True,
        needs_lora=True,
        down="shift of the base weights",
        server_cost="O(d m) per module once the shift has full rank",
        draws_start=True,
        adapter_down="none",
        shifts_base=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(RankSettings, MeanSettings):
        """The settings of this method."""

    def __init__(self, federation: Federation) -> None:
        """Take the run seed and the clients' ranks."""
        super().__init__(federation)
        self._seed = federation.seed
        self._ranks = federation.ranks

    def start(self, adapter: Adapter) -> Parts:
        """Begin with A and B = 0; what the starting adapter adds, if anything, is in the shift.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors, a client's rank is larger than its, or it is
                fresh and its A was drawn by another rule than the one that clients follow.
        """
        check_factors_only(adapter, "flora")
        check_ranks(self._ranks, adapter)
        for a, b in factor_names(adapter).values():
            if not adapter[b].any() and float(adapter[a].abs().max()) > _bound(adapter[a]) * (1 + 1e-6):
                raise ConfigError(
                    f"strategy flora draws A for every visit by PEFT's default rule, and {a} of the starting "
                    "adapter was drawn by another; leave out init_lora_weights"
                )
        products = {
            module: Factors(adapter[b].double(), adapter[a].double())
            for module, (a, b) in factor_names(adapter).items()
            if adapter[b].any()
        }
        return {"adapter": _with_zero_b(adapter), "base_shift": add_to_shift({}, products)}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the shift."""
        return {"base_shift": travelling(state.get("base_shift", {}))}

    def client_update(self, visit: Visit) -> Parts:
        """Train a fresh adapter of the client's rank on the shifted base."""
        start = self._fresh(visit.start_adapter, visit.round_index, visit.client_id)
        if visit.client_id in self._ranks:
            start = padded(sliced(start, self._ranks[visit.client_id]), rank_of(start))
        trained = visit.fit(start, base_shift=visit.received.get("base_shift"))
        return {"adapter": self._own_rank(trained, visit.client_id)}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect factors of the client's rank."""
        return shapes_of({"adapter": self._own_rank(state["adapter"], client_id)})

    def anchor(self, received: Parts, start: Adapter, client_id: str, round_index: int) -> Adapter:
        """Start from an adapter that is drawn for this client and round."""
        return self._own_rank(self._fresh(start, round_index, client_id), client_id)

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Stack B_k and A_k, one of them times n_k."""
        sums.setdefault("products", ProductSum()).add(update["adapter"], weights["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Merge the stack into the base."""
        shift = add_to_shift(state.get("base_shift", {}), sums["products"].mean())
        return {"adapter": state["adapter"], "base_shift": shift}

    def _fresh(self, like: Adapter, round_index: int, client_id: str) -> Adapter:
        """Return the adapter that a client begins a round with."""
        seed = stream_seed(self._seed, "flora", round_index=round_index, client_id=client_id)
        generator = torch.Generator().manual_seed(seed)
        fresh = {}
        for name, tensor in sorted(like.items()):
            if is_a(name):
                bound = _bound(tensor)
                drawn = torch.rand(tensor.shape, generator=generator) * (2 * bound) - bound
                fresh[name] = drawn.to(tensor.dtype)
        return _with_zero_b(like | fresh)

    def _own_rank(self, adapter: Adapter, client_id: str) -> Adapter:
        return sliced(adapter, self._ranks[client_id]) if client_id in self._ranks else adapter


def _bound(a: torch.Tensor) -> float:
    """PEFT's Kaiming rule draws A uniformly from [-bound, bound]."""
    return 1 / sqrt(a.shape[1])


def _with_zero_b(adapter: Adapter) -> Adapter:
    return {name: tensor if is_a(name) else torch.zeros_like(tensor) for name, tensor in adapter.items()}
