"""The wire: what travels in either direction, packed at one end and unpacked at the other.

Symbols: theta_k what client k ends with, theta its anchor (`Strategy.anchor`: what its training started from, the same
at both ends), Q the upload codec (`messages/packing.py`). With a codec a client sends Q(theta_k - theta) instead of
theta_k, and the server sees theta + Q(theta_k - theta), rounded once to the adapter's precision; without one whole
values travel, not differences: a float32 difference would lose the last bits, and one client's FedAvg would no longer
be its training to the bit. Only the part "adapter" is packed; whatever else a method sends (control variates, a group)
travels whole, and so does everything the server sends.

Bytes in the ledger are the length of the messages (design rule 7). Random numbers come from the stream (seed, "codec",
round, client), on the client.
"""

from __future__ import annotations

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, flatten
from fedllm_train.lazy_torch import torch
from fedllm_train.messages import codec
from fedllm_train.messages.packing import CODECS, TopK, as_adapter, as_vector, layout
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.seeds import stream_rng
from fedllm_train.strategy import Traits

__all__ = ["RESIDUAL", "Wire", "check_wire_method", "check_wire_size"]

RESIDUAL = "upload residual"
"""The part of a client's memory with what it did not send yet; client rules do not see it."""
_PACKED = "packed"


class Wire:
    """Both ends of both directions, for one run."""

    def __init__(self, settings: WireSettings, *, seed: int) -> None:
        """Take the codec; `seed` is the run's."""
        self._codec = CODECS[settings.upload_codec](settings)
        self._keeps_residual, self._seed = settings.error_feedback, seed
        self._sent: Parts = {}
        self._message = b""

    def pack_down(self, parts: Parts) -> bytes:
        """Return the message that carries what the server sends; encoded once if all clients get the same tensors."""
        if not self._message or not _same(parts, self._sent):
            self._sent, self._message = parts, codec.encode(parts)
        return self._message

    def as_read(self, parts: Parts) -> Parts:
        """Return what a client reads from the server's message: the same values, since nothing is lost."""
        return parts

    def unpack_down(self, message: bytes) -> Parts:
        """Return what the server sent, on the client."""
        return codec.decode(message)

    def pack_up(
        self, update: Parts, anchor: Adapter, memory: Parts, residual: Adapter, *, client_id: str, round_index: int
    ) -> bytes:
        """Return the message that carries a client's update.

        Args:
            update: what the client rule returned.
            anchor: what the client's training started from.
            memory: what the client keeps; with error feedback, what the message lacks is added to it.
            residual: what the client has not sent yet.
            client_id: the client.
            round_index: the round.
        """
        if self._codec is None or "adapter" not in update:
            return codec.encode(update)
        names, sizes = layout(update["adapter"])
        change = as_vector({name: update["adapter"][name].double() - anchor[name].double() for name in names})
        if self._keeps_residual:
            change += as_vector({name: residual.get(name, torch.zeros_like(anchor[name])).double() for name in names})
        rng = stream_rng(self._seed, "codec", round_index=round_index, client_id=client_id)
        packed = self._codec.pack(change, sizes, rng)
        if self._keeps_residual:
            held_back = (change - self._codec.unpack(packed, sizes)).to(torch.float32)
            memory[RESIDUAL] = residual | as_adapter(held_back, update["adapter"])
        others = {part: tensors for part, tensors in update.items() if part != "adapter"}
        return codec.encode(others | {_PACKED: packed})

    def unpack_up(self, message: bytes, expected: Shapes, anchor: Adapter) -> Parts:
        """Return the update that a message stands for, on the server.

        Args:
            message: what was sent.
            expected: names and shapes of the update.
            anchor: what the client's training started from.

        Returns:
            The update; if the message does not fit, the update lacks its adapter, which
            `messages/update_checks.py` reports.
        """
        parts = codec.decode(message)
        if self._codec is None or "adapter" not in expected:
            return parts
        start = {name: anchor[name] for name in expected["adapter"]}
        try:
            change = self._codec.unpack(parts.pop(_PACKED), layout(start)[1])
        except (KeyError, ValueError, RuntimeError, IndexError):
            return parts
        apart = as_adapter(change, start)
        return {"adapter": {n: (start[n].double() + apart[n]).to(start[n].dtype) for n in start}} | parts


def check_wire_method(settings: WireSettings, traits: Traits, strategy: str) -> None:
    """Refuse to pack for a method that sends no change that could be packed.

    Args:
        settings: the wire's settings.
        traits: the method's traits.
        strategy: the method's name.

    Raises:
        ConfigError: naming the setting.
    """
    if settings.upload_codec != "none" and not traits.travels:
        raise ConfigError(f"upload_codec is given, but strategy {strategy!r} uploads nothing; leave it out")
    if not traits.sends_adapter:
        for name, default in (("upload_codec", "none"), ("max_update_norm", None)):
            if getattr(settings, name) != default:
                raise ConfigError(
                    f"{name} is given, but clients of strategy {strategy!r} send {traits.up}, no adapter; leave it out"
                )
    if settings.error_feedback and traits.draws_start:
        raise ConfigError(
            f"error_feedback is given, but clients of strategy {strategy!r} begin every round from another adapter, "
            "so what they did not send belongs to no later change; leave it out"
        )


def check_wire_size(settings: WireSettings, num_values: int) -> None:
    """Refuse a share of an adapter's values that rounds to no value at all.

    Raises:
        ConfigError: naming the setting.
    """
    if settings.upload_codec == "topk" and TopK(settings.topk_fraction).num_sent(num_values) == 0:
        raise ConfigError(
            f"topk_fraction is {settings.topk_fraction} of {num_values} values, which is none; choose more"
        )


def _same(a: Parts, b: Parts) -> bool:
    """Whether two messages hold the very same tensors."""
    flat_a, flat_b = flatten(a), flatten(b)
    return flat_a.keys() == flat_b.keys() and all(flat_a[name] is flat_b[name] for name in flat_a)
