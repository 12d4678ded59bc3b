"""Finished parts of an evaluation on disk, so that a run that was stopped does none of them twice.

A part (one policy on one split, one suite, one audit) is a folder of its own under `.work/parts`: `part.json` with the
key it was made under, and its tables as Parquet. The key is everything that settles the result: weights, data,
settings. A folder appears whole or not at all. A part whose key differs is made again, and the caller learns why.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.in_place import fill_folder
from fedllm_eval.texts import json_text, text_bytes

__all__ = ["FinishedPart", "FinishedParts", "file_digest"]

VERSION = 2
"""Counted up when a change of code moves what a part holds."""


@dataclass(frozen=True)
class FinishedPart:
    """What was found out: a record that JSON can hold, NaN included, and tables by name."""

    record: dict[str, Any]
    tables: dict[str, pa.Table] = field(default_factory=dict)


@dataclass
class FinishedParts:
    """The parts of one results folder; without a folder nothing is kept."""

    folder: Path | None = None
    reused: list[str] = field(default_factory=list)
    """Names of the parts that were there already."""
    changed: list[str] = field(default_factory=list)
    """A sentence for each part that was made again, with what differed."""

    def get(
        self,
        name: str,
        key: Mapping[str, Any] | None,
        make: Callable[[], FinishedPart],
        *,
        complete: Callable[[FinishedPart], bool] = lambda part: True,
    ) -> FinishedPart:
        """Return a part, from disk where it was made under the same key, and keep it otherwise.

        Args:
            name: what is made, such as `scores base test`.
            key: everything that settles it; None for what cannot be recognised later, such as a model made in memory.
            make: makes it.
            complete: whether it is worth keeping; what lacks something is made again next time.

        >>> FinishedParts().get("answer", {"seed": 0}, lambda: FinishedPart({"is": 42})).record
        {'is': 42}
        """
        if self.folder is None or key is None:
            return make()
        wanted = json.loads(json.dumps({"version": VERSION, **key}, sort_keys=True, default=str))
        place = self.folder / _file_name(name)
        kept = _read(place)
        if kept is not None:
            if kept[0] == wanted:
                self.reused.append(name)
                return kept[1]
            self.changed.append(f"{name} was made with other settings and is made again: {_difference(*kept, wanted)}")
        part = make()
        if complete(part):
            _write(place, wanted, part)
        return part


def file_digest(path: Path) -> str:
    """Return a digest of a file, or of the names and contents of all files of a folder.

    >>> file_digest(Path("no/such/file"))
    'missing'
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return "missing"
    digest = hashlib.sha256()
    for inner in sorted(inner for inner in path.rglob("*") if inner.is_file()):
        digest.update(text_bytes(f"{inner.relative_to(path)}\0{file_digest(inner)}\n"))
    return digest.hexdigest()


def _read(place: Path) -> tuple[dict[str, Any], FinishedPart] | None:
    try:
        content = json.loads((place / "part.json").read_text(encoding="utf-8"))
        tables = {name: pq.read_table(place / f"{name}.parquet") for name in content["tables"]}
        return content["key"], FinishedPart(content["record"], tables)
    except (OSError, ValueError, KeyError, TypeError):
        # Not there, or broken by a full disk: made again.
        return None


def _write(place: Path, key: dict[str, Any], part: FinishedPart) -> None:
    with fill_folder(place, check=_ours) as folder:
        for name, table in part.tables.items():
            pq.write_table(table, folder / f"{name}.parquet")
        content = {"key": key, "record": part.record, "tables": list(part.tables)}
        (folder / "part.json").write_text(json_text(content), encoding="utf-8")


def _ours(place: Path) -> None:
    """Whatever lies under the name of a part was put there by an earlier run, and is replaced."""


def _file_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    return f"{plain}-{hashlib.sha256(text_bytes(name)).hexdigest()[:8]}"


def _difference(earlier: Mapping[str, Any], _: FinishedPart, wanted: Mapping[str, Any]) -> str:
    names = [name for name in {**earlier, **wanted} if earlier.get(name) != wanted.get(name)]
    return ", ".join(f"{name} {_short(earlier.get(name))} is now {_short(wanted.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
