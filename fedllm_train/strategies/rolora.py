"""RoLoRA (Chen et al. 2024, arXiv 2409.02346): A and B take turns, one is trained and averaged while the other rests.

Client rule: in rounds 0, 2, 4, ... train B with the global A frozen, in rounds 1, 3, ... train A with the global B
frozen; send back what was trained.
Server rule: the trained factor <- its mean, uniform as in the paper unless `uniform_weights` is off; the other stays.

The frozen factor is the same on every client, so the mean of the products is the product of the means in every round.
B comes first since A has no gradient while B = 0. (Counted from 1, as in the paper, that is: odd rounds B, even rounds
A. The order is recalled, not read.) Both factors travel down: a client sampled now may have missed the round before,
in which the resting factor changed.
"""

from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.adapters.lora import check_factors_only, is_a, is_b
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["RoLoRA"]


class RoLoRA(OneAdapter):
    """Train and average B and A in turns."""

    traits = Traits(
        title="RoLoRA",
        source="Chen et al. 2024, arXiv 2409.02346",
        choose_when="the mean should be exact and both factors trained; each has every second round alone",
        family="lora",
        exact_aggregation=True,
        weights="uniform",
        sees="mean",
        needs_lora=True,
        down="A + B",
        up="A or B, in turns",
    )

    Settings = MeanSettings

    def __init__(self, federation: Federation) -> None:
        """Take how clients count.

        Raises:
            ConfigError: if a step might hold updates of both factors.
        """
        super().__init__(federation)
        if federation.is_asynchronous:
            raise ConfigError(
                "strategy 'rolora' trains A and B in turns, so an update that comes a round late is of the factor "
                "whose turn it is not; use participation synchronous, or deadline with late drop, or strategy ffa_lora"
            )

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors.
        """
        check_factors_only(adapter, "rolora")
        return {"adapter": adapter}

    def client_update(self, visit: Visit) -> Parts:
        """Train the factor whose turn it is."""
        trained = visit.fit(visit.received["adapter"], trains=_turn(visit.round_index))
        return {"adapter": _trained(trained, visit.round_index)}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect the factor whose turn it is."""
        return shapes_of({"adapter": _trained(state["adapter"], round_index)})

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return what the client trained with what rested."""
        return state["adapter"] | update["adapter"]

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average the trained factor; the other stays."""
        return {"adapter": state["adapter"] | sums["adapter"].mean()}


def _turn(round_index: int) -> Any:
    return is_b if round_index % 2 == 0 else is_a


def _trained(adapter: Adapter, round_index: int) -> Adapter:
    return {name: tensor for name, tensor in adapter.items() if _turn(round_index)(name)}
