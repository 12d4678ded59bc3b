"""A dry run of any command: the same code runs as far as its checks go, and stops before it writes or computes.

Whoever puts files in place (`in_place.py`) stops by itself; where checks end long before the first write, a function
calls `end_of_checks`. So `--dry-run` refuses exactly what the command would refuse. Imports the standard library only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Rehearsed", "end_of_checks", "is_rehearsed", "rehearsing"]

_REHEARSED: ContextVar[bool] = ContextVar("rehearsed", default=False)


class Rehearsed(BaseException):
    """Ends a rehearsal; no error, so that nothing takes it for one."""


@contextmanager
def rehearsing(when: bool = True) -> Iterator[None]:
    """Let the block end where its checks end, before anything is written; the code behind the block goes on.

    Args:
        when: whether to do so; otherwise the block is run as ever.

    >>> with rehearsing():
    ...     end_of_checks()
    ...     print("not reached")
    """
    if not when:
        yield
        return
    token = _REHEARSED.set(True)
    try:
        yield
    except Rehearsed:
        pass
    finally:
        _REHEARSED.reset(token)


def end_of_checks() -> None:
    """Stop here in a rehearsal; do nothing otherwise.

    >>> end_of_checks()
    """
    if _REHEARSED.get():
        raise Rehearsed


def is_rehearsed() -> bool:
    """Return whether this is a rehearsal.

    >>> is_rehearsed()
    False
    """
    return _REHEARSED.get()
