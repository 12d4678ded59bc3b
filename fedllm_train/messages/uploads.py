"""What comes up, at both ends: a client packs the change of its adapter, the server adds it to what the client read.

Symbols: theta_k what client k ends with, theta its anchor (`Strategy.anchor`: what its training started from, the same
at both ends), Q the upload codec. With a codec a client sends Q(theta_k - theta) instead of theta_k, and the server
sees theta + Q(theta_k - theta), rounded once to the adapter's precision; without one whole values travel, not
differences: a float32 difference would lose the last bits, and one client's FedAvg would no longer be its training to
the bit. Only the part "adapter" is packed; whatever else a method sends (control variates, a group) travels whole.

A message from a client may hold anything: one that does not fit is told from one that does, and raises nothing.
"""

from __future__ import annotations

from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, flatten
from fedllm_train.messages import codec as messages
from fedllm_train.messages.download_parts import change_between, moved_by
from fedllm_train.messages.feedback import HIDDEN, Feedback, kept_after, to_pack
from fedllm_train.messages.packed_message import PackedMessage, relative_error
from fedllm_train.messages.packing import Codec, as_adapter, layout
from fedllm_train.messages.place import Place

__all__ = ["Uploads"]

_PACKED = "packed"


class Uploads:
    """Both ends of what comes up."""

    def __init__(self, codec: Codec | None, feedback: Feedback) -> None:
        """Take the codec, None for whole values, and the kind of error feedback."""
        self._codec, self._feedback = codec, feedback

    def pack(self, update: Parts, anchor: Adapter, hidden: Parts, place: Place) -> tuple[PackedMessage, Parts]:
        """Return the message that carries a client's update, and what the client keeps of the wire.

        Args:
            update: what the client rule returned; its values are finite.
            anchor: what the client's training started from.
            hidden: what the client kept of the wire at its last visit that counts.
            place: the message's place.
        """
        if self._codec is None or "adapter" not in update:
            return PackedMessage.whole(update), {part: hidden[part] for part in HIDDEN if part in hidden}
        like = update["adapter"]
        sizes = layout(like)[1]
        change = change_between(like, anchor)
        values = to_pack(self._feedback, change, hidden, like)
        packed = self._codec.pack(values, sizes, place)
        decoded = self._codec.unpack(packed, sizes, place)
        kept = kept_after(self._feedback, values, decoded, hidden, like)
        # What EF21's server takes for the change is off by as much as the correction is.
        true = change if self._feedback == "ef21" else values
        error = relative_error(decoded - values + true, true)
        others = {part: tensors for part, tensors in update.items() if part != "adapter"}
        message = messages.encode(others | {_PACKED: packed})
        num_values = sum(tensor.numel() for tensor in flatten(update).values())
        return PackedMessage(message=message, num_values=num_values, relative_error=error), kept

    def unpack(self, message: bytes, expected: Shapes, anchor: Adapter, place: Place) -> Parts:
        """Return the update that a message stands for.

        Args:
            message: what was sent.
            expected: names and shapes of the update.
            anchor: what the client's training started from.
            place: the message's place.

        Returns:
            The update; if what is packed does not fit, the update lacks its adapter, which
            `messages/update_checks.py` reports.

        Raises:
            ValueError: if it is no message at all.
        """
        parts = messages.decode(message)
        if self._codec is None or "adapter" not in expected:
            return parts
        start = {name: anchor[name] for name in expected["adapter"]}
        packed = parts.pop(_PACKED, None)
        parts.pop("adapter", None)  # a client that sends whole values where changes are agreed on is not understood
        if packed is None:
            return parts
        try:
            return {"adapter": moved_by(self._codec.unpack(packed, layout(start)[1], place), start)} | parts
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
            return parts

    def correction(self, message: bytes, like: Adapter, place: Place) -> Adapter:
        """Return what a message of EF21 adds to the client's estimate, in float64.

        Args:
            message: what was sent.
            like: names and shapes of what is sent.
            place: the message's place.

        Raises:
            ValueError: if the message cannot be read or does not fit.
        """
        assert self._codec is not None, "EF21 goes with a codec"
        parts = messages.decode(message)
        try:
            return as_adapter(self._codec.unpack(parts[_PACKED], layout(like)[1], place), like)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError("what is packed does not fit") from error
