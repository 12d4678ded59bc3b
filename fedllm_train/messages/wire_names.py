"""How a wire is written: `int4`, `topk:0.1+int8+golomb`; read and checked without torch.

A wire is a preset's name or stages joined by `+`, each with its values after `:`. Stages stand in this order, each at
most once; what is left out is not done, and a wire that says nothing of precision sends float32:

select     `segments:5`, `segments:5:drawn`   one of five parts of the vector, in turn or drawn (EcoLoRA)
           `topk:0.1`                         the largest tenth of the values (FLASC)
transform  `hadamard:256`                     random signs and a Hadamard matrix, block by block
quantise   `float32`, `bfloat16`
           `int8`, `int4`, `int3`             with `:nearest` and `:block=64`
           `sign:64`                          one bit a value, one scale a block
           `drive`, `drive:biased`            one bit a rotated value (it brings `hadamard:256` where none is given)
entropy    `golomb`                           for the places of chosen values
           `huffman`                          for levels, and for the bytes of float32 and bfloat16

What the stages do stands in `pipeline.py` and the files it names; how long a message is, in `packed_length.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError

__all__ = ["LEVELS", "PRESETS", "STAGES", "WireStages", "parse_wire"]

PRESETS = {
    "none": "",
    "bf16": "bfloat16",
    "int8": "int8",
    "int4": "int4",
    "int3": "int3",
    "sign": "sign:64",
    "drive": "hadamard:256+drive",
    "topk": "topk:0.1+float32",
    "topk-int8": "topk:0.1+int8+golomb",
    "topk-int4": "topk:0.1+int4+golomb",
    "ecolora": "segments:5+topk:0.5+bfloat16+golomb",
}
"""Name -> its stages; none leaves values, and messages, as they are."""

STAGES = {
    **{"segments": "select", "topk": "select", "hadamard": "transform"},
    **{"float32": "quantise", "bfloat16": "quantise", "int8": "quantise", "int4": "quantise", "int3": "quantise"},
    **{"sign": "quantise", "drive": "quantise", "golomb": "entropy", "huffman": "entropy"},
}
"""Stage -> what kind of stage it is, in the order in which stages are applied."""

LEVELS = {"int8": 127, "int4": 7, "int3": 3}
"""Quantiser -> its levels on either side of zero."""
_BITS = {"int8": 8, "int4": 4, "int3": 3, "sign": 1, "drive": 1, "bfloat16": 16, "float32": 32}
_LARGEST_BLOCK = 2**20
_ORDER = "segments, topk, hadamard, a quantiser, golomb, huffman"


@dataclass(frozen=True, kw_only=True)
class WireStages:
    """The stages of a wire; `parse_wire` makes them from text, `str` gives the text back.

    >>> str(parse_wire("drive:biased"))
    'hadamard:256+drive:biased'
    """

    segments: int | None = None
    """One of how many parts of the vector is sent."""
    segments_drawn: bool = False
    """Whether the part is drawn for each round and client; otherwise parts go in turn."""
    topk: float | None = None
    """The share of the values that is sent, those of the largest size."""
    hadamard: int | None = None
    """Size of the blocks that are rotated, a power of two."""
    quantise: str = "float32"
    """The quantiser's name."""
    nearest: bool = False
    """Whether levels are the nearest, not drawn such that their mean is the value."""
    block: int | None = None
    """Values that share a scale in half precision; None gives a tensor (or what stands for one) one in float32."""
    biased: bool = False
    """Whether DRIVE's scale is the one of the least error, whose result is never longer than what was packed."""
    golomb: bool = False
    """Whether places are sent as Golomb-Rice codes of the gaps between them."""
    huffman: bool = False
    """Whether levels or bytes are sent as Huffman codes."""

    @property
    def levels(self) -> int | None:
        """Levels on either side of zero, for the quantisers that have some."""
        return LEVELS.get(self.quantise)

    @property
    def bits(self) -> int:
        """Bits a value that is sent takes before entropy coding, without scales and places."""
        return _BITS[self.quantise]

    @property
    def is_exact_length(self) -> bool:
        """Whether a message's length depends on the number of values alone, not on the values."""
        return not (self.golomb or self.huffman)

    @property
    def is_unbiased(self) -> bool:
        """Whether the mean over all draws of what is unpacked is what was packed, up to rounding to float32.

        DRIVE is where a rotated block looks as if it were drawn from a Gaussian, as all but very sparse vectors do
        (`quantisers.py` has the exception).

        >>> [name for name in PRESETS if (stages := parse_wire(name)) and stages.is_unbiased]
        ['int8', 'int4', 'int3', 'drive']
        """
        if self.segments is not None or (self.topk is not None and self.topk < 1):
            return False
        return not (self.nearest or self.biased or self.quantise in ("sign", "bfloat16"))

    @property
    def norm_growth(self) -> float:
        """How many times as long what is unpacked is, as expected for many values, beyond small rounding errors.

        sqrt(pi / 2) = 1.2533 for unbiased DRIVE (Vargaftik et al. 2021, arXiv 2105.08339), 1.0 for the others:
        top-k, sign and biased DRIVE only shorten. Drawn levels lengthen by their own error alone, which depends on the
        values: on a Gaussian of 8,192 values a tensor int8 by nothing, int4 by 1.03, int3 by 1.14.

        >>> round(parse_wire("drive").norm_growth, 4), parse_wire("drive:biased").norm_growth
        (1.2533, 1.0)
        """
        return math.sqrt(math.pi / 2) if self.quantise == "drive" and not self.biased else 1.0

    def __str__(self) -> str:
        """Return the text of these stages."""
        stages = []
        if self.segments is not None:
            stages.append(f"segments:{self.segments}" + (":drawn" if self.segments_drawn else ""))
        if self.topk is not None:
            stages.append(f"topk:{self.topk!r}")
        if self.hadamard is not None:
            stages.append(f"hadamard:{self.hadamard}")
        quantise = [self.quantise, *(["nearest"] if self.nearest else []), *(["biased"] if self.biased else [])]
        if self.block is not None:
            quantise.append(str(self.block) if self.quantise == "sign" else f"block={self.block}")
        stages.append(":".join(quantise))
        return "+".join([*stages, *(["golomb"] if self.golomb else []), *(["huffman"] if self.huffman else [])])


