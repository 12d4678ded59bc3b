"""What goes down, at the server's end: packed broadcasts, and what every client reads from them.

Symbols: S_t the adapter that the method broadcasts in step t, from the server's own precise state; M_t what clients
read and train from; Q the download's codec. Whatever is measured of a client's update (a packed change, a clip, a
norm) is measured from M_t, by the same bits at both ends; the server then moves its own S_t by that change, so that
nothing that a broadcast lost is lost for good (server error feedback; Tang et al. 2019, DoubleSqueeze, arXiv
1905.05957). Held-out scores and the finished adapter are those of S_t: it is the model that was learned, and a
broadcast is a copy of it.

previous  M_t = M_(t-1) + Q(S_t - M_(t-1)), M_(-1) the starting adapter: a chain of changes (`chain.py`), of which
          a client is sent those that it lacks. All clients of a round must be sent one adapter
start     M_t = M_(-1) + Q(S_t - M_(-1)): each message stands alone
zero      M_t = Q(S_t): with topk FLASC's download (Kuo et al. 2024, arXiv 2406.05233), the values of the largest
          size; clients train all values, and the values that were not sent stay where they are in S_t

Only the part "adapter" is packed. A broadcast is not averaged over a cohort as uploads are, so its error stays: of one
bit a value more than of four.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedllm_data.errors import ConfigError, DownloadError
from fedllm_train.adapters.arithmetic import Adapter, Parts, flatten
from fedllm_train.engines.engine import NO_STEP
from fedllm_train.lazy_torch import torch
from fedllm_train.messages import codec as messages
from fedllm_train.messages.chain import Chain, Change
from fedllm_train.messages.download_parts import chain_parts, change_between, moved_by, packed_alone
from fedllm_train.messages.packed_message import PackedMessage, relative_error
from fedllm_train.messages.packing import Codec, layout
from fedllm_train.messages.place import Place
from fedllm_train.messages.wire_state import WireState

__all__ = ["Base", "ChainedDownloads", "LoneDownloads", "WholeDownloads", "base_of"]

Base = Literal["previous", "start", "zero"]
_READ, _CHANGE = "read ", "change "
_NUM_CACHED = 8
"""Packed broadcasts that are kept to be sent again: one a group or rank for some methods, one a version in a chain."""


def base_of(base: Base, first: Adapter) -> Adapter:
    """Return what a download is measured from before there is any other.

    Args:
        base: `download_base`.
        first: the adapter that the method would send before round 0.

    >>> base_of("zero", {"a": torch.ones(2)})["a"].tolist()
    [0.0, 0.0]
    """
    return {name: torch.zeros_like(tensor) for name, tensor in first.items()} if base == "zero" else first


class WholeDownloads:
    """All values travel, and clients read the server's own; encoded once if all clients get the same tensors."""

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self._sent: Parts = {}
        self._message = b""

    def pack(self, parts: Parts, client_id: str, step: int) -> PackedMessage:
        """Return the message that carries what the server sends."""
        if not self._message or not _same(parts, self._sent):
            self._sent, self._message = parts, messages.encode(parts)
        return PackedMessage(message=self._message, num_values=_num_values(parts), relative_error=0.0)

    def as_read(self, parts: Parts, client_id: str, step: int) -> Parts:
        """Return what a client reads from the message: the same values, since nothing is lost."""
        return parts

    def noted(self, client_id: str, step: int, *, is_accepted: bool, is_lost: bool) -> None:
        """Remember nothing: every message is whole."""

    def state(self) -> WireState:
        """Return nothing."""
        return WireState()


