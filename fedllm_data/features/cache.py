"""What was computed of a batch of rows, kept in a folder: a second report of the same rows embeds and scores nothing.

A batch is a Parquet file under the digest of all that its columns depend on: the rows themselves, the codebook, name
and revision of every scorer that is a function, and the version of `features.rows`. So a changed row, model or
setting is another file, and the cache needs no list and no lock. It holds embeddings, scores, token counts, keyed
hashes, and with a parser verbs and objects; no other text. Files are never removed: the folder may be, at any time.

The folder is `features` in `$FEDLLM_CACHE`, else in `fedllm-commons` of the user's cache folder (`$XDG_CACHE_HOME`, or
`~/.cache`), readable for its owner alone. Where that cannot be written, nothing is kept; a folder that was asked for
must be writable. `FEDLLM_CACHE=off` keeps nothing.
"""

import json
import logging
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import write_file

__all__ = ["FeatureCache", "content_digest", "default_cache"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureCache:
    """A folder of computed columns."""

    folder: Path
    is_required: bool = True
    """Whether a folder that cannot be written is an error."""

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the columns that `write` was given under this key, or None."""
        path = self._path(key)
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException):
            return None
        return {name: _from_arrow(table[name].combine_chunks()) for name in table.column_names}

    def write(self, key: str, columns: dict[str, Any]) -> None:
        """Keep some columns.

        Args:
            key: see `content_digest`.
            columns: lists of texts or None, and arrays of one or two dimensions, one entry a row.

        Raises:
            ConfigError: if the folder was asked for and cannot be written.

        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as place:
        ...     cache = FeatureCache(Path(place))
        ...     cache.write("ab", {"half": np.array([0, 1]), "verb": ["write", None]})
        ...     cache.read("ab"), cache.read("cd")
        ({'half': array([0, 1]), 'verb': ['write', None]}, None)
        """
        path = self._path(key)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            table = pa.table({name: _to_arrow(column) for name, column in columns.items()})
            write_file(path, lambda temporary: pq.write_table(table, temporary))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            if self.is_required:
                raise ConfigError(f"cache {self.folder} cannot be written: {reason}; name another folder") from error
            _LOG.info("features are not kept: %s cannot be written (%s)", self.folder, reason)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.parquet"


def default_cache() -> FeatureCache | None:
    """Return the user's cache, or None if it is switched off.

    >>> cache = default_cache()
    >>> cache is None or cache.folder.name == "features"
    True
    """
    named = os.environ.get("FEDLLM_CACHE")
    if named == "off":
        return None
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "fedllm-commons")
    return FeatureCache(base.expanduser() / "features", is_required=bool(named))


def content_digest(rows: pa.Table, *facts: Any) -> str:
    """Return the digest of the content of some rows and of plain facts.

    Args:
        rows: any table.
        facts: JSON values.

    >>> rows = pa.table({"a": ["x", "y", "z"]})
    >>> content_digest(rows.slice(1), 1) == content_digest(pa.table({"a": ["y", "z"]}), 1)
    True
    """
    digest = blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=20)
    table = rows.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(_Sink(digest), table.schema) as stream:
        stream.write_table(table)
    return digest.hexdigest()


class _Sink:
    """A file that goes into a digest."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, content: Any) -> int:
        self._digest.update(content)
        return len(content)

    def flush(self) -> None:
        """Do nothing: a digest has no buffer."""

    def close(self) -> None:
        """Do nothing: the digest is read afterwards."""


def _to_arrow(column: Any) -> pa.Array:
    if not isinstance(column, np.ndarray):
        return pa.array(column, pa.string())
    if column.ndim == 1:
        return pa.array(column)
    return pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1])


def _from_arrow(column: pa.Array) -> Any:
    if pa.types.is_string(column.type):
        return column.to_pylist()
    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    return column.to_numpy(zero_copy_only=False)
