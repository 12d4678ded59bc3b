"""Files and folders that appear whole or not at all, also when the process is killed halfway."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedllm_eval.texts import json_text

__all__ = ["write_bytes", "write_folder", "write_json"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary sibling and a rename."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_bytes(path, (json_text(content, indent=2) + "\n").encode())


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a temporary sibling folder, then put it in the place of `path`."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        # A folder cannot be replaced in one step; whoever is killed between these two finds the old one beside it.
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old)
    else:
        os.replace(temporary, path)