class LoneDownloads:
    """Every message stands alone, so clients may be sent adapters of their own; the server remembers nothing."""

    def __init__(self, codec: Codec, base: Callable[[str], Adapter], *, seed: int) -> None:
        """Begin with nothing sent.

        Args:
            codec: packs a change.
            base: from a client's id to what its downloads are measured from.
            seed: the run's.
        """
        self._codec, self._base, self._seed = codec, base, seed
        self._step = NO_STEP
        self._cache: list[tuple[Parts, PackedMessage, Adapter]] = []

    def pack(self, parts: Parts, client_id: str, step: int) -> PackedMessage:
        """Return the message that carries what the server sends."""
        return self._packed(parts, client_id, step)[0]

    def as_read(self, parts: Parts, client_id: str, step: int) -> Parts:
        """Return what a client reads from the message of a step, the newest or an earlier one."""
        return parts | {"adapter": self._packed(parts, client_id, step)[1]}

    def noted(self, client_id: str, step: int, *, is_accepted: bool, is_lost: bool) -> None:
        """Remember nothing: no message needs an earlier one."""

    def state(self) -> WireState:
        """Return nothing."""
        return WireState()

    def _packed(self, parts: Parts, client_id: str, step: int) -> tuple[PackedMessage, Adapter]:
        if step != self._step:
            self._step, self._cache = step, []
        for sent, packed, read in self._cache:
            if _same(sent, parts):
                return packed, read
        sent_change = _send(
            self._codec, parts["adapter"], self._base(client_id), Place(self._seed, step, None, "down")
        )
        others = {part: tensors for part, tensors in parts.items() if part != "adapter"}
        message = messages.encode(packed_alone(sent_change.packed) | others)
        packed = PackedMessage(
            message=message, num_values=_num_values(parts), relative_error=sent_change.relative_error
        )
        self._cache = [*self._cache[1 - _NUM_CACHED :], (parts, packed, sent_change.read)]
        return packed, sent_change.read