def parse_wire(text: str, setting: str = "wire") -> WireStages | None:
    """Return the stages that a wire's text says, or None for `none`.

    Args:
        text: a preset's name, or stages joined by `+`; a preset may be one of them.
        setting: the setting that the text is the value of, for errors.

    Raises:
        ConfigError: for a name or value that cannot be, or stages that do not fit together.

    >>> str(parse_wire("topk-int4+huffman"))
    'topk:0.1+int4+golomb+huffman'
    >>> parse_wire("none") is None
    True
    """
    if text == "none":
        return None
    words = [word for part in map(str.strip, text.split("+")) for word in _expanded(part)]
    found: dict[str, object] = {}
    order = list(STAGES)
    so_far = ""
    for word in words:
        name, *values = word.split(":")
        if name not in STAGES:
            raise _wrong(setting, text, _unknown(name, text))
        if so_far and (name == so_far or STAGES[name] == STAGES[so_far] == "quantise"):
            raise _wrong(setting, text, f"{so_far} and {name} cannot both be done; leave one out")
        if so_far and order.index(name) < order.index(so_far):
            raise _wrong(setting, text, f"{name} stands behind {so_far}; the order is {_ORDER}")
        so_far = name
        try:
            found |= _READERS[STAGES[name]](name, values)
        except ValueError as error:
            raise _wrong(setting, text, str(error)) from error
    if found.get("quantise") == "drive":
        found.setdefault("hadamard", 256)
    stages = WireStages(**found)  # type: ignore[arg-type]
    if stages.golomb and stages.topk is None:
        raise _wrong(setting, text, "golomb codes the places of chosen values; put topk before it, or leave it out")
    if stages.huffman and stages.quantise in ("sign", "drive"):
        raise _wrong(setting, text, "huffman cannot shorten one bit a value; leave it out")
    return stages


