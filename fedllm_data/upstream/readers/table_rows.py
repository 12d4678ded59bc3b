"""The rows of Parquet and Arrow files (.arrow, .feather), in batches, with values as JSON has them.

A value that cannot be read, such as text that is no UTF-8, costs its row. What makes pages or buffers unreadable is
an error of the whole file; so is a file that gives another number of rows than it says it holds.
"""

from collections.abc import Callable, Iterator
from typing import Any

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.compressed_files import is_damage
from fedllm_data.upstream.plain_values import plain_value
from fedllm_data.upstream.raw import RawFile, Record
from fedllm_data.upstream.readers.column_names import column_names

__all__ = ["read_arrow", "read_parquet"]

_BATCH_ROWS = 1_000


def read_parquet(raw: RawFile) -> Iterator[Record | Rejected]:
    """Yield the rows of a Parquet file."""
    import pyarrow.parquet as pq

    def batches() -> Iterator[Any]:
        file = pq.ParquetFile(raw.stream, page_checksum_verification=True)
        names = column_names(file.schema_arrow.names, raw.place)
        num_rows = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            num_rows += batch.num_rows
            yield batch.rename_columns(names)
        if num_rows != file.metadata.num_rows:
            raise SourceError(f"{raw.place} holds {num_rows} rows and says {file.metadata.num_rows}; fetch it again")

    yield from _rows(raw, "Parquet", batches)


def read_arrow(raw: RawFile) -> Iterator[Record | Rejected]:
    """Yield the rows of an Arrow file: the IPC file format, which Feather is, or the stream that `datasets` writes."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        try:
            reader = pa.ipc.open_file(raw.stream)
            found = (reader.get_batch(index) for index in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            raw.stream.seek(0)
            reader = pa.ipc.open_stream(raw.stream)
            found = iter(reader)
        names = column_names(reader.schema.names, raw.place)
        for batch in found:
            batch.validate(full=True)  # unlike Parquet's pages, the buffers are taken as they lie in the file
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield batch.slice(start, _BATCH_ROWS).rename_columns(names)

    yield from _rows(raw, "Arrow", batches)


def _rows(raw: RawFile, kind: str, batches: Callable[[], Iterator[Any]]) -> Iterator[Record | Rejected]:
    import pyarrow as pa

    number = 0
    try:
        for batch in batches():
            odd = [field.name for field in batch.schema if not _is_plain(field.type)]
            for fields in _fields(batch):
                number += 1
                if isinstance(fields, str):
                    yield Rejected(raw.name, number, fields)
                    continue
                for name in odd:
                    fields[name] = plain_value(fields[name])
                yield Record(fields, raw.name, number)
    except (pa.ArrowException, ValueError, KeyError, TypeError, NotImplementedError) as error:
        if isinstance(error, SourceError):
            raise
        raise _unreadable(raw, kind, error) from error
    except OSError as error:
        if not is_damage(error):
            raise
        raise _unreadable(raw, kind, error) from error


def _unreadable(raw: RawFile, kind: str, error: Exception) -> SourceError:
    first = (str(error).splitlines() or [""])[0]
    return SourceError(f"{raw.place} is not a readable {kind} file: {first[:150]}; fetch it again")


def _fields(batch: Any) -> list[dict[str, Any] | str]:
    """The rows of a batch as dicts; or why one of them cannot be read."""
    from fedllm_data.upstream.arrow_values import rows_of_batch

    try:
        return list(rows_of_batch(batch))
    except ValueError:
        pass
    rows: list[dict[str, Any] | str] = []
    for index in range(batch.num_rows):
        try:
            rows += rows_of_batch(batch.slice(index, 1))
        except ValueError as error:
            rows.append(f"holds a value that cannot be read: {str(error)[:100]}")
    return rows


def _is_plain(kind: Any) -> bool:
    """Whether the values of an Arrow type are as JSON has them."""
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(kind.field(index).type) for index in range(kind.num_fields))
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    number = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    return bool(text or number or types.is_boolean(kind) or types.is_null(kind))
