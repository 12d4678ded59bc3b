"""Smaller uploads: a client's change of the adapter, packed; the server adds what it unpacks to what it sent.

Symbols: Delta = theta_k - theta_sent as one vector v of d values (tensors in the order of their names), Q its codec.
The server sees theta_sent + Q(v), rounded once to the adapter's precision, in place of theta_k.

none   whole values, not differences: what travels without compression, to the bit (`messages/codec.py`)
topk   the k = floor(topk_fraction d) values of the largest size, in float32, and where they stand: as positions of
       four bytes, or as one bit a value if that is shorter (from one value in 32 on). With `error_feedback` a client
       keeps what it did not send and adds it to its next change (Stich et al. 2018, arXiv 1809.07599); FLASC (Kuo et
       al. 2024, arXiv 2406.05233) sends its updates like this, without feedback
int8   stochastic rounding to 127 levels on either side of zero, one scale a tensor (Alistarh et al. 2017, QSGD, arXiv
int4   1610.02132; FedPAQ, arXiv 1909.13014): E[Q(v)] = v. int4 has 7 levels on either side, two values a byte

Only the part "adapter" is packed; whatever else a method sends (control variates, a group) travels whole, and so does
all that the server sends. Bytes in the ledger are the length of the packed message. Random numbers come from the
stream (seed, "codec", round, client), on the client. A secure sum needs all clients to send the same places and
scales, which these do not: with a codec the server sees each update.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.config import FederatedConfig
from fedllm_train.messages import codec
from fedllm_train.seeds import stream_rng
from fedllm_train.strategy import Strategy
from fedllm_train.visit import Visit

__all__ = ["CODECS", "RESIDUAL", "Quantised", "TopK", "Upload", "UploadCodec", "check_upload"]

RESIDUAL = "upload residual"
"""The part of a client's memory with what it did not send yet; client rules do not see it."""
_PACKED = "packed"


class UploadCodec(Protocol):
    """Packs a vector and unpacks it again."""

    def pack(self, values: torch.Tensor, sizes: Sequence[int], rng: np.random.Generator) -> Adapter:
        """Return what is sent for d values in float64; `sizes` are those of the tensors they come from."""
        ...

    def unpack(self, packed: Adapter, sizes: Sequence[int]) -> torch.Tensor:
        """Return d values in float64.

        Raises:
            ValueError: if what was sent does not fit.
        """
        ...


class TopK:
    """The values of the largest size and their places."""

    def __init__(self, fraction: float) -> None:
        """Take the share of values that are sent."""
        self.fraction = fraction

    def num_sent(self, num_values: int) -> int:
        """Return k.

        >>> TopK(0.1).num_sent(25)
        2
        """
        return math.floor(self.fraction * num_values)

    def pack(self, values: torch.Tensor, sizes: Sequence[int], rng: np.random.Generator) -> Adapter:
        """Send k values; of equal ones those that stand first."""
        order = torch.sort(values.abs(), descending=True, stable=True).indices
        places = order[: self.num_sent(len(values))].sort().values
        sent = {"values": values[places].to(torch.float32)}
        if 4 * len(places) <= math.ceil(len(values) / 8):
            return sent | {"places": places.to(torch.int32)}
        chosen = np.zeros(len(values), dtype=np.uint8)
        chosen[places.numpy()] = 1
        return sent | {"bits": torch.from_numpy(np.packbits(chosen))}

    def unpack(self, packed: Adapter, sizes: Sequence[int]) -> torch.Tensor:
        """Put the values in their places, zeros elsewhere."""
        num_values = sum(sizes)
        if "bits" in packed:
            if packed["bits"].shape != (math.ceil(num_values / 8),):
                raise ValueError("there is not one bit a value")
            chosen = np.unpackbits(packed["bits"].numpy(), count=num_values)
            places = torch.from_numpy(np.flatnonzero(chosen))
        else:
            places = packed["places"].long()
        if len(places) != len(packed["values"]) or bool(((places < 0) | (places >= num_values)).any()):
            raise ValueError("values and places do not fit")
        values = torch.zeros(num_values, dtype=torch.float64)
        values[places] = packed["values"].double()
        return values


