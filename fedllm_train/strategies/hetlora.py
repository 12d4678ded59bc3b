"""HetLoRA (Cho et al. 2024, arXiv 2401.06432): clients of different ranks, zero-padded and weighted by their norms.

Client rule: training at the client's own rank r_k. With `hetlora_prune` = lambda > 0 the loss gains lambda ||B_tail||
||A_tail||, the tail being the last tenth of the client's ranks (at least one); where the tail's norm ||B_tail A_tail||
fell during the visit, the client prunes it: those ranks stay zero from then on (rank self-pruning, section 3.2 of the
paper; its share of ranks and the exact test are not stated in what we could read, these are ours).
Server rule: pad every client's factors with zeros to the largest rank and average A and B apart, with weights
proportional to ||B_k A_k||_F over all modules (sparsity-weighted aggregation); every client receives the first r_k
ranks of the result (truncation). Equal ranks and equal norms give the uniform FedIT. `uniform_weights`, where it is
given, replaces the norms: on, every client counts alike; off, by its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum
from fedllm_train.adapters.lora import Factors, factor_names, squared_norm
from fedllm_train.adapters.ranks import check_ranks, padded, rank_of, sliced
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings, RankSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["HetLoRA"]

TAIL_FRACTION = 0.1


class HetLoRA(OneAdapter):
    """Average zero-padded factors of different ranks, weighted by the norm of their products."""

    traits = Traits(
        title="HetLoRA",
        source="Cho et al. 2024, arXiv 2401.06432",
        choose_when="clients have different ranks and the server should do no decomposition; the server may see each "
        "update",
        family="lora",
        exact_aggregation=False,
        weights="norms",
        sees="each",
        mixed_ranks=True,
        needs_lora=True,
        down="adapter of the client's rank",
        up="adapter of the client's rank",
        memory="its pruned rank",
        adapter_down="own",
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(RankSettings, MeanSettings):
        """The settings of this method."""

        hetlora_prune: float = field(
            default=0.0, metadata={"help": "With hetlora: weight of the penalty on the tail ranks; 0 prunes nothing."}
        )

        def check(self) -> None:
            """Refuse a penalty that would reward."""
            if self.hetlora_prune < 0:
                raise ConfigError(f"hetlora_prune is {self.hetlora_prune}; it must not be negative")

    def __init__(self, federation: Federation) -> None:
        """Take the clients' ranks and lambda."""
        super().__init__(federation)
        self._ranks = federation.ranks
        self._prune = federation.settings.hetlora_prune
        self._by_norm = federation.settings.uniform_weights is None

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter, which has the largest rank.

        Raises:
            ConfigError: if a client's rank is larger, or the adapter has no LoRA factors.
        """
        check_ranks(self._ranks, adapter)
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the first ranks of the global adapter."""
        rank = self._ranks.get(client_id)
        return {"adapter": state["adapter"] if rank is None else sliced(state["adapter"], rank)}

    def client_update(self, visit: Visit) -> Parts:
        """Train at the client's rank, and prune its tail where training shrank it."""
        received = visit.received["adapter"]
        largest, given = rank_of(visit.start_adapter), rank_of(received)
        if not self._prune:
            return {"adapter": sliced(visit.fit(padded(received, largest)), given)}
        rank = int(visit.memory["pruned"]["rank"]) if visit.memory else given
        start = padded(sliced(received, rank), largest)
        tail = slice(rank - max(1, int(TAIL_FRACTION * rank)), rank)
        names = factor_names(start)

        def shrink_tail(gradients: Adapter, values: Adapter) -> None:
            for a, b in names.values():
                norm_a, norm_b = values[a][tail].norm(), values[b][:, tail].norm()
                if norm_a > 0 and norm_b > 0:
                    gradients[a][tail] += self._prune * norm_b * values[a][tail] / norm_a
                    gradients[b][:, tail] += self._prune * norm_a * values[b][:, tail] / norm_b

        end = visit.fit(start, correct=shrink_tail)
        if rank > 1 and _tail_norm(end, tail) < _tail_norm(start, tail):
            rank = tail.start
        visit.memory["pruned"] = {"rank": torch.tensor(rank)}
        return {"adapter": padded(sliced(end, rank), given)}

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh by the norm of the products, unless rows or nothing shall count."""
        return {"adapter": self._weight(update["adapter"], num_rows)}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add the padded factors with their weight, and without one for a round in which all norms are zero."""
        adapter = update["adapter"]
        whole = padded(adapter, max(self._ranks.values(), default=rank_of(adapter)))
        sums.setdefault("weighted", RunningSum()).add(whole, weights["adapter"])
        sums.setdefault("uniform", RunningSum()).add(whole, 1)

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the mean of the padded factors."""
        total = sums["weighted"] if sums["weighted"].total_weight > 0 else sums["uniform"]
        return {"adapter": padded(total.mean(), rank_of(state["adapter"]))}

    def _weight(self, adapter: Adapter, num_rows: int) -> float:
        if not self._by_norm:
            return self.weight_of(num_rows)
        pairs = factor_names(adapter).values()
        return sum(squared_norm(Factors(adapter[b].double(), adapter[a].double())) for a, b in pairs) ** 0.5


def _tail_norm(adapter: Adapter, tail: slice) -> float:
    """||B_tail A_tail||_F over all modules."""
    return sum(
        squared_norm(Factors(adapter[b][:, tail].double(), adapter[a][tail].double()))
        for a, b in factor_names(adapter).values()
    )
