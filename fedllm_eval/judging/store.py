"""Files that survive a stop: a folder of JSON files named by content, and a JSONL file written whole.

Files are put in place by `fedllm_data.in_place`, so a process killed at any moment leaves what was finished, and
several processes may share a folder.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import write_file
from fedllm_eval.texts import json_text

__all__ = ["ContentStore", "read_jsonl", "write_jsonl"]


class ContentStore:
    """A folder that keeps one JSON object under each key.

    >>> import tempfile
    >>> store = ContentStore(Path(tempfile.mkdtemp()) / "answers")
    >>> store.put("ab12", {"text": "yes"})
    >>> store.get("ab12"), store.get("cd34")
    ({'text': 'yes'}, None)
    """

    def __init__(self, folder: Path) -> None:
        """Keep objects under `folder`, which is made when the first one comes."""
        self.folder = Path(folder)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the object under a key; None if there is none, or if its file was damaged."""
        try:
            value = json.loads(self._path(key).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        return value if isinstance(value, dict) else None

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep an object; it is on the disk when this returns."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json_text(value, indent=1) + "\n")

    def _path(self, key: str) -> Path:
        # 256 folders keep a listing short when there are a hundred thousand.
        return self.folder / key[:2] / f"{key}.json"


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file, as they stand there: texts may hold lone surrogates.

    Raises:
        ConfigError: if it cannot be read, or a line is no JSON object.
    """
    lines = []
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Windows editors put a mark before the first line
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; name a JSONL file") from error
    # Not splitlines(): a separator such as U+2028 may stand unescaped inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {number} is no JSON: {error}; mend or drop the line") from error
        if not isinstance(value, dict):
            raise ConfigError(f"{path}, line {number} holds no JSON object; write one object per line")
        lines.append(value)
    return lines


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as a JSONL file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "".join(json_text(line) + "\n" for line in lines))
