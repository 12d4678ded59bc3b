"""Fed-SB (Singhal et al. 2025, arXiv 2502.15436): W = W0 + s B R A with B and A frozen and shared; only R is trained.

Client rule: train R (r, r) from the global R; send R.
Server rule: R <- sum_k p_k R_k, with the paper's p_k = 1 / K unless `uniform_weights` is off.

With one B and one A for all, s B mean(R) A = sum_k p_k s B R_k A: the average is exact. R is r^2 numbers a module,
whatever the model's width, and under differential privacy the noise enters linearly. s is the adapter's own scaling;
the released code has s = 1 (lora_alpha = lora_r).

The frame, B and A, is made once (`core_frame`):

random    orthonormal columns and rows drawn from the run's seed: every client draws the same, nothing is sent. R = 0
          at first, so round 0 begins at the base.
gradient  (the paper's, from LoRA-SB, Ponkshe et al. 2024, arXiv 2411.19557): the first singular vectors of an estimate
          of full fine-tuning's first step, and R its singular values, so that B R A begins as the best approximation
          of that step. It takes a round of its own: each client of the first cohort takes the gradients G of its own
          loss on the weights, over the batches of one visit at the starting policy, and sends signs: AdamW's first
          step is -eta sign(G), eta the round's learning rate. The server takes M = sum_k (n_k / n) M_k, in units of s,
          and U_r S_r V_r' = M: by rows, as gradients of pooled rows add up, unless `uniform_weights` is on. Nothing is
          trained in that round (its "local steps" are batches), and until the steps of some client came it is
          repeated.

Where `gradient` differs from the released code: there one process adds up the gradients of rows pooled over all
clients and takes the sign once, eta being the first value of a warm-up. Here no gradient leaves a client but its
signs, one byte a weight, averaged as FedAvg would average one step of full fine-tuning; all the same, that one upload
is as large as the adapted weights in int8, and a server that sees one client's signs learns much about its rows: a
secure sum hides them, dp_clip does not, and is refused. Where clients disagree on a sign, the mean step is smaller
than a single one, so R begins smaller the more they differ.

A and B travel down with R in every round where they come from gradients: a client that is new has none of them. One
that kept them would spare all but r^2 numbers a module. A run that starts from a trained adapter has its product in a
constant shift of the base (`adapters/base_shift.py`), which every client knows. `update_norm` of the round that makes
the frame also counts the change of A; `max_update_norm` bounds R, not the signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.adapters.base_shift import PART, shift_of_products, travelling
from fedllm_train.adapters.lora import check_factors_only, factor_names, is_b
from fedllm_train.adapters.lora_core import (
    core_name,
    folded,
    is_r,
    random_frame,
    singular_frame,
    split_cores,
    zero_cores,
)
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits, counts_alike
from fedllm_train.visit import Visit

__all__ = ["FedSB"]

_STEP, _FRAME, _CORE = "first_step", "frame", "core"


class FedSB(OneAdapter):
    """Train and average a small core between frozen factors."""

    traits = Traits(
        title="Fed-SB",
        source="Singhal et al. 2025, arXiv 2502.15436; frame from Ponkshe et al. 2024 (LoRA-SB), arXiv 2411.19557",
        choose_when="uploads must be as small as can be: a small square core a module, whose mean is exact, also "
        "under noise for privacy",
        family="lora",
        exact_aggregation=True,
        weights="uniform",
        sees="mean",
        needs_lora=True,
        down="R, with A and B if from gradients",
        up="R, at first signs of gradients",
        server_cost="O(adapter); at first O(d m) and one SVD a module if from gradients",
        shifts_base=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(MeanSettings):
        """The settings of this method."""

        core_frame: Literal["gradient", "random"] = field(
            default="gradient",
            metadata={
                "help": "With fed_sb: where the frozen factors come from: gradient (the clients' first full "
                "fine-tuning step, a round of its own) or random (the run seed; they are not sent)."
            },
        )

        def check(self) -> None:
            """Refuse an unknown frame."""
            if self.core_frame not in ("gradient", "random"):
                raise ConfigError(f"core_frame is {self.core_frame!r}; it must be gradient or random")

    def __init__(self, federation: Federation) -> None:
        """Take how the frame is made, and the run seed.

        Raises:
            ConfigError: if the frame would be made from what differential privacy does not cover, or from updates
                of which some are of the next round.
        """
        super().__init__(federation)
        self._seed = federation.seed
        self._random = federation.settings.core_frame == "random"
        self._steps_count_alike = counts_alike(federation.settings.uniform_weights, "rows")
        if federation.is_private and not self._random:
            raise ConfigError(
                "dp_clip is given and core_frame is gradient: the frame would be made of clients' gradients without "
                "clipping or noise; use core_frame random"
            )
        if federation.is_asynchronous and not self._random:
            raise ConfigError(
                "core_frame is gradient: its first round sends signs of gradients, which cannot be applied to a later "
                "state, as late or buffered updates are; use core_frame random"
            )

    def start(self, adapter: Adapter) -> Parts:
        """Begin with R = 0; what the starting adapter adds, if anything, is in the shift.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors, or its rank is above a module's side.
        """
        check_factors_only(adapter, "fed_sb")
        frame = random_frame(adapter, self._seed)
        nothing = {name: torch.zeros_like(tensor) if is_b(name) else tensor for name, tensor in adapter.items()}
        state = {"adapter": frame if self._random else nothing, _CORE: zero_cores(adapter)}
        if self._random:
            state |= {"adapter": folded(frame, state[_CORE]), _FRAME: frame}
        shift = shift_of_products(adapter)
        return state | {PART: shift} if shift else state

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send R, and the frame unless every client can draw it."""
        sent = {"adapter": state[_CORE]}
        return sent if self._random or _FRAME not in state else sent | {_FRAME: state[_FRAME]}

    def client_update(self, visit: Visit) -> Parts:
        """Train R in the frame; before there is a frame, send the first step of full fine-tuning."""
        core = visit.received["adapter"]
        if self._random:
            frame = random_frame(visit.start_adapter, self._seed)
        elif _FRAME in visit.received:
            frame = visit.received[_FRAME]
        else:
            return {"adapter": core, _STEP: _as_signs(visit.first_step(visit.start_adapter))}
        trained = visit.fit(frame | core, trains=is_r, base_shift=travelling(shift_of_products(visit.start_adapter)))
        return {"adapter": split_cores(trained)[1]}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect R, and signs for every weight while there is no frame."""
        expected = shapes_of({"adapter": state[_CORE]})
        return expected if _FRAME in state else expected | {_STEP: _shapes_of_signs(state["adapter"])}

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return the client's core in the frame of all, as plain factors; nothing while there is no frame."""
        return folded(state[_FRAME], update["adapter"]) if _FRAME in state else {}

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh R_k by p_k, or the first step M_k by n_k."""
        if _STEP in update:
            return {_STEP: 1 if self._steps_count_alike else num_rows}
        return {"adapter": self.weight_of(num_rows)}

    def why_not_summed(self) -> str | None:
        """Return None with a frame that is drawn: then clients send R_k alone."""
        if self._random:
            return None
        return "sends signs of a first step while there is no frame, packed to bits that do not add up (core_frame)"

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add p_k R_k, or n_k M_k."""
        super().fold(
            sums, {part: _from_signs(each) if part == _STEP else each for part, each in update.items()}, weights
        )

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average R, or make the frame of the mean step."""
        if _STEP in sums:
            frame, core = _frame_of(sums[_STEP].mean(), state["adapter"])
        else:
            frame, core = state[_FRAME], sums["adapter"].mean()
        return state | {"adapter": folded(frame, core), _FRAME: frame, _CORE: core}


def _frame_of(steps: Adapter, like: Adapter) -> tuple[Adapter, Adapter]:
    frame, cores = {}, {}
    for module, (a, b) in factor_names(like).items():
        factors, core = singular_frame(module, steps[module], like[a].shape[0])
        frame[a], frame[b] = factors.right.to(like[a].dtype), factors.left.to(like[b].dtype)
        cores[core_name(module)] = core.to(like[a].dtype)
    return frame, cores


def _as_signs(step: Adapter) -> Adapter:
    """Return a step whose entries differ in their sign alone, as signs and their size, which is nan if one of them is.

    >>> signs = _as_signs({"q.matrix": torch.tensor([[0.5, -0.5, 0.0]])})
    >>> signs["q.sign"].tolist(), signs["q.size"].tolist(), _from_signs(signs)["q"].tolist()
    ([[1, -1, 0]], [0.5], [[0.5, -0.5, 0.0]])
    """
    signs = {}
    for name, matrix in step.items():
        module = name.removesuffix(".matrix")
        signs[f"{module}.sign"] = matrix.nan_to_num().sign().to(torch.int8)
        signs[f"{module}.size"] = matrix.abs().max().reshape(1)
    return signs


def _from_signs(signs: Adapter) -> Adapter:
    modules = [name.removesuffix(".sign") for name in signs if name.endswith(".sign")]
    return {module: signs[f"{module}.sign"].double() * signs[f"{module}.size"].double() for module in modules}


def _shapes_of_signs(adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """The shapes of `_as_signs`."""
    shapes = {}
    for module, (a, b) in factor_names(adapter).items():
        shapes[f"{module}.sign"] = (adapter[b].shape[0], adapter[a].shape[1])
        shapes[f"{module}.size"] = (1,)
    return shapes
