"""What a method sends in each round, as names, precisions and shapes: its own `broadcast` and `expects` say it.

They are given hollow tensors (`hollow.py`) where that is enough, which takes no torch; where a method calculates for
its first message, real zeros, which does. What changes with the rounds: RoLoRA's turns (it looks at the round),
Fed-SB's frame, which travels from the second round on, FedBiscuit's adapters, all of which a client is sent whose
losses are asked for, and the shifts of the base that FLoRA, FedEx-LoRA and FedMomentum download. These grow with the
updates: by the ranks of all of them, or of all but one, as long as nothing in them happens to be linearly dependent
(or small enough for FedMomentum to drop it); the plan calls those an estimate. A method whose messages depend on the
number of steps says so itself (`Strategy.layouts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedllm_data.errors import FedLLMError
from fedllm_train.adapters.lora import check_factors_only, is_a
from fedllm_train.adapters.lora_core import core_name
from fedllm_train.models.adapter_shapes import modules_of
from fedllm_train.models.base_tensors import Shape
from fedllm_train.planning.hollow import HollowTensor
from fedllm_train.prepare import RunPlan
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategies.fedbiscuit import FedBiscuit
from fedllm_train.strategies.ravan import check_heads
from fedllm_train.strategy import OneAdapter

__all__ = ["Layout", "MethodMessages", "Parts"]

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor -> precision and shape."""
Parts = dict[str, Layout]
"""Part of a message -> its tensors."""

_SHIFT = "base_shift"
_PRECISIONS = {
    **{"torch.float32": "F32", "torch.float64": "F64", "torch.float16": "F16", "torch.bfloat16": "BF16"},
    **{"torch.int64": "I64", "torch.int32": "I32", "torch.int8": "I8", "torch.uint8": "U8", "torch.bool": "BOOL"},
}
_SIGNS = ".sign"
"""Fed-SB's first upload holds one byte a weight under such names."""


