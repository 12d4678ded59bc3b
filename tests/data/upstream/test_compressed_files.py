"""Compressed files hold the same rows, and a damaged archive is refused as a whole."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pytest

from fedllm_data.errors import SourceError
from tests.data.upstream.readers.damage import read

ROWS = [{"who": f"w{index}", "q": f"é{index}"} for index in range(2_000)]
CONTENT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


@pytest.mark.parametrize("ending", COMPRESS)
def test_every_compression_gives_the_same_rows(ending):
    assert [item.fields for item in read(COMPRESS[ending](CONTENT), f"rows.jsonl.{ending}")] == ROWS
    csv = "who;q\n" + "".join(f"{row['who']};{row['q']}\n" for row in ROWS)
    assert [item.fields for item in read(COMPRESS[ending](csv.encode("utf-16")), f"rows.csv.{ending.upper()}")] == ROWS


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_damaged_archive_is_refused(ending):
    archive = COMPRESS[ending](CONTENT)
    for damaged in (b"no archive", archive[: len(archive) // 2], archive[:-4]):
        with pytest.raises(SourceError, match="cannot be read"):
            read(damaged, f"rows.jsonl.{ending}")


def test_two_archives_in_one_file_are_read_on():
    for ending, compress in COMPRESS.items():
        assert len(read(compress(CONTENT) * 2, f"rows.jsonl.{ending}")) == 4_000
