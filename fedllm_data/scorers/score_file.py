"""Scores that were computed elsewhere, as one Parquet file: what `report --scores` reads.

Columns: `row_id` (string, unique) and one float64 column a scorer, null or NaN where it has nothing to say; others are
left alone. The schema's metadata hold, under `fedllm-scorers`, a JSON list of `{name, revision, higher_is_better,
unit, meaning}` that names the scorers' columns and says what the numbers are. Rows of a dataset that are not in the
file have no score. `fedllm-eval quality` writes such a file; anything that writes Parquet can.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from fedllm_data.errors import ReportError
from fedllm_data.heterogeneity.quality import ScorerInfo
from fedllm_data.in_place import write_file

__all__ = ["SCORERS_KEY", "ScoreFile", "read_scores", "write_scores"]

SCORERS_KEY = b"fedllm-scorers"


@dataclass(frozen=True)
class ScoreFile:
    """Scores of rows, by row id."""

    infos: tuple[ScorerInfo, ...]
    table: pa.Table
    """`row_id` and one column a scorer."""

    def columns(self, row_ids: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return the columns `score:<name>` for these rows, NaN for a row that the file does not hold.

        >>> info = ScorerInfo("ifd", revision="1", unit="ratio")
        >>> scores = ScoreFile((info,), pa.table({"row_id": ["a", "b"], "ifd": [0.5, None]}))
        >>> scores.columns(["c", "a"])["score:ifd"].tolist()
        [nan, 0.5]
        """
        at = pc.index_in(pa.array(row_ids, pa.string()), value_set=self.table["row_id"].combine_chunks())
        return {
            f"score:{info.name}": pc.fill_null(self.table[info.name].take(at), float("nan")).to_numpy()
            for info in self.infos
        }


def write_scores(
    path: Path,
    row_ids: Sequence[str],
    scores: Mapping[str, ArrayLike],
    infos: Sequence[ScorerInfo],
    extra: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write a scores file.

    Args:
        path: the file to write.
        row_ids: N ids.
        scores: name of a scorer -> N numbers, NaN where undefined.
        infos: what the scorers are.
        extra: further columns of N values.

    >>> import tempfile
    >>> info = ScorerInfo("ifd", revision="1", unit="ratio")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_scores(Path(folder) / "scores.parquet", ["a"], {"ifd": [0.5]}, [info])
    ...     read_scores(Path(folder) / "scores.parquet").columns(["a"])["score:ifd"].tolist()
    [0.5]
    """
    columns: dict[str, pa.Array] = {"row_id": pa.array(list(row_ids), pa.string())}
    columns |= {info.name: pa.array(np.asarray(scores[info.name], np.float64)) for info in infos}
    columns |= {name: pa.array(np.asarray(values)) for name, values in (extra or {}).items()}
    metadata = {SCORERS_KEY: json.dumps([asdict(info) for info in infos], ensure_ascii=False).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns).replace_schema_metadata(metadata)
    write_file(path, lambda temporary: pq.write_table(table, temporary))


def read_scores(path: Path) -> ScoreFile:
    """Return the scores of a file.

    Raises:
        ReportError: if the file cannot be read, names no scorers, or lacks a column, or holds a row id twice.

    >>> read_scores(Path("no/such/file"))
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ReportError: no scores file no/such/file: check the path, or make it by `fedllm-eval quality`
    """
    if not path.is_file():
        raise ReportError(f"no scores file {path}: check the path, or make it by `fedllm-eval quality`")
    try:
        schema = pq.read_schema(path)
        documents = json.loads((schema.metadata or {})[SCORERS_KEY])
        infos = tuple(ScorerInfo(**document) for document in documents)
        table = pq.read_table(path, columns=["row_id", *(info.name for info in infos)])
        table = table.cast(pa.schema([("row_id", pa.string()), *((info.name, pa.float64()) for info in infos)]))
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ReportError(
            f"{path} is no scores file ({reason}): it needs row_id, a number column a scorer, and the metadata "
            f"{SCORERS_KEY.decode()}; make it by `fedllm-eval quality`"
        ) from error
    num_twice = table.num_rows - pc.count_distinct(table["row_id"]).as_py()
    if num_twice:
        raise ReportError(f"{path} holds {num_twice} row id(s) more than once: keep one score a row")
    return ScoreFile(infos, table)