def _expanded(part: str) -> list[str]:
    """The stages of a preset; a word that names a stage as well is the stage."""
    return (part if part in STAGES else PRESETS.get(part) or part).split("+")


def _wrong(setting: str, text: str, why: str) -> ConfigError:
    return ConfigError(f"{setting} is {text!r}: {why}")


def _unknown(name: str, text: str) -> str:
    known = list(dict.fromkeys([*PRESETS, *STAGES]))
    if name in PRESETS:
        if name == "none":
            return "none leaves values as they are and stands alone"
        return f"the preset {name} takes no values; write its stages instead, {PRESETS[name]}"
    return f"{name!r} is neither a preset nor a stage; {did_you_mean(name, known)}choose from {', '.join(known)}"


def _select(name: str, values: Sequence[str]) -> dict[str, object]:
    if name == "topk":
        fraction = _one_number(name, values, "0.1")
        if not 0 < fraction <= 1:
            raise ValueError(f"topk takes a share of the values above 0 and at most 1, not {fraction:g}")
        return {"topk": fraction}
    numbers = [value for value in values if value != "drawn"]
    if len(values) - len(numbers) > 1:
        raise ValueError("segments takes the word drawn once")
    count = _whole(name, numbers, "5")
    if not 2 <= count <= 255:
        raise ValueError(f"segments takes a number of parts from 2 to 255, not {count}")
    return {"segments": count, "segments_drawn": len(numbers) < len(values)}


def _transform(name: str, values: Sequence[str]) -> dict[str, object]:
    size = _whole(name, values, "256")
    if not 2 <= size <= _LARGEST_BLOCK or size & (size - 1):
        raise ValueError(f"hadamard takes a power of two from 2 to {_LARGEST_BLOCK}, not {size}")
    return {"hadamard": size}


def _quantise(name: str, values: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {"quantise": name}
    if name == "sign":
        return found | {"block": _block(name, _whole(name, values, "64"))}
    for value in values:
        key, equals, number = value.partition("=")
        if name in LEVELS and value == "nearest":
            new: dict[str, object] = {"nearest": True}
        elif name in LEVELS and key == "block" and equals:
            new = {"block": _block(name, _whole("block", [number], ""))}
        elif name == "drive" and value == "biased":
            new = {"biased": True}
        else:
            takes = {"drive": "biased", **dict.fromkeys(LEVELS, "nearest and block=64")}.get(name, "no value")
            raise ValueError(f"{name} takes {takes}, not {value!r}")
        if found.keys() & new.keys():
            raise ValueError(f"{name} takes {key} once")
        found |= new
    return found


def _block(name: str, size: int) -> int:
    if not 2 <= size <= _LARGEST_BLOCK:
        raise ValueError(f"{name} takes blocks of 2 to {_LARGEST_BLOCK} values, not {size}")
    return size


def _entropy(name: str, values: Sequence[str]) -> dict[str, object]:
    if values:
        raise ValueError(f"{name} takes no value, not {values[0]!r}")
    return {name: True}


_READERS = {"select": _select, "transform": _transform, "quantise": _quantise, "entropy": _entropy}


def _one_number(name: str, values: Sequence[str], usual: str) -> float:
    if len(values) > 1:
        raise ValueError(f"{name} takes one number, not {':'.join(values)}")
    text = values[0] if values else usual
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{name} takes a number, such as {name}:{usual}, not {text!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} takes a finite number, not {text}")
    return number


def _whole(name: str, values: Sequence[str], usual: str) -> int:
    number = _one_number(name, values, usual)
    if number != int(number):
        raise ValueError(f"{name} takes a whole number, not {number:g}")
    return int(number)