class MethodMessages:
    """The messages of a run's method, round after round; what depends on earlier rounds is told by `stepped`."""

    def __init__(self, plan: RunPlan, adapter: Mapping[str, Shape]) -> None:
        """Begin before round 0.

        Args:
            plan: the run's plan.
            adapter: the trained tensors.

        Raises:
            ConfigError: if the method cannot work on the adapter.
        """
        self._strategy, self._name = plan.strategy, plan.config.strategy
        self._rank_of = plan.federation.ranks
        self._steps_of = lambda client_id: plan.work.num_steps(plan.roster.sizes.get(client_id, 1))
        # A class of the user's own may lack what the methods here inherit.
        self._layouts = getattr(self._strategy, "layouts", lambda num_steps: None)
        self._frame_is_drawn = plan.config.get("core_frame") == "random"
        self._num_heads = plan.config.get("ravan_heads")
        self._adapter = dict(adapter)
        self._ranks: dict[str, int] = {}
        """Module -> rank of the shift of its weight so far."""
        self._known: dict[Any, tuple[Parts, Parts]] = {}
        self._state = self._begin(plan.participants[0])
        self.grows = self._name in ("flora", "fedex_lora", "fedmomentum")
        """Whether later downloads are longer than the first, by an estimate."""

    def down(self, client_id: str, round_index: int) -> Parts:
        """Return what a client is sent in a round."""
        return self._both(client_id, round_index)[0]

    def up(self, client_id: str, round_index: int) -> Parts:
        """Return what it sends back."""
        return self._both(client_id, round_index)[1]

    def stepped(self, updates: list[tuple[str, Parts]], round_index: int) -> None:
        """Go on to the next round, after the server made a step of some clients' updates."""
        if isinstance(self._strategy, FedBiscuit):
            self._strategy.hollow_step(self._state, updates, round_index)
        if self._name == "fed_sb" and "frame" not in self._state:
            self._known = {}
            self._state = self._state | {"frame": self._state["adapter"]}
        if not self.grows or not updates:
            return
        ranks = [modules_of({name: shape for name, (_, shape) in each["adapter"].items()}) for _, each in updates]
        shift: dict[str, Any] = {}
        for module, own_rank in modules_of(self._adapter).items():
            added = [each[module] for each in ranks]
            means = own_rank if self._name == "fedex_lora" else 0
            # FedMomentum takes the adapter's rank out of the products before it adds them.
            kept = own_rank if self._name == "fedmomentum" else 0
            shift |= self._shift_of(module, sum(added), means, kept)
        if shift != self._state.get(_SHIFT):
            self._state = self._state | {_SHIFT: shift}
            self._known = {}

    def _both(self, client_id: str, round_index: int) -> tuple[Parts, Parts]:
        """Both messages; the same objects for clients and rounds that only differ in values, so that lengths keep."""
        steps = self._steps_of(client_id)
        if (stated := self._layouts(steps)) is not None:
            return self._known.setdefault(("stated", steps), tuple({**part} for part in stated))  # type: ignore[arg-type]
        key: Any = (round_index, client_id)
        if self._name in STRATEGIES:  # of a class of the user's own nobody knows on what it depends
            key = (self._strategy.message_kind(self._state, client_id, round_index), self._rank_of.get(client_id))
        if key not in self._known:
            down = _layout(self._strategy.broadcast(self._state, client_id, round_index))
            expected = self._strategy.expects(self._state, client_id, round_index)
            up = {
                part: {name: (_precision(name, down.get(part, {})), shape) for name, shape in shapes.items()}
                for part, shapes in expected.items()
            }
            self._known[key] = down, up
        return self._known[key]

    def _begin(self, client_id: str) -> dict[str, Any]:
        """The server's state before round 0; with torch where there is no other way."""
        if self._layouts(1) is not None:
            return {}
        hollow: Any = {name: HollowTensor(tuple(shape)) for name, shape in self._adapter.items()}
        if self._name == "fed_sb":  # it draws a frame, of which the shapes are those of the adapter
            check_factors_only(hollow, "fed_sb")
            ranks = {name.partition(".lora_A.")[0]: tensor.shape[0] for name, tensor in hollow.items() if is_a(name)}
            cores = {core_name(module): HollowTensor((rank, rank)) for module, rank in ranks.items()}
            return {"adapter": hollow, "core": cores} | ({"frame": hollow} if self._frame_is_drawn else {})
        if self._name == "ravan":  # so does it, and h cores a module share the rank
            heads = self._num_heads
            check_heads(hollow, heads)
            ranks = {name.partition(".lora_A.")[0]: tensor.shape[0] for name, tensor in hollow.items() if is_a(name)}
            return {"core": {core_name(n): HollowTensor((heads, r // heads, r // heads)) for n, r in ranks.items()}}
        if isinstance(self._strategy, FedBiscuit):
            return self._strategy.hollow_start(hollow)
        kind = type(self._strategy)
        if kind.broadcast is OneAdapter.broadcast and kind.expects is OneAdapter.expects:  # type: ignore[attr-defined]
            return {"adapter": hollow}
        try:
            state = self._strategy.start(hollow)
            _layout(self._strategy.broadcast(state, client_id, 0))
            self._strategy.expects(state, client_id, 0)
            return state
        except FedLLMError:
            raise
        except (TypeError, AttributeError, ValueError, RuntimeError):
            return self._strategy.start(self._zeros())

    def _zeros(self) -> Any:
        import torch

        # All weights of a large model would not fit; a method that trains them all looks at no value.
        device = "cpu" if modules_of(self._adapter) else "meta"
        return {name: torch.zeros(tuple(shape), device=device) for name, shape in self._adapter.items()}

    def _shift_of(self, module: str, added: int, means: int, kept: int) -> dict[str, HollowTensor]:
        """A module's shift after a step, as `adapters/base_shift.py` keeps it: as factors while they are the smaller.

        Args:
            module: the module.
            added: ranks of the updates together.
            means: rank of the mean that is taken off their products; 0 where it stays.
            kept: rank that stays in the adapter.
        """
        stem = next(name for name in self._adapter if name.partition(".lora_A.")[0].endswith(f".{module}"))
        stem = stem.partition(".lora_A.")[0]
        (_, inputs), (outputs, _) = self._adapter[f"{stem}.lora_A.weight"], self._adapter[f"{stem}.lora_B.weight"]
        side, rank = min(outputs, inputs), self._ranks.get(module, 0)
        # Where enough columns stand side by side to fill the matrix, nobody looks for its rank.
        is_full = rank + min(added, side) + means - kept >= side
        rank += added - means - kept
        if rank and (is_full or rank * (outputs + inputs) >= outputs * inputs):
            rank = side
        self._ranks[module] = rank
        if rank == side:
            return {f"{stem}.matrix": HollowTensor((outputs, inputs))}
        if rank == 0:
            return {}
        return {f"{stem}.left": HollowTensor((outputs, rank)), f"{stem}.right": HollowTensor((rank, inputs))}


def _layout(parts: Mapping[str, Mapping[str, Any]]) -> Parts:
    return {
        part: {name: (_precision_of(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}
        for part, tensors in parts.items()
    }


def _precision_of(tensor: Any) -> str:
    kind = str(tensor.dtype)
    return _PRECISIONS.get(kind, kind)


def _precision(name: str, down: Layout) -> str:
    """The precision of what a client sends: that of what it was sent under the same name, else float32."""
    if name in down:
        return down[name][0]
    return "I8" if name.endswith(_SIGNS) else "F32"
