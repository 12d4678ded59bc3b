"""How long a run's messages are, in either direction: the wire's own layouts, on shapes alone.

What comes up depends on the update's shapes. What goes down as a chain of changes (`download_base` previous) depends
on what every client has read before, so the very chain of `messages/chain.py` is kept here, of hollow changes.
Entropy-coded messages depend on values: their lengths are estimates, and `is_exact` says so. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fedllm_train.messages.chain import Chain, Change
from fedllm_train.messages.packed_length import message_bytes, packed_layout
from fedllm_train.messages.place import Place
from fedllm_train.messages.wire_names import WireStages, parse_wire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.planning.method_messages import Layout, Parts

__all__ = ["PlannedWire"]

_PACKED, _FOLLOWS, _CHANGE = "packed", "follows", "change "


class PlannedWire:
    """Both directions of one run."""

    def __init__(self, settings: WireSettings, *, seed: int, wire: str | None = None) -> None:
        """Begin before round 0.

        Args:
            settings: the wire's.
            seed: the run's.
            wire: packs uploads in place of the one in the settings.
        """
        self._seed = seed
        self._up = parse_wire(settings.wire if wire is None else wire)
        self._down = parse_wire(getattr(settings, "download_wire", "none"), "download_wire")
        self._is_chain = self._down is not None and settings.download_base == "previous"
        self._chain = Chain(versions={})
        self._newest = -1
        self._sent, self._received = _Lengths(), _Lengths()
        self._layouts: dict[tuple[int, ...], tuple[Layout, bool]] = {}
        self.is_exact = {"down": True, "up": True}
        """Whether every length of a direction so far is certain."""

    def down_bytes(self, parts: Parts, client_id: str, step: int) -> int:
        """Return how long the message is that a client is sent in a step."""
        if self._down is None or "adapter" not in parts:
            return self._sent.of(parts, lambda: _length(parts))
        others = {part: layout for part, layout in parts.items() if part != "adapter"}
        packed = self._packed(self._down, parts["adapter"], Place(self._seed, step, None, "down"))
        if not self._is_chain:
            if self._down.segments is not None:
                return _length(others | {_PACKED: packed})
            return self._sent.of(parts, lambda: _length(others | {_PACKED: packed}))
        if step > self._newest:
            change = Change(packed=packed, num_bytes=_length({_PACKED: packed}))  # type: ignore[arg-type]
            self._chain.add(step, change, whole_bytes=_length({"adapter": parts["adapter"]}))
            self._newest = step
        whole = _length(others | {"adapter": parts["adapter"]})
        version = self._chain.version_of(client_id)
        if version is None or version > step:
            return whole
        changes = {f"{_CHANGE}{at}": change.packed for at, change in self._chain.between(version, step).items()}
        return min(whole, _length(others | {_FOLLOWS: {"step": ("I64", ())}} | changes))  # type: ignore[arg-type]

    def up_bytes(self, parts: Parts, client_id: str, step: int) -> int:
        """Return how long the message is that a client sends back."""
        if self._up is None or "adapter" not in parts:
            return self._received.of(parts, lambda: _length(parts))
        others = {part: layout for part, layout in parts.items() if part != "adapter"}
        packed = self._packed(self._up, parts["adapter"], Place(self._seed, step, client_id))
        if self._up.segments is not None:
            return _length(others | {_PACKED: packed})
        return self._received.of(parts, lambda: _length(others | {_PACKED: packed}))

    def noted(self, client_id: str, step: int, *, is_accepted: bool, is_lost: bool) -> None:
        """Remember what a client has read, as the run's wire does."""
        if is_accepted:
            self._chain.accepted(client_id, step)
        elif is_lost:
            self._chain.lost(client_id)

    def _packed(self, stages: WireStages, adapter: Layout, place: Place) -> Layout:
        sizes = tuple(math.prod(adapter[name][1]) for name in sorted(adapter))
        if stages.segments is not None:  # each place has a segment of its own
            layout, is_exact = packed_layout(stages, sizes, place)
        else:
            key = (id(stages), *sizes)
            if key not in self._layouts:
                self._layouts[key] = packed_layout(stages, sizes, place)
            layout, is_exact = self._layouts[key]
        self.is_exact[place.direction] &= is_exact
        return layout


class _Lengths:
    """Lengths of messages of which the very same parts were asked for before."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Parts, int]] = {}

    def of(self, parts: Parts, work_out: Callable[[], int]) -> int:
        if id(parts) not in self._known:
            self._known[id(parts)] = parts, work_out()  # the parts are kept, so that their id stays theirs
        return self._known[id(parts)][1]


def _length(parts: Mapping[str, Layout]) -> int:
    return message_bytes({f"{part}//{name}": each for part, layout in parts.items() for name, each in layout.items()})