class Quantised:
    """Stochastic rounding to so many levels on either side of zero, one scale a tensor."""

    def __init__(self, num_levels: int) -> None:
        """Take the levels: 127 for a byte, at most 7 for half a byte."""
        self._num_levels = num_levels
        self._halves = num_levels <= 7

    def pack(self, values: torch.Tensor, sizes: Sequence[int], rng: np.random.Generator) -> Adapter:
        """Send scales and levels: floor(v / scale + u) with u uniform in [0, 1), whose mean is v / scale."""
        scales, levels = [], []
        for tensor in values.split(list(sizes)):
            largest = float(tensor.abs().max()) if len(tensor) else 0.0
            # One step up in float32, so that no level is beyond the last one and none has to be clipped.
            scale = np.nextafter(np.float32(largest / self._num_levels), np.float32(np.inf))
            scales.append(scale)
            drawn = torch.from_numpy(rng.random(len(tensor)))
            levels.append(torch.floor(tensor / float(scale) + drawn).to(torch.int8))
        packed = torch.cat(levels)
        if self._halves:
            nibbles = (packed + 8).to(torch.uint8)
            nibbles = torch.cat([nibbles, nibbles.new_zeros(len(nibbles) % 2)])
            packed = nibbles[0::2] * 16 + nibbles[1::2]
        return {"scales": torch.tensor(np.array(scales, dtype=np.float32)), "levels": packed}

    def unpack(self, packed: Adapter, sizes: Sequence[int]) -> torch.Tensor:
        """Multiply levels by their tensor's scale."""
        levels, num_values = packed["levels"], sum(sizes)
        num_sent = math.ceil(num_values / 2) if self._halves else num_values
        if levels.shape != (num_sent,) or packed["scales"].shape != (len(sizes),):
            raise ValueError("levels and scales do not fit")
        if self._halves:
            levels = torch.stack([levels // 16, levels % 16], dim=1).flatten()[:num_values].to(torch.int8) - 8
        scale_of_each = packed["scales"].double().repeat_interleave(torch.tensor(list(sizes)))
        return levels.double() * scale_of_each


CODECS: dict[str, Callable[[FederatedConfig], UploadCodec | None]] = {
    "none": lambda config: None,
    "topk": lambda config: TopK(config.topk_fraction),
    "int8": lambda config: Quantised(127),
    "int4": lambda config: Quantised(7),
}
"""Name -> codec of uploads; None leaves values as they are."""


class Upload:
    """What a client's update is sent as, at both ends."""

    def __init__(self, config: FederatedConfig) -> None:
        """Take the codec and the run seed from the config."""
        self._codec = CODECS[config.upload_codec](config)
        self._keeps_residual, self._seed = config.error_feedback, config.seed

    def encode(self, update: Parts, visit: Visit, residual: Adapter) -> bytes:
        """Return the message; with error feedback, leave what it lacks in `visit.memory`.

        Args:
            update: what the client rule returned.
            visit: the visit it was made in.
            residual: what the client did not send yet.
        """
        if self._codec is None or "adapter" not in update:
            return codec.encode(update)
        names, sizes = _layout(update["adapter"])
        start = visit.received["adapter"]
        change = _flat({name: update["adapter"][name].double() - start[name].double() for name in names})
        if self._keeps_residual:
            change += _flat({name: residual.get(name, torch.zeros_like(start[name])).double() for name in names})
        rng = stream_rng(self._seed, "codec", round_index=visit.round_index, client_id=visit.client_id)
        packed = self._codec.pack(change, sizes, rng)
        if self._keeps_residual:
            held_back = (change - self._codec.unpack(packed, sizes)).to(torch.float32)
            visit.memory[RESIDUAL] = residual | _apart(held_back, update["adapter"])
        others = {part: tensors for part, tensors in update.items() if part != "adapter"}
        return codec.encode(others | {_PACKED: packed})

    def decode(self, message: bytes, expected: Parts) -> Parts:
        """Return the update that a message stands for.

        Args:
            message: what was sent.
            expected: tensors of the names and shapes of the update; part "adapter" holds what the client was sent.

        Returns:
            The update; where what was sent does not fit, it lacks its adapter, which `messages/update_checks.py`
            reports.
        """
        parts = codec.decode(message)
        if self._codec is None or "adapter" not in expected:
            return parts
        start = expected["adapter"]
        try:
            change = self._codec.unpack(parts.pop(_PACKED), _layout(start)[1])
        except (KeyError, ValueError, RuntimeError, IndexError):
            return parts
        apart = _apart(change, start)
        return {"adapter": {n: (start[n].double() + apart[n]).to(start[n].dtype) for n in start}} | parts


def check_upload(config: FederatedConfig, strategy: Strategy, start: Parts, client_id: str) -> None:
    """Refuse to compress what has no change that could be compressed.

    Args:
        config: the settings of the federation.
        strategy: the method.
        start: the server's state before round 0.
        client_id: any client.

    Raises:
        ConfigError: if nothing is uploaded, clients begin from an adapter that was not sent, or topk_fraction leaves
            no value.
    """
    if config.upload_codec == "none":
        return
    if not strategy.traits.travels:
        raise ConfigError(f"upload_codec is given, but strategy {config.strategy!r} uploads nothing; leave it out")
    sent = strategy.broadcast(start, client_id, 0).get("adapter", {})
    wanted = strategy.expects(start, client_id, 0)["adapter"]
    if wanted.keys() - sent.keys():
        raise ConfigError(
            f"upload_codec is given, but clients of strategy {config.strategy!r} begin from an adapter that the "
            "server does not send, so their message is no change that could be packed; leave it out"
        )
    num_values = sum(tensor.numel() for tensor in wanted.values())
    if config.upload_codec == "topk" and TopK(config.topk_fraction).num_sent(num_values) == 0:
        raise ConfigError(
            f"topk_fraction is {config.topk_fraction} of {num_values} values, which is none; choose more"
        )


def _layout(adapter: Adapter) -> tuple[list[str], list[int]]:
    names = sorted(adapter)
    return names, [adapter[name].numel() for name in names]


def _flat(adapter: Adapter) -> torch.Tensor:
    return torch.cat([adapter[name].flatten() for name in sorted(adapter)])


def _apart(values: torch.Tensor, like: Adapter) -> Adapter:
    """Undo `_flat`."""
    names, sizes = _layout(like)
    return {n: each.reshape(like[n].shape).clone() for n, each in zip(names, values.split(sizes), strict=True)}
