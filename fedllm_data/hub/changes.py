"""What a new version of a folder changes on the Hub: files, and the numbers of build.json that moved.

Standard library only; `hub/push.py` finds out which files differ, and puts the lines into the commit's description.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Changes", "Moved", "find_moves"]

_MOST_FILES = 10
_MOST_CHARS = 120


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A fact of build.json that differs from the published version."""

    what: str
    before: Any
    """None if the published version does not state it."""
    after: Any
    """None if the new version does not state it."""

    def line(self) -> str:
        """Return it in words.

        >>> Moved(what="rows of train", before=1200, after=1310).line()
        'rows of train: 1,200 -> 1,310'
        """
        return f"{self.what}: {_words(self.before)} -> {_words(self.after)}"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a push changed."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Paths in the repo, sorted."""
    moved: tuple[Moved, ...] = ()
    """Numbers of build.json; none for a first version."""

    def __bool__(self) -> bool:
        """Return whether any file differs."""
        return bool(self.added or self.removed or self.changed)

    def lines(self) -> list[str]:
        """Return them in words, numbers first: for the commit's description and the terminal.

        >>> Changes(added=("a",), changed=("b", "c"), moved=(Moved(what="seed", before=0, after=1),)).lines()
        ['seed: 0 -> 1', '1 file added: a', '2 files changed: b, c']
        """
        lines = [moved.line() for moved in self.moved]
        for verb in ("added", "removed", "changed"):
            paths: tuple[str, ...] = getattr(self, verb)
            if paths:
                more = f" and {len(paths) - _MOST_FILES} more" if len(paths) > _MOST_FILES else ""
                noun = "file" if len(paths) == 1 else "files"
                lines.append(f"{len(paths):,} {noun} {verb}: {', '.join(paths[:_MOST_FILES])}{more}")
        return lines


def find_moves(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> tuple[Moved, ...]:
    """Return which numbers and settings of build.json differ: rows and clients, what was removed, how it was made.

    Args:
        before: the published build.json; None if there is none.
        after: the one to publish; None if there is none.

    >>> old = {"splits": {"train": {"num_rows": 9, "num_clients": 3}}, "counts": {"num_valid": 9}, "seed": 0}
    >>> new = {"splits": {"train": {"num_rows": 8, "num_clients": 3}}, "counts": {"num_valid": 9}, "seed": 0}
    >>> [moved.line() for moved in find_moves(old, new)]
    ['rows of train: 9 -> 8']
    """
    if before is None or after is None:
        return ()
    old, new = dict(_numbers(before)), dict(_numbers(after))
    return tuple(
        Moved(what=what, before=old.get(what), after=new.get(what))
        for what in dict.fromkeys([*new, *old])
        if old.get(what) != new.get(what)
    )


def _numbers(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name every fact worth telling; a file that is not as `build` writes it tells what it can."""
    for split, counts in _mapping(facts.get("splits")).items():
        for name, value in _mapping(counts).items():
            if name in ("num_rows", "num_clients"):
                yield f"{name.removeprefix('num_')} of {split}", value
    for name, value in _mapping(facts.get("counts")).items():
        yield name.removeprefix("num_").replace("_", " "), value
    for kind in ("filters", "options", "versions"):
        for name, value in _mapping(facts.get(kind)).items():
            yield f"{kind.removesuffix('s')} {name}", value
    for name in ("upstream", "revision", "licence", "seed"):
        if name in facts:
            yield name, facts[name]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = " ".join(str(value).split())
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
