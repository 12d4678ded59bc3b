"""A results folder says everything needed to trust a number, appears whole, and reads back equal."""

import json

import pyarrow as pa
import pytest

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.plain_json import without_nan
from fedllm_eval.reporting.results_folder import FILES, write_results
from fedllm_eval.results import read_results
from fedllm_eval.running.assemble import make_results
from fedllm_eval.running.folders import replace_folder
from fedllm_eval.scores import ClientScores


def client_scores(split="test", losses=(1.0, 2.0, 4.0), **overrides):
    num_clients = len(losses)
    table = pa.table(
        {
            "client_id": [f"c{i}" for i in range(num_clients)],
            "split": [split] * num_clients,
            "num_rows": pa.array([2] * num_clients, pa.int64()),
            "num_tokens": pa.array([10] * num_clients, pa.int64()),
            "num_skipped": pa.array([0] * num_clients, pa.int64()),
            "num_truncated": pa.array([1] * num_clients, pa.int64()),
            "heldout_loss": pa.array(losses, pa.float64()),
        }
    )
    fields = {
        "task": "sft",
        "split": split,
        "table": table,
        "policy": {"name": "tiny", "base": "tiny", "base_revision": None, "adapter_sha256": None, "revision": None},
        "reference": None,
        "dataset": {"name": "memory", "revision": "abc", "num_clients": 9, "num_rows": 99},
        "settings": {"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0},
        "notes": ("a note",),
    }
    return ClientScores(**(fields | overrides))


def test_no_score_without_interval_and_counts():
    summary = make_results([client_scores(), client_scores("unseen")]).summary
    assert list(summary["splits"]) == ["test", "unseen"]
    part = summary["splits"]["test"]
    assert (part["num_clients"], part["num_clients_in_split"], part["num_rows"], part["num_truncated"]) == (3, 9, 6, 3)
    score = part["scores"]["heldout_loss"]
    assert score["mean"] == pytest.approx(7 / 3)
    # Scores 1, 2, 4: s / sqrt(3) = .88192, times t(.975, 2) = 4.30265 is 3.79459: below 0, where no loss is.
    assert (score["ci_low"], score["ci_high"]) == pytest.approx((0.0, 7 / 3 + 3.79459), abs=1e-4)
    assert (score["num_clients"], score["num_items"], score["unit"]) == (3, 30, "nats per token")
    assert score["worst_decile"] == 4.0
    assert score["higher_is_better"] is False
    assert "numpy" in summary["versions"]


def test_results_read_back_as_written(tmp_path):
    results = make_results([client_scores()])
    write_results(results, tmp_path / "out")
    again = read_results(tmp_path / "out")
    assert again.summary == results.summary
    assert again.per_client.equals(results.per_client)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_equal_scores_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_results(make_results([client_scores()]), tmp_path / name)
    for name in ("results.json", "per_client.parquet", "results.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_earlier_results_are_replaced_and_anything_else_is_left_alone(tmp_path):
    write_results(make_results([client_scores()]), tmp_path / "out")
    write_results(make_results([client_scores(losses=(5.0, 6.0))]), tmp_path / "out")
    assert read_results(tmp_path / "out").per_client.num_rows == 2
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds other files \(thesis.tex\)"):
        write_results(make_results([client_scores()]), tmp_path / "out")
    assert read_results(tmp_path / "out").per_client.num_rows == 2


def test_a_write_that_fails_leaves_the_earlier_folder_as_it_was(tmp_path):
    write_results(make_results([client_scores()]), tmp_path / "out")

    def fail(folder):
        (folder / "results.json").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        replace_folder(tmp_path / "out", fail, FILES)
    assert read_results(tmp_path / "out").per_client.num_rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        write_results(make_results([client_scores()]), tmp_path / "out")


def test_an_undefined_bound_is_null_and_printed_as_such():
    results = make_results([client_scores(losses=(1.5,))])
    assert results.summary["splits"]["test"]["scores"]["heldout_loss"]["ci_low"] is None
    assert "1.5000 [n/a, n/a]" in results.markdown()
    json.dumps(results.summary, allow_nan=False)


def test_markdown_and_table_show_mean_interval_and_counts():
    from rich.console import Console

    results = make_results([client_scores()])
    console = Console(width=200, record=True, file=open("/dev/null", "w", encoding="utf-8"))
    with console.file:
        console.print(results.table())
    for text in (results.markdown(), console.export_text()):
        assert "heldout_loss ↓" in text
        assert "2.3333 [" in text
        assert "30 tokens" in text
    assert "- test: a note." in results.markdown()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "no split was scored"),
        ([client_scores(), client_scores()], "scored twice"),
        ([client_scores(), client_scores("unseen", settings={"max_length": 8})], "differ in settings"),
    ],
)
def test_scores_that_do_not_belong_together_are_refused(scores, message):
    with pytest.raises(MetricError, match=message):
        make_results(scores)


def test_folders_without_readable_results_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no results"):
        read_results(tmp_path)
    write_results(make_results([client_scores()]), tmp_path / "out")
    text = (tmp_path / "out" / "results.json").read_text()
    (tmp_path / "out" / "results.json").write_text(text.replace("fedllm-eval/1", "fedllm-eval/0"))
    with pytest.raises(ConfigError, match="has format 'fedllm-eval/0'"):
        read_results(tmp_path / "out")
    (tmp_path / "out" / "results.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_results(tmp_path / "out")


def test_infinities_are_null_too():
    assert without_nan([float("inf"), 1]) == [None, 1]
