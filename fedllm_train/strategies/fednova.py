"""FedNova (Wang et al. 2020, arXiv 2007.07481, equation 5): a mean in which more local steps are no more weight.

Symbols: theta_k what client k ends with after a_k steps from theta; p_k its share of the cohort's rows.

Client rule: plain local training from the global adapter; send theta_k and a_k.
Server rule: theta <- theta + (sum_k p_k a_k) sum_k p_k (theta_k - theta) / a_k.

FedAvg moves towards the clients that made most steps, whatever their rows: by deadlines (`partial_work`) those with
fast machines, by `local_epochs` those with many rows a second time. Here every client counts by its mean step, and the
server goes as far as the cohort's mean number of steps. AdamW's steps have one length each, so a_k is their number, as
the paper has it for a solver without momentum.

Equal numbers of steps give FedAvg's mean to the bit: weights are taken relative to the first client's steps, n_k a_1 /
a_k, which are then FedAvg's own, and the factor in front of the mean change is 1 and left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum, Shapes, shapes_of
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedNova"]

_STEPS = "steps"
_COUNT = "num_steps"
_FIRST, _EQUAL = "steps of the first client", "whether all made as many"


class FedNova(OneAdapter):
    """Average the clients' mean steps, and go as far as the cohort's mean number of steps."""

    traits = Traits(
        title="FedNova",
        source="Wang et al. 2020, arXiv 2007.07481, equation 5",
        choose_when="clients make different numbers of steps, by their rows or because a deadline cut some short, and "
        "those who made more should not count for more",
        family="classic",
        exact_aggregation=False,
        weights="rows",
        sees="sum",
        up="adapter + number of steps",
    )

    Settings = MeanSettings

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter; say with how many steps."""
        trained = visit.fit(visit.received["adapter"])
        return {"adapter": trained, _STEPS: {_COUNT: torch.tensor([visit.num_steps], dtype=torch.float32)}}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect an adapter and a number."""
        return shapes_of({"adapter": state["adapter"]}) | {_STEPS: {_COUNT: (1,)}}

    def opened(self, update: Parts) -> Parts:
        """Return the update, if its number of steps is one.

        Raises:
            ValueError: if the number of steps is below 1.
        """
        steps = update.get(_STEPS, {}).get(_COUNT)
        if steps is not None and not bool((steps >= 1).all()):
            raise ValueError(f"it claims {steps.tolist()} steps")
        return update

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh a client by its rows; what its steps make of that is the sum's business."""
        return {"adapter": self.weight_of(num_rows)}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add n_k (a_1 / a_k) theta_k, and n_k a_k with n_k beside it."""
        steps = float(update[_STEPS][_COUNT][0])
        first = sums.setdefault(_FIRST, steps)
        sums[_EQUAL] = sums.get(_EQUAL, True) and steps == first
        sums.setdefault("adapter", RunningSum()).add(update["adapter"], weights["adapter"] * (first / steps))
        sums.setdefault(_STEPS, RunningSum()).add(_one(steps), weights["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Move along the mean step of all clients, as far as their mean number of steps."""
        if sums[_EQUAL]:
            return {"adapter": sums["adapter"].mean()}
        total, weight = sums["adapter"].total(), sums["adapter"].total_weight
        mean_steps = float(sums[_STEPS].mean()[_COUNT])
        mean_inverse = weight / sums[_STEPS].total_weight  # of a_1 / a_k
        factor = mean_steps / sums[_FIRST] * mean_inverse
        return {"adapter": {name: _moved(old, total[name] / weight, factor) for name, old in state["adapter"].items()}}


def _one(steps: float) -> Adapter:
    return {_COUNT: torch.tensor(steps, dtype=torch.float64)}


def _moved(old: torch.Tensor, mean: torch.Tensor, factor: float) -> torch.Tensor:
    return (old.double() + factor * (mean - old.double())).to(old.dtype)
