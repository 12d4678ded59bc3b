"""How what travelled was packed: bits a value, and how far off it was, in every round: a bad codec shows at once.

A warning is given once a run for each direction in which what was decoded is farther from what was meant than sending
nothing would be (a relative error above 1), unless the codec is unbiased: then errors of many clients average out.
"""

import logging
from collections.abc import Iterable

from fedllm_eval.policy.run_records import WireRound
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.messages.wire_names import parse_wire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.monitoring.observer import Observer, Record, Step

__all__ = ["WireLog"]

logger = logging.getLogger(__name__)


class WireLog(Observer):
    """Collects what is known of a round's messages."""

    def __init__(self, settings: WireSettings, *, travels: bool) -> None:
        """Begin with nothing.

        Args:
            settings: how messages are packed.
            travels: whether messages go over a network; if not, nothing is recorded of them.
        """
        self._settings, self._travels = settings, travels
        self._down: list[tuple[float | None, float | None]] = []
        self._up: list[tuple[float | None, float | None]] = []
        self._warned: set[str] = set()

    def sent(self, task: Task, packed: PackedMessage) -> None:
        """Note a download."""
        if self._travels:
            self._down.append((packed.bits_per_value, packed.relative_error))

    def saw(self, reply: Reply, problem: str | None) -> None:
        """Note an upload that was used; what the client says of it is for the record only."""
        if self._travels and problem is None:
            self._up.append((reply.facts.get("bits_per_value"), reply.facts.get("relative_error")))

    def stepped(self, step: Step) -> Record:
        """Return the means over the round's messages, and begin again."""
        (down_bits, down_error), (bits, error) = (
            [_mean(values) for values in zip(*seen, strict=True)] if seen else [None, None]
            for seen in (self._down, self._up)
        )
        self._down, self._up = [], []
        record: WireRound = {
            "bits_per_value": bits,
            "relative_error": error,
            "download_bits_per_value": down_bits,
            "download_relative_error": down_error,
        }
        self._warn("wire", self._settings.wire, error)
        self._warn("download_wire", self._settings.download_wire, down_error)
        return {"wire": record}

    def _warn(self, name: str, text: str, error: float | None) -> None:
        if error is None or error <= 1 or name in self._warned:
            return
        stages = parse_wire(text, name)
        if stages is None or stages.is_unbiased:
            return
        self._warned.add(name)
        logger.warning(
            "%s %r decodes to values that are farther from the true ones than zeros would be (relative error %.2f), "
            "and its errors do not average out; choose another",
            name,
            text,
            error,
        )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
