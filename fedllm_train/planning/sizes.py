"""Clients of which only their number of rows is known: a plan needs no more of them.

`N:ROWS` stands for N clients with that many rows each; a file is a CSV, Parquet or JSON table with the columns
client_id and num_rows, such as the clients table of a client repo (whose clients of other splits are left out).
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.errors import ConfigError
from fedllm_data.roster import Roster

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["roster_of_sizes"]

_MANY = re.compile(r"([\d_,]+):([\d_,]+)")
_MOST = 10_000_000


def roster_of_sizes(text: str, task: Any) -> Roster:
    """Return clients of known sizes.

    Args:
        text: `N:ROWS`, or a file.
        task: what their rows are taken for, "sft" or "preference".

    Raises:
        ConfigError: if it is neither, or the table lacks a column.

    >>> roster_of_sizes("3:20", "sft").sizes
    {'client-1': 20, 'client-2': 20, 'client-3': 20}
    """
    import pyarrow as pa

    if (found := _MANY.fullmatch(text)) is not None:
        number, rows = (int(each.replace(",", "").replace("_", "")) for each in found.groups())
        if not (1 <= number <= _MOST and rows >= 1):
            raise ConfigError(
                f"--sizes is {text!r}; give 1 to {_MOST:,} clients with at least one row, such as 100:50"
            )
        width = len(str(number))
        sizes = {f"client-{index:0{width}d}": rows for index in range(1, number + 1)}
        table = pa.table({"client_id": list(sizes), "num_rows": list(sizes.values())})
        return Roster(name=text, split="train", task=task, revision=None, sizes=sizes, load_table=lambda: table)
    path = Path(text)
    if not path.is_file():
        raise ConfigError(f"--sizes is {text!r}, which is no file here and not N:ROWS; give one, such as 100:50")
    table = _table(path)
    for name in ("client_id", "num_rows"):
        if name not in table.column_names:
            raise ConfigError(
                f"--sizes {text} has no column {name} (it has {', '.join(table.column_names)}); call them "
                "client_id and num_rows"
            )
    records = table.select(["client_id", "num_rows"]).to_pylist()
    if "split" in table.column_names:
        records = [each for each, split in zip(records, table["split"].to_pylist(), strict=True) if split == "train"]
    sizes = {}
    for record in records:
        name, rows = str(record["client_id"]), record["num_rows"]
        if not isinstance(rows, int) or rows < 1 or name in sizes:
            odd = "stands twice" if name in sizes else f"has num_rows {rows!r}"
            raise ConfigError(f"--sizes {text}: client {name!r} {odd}; give each client once, with 1 row or more")
        sizes[name] = rows
    if not sizes:
        raise ConfigError(f"--sizes {text} names no training client; give one a line")
    return Roster(
        name=text,
        split="train",
        task=task,
        revision=None,
        sizes=dict(sorted(sizes.items())),
        load_table=lambda: _only(table, sizes),
    )


def _table(path: Path) -> "pa.Table":
    import pyarrow as pa

    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path)
        if path.suffix == ".json":
            return pa.Table.from_pylist(json.loads(path.read_text("utf-8")))
        from pyarrow import csv

        return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types={"client_id": pa.string()}))
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--sizes {path} cannot be read ({str(error).splitlines()[0][:160]}); give a CSV, Parquet or JSON table"
        ) from error


def _only(table: "pa.Table", sizes: dict[str, int]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pc.cast(table["client_id"], pa.string())
    kept = table.set_column(table.column_names.index("client_id"), "client_id", ids)
    return kept.filter(pc.is_in(ids, value_set=pa.array(list(sizes), pa.string()))).sort_by("client_id")
