"""Two small things about how a run writes: JSON files, and folders of the run that it may make a second time.

The writing itself is `fedllm_data/in_place.py`: whatever a run folder holds appears whole or not at all.
"""

from pathlib import Path
from typing import Any

from fedllm_data.in_place import write_file
from fedllm_eval.texts import json_text

__all__ = ["may_be_replaced", "write_json"]


def write_json(path: Path, content: Any, *, sync: bool = True) -> None:
    r"""Write a JSON file whole or not at all.

    Args:
        path: the file, in a folder that exists.
        content: JSON-ready; text in it may hold half a surrogate pair.
        sync: whether to wait until the disk has it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_json(Path(place, "a.json"), {"rounds": 3})
    ...     Path(place, "a.json").read_text()
    '{\n  "rounds": 3\n}\n'
    """
    write_file(path, json_text(content, indent=2) + "\n", sync=sync)


def may_be_replaced(folder: Path) -> None:
    """Allow `fill_folder` to replace whatever lies at a place, as its `check`: a run may make its own folders again.

    >>> may_be_replaced(Path("runs/sft/adapter"))
    """
