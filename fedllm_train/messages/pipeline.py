"""A codec of one vector, made of the stages of a wire: select, transform, quantise, entropy-code; and back.

What is sent of d values is a handful of tensors (`packed_length.py` has their names and shapes):

segment              which part of the vector the message holds (`segments.py`)
places, bits, gaps   where the chosen values stand (`select_values.py`, `golomb.py`)
values               float32 or bfloat16 (`quantisers.py`)
levels, signs        levels in one byte each, two in a byte, or eight in three bytes; signs in one bit
scales, largest      of tensors, blocks or rotated blocks (`scales.py`)
codes                instead of values or levels: their Huffman codes (`huffman.py`)

Packing refuses what is no finite number; unpacking refuses what does not fit what was expected, before it takes memory
for it. Random numbers come from the message's place (`place.py`): "codec" for drawn levels, "codec signs" for the
rotation, "segment" for a drawn segment.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.lazy_torch import torch
from fedllm_train.messages.golomb import read_gaps, write_gaps
from fedllm_train.messages.hadamard import rotate, rotate_back, rotate_bits_back, signs_from
from fedllm_train.messages.huffman import read_symbols, write_symbols
from fedllm_train.messages.level_bits import read_levels, write_levels
from fedllm_train.messages.packed_length import packed_shapes
from fedllm_train.messages.place import Place
from fedllm_train.messages.quantisers import (
    Packed,
    as_bfloat16,
    from_bfloat16,
    pack_drive,
    pack_levels,
    pack_sign,
    unpack_levels,
    unpack_sign,
)
from fedllm_train.messages.scales import read_scales
from fedllm_train.messages.segments import segment_of
from fedllm_train.messages.select_values import places_of_largest, read_places, write_places
from fedllm_train.messages.vector_cut import VectorCut, cut_of
from fedllm_train.messages.wire_names import WireStages

__all__ = ["Pipeline"]

_LARGEST = float(np.finfo(np.float32).max)


class Pipeline:
    """Packs one vector by the stages of a wire, and unpacks it."""

    def __init__(self, stages: WireStages) -> None:
        """Take the stages."""
        self.stages = stages

    @property
    def norm_growth(self) -> float:
        """How many times as long what is unpacked is, as expected; `WireStages.norm_growth`."""
        return self.stages.norm_growth

    @property
    def is_unbiased(self) -> bool:
        """Whether the mean of what is unpacked is what was packed; `WireStages.is_unbiased`."""
        return self.stages.is_unbiased

    def pack(self, values: torch.Tensor, sizes: Sequence[int], place: Place) -> Adapter:
        """Return what is sent of a vector.

        Args:
            values: (d,) in float64.
            sizes: the sizes of the tensors that the vector is made of; their sum is d.
            place: the message's place in the run.

        Raises:
            ValueError: if a value is not finite, or beyond what the codec's precision can say.
        """
        stages, vector = self.stages, values.numpy()
        if not (largest := np.abs(vector).max(initial=0.0)) <= _LARGEST:
            what = "beyond the largest float32" if np.isfinite(vector).all() else "not finite"
            raise ValueError(f"a value is {what} ({largest:.3g}); lower the learning rate")
        packed: Packed = {}
        segment = None
        if stages.segments is not None:
            segment = segment_of(place, stages.segments, drawn=stages.segments_drawn)
            packed["segment"] = np.array([segment], dtype=np.uint8)
        cut = cut_of(stages, sizes, segment)
        vector = vector[cut.start : cut.stop]
        if stages.topk is not None:
            places = places_of_largest(vector, cut.num_chosen)
            vector = vector[places]
            packed |= self._pack_places(places, cut)
        if stages.hadamard is not None:
            vector = rotate(vector, signs_from(place.rng("codec signs"), len(vector)), stages.hadamard)
        packed |= self._quantise(vector, cut, place)
        return {name: _as_tensor(array) for name, array in packed.items()}

    def unpack(self, packed: Adapter, sizes: Sequence[int], place: Place) -> torch.Tensor:
        """Return the (d,) values in float64 that were packed; zeros where none were sent.

        Args:
            packed: what was sent.
            sizes: the sizes of the tensors that the vector is made of.
            place: the message's place in the run.

        Raises:
            ValueError: if what was sent does not fit.
        """
        stages = self.stages
        arrays = {name: _as_array(tensor) for name, tensor in packed.items()}
        cut = cut_of(stages, sizes, self._segment(arrays))
        self._check(arrays, sizes)
        places = None if stages.topk is None else self._unpack_places(arrays, cut)
        vector = self._restore(arrays, cut, place)
        values = np.zeros(sum(sizes))
        values[cut.start : cut.stop][slice(None) if places is None else places] = vector
        return torch.from_numpy(values)

    def _segment(self, packed: Packed) -> int | None:
        count = self.stages.segments
        if count is None:
            return None
        told = packed.get("segment")
        if told is None or told.shape != (1,) or told.dtype != np.uint8 or told[0] >= count:
            raise ValueError(f"the message names no segment below {count}")
        return int(told[0])

    def _check(self, packed: Packed, sizes: Sequence[int]) -> None:
        """Refuse tensors of other names, precisions or shapes than these stages send."""
        expected = packed_shapes(self.stages, sizes, self._segment(packed))
        if odd := sorted(packed.keys() ^ expected.keys()):
            raise ValueError(f"the message {'lacks' if odd[0] in expected else 'has an unexpected'} tensor {odd[0]}")
        for name, (precision, shape) in expected.items():
            got = packed[name]
            if got.dtype != _DTYPES[precision] or (got.ndim != 1 if shape is None else got.shape != shape):
                raise ValueError(
                    f"tensor {name} of the message is {got.dtype} of shape {got.shape}, where {precision} of shape "
                    f"{'(n,)' if shape is None else shape} is expected"
                )

    def _pack_places(self, places: np.ndarray, cut: VectorCut) -> Packed:
        if not self.stages.golomb:
            return write_places(places, cut.num_values)
        return {"gaps": write_gaps(places, cut.num_values)} if cut.has_places else {}

    def _unpack_places(self, packed: Packed, cut: VectorCut) -> np.ndarray:
        if not self.stages.golomb:
            return read_places(packed, cut.num_chosen, cut.num_values)
        if cut.has_places:
            return read_gaps(packed["gaps"], cut.num_chosen, cut.num_values)
        return np.arange(cut.num_chosen)  # all values or none, of which no place is sent

    def _quantise(self, vector: np.ndarray, cut: VectorCut, place: Place) -> Packed:
        stages = self.stages
        if stages.quantise == "sign":
            assert stages.block is not None
            return pack_sign(vector, stages.block)
        if stages.quantise == "drive":
            return pack_drive(vector, cut.groups, biased=stages.biased)
        if stages.levels is not None:
            packed, levels = pack_levels(vector, cut.groups, stages, place.rng("codec"))
            if stages.huffman:
                return packed | {"codes": write_symbols((levels + stages.levels).astype(np.uint8)[None])}
            return packed | {"levels": write_levels(levels, stages.bits)}
        numbers = as_bfloat16(vector) if stages.quantise == "bfloat16" else vector.astype(np.float32)
        return {"codes": write_symbols(_planes(numbers))} if stages.huffman else {"values": numbers}

    def _restore(self, packed: Packed, cut: VectorCut, place: Place) -> np.ndarray:
        """Return the chosen values, rotated back."""
        stages = self.stages
        if stages.hadamard is None:
            return self._dequantise(packed, cut)
        signs = signs_from(place.rng("codec signs"), cut.num_chosen)
        if stages.quantise != "drive":
            return rotate_back(self._dequantise(packed, cut), signs, stages.hadamard)
        bits = np.unpackbits(packed["signs"], count=cut.num_sent)
        return rotate_bits_back(bits, read_scales(packed), signs, stages.hadamard)

    def _dequantise(self, packed: Packed, cut: VectorCut) -> np.ndarray:
        """Undo `_quantise`."""
        stages = self.stages
        if stages.quantise == "sign":
            return unpack_sign(packed, cut.groups)
        if stages.levels is not None:
            if stages.huffman:
                levels = read_symbols(packed["codes"], 1, cut.num_sent)[0].astype(np.int16) - stages.levels
            else:
                levels = read_levels(packed["levels"], stages.bits, cut.num_sent)
            return unpack_levels(packed, levels, cut.groups, stages.levels)
        kind = np.dtype("<u2" if stages.quantise == "bfloat16" else "<f4")
        if stages.huffman:
            planes = read_symbols(packed["codes"], kind.itemsize, cut.num_sent)
            numbers = np.ascontiguousarray(planes[::-1].T).reshape(-1).view(kind)
        else:
            numbers = packed["values"]
        values = (from_bfloat16(numbers) if stages.quantise == "bfloat16" else numbers).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a value is no finite number")
        return values


_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32, "I8": np.int8, "U8": np.uint8}
"""Precision of a message -> how NumPy holds it; bfloat16 as its bits."""


def _planes(numbers: np.ndarray) -> np.ndarray:
    """Return the bytes of numbers in planes, the highest first."""
    width = numbers.dtype.itemsize
    return numbers.astype(numbers.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, width).T[::-1]


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.require(array, requirements="W"))


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(np.uint16)
    try:
        return tensor.numpy()
    except TypeError as error:  # a precision that NumPy has not
        raise ValueError(f"the message holds values in {tensor.dtype}, which no wire sends") from error