class ChainedDownloads:
    """A chain of changes from one broadcast to the next, the same for all clients."""

    def __init__(self, codec: Codec, base: Callable[[str], Adapter], *, seed: int, state: WireState) -> None:
        """Go on from what the server remembers.

        Args:
            codec: packs a change.
            base: from any client's id to the adapter that all know at first.
            seed: the run's.
            state: from a checkpoint, or empty.
        """
        self._codec, self._base, self._seed = codec, base, seed
        tensors = state.tensors
        changes = {step: _change_of(tensors[f"{_CHANGE}{step}"]) for step in _steps(tensors, _CHANGE)}
        self._chain = Chain(changes, start=state.chain_start, versions=state.versions)
        self._read = {step: tensors[f"{_READ}{step}"] for step in _steps(tensors, _READ)}
        self._newest = max(self._read, default=NO_STEP)
        self._under_way = {client_id: (step, version) for client_id, (step, version) in state.under_way.items()}
        self._sent: Adapter = {}
        self._relative_error: float | None = None
        self._messages: dict[tuple[int, int | None], tuple[Parts, bytes]] = {}

    def pack(self, parts: Parts, client_id: str, step: int) -> PackedMessage:
        """Return the message that a client needs to have the broadcast of a step: changes, or the whole.

        Raises:
            ConfigError: if the method sends clients different adapters.
        """
        self._advance(parts["adapter"], client_id, step)
        others = {part: tensors for part, tensors in parts.items() if part != "adapter"}
        asked, version = self._under_way.get(client_id, (NO_STEP, None))
        if asked != step:  # else it is asked again, and is sent the same message
            version = self._chain.version_of(client_id)
            whole = self._message(step, None, others)
            if version is not None and len(self._message(step, version, others)) >= len(whole):
                version = None
            self._under_way[client_id] = (step, version)
        message = self._message(step, version, others)
        return PackedMessage(message=message, num_values=_num_values(parts), relative_error=self._relative_error)

    def as_read(self, parts: Parts, client_id: str, step: int) -> Parts:
        """Return what a client reads from the message of a step, the newest or one that somebody is under way from."""
        if step > self._newest:
            self._advance(parts["adapter"], client_id, step)
        return parts | {"adapter": self._read[step]}

    def noted(self, client_id: str, step: int, *, is_accepted: bool, is_lost: bool) -> None:
        """Remember that a client has the broadcast of a step, or that nobody knows what it has.

        Args:
            client_id: the client.
            step: the step that its reply belongs to.
            is_accepted: whether the reply was used, so that what the client kept at that visit counts.
            is_lost: whether no message came back.
        """
        if self._under_way.get(client_id, (NO_STEP, None))[0] == step:
            del self._under_way[client_id]
        if is_accepted:
            self._chain.accepted(client_id, step)
        elif is_lost:
            self._chain.lost(client_id)

    def state(self) -> WireState:
        """Return what the next round goes on from; drop what neither it nor anybody under way can need."""
        needed = {self._newest, *(step for step, _ in self._under_way.values())}
        self._read = {step: adapter for step, adapter in self._read.items() if step in needed}
        self._chain.prune((version, step) for step, version in self._under_way.values() if version is not None)
        tensors = {f"{_READ}{step}": adapter for step, adapter in self._read.items()}
        tensors |= {f"{_CHANGE}{step}": change.packed for step, change in self._chain.changes.items()}
        return WireState(
            tensors=tensors,
            chain_start=self._chain.start,
            versions=dict(self._chain.versions),
            under_way=dict(self._under_way),
        )

    def _advance(self, adapter: Adapter, client_id: str, step: int) -> None:
        """Make the broadcast of a step, once; earlier ones were made."""
        if step <= self._newest:
            if step == self._newest and self._sent and not _is_equal(adapter, self._sent):
                raise ConfigError(
                    "download_base is previous, but the method sends its clients different adapters in one round; "
                    "use download_base start or zero"
                )
            return
        before = self._read[self._newest] if self._read else self._base(client_id)
        sent = _send(self._codec, adapter, before, Place(self._seed, step, None, "down"))
        whole_bytes = len(messages.encode({"adapter": sent.read}))
        self._chain.add(step, _change_of(sent.packed), whole_bytes=whole_bytes)
        self._newest, self._sent, self._relative_error = step, adapter, sent.relative_error
        self._read[step] = sent.read
        self._messages = {}

    def _message(self, step: int, version: int | None, others: Parts) -> bytes:
        """The message that brings clients of a version to that of a step, or the whole; encoded once for them all."""
        key = (step, version)
        if key not in self._messages or not _same(others, self._messages[key][0]):
            if version is None:
                parts = {"adapter": self._read[step]}
            else:
                changes = self._chain.between(version, step)
                parts = chain_parts(version, {each: change.packed for each, change in changes.items()})
            while len(self._messages) >= _NUM_CACHED:
                del self._messages[next(iter(self._messages))]
            self._messages[key] = others, messages.encode(parts | others)
        return self._messages[key][1]


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A change that was packed, what is read from it, and how far that is off."""

    packed: Adapter
    read: Adapter
    relative_error: float | None


def _send(codec: Codec, adapter: Adapter, before: Adapter, place: Place) -> _Sent:
    change = change_between(adapter, before)
    sizes = layout(adapter)[1]
    try:
        packed = codec.pack(change, sizes, place)
    except ValueError as error:
        raise DownloadError(
            f"round {place.round_index + 1}: what is sent to clients cannot be packed: {error}"
        ) from error
    decoded = codec.unpack(packed, sizes, place)
    read = moved_by(decoded, {name: before[name] for name in adapter})
    return _Sent(packed=packed, read=read, relative_error=relative_error(decoded, change))


def _change_of(packed: Adapter) -> Change:
    return Change(packed=packed, num_bytes=len(messages.encode(packed_alone(packed))))


def _steps(tensors: Mapping[str, Adapter], prefix: str) -> list[int]:
    return sorted(int(part.removeprefix(prefix)) for part in tensors if part.startswith(prefix))


def _num_values(parts: Parts) -> int:
    return sum(tensor.numel() for tensor in flatten(parts).values())


def _is_equal(a: Adapter, b: Adapter) -> bool:
    return a.keys() == b.keys() and all(a[name] is b[name] or torch.equal(a[name], b[name]) for name in a)


def _same(a: Parts, b: Parts) -> bool:
    """Whether two messages hold the very same tensors."""
    flat_a, flat_b = flatten(a), flatten(b)
    return flat_a.keys() == flat_b.keys() and all(flat_a[name] is flat_b[name] for name in flat_a)
