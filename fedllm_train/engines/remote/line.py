"""A line: the pipe between the server and the sites, as the server sees it, whatever carries it.

One request goes to a site and one answer comes back, each a header and a body. A line may lose what is under way (a
relay that was killed); then an event with a problem comes for each, and whoever sent it sends it again. Imports no
torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

__all__ = ["Event", "Line", "Site"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One organisation's end of a line."""

    name: str
    fingerprint: str | None = None
    """Of the key that it proved to have; None where the line knows no keys."""
    is_online: bool = True


@dataclass(frozen=True, kw_only=True)
class Event:
    """What came of one request."""

    site: str
    key: str
    """Of the request."""
    header: Mapping[str, Any] | None = None
    """The answer's; None where there is none."""
    body: bytes | bytearray | memoryview = b""
    problem: str | None = None
    """Why there is no answer, in one line."""


class Line(Protocol):
    """Carries requests and answers; a context manager, since lines must be closed."""

    def __enter__(self) -> Self:
        """Open the line."""
        ...

    def __exit__(self, *error: object) -> None:
        """Close it; what is under way is given up."""
        ...

    def sites(self) -> Mapping[str, Site]:
        """Return the sites that are known now, by name."""
        ...

    def send(
        self, site: str, key: str, header: Mapping[str, Any], body: bytes | memoryview, *, seconds: float
    ) -> None:
        """Send a request; returns at once.

        Args:
            site: name of the site.
            key: names the request in the event that comes of it.
            header: JSON-ready.
            body: raw bytes.
            seconds: after which an answer is no longer waited for.
        """
        ...

    def receive(self, seconds: float) -> Event | None:
        """Return what came of some request; None where nothing came within the given seconds."""
        ...
