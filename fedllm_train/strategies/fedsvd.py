"""FedSVD (Lee et al. 2025, arXiv 2505.12805, NeurIPS): FFA-LoRA whose frozen A is chosen again from what B learned.

Client rule: train B from the global B with the global A frozen; send B_k.
Server rule: B <- sum_k p_k B_k with p_k = n_k / n (1 / K with `uniform_weights`). Then, module by module, U S V' =
B A is the thin singular value decomposition, and

    A <- V'_r, the first r rows, which are orthonormal,        B <- U_r S_r.

B A has rank r at most, so the product stays what it was: as with FFA-LoRA, s B A = sum_k p_k s B_k A is exact. A
keeps the space that its first rows span, since the rows of B A are combinations of them; what changes is that its rows
are orthonormal, A A' = I, in the order of the product's size: a step of B, and the noise on it, moves the product by
just as much in every direction. All of S goes into B; the scaling s is untouched. With `svd_period` n this is done
after every n-th round, and not in the first `svd_warmup` rounds, which are FFA-LoRA's.

Both factors travel down, since A changes; B alone goes up. Under differential privacy the decomposition only reads the
noisy mean B and the A that everybody knows, so it costs no privacy, and the noise enters the product linearly.

An update belongs to the A that it was trained with: one that comes after A was chosen again would be read along other
directions. So late and buffered updates are refused, and error feedback on packed uploads, too. `update_norm` of the
record is the distance of the factors and also counts the choice of another A and B for the same product.

Where the source is silent: signs are fixed (the largest entry of each column of U is positive), so that the factors
depend on the product alone; where the product has a lower rank than r, as before round 0, the rest of A are
orthonormal rows of the same space and the rest of B is zero.
"""

from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.adapters.lora import Factors, check_factors_only, factor_names, is_b, truncated_factors
from fedllm_train.method_settings import MeanSettings
from fedllm_train.settings import check_at_least_one
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedSVD"]


class FedSVD(OneAdapter):
    """Train and average B; after a round, write the product with its singular vectors as the frozen A."""

    traits = Traits(
        title="FedSVD",
        source="Lee et al. 2025, arXiv 2505.12805",
        choose_when="the mean should be exact and noise for privacy enter linearly, as with ffa_lora, and B train "
        "against orthonormal rows in the product's own directions; A travels down beside B",
        family="lora",
        exact_aggregation=True,
        weights="rows",
        sees="mean",
        needs_lora=True,
        down="A + B",
        up="B",
        server_cost="O(adapter), one thin SVD of rank r a module",
        draws_start=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(MeanSettings):
        """The settings of this method."""

        svd_period: int = field(
            default=1, metadata={"help": "With fedsvd: A is chosen again after every so many rounds (the paper's 1)."}
        )
        svd_warmup: int = field(
            default=0, metadata={"help": "With fedsvd: rounds at the beginning after which A stays as it was."}
        )

        def check(self) -> None:
            """Refuse a period below one and a negative warm-up."""
            check_at_least_one(self, "svd_period")
            if self.svd_warmup < 0:
                raise ConfigError(f"svd_warmup is {self.svd_warmup}; it must not be negative")

    def __init__(self, federation: Federation) -> None:
        """Take how clients count and when A is chosen again.

        Raises:
            ConfigError: if a step might hold updates that were trained with another A.
        """
        super().__init__(federation)
        self._settings: FedSVD.Settings = federation.settings
        if federation.is_asynchronous:
            raise ConfigError(
                "strategy 'fedsvd' chooses A again after a round, so an update that comes a round late was trained "
                "along other directions; use participation synchronous, or deadline with late drop, or strategy "
                "ffa_lora"
            )

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors.
        """
        check_factors_only(adapter, "fedsvd")
        return {"adapter": adapter}

    def client_update(self, visit: Visit) -> Parts:
        """Train B against the A that was sent."""
        return {"adapter": _only_b(visit.fit(visit.received["adapter"], trains=is_b))}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect B."""
        return shapes_of({"adapter": _only_b(state["adapter"])})

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return the client's B with the A of all."""
        return state["adapter"] | update["adapter"]

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average B; then write the same product with orthonormal rows in A, if it is time."""
        adapter = state["adapter"] | sums["adapter"].mean()
        since_warmup = round_index + 1 - self._settings.svd_warmup
        is_time = since_warmup > 0 and since_warmup % self._settings.svd_period == 0
        return {"adapter": _rewritten(adapter) if is_time else adapter}


def _only_b(adapter: Adapter) -> Adapter:
    return {name: tensor for name, tensor in adapter.items() if is_b(name)}


def _rewritten(adapter: Adapter) -> Adapter:
    """The same products, with A = V' and B = U S."""
    result = dict(adapter)
    for a, b in factor_names(adapter).values():
        factors, _ = truncated_factors(Factors(adapter[b].double(), adapter[a].double()), adapter[a].shape[0])
        result[a] = factors.right.to(adapter[a].dtype).contiguous()
        result[b] = factors.left.to(adapter[b].dtype).contiguous()
    return result
