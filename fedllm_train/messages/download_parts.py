"""How a packed download is laid out: what the server writes and a client reads, and what a client keeps of it.

A message holds the method's parts, one of them, "adapter", in one of three forms:

whole      "adapter" itself
alone      "packed": a change from what both ends know, the starting adapter or zeros (`download_base` start, zero)
chain      "follows": the version that the client has; "change N", ...: what leads from there to the newest, in order

`unpack` never trusts a message: one that does not fit is a `DownloadError`, and the client says so to the server.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedllm_data.errors import DownloadError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.engines.engine import NO_STEP
from fedllm_train.lazy_torch import torch
from fedllm_train.messages.packing import Codec, as_adapter, as_vector, layout
from fedllm_train.messages.place import Place

__all__ = ["HIDDEN", "chain_parts", "change_between", "moved_by", "packed_alone", "read_download"]

_READ, _VERSION = "download", "download step"
HIDDEN = (_READ, _VERSION)
"""Parts of a client's memory that belong to the wire: the newest broadcast that it read, and its version."""
_PACKED, _FOLLOWS, _CHANGE = "packed", "follows", "change "


def change_between(after: Adapter, before: Adapter) -> torch.Tensor:
    """Return what leads from one adapter to another as a vector in float64, tensors in the order of their names.

    Args:
        after: names the tensors that count.
        before: has these at least.

    >>> change_between({"a": torch.tensor([3.0])}, {"a": torch.tensor([1.0]), "b": torch.zeros(2)}).tolist()
    [2.0]
    """
    return as_vector({name: after[name].double() - before[name].double() for name in after})


def moved_by(change: torch.Tensor, before: Adapter) -> Adapter:
    """Return an adapter moved by a change in float64, rounded once to the adapter's precision.

    >>> moved_by(torch.tensor([2.0], dtype=torch.float64), {"a": torch.tensor([1.0])})["a"].tolist()
    [3.0]
    """
    moves = as_adapter(change, before)
    return {name: (before[name].double() + moves[name]).to(before[name].dtype) for name in before}


def chain_parts(version: int, changes: Mapping[int, Adapter]) -> Parts:
    """Return the parts that lead a client from a version on.

    Args:
        version: what the client has.
        changes: step -> packed change, in order.
    """
    return {_FOLLOWS: {"step": torch.tensor(version)}} | {f"{_CHANGE}{step}": each for step, each in changes.items()}


def read_download(
    parts: Parts, codec: Codec, base: Adapter, hidden: Parts, place: Place, *, keeps: bool
) -> tuple[Parts, Parts]:
    """Return the parts that a message stands for, and what the client keeps of the wire.

    Args:
        parts: what the message holds.
        codec: how adapters are packed on the way down.
        base: what both ends know before any download.
        hidden: what the client kept of the wire at its last visit that counts.
        place: the message's place, whose round is the newest version.
        keeps: whether broadcasts form a chain, so that the client keeps what it read.

    Raises:
        DownloadError: if the message does not fit, or does not follow what the client kept.
    """
    others = {part: tensors for part, tensors in parts.items() if not _is_of_wire(part)}
    try:
        if "adapter" in parts:
            adapter = parts["adapter"]
        elif _PACKED in parts:
            adapter = moved_by(codec.unpack(parts[_PACKED], layout(base)[1], place), base)
        else:
            adapter = _followed(parts, codec, base, hidden, place)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"its download cannot be read ({' '.join(str(error).split())[:200]})") from error
    received = {"adapter": adapter} | others
    return received, _kept(received, place) if keeps else {}


def packed_alone(packed: Adapter) -> Parts:
    """Return the part of a change that stands alone."""
    return {_PACKED: packed}


def _followed(parts: Parts, codec: Codec, base: Adapter, hidden: Parts, place: Place) -> Adapter:
    """Apply the changes of a chain one by one, each rounded as the server rounds it."""
    follows = int(parts[_FOLLOWS]["step"])
    adapter = base
    if follows != NO_STEP:
        version = int(hidden[_VERSION]["step"]) if _READ in hidden else NO_STEP
        if version != follows:
            has = "none" if version == NO_STEP else f"that of round {version + 1}"
            raise DownloadError(f"its download follows the broadcast of round {follows + 1}, and the client has {has}")
        adapter = hidden[_READ]
    steps = sorted(int(part.removeprefix(_CHANGE)) for part in parts if part.startswith(_CHANGE))
    for step in steps:
        at = Place(place.seed, step, place.client_id, place.direction)
        adapter = moved_by(codec.unpack(parts[f"{_CHANGE}{step}"], layout(adapter)[1], at), adapter)
    return adapter


def _kept(received: Parts, place: Place) -> Parts:
    return {_READ: received["adapter"], _VERSION: {"step": torch.tensor(place.round_index)}}


def _is_of_wire(part: str) -> bool:
    return part in (_PACKED, _FOLLOWS) or part.startswith(_CHANGE)
