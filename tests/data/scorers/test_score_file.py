"""What a scores file must hold."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.errors import ReportError
from fedllm_data.heterogeneity.quality import ScorerInfo
from fedllm_data.scorers.score_file import SCORERS_KEY, read_scores, write_scores

REWARD = ScorerInfo("reward", revision="org/model@1a2b3c", unit="logit", higher_is_better=False)


def _write(path, columns, infos):
    pq.write_table(pa.table(columns).replace_schema_metadata({SCORERS_KEY: json.dumps(infos)}), path)
    return path


def test_a_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "new" / "scores.parquet"
    write_scores(path, ["a", "b", "c"], {"reward": [1.0, np.nan, -2.5]}, [REWARD], {"num_tokens": [3, 4, 5]})
    scores = read_scores(path)
    assert scores.infos == (REWARD,)
    np.testing.assert_array_equal(scores.columns(["c", "b", "x", "a"])["score:reward"], [-2.5, np.nan, np.nan, 1.0])
    assert pq.read_table(path)["num_tokens"].to_pylist() == [3, 4, 5]
    assert scores.columns([])["score:reward"].shape == (0,)


def test_whole_numbers_and_nulls_are_scores(tmp_path):
    infos = [{"name": "stars", "revision": "1", "unit": "stars", "higher_is_better": True}]
    path = _write(tmp_path / "s.parquet", {"row_id": ["a", "b"], "stars": pa.array([4, None], pa.int32())}, infos)
    np.testing.assert_array_equal(read_scores(path).columns(["a", "b"])["score:stars"], [4.0, np.nan])


@pytest.mark.parametrize(
    ("columns", "infos", "message"),
    [
        ({"row_id": ["a"], "x": [1.0]}, [{"name": "y", "revision": "1", "unit": "u"}], "is no scores file"),
        ({"row_id": ["a"], "x": ["good"]}, [{"name": "x", "revision": "1", "unit": "u"}], "is no scores file"),
        ({"row_id": ["a"], "x": [1.0]}, [{"name": "x"}], "is no scores file"),
        ({"row_id": ["a", "a"], "x": [1.0, 2.0]}, [{"name": "x", "revision": "1", "unit": "u"}], "1 row id"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path, columns, infos, message):
    with pytest.raises(ReportError, match=message) as caught:
        read_scores(_write(tmp_path / "s.parquet", columns, infos))
    assert "\n" not in str(caught.value)


def test_a_table_without_the_metadata_is_refused(tmp_path):
    pq.write_table(pa.table({"row_id": ["a"], "x": [1.0]}), tmp_path / "s.parquet")
    with pytest.raises(ReportError, match="fedllm-scorers"):
        read_scores(tmp_path / "s.parquet")
    (tmp_path / "t.parquet").write_text("no parquet")
    with pytest.raises(ReportError, match="is no scores file"):
        read_scores(tmp_path / "t.parquet")
