"""Messages that wait lie on disk, not in memory: memory must not grow with the number of clients under way."""

from pathlib import Path

__all__ = ["NOTHING", "Shelf"]

NOTHING = -1
"""Stands for the number of a message where there is none."""


class Shelf:
    """Puts messages down and hands them out again, each once.

    >>> shelf = Shelf()
    >>> number = shelf.put(b"message")
    >>> shelf.pick_up(number), len(shelf)
    (b'message', 0)
    """

    def __init__(self, folder: Path | None = None, *, name: str = "shelf") -> None:
        """Begin with nothing.

        Args:
            folder: an existing folder for what waits; None keeps it in memory.
            name: begins the names of the files; shelves in one folder have names of their own.
        """
        self._folder, self._name = folder, name
        self._held: dict[int, bytes] = {}
        self._num_waiting: dict[int, int] = {}
        self._last: tuple[bytes, int] | None = None
        self._next = 0

    def __len__(self) -> int:
        """Return how many messages wait; one that several clients were sent counts once."""
        return len(self._num_waiting)

    def put(self, message: bytes) -> int:
        """Put a message down, and return the number by which it is picked up.

        The very same object put down again, as where all clients are sent one message, is not written again.
        """
        if self._last is not None and self._last[0] is message and self._last[1] in self._num_waiting:
            self._num_waiting[self._last[1]] += 1
            return self._last[1]
        number, self._next = self._next, self._next + 1
        if self._folder is None:
            self._held[number] = message
        else:
            self._path(number).write_bytes(message)
        self._num_waiting[number] = 1
        self._last = (message, number)
        return number

    def pick_up(self, number: int) -> bytes:
        """Return a message; the last to ask for it takes it away."""
        message = self._held[number] if self._folder is None else self._path(number).read_bytes()
        self.drop(number)
        return message

    def drop(self, number: int) -> None:
        """Take a message away that nobody will pick up."""
        self._num_waiting[number] -= 1
        if self._num_waiting[number]:
            return
        del self._num_waiting[number]
        if self._folder is None:
            del self._held[number]
        else:
            self._path(number).unlink()

    def _path(self, number: int) -> Path:
        assert self._folder is not None, "messages in memory have no file"
        return self._folder / f"{self._name}-{number}.message"
