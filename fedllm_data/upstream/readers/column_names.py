"""The names of a file's columns: each once, so that no column hides another one."""

from collections.abc import Sequence

from fedllm_data.errors import SourceError

__all__ = ["column_names"]


def column_names(header: Sequence[str], place: str) -> list[str]:
    """Return the names; of several columns without one, as spreadsheets leave them, each is named by its position.

    Args:
        header: the names as the file has them.
        place: what errors call the file.

    Raises:
        SourceError: if a name occurs twice.

    >>> column_names(["who", "", ""], "rows.csv")
    ['who', 'unnamed 2', 'unnamed 3']
    """
    names = list(header)
    if names.count("") > 1:
        names = [name or f"unnamed {position}" for position, name in enumerate(names, start=1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"{place} names the column {twice[:60]!r} twice in its header; rename one")
    return names
