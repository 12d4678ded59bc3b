"""How long a message is, before there is one: names, precisions and shapes of what is packed, and their bytes.

Exact where lengths do not depend on values. With entropy coding they are estimates (`length_estimates.py`): Golomb's
mean bits for places that are spread evenly, and for levels and bytes the codes of a Gaussian. Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from fedllm_train.messages.length_estimates import code_bytes, gap_bytes
from fedllm_train.messages.place import Place
from fedllm_train.messages.segments import segment_of
from fedllm_train.messages.vector_cut import VectorCut, cut_of
from fedllm_train.messages.wire_names import WireStages, parse_wire

__all__ = [
    "Layout",
    "Length",
    "has_fixed_length",
    "message_bytes",
    "packed_bytes",
    "packed_layout",
    "packed_shapes",
]

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Name of a tensor -> its precision as safetensors writes it (F32, BF16, ...) and its shape."""

_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1}
"""Precision -> bytes, in the order in which safetensors lays tensors out."""
_SOME_VALUES = 1000
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I8", "U8")


class Length(NamedTuple):
    """A number of bytes, and whether it is certain."""

    bytes: int
    is_exact: bool


def message_bytes(layout: Layout) -> int:
    """Return the length of the message that carries some tensors: a safetensors file without metadata.

    Args:
        layout: the tensors by their full names, such as "packed//levels" (`adapters/arithmetic.py`, `flatten`).

    >>> message_bytes({"adapter//a": ("F32", (100,))})
    480
    """
    header: dict[str, object] = {}
    offset = 0
    for name in sorted(layout, key=lambda name: (_ORDER.index(layout[name][0]), name)):
        precision, shape = layout[name]
        end = offset + _WIDTHS[precision] * math.prod(shape)
        header[name] = {"dtype": precision, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + 8 * math.ceil(len(text) / 8) + offset


def packed_bytes(stages: WireStages, sizes: Sequence[int], place: Place | None = None) -> Length:
    """Return the length of a message that carries a packed vector alone.

    Args:
        stages: how it is packed.
        sizes: the sizes of the tensors that the vector is made of.
        place: the message's place; only segments look at it. Without one, all segments are taken to be as long as the
            longest.

    >>> packed_bytes(WireStages(hadamard=256, quantise="drive"), [163_840])
    Length(bytes=23200, is_exact=True)
    >>> packed_bytes(WireStages(topk=0.1, quantise="int8", golomb=True), [163_840]).is_exact
    False
    """
    tensors, is_exact = packed_layout(stages, sizes, place)
    return Length(message_bytes({f"packed//{name}": each for name, each in tensors.items()}), is_exact)


def has_fixed_length(text: str) -> bool:
    """Return whether how long messages are follows from what is sent and not from its values.

    Args:
        text: the setting `wire` or `download_wire`.

    >>> has_fixed_length("int4"), has_fixed_length("topk-int8")
    (True, False)
    """
    stages = parse_wire(text, "wire")
    return stages is None or packed_bytes(stages, [_SOME_VALUES]).is_exact


def packed_layout(stages: WireStages, sizes: Sequence[int], place: Place | None = None) -> tuple[Layout, bool]:
    """Return the tensors of a packed vector, and whether their shapes are certain.

    Args:
        stages: how it is packed.
        sizes: the sizes of the tensors that the vector is made of.
        place: the message's place, as for `packed_bytes`.
    """
    segment = None
    is_exact = stages.is_exact_length
    if stages.segments is not None:
        if place is None:
            segment = stages.segments - 1  # no other is longer
            is_exact = False
        else:
            segment = segment_of(place, stages.segments, drawn=stages.segments_drawn)
    cut = cut_of(stages, sizes, segment)
    estimates = {"gaps": gap_bytes, "codes": lambda cut: code_bytes(stages, cut)}
    shapes = packed_shapes(stages, sizes, segment)
    return {
        name: (precision, (estimates[name](cut),) if shape is None else shape)
        for name, (precision, shape) in shapes.items()
    }, is_exact


def packed_shapes(
    stages: WireStages, sizes: Sequence[int], segment: int | None = None
) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """Return the tensors of a packed vector: precision and shape, None for the shape of what is entropy-coded.

    Args:
        stages: how it is packed.
        sizes: the sizes of the tensors that the vector is made of.
        segment: the segment that the message holds, if it holds one.

    >>> packed_shapes(WireStages(quantise="int4"), [300, 5])
    {'levels': ('U8', (153,)), 'scales': ('F32', (2,))}
    """
    cut = cut_of(stages, sizes, segment)
    shapes: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    if stages.segments is not None:
        shapes["segment"] = ("U8", (1,))
    if stages.topk is not None:
        shapes |= _place_shapes(stages, cut)
    if stages.quantise in ("float32", "bfloat16"):
        kind = "F32" if stages.quantise == "float32" else "BF16"
        return shapes | {"codes": ("U8", None)} if stages.huffman else shapes | {"values": (kind, (cut.num_sent,))}
    name = "signs" if stages.bits == 1 else "levels"
    if stages.huffman:
        shapes["codes"] = ("U8", None)
    else:
        shapes[name] = ("I8", (cut.num_sent,)) if stages.bits == 8 else ("U8", (-(-cut.num_sent * stages.bits // 8),))
    if stages.block is not None:
        shapes["largest"] = ("F32", (1,))
    shapes["scales"] = ("F32" if stages.block is None else "F16", (len(cut.groups),))
    return shapes


def _place_shapes(stages: WireStages, cut: VectorCut) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    if stages.golomb:
        return {"gaps": ("U8", None)} if cut.has_places else {}
    num_bytes = math.ceil(cut.num_values / 8)
    if 4 * cut.num_chosen <= num_bytes:
        return {"places": ("I32", (cut.num_chosen,))}
    return {"bits": ("U8", (num_bytes,))}
