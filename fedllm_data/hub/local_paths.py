"""No path of the machine that made a folder leaves with it: places are named by their last part alone.

`./base` is what is left of `/home/ann/models/base`: it can be read as a place beside the reader, and never as a
repo of that name on the Hub.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["hide_paths", "is_local_path", "local_paths"]

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def is_local_path(text: str) -> bool:
    """Return whether a text names a place on a machine: an absolute or relative path, or a folder that exists here.

    >>> is_local_path("/home/ann/models/base"), is_local_path("../runs/a"), is_local_path("org/no-such-folder-here")
    (True, True, False)
    """
    if "\n" in text or len(text) > 4096 or "://" in text:
        return False
    if text.startswith(("./", "../", "~/")) or _WINDOWS.match(text):
        return True
    if text.startswith("/"):
        return len(Path(text).parts) > 1
    return "/" in text and Path(text).exists()


def local_paths(value: Any) -> set[str]:
    """Return every text inside nested mappings and lists that names a place on a machine.

    >>> sorted(local_paths({"model": {"name": "/models/base"}, "sizes": [1, "org/no-such-folder-here"]}))
    ['/models/base']
    """
    if isinstance(value, str):
        return {value} if is_local_path(value) else set()
    if isinstance(value, Mapping):
        return set().union(*(local_paths(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(local_paths(item) for item in value))
    return set()


def hide_paths(text: str, paths: Iterable[str]) -> str:
    """Return a text in which every one of the paths is `./` and its last part.

    >>> hide_paths('{"name": "/models/base", "out": "/models/base/x"}', ["/models/base"])
    '{"name": "./base", "out": "./base/x"}'
    """
    # The longest first: a folder's path is the beginning of those inside it.
    for path in sorted(paths, key=len, reverse=True):
        parts = [part for part in re.split(r"[\\/]", path) if part not in ("", ".", "..", "~")]
        text = text.replace(path, f"./{parts[-1]}" if parts else ".")
    return text
