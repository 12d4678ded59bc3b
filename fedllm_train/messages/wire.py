"""The wire: what travels in either direction, packed at one end and unpacked at the other.

`uploads.py` has both ends of what comes up, with `feedback.py` and `estimates.py`; `downloads.py` the server's end of
what goes down, `download_parts.py` the client's. The codecs are in `packing.py` and the files it names. Only the part
"adapter" is packed; whatever else a method sends (control variates, a group, a shift of the base) travels whole.

Bytes in the ledger are the length of the messages (design rule 7). Random numbers come from the place of a message in
the run (`place.py`), which both ends know: its round and, on the way up, its client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fedllm_data.errors import DownloadError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages import codec as messages
from fedllm_train.messages import download_parts, feedback
from fedllm_train.messages.downloads import ChainedDownloads, LoneDownloads, WholeDownloads, base_of
from fedllm_train.messages.estimates import Estimates
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.messages.packing import Codec, codec_of
from fedllm_train.messages.place import Place
from fedllm_train.messages.uploads import Uploads
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.messages.wire_state import WireState

__all__ = ["ClientWire", "ServerWire"]

FirstDownload = Callable[[str], Adapter]
"""From a client's id to the adapter that the method would send it before round 0 (`Strategy.first_download`)."""


class ClientWire:
    """The clients' end, for one run; it keeps nothing."""

    def __init__(self, settings: WireSettings, *, seed: int, first: FirstDownload) -> None:
        """Take how messages are packed.

        Args:
            settings: the run's.
            seed: the run's.
            first: what every client knows before any download.
        """
        self._uploads = Uploads(codec_of(settings.wire), settings.error_feedback)
        self._down = codec_of(settings.download_wire)
        self._base, self._seed, self._first = settings.download_base, seed, first

    def take_hidden(self, memory: Parts) -> Parts:
        """Take what belongs to the wire out of a client's memory: client rules do not see it."""
        names = (*feedback.HIDDEN, *download_parts.HIDDEN)
        return {part: memory.pop(part) for part in names if part in memory}

    def unpack_down(self, task: Task, hidden: Parts) -> tuple[Parts, Parts]:
        """Return what the server sent, and what the client keeps of it.

        Args:
            task: has the message.
            hidden: what the client kept of the wire at its last visit that counts.

        Raises:
            DownloadError: if the message does not fit, or does not follow what the client has.
        """
        try:
            parts = messages.decode(task.message)
        except ValueError as error:
            raise DownloadError(f"its download cannot be read ({error})") from error
        if self._down is None:
            return parts, {}
        place = Place(self._seed, task.step, None, "down")
        base = base_of(self._base, self._first(task.client_id))
        keeps = self._base == "previous" and task.purpose == "train"
        return download_parts.read_download(parts, self._down, base, hidden, place, keeps=keeps)

    def pack_up(self, update: Parts, anchor: Adapter, hidden: Parts, task: Task) -> tuple[PackedMessage, Parts]:
        """Return the message that carries a client's update, and what the client keeps of it.

        Args:
            update: what the client rule returned.
            anchor: what the client's training started from.
            hidden: what the client kept of the wire at its last visit that counts.
            task: what was asked.
        """
        return self._uploads.pack(update, anchor, hidden, Place(self._seed, task.step, task.client_id))


class ServerWire:
    """The server's end, for one run."""

    def __init__(
        self, settings: WireSettings, *, seed: int, first: FirstDownload, state: WireState | None = None
    ) -> None:
        """Take how messages are packed, and go on from what is remembered.

        Args:
            settings: the run's.
            seed: the run's.
            first: what every client knows before any download.
            state: from a checkpoint; empty at the start.
        """
        state = WireState() if state is None else state
        self._seed = seed
        self._uploads = Uploads(codec_of(settings.wire), settings.error_feedback)
        self.estimates = Estimates(state)
        """What EF21's server takes for its clients' changes."""
        self._down = _downloads(codec_of(settings.download_wire), settings, seed, first, state)

    def pack_down(self, parts: Parts, client_id: str, step: int) -> PackedMessage:
        """Return the message that carries what the server sends to a client in a step.

        Raises:
            ConfigError: if broadcasts form a chain and the method sends clients different adapters.
        """
        return self._packs(parts).pack(parts, client_id, step)

    def as_read(self, parts: Parts, client_id: str, step: int) -> Parts:
        """Return what a client reads from the message of a step: the same object if nothing is packed."""
        return self._packs(parts).as_read(parts, client_id, step)

    def unpack_up(self, reply: Reply, expected: Shapes, anchor: Adapter) -> Parts:
        """Return the update that a reply's message stands for.

        Args:
            reply: has a message.
            expected: names and shapes of the update.
            anchor: what the client's training started from.

        Returns:
            The update; if what is packed does not fit, the update lacks its adapter, which
            `messages/update_checks.py` reports.

        Raises:
            ValueError: if it is no message at all.
        """
        assert reply.message is not None
        return self._uploads.unpack(reply.message, expected, anchor, self._place_of(reply))

    def correction(self, reply: Reply, like: Adapter) -> Adapter:
        """Return what a reply of EF21 adds to its client's estimate, in float64.

        Raises:
            ValueError: if the message cannot be read or does not fit.
        """
        assert reply.message is not None
        return self._uploads.correction(reply.message, like, self._place_of(reply))

    def noted(self, reply: Reply, problem: str | None) -> None:
        """Remember what a client has, now that its reply was used, refused or lost."""
        is_lost = reply.message is None
        self._down.noted(reply.client_id, reply.step, is_accepted=problem is None, is_lost=is_lost)

    def state(self) -> WireState:
        """Return what the next round goes on from."""
        state = self._down.state()
        tensors, weights = self.estimates.state()
        return replace(state, tensors={**state.tensors, **tensors}, weights=weights)

    def _packs(self, parts: Parts) -> WholeDownloads | LoneDownloads | ChainedDownloads:
        assert "adapter" in parts or isinstance(self._down, WholeDownloads), "checked before round 0"
        return self._down

    def _place_of(self, reply: Reply) -> Place:
        return Place(self._seed, reply.step, reply.client_id)


def _downloads(
    codec: Codec | None, settings: WireSettings, seed: int, first: FirstDownload, state: WireState
) -> WholeDownloads | LoneDownloads | ChainedDownloads:
    if codec is None:
        return WholeDownloads()
    if settings.download_base == "previous":
        return ChainedDownloads(codec, first, seed=seed, state=state)
    base = settings.download_base
    return LoneDownloads(codec, lambda client_id: base_of(base, first(client_id)), seed=seed)
