"""Values that `datasets` stores as JSON come back as they were, wherever in a column they lie."""

import pyarrow.parquet as pq
import pytest

from fedllm_data.upstream.records import read_records

ROWS = [
    {"who": "a", "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "extra": {"x": 1}, "n": 1},
    {
        "who": "b",
        "prompt": [{"role": "user"}],
        "messages": [{"role": "user", "content": ["Hi"]}],
        "extra": {"x": "y"},
        "n": 2,
    },
]


def test_mixed_values_are_read_as_they_were_written(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS, on_mixed_types="use_json").to_parquet(tmp_path / "rows.parquet")
    assert "json" in str(pq.read_schema(tmp_path / "rows.parquet").field("prompt").type)
    assert [record.fields for record in read_records(tmp_path / "rows.parquet")] == ROWS
