"""Languages, gains and transfer by hand, and what the Hub is told."""

import json
import math

import pyarrow as pa
import pytest
import yaml
from huggingface_hub import ModelCardData, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from fedllm_data.errors import MetricError
from fedllm_eval.plain_json import without_nan
from fedllm_eval.reporting.hub_results import hub_results
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.running.assemble import join_results, make_results
from fedllm_eval.running.client_tables import gain_records, gain_table, language_records, perplexity, transfer_records
from fedllm_eval.running.finished_parts import FinishedPart, FinishedParts
from tests.eval.test_results import client_scores


def rows(cells, split="test"):
    """Rows of (client, language, tokens, loss)."""
    columns = list(zip(*cells, strict=True))
    return pa.table(
        {
            "split": [split] * len(cells),
            "client_id": list(columns[0]),
            "row_id": [str(i) for i in range(len(cells))],
            "language": list(columns[1]),
            "num_tokens": list(columns[2]),
            "heldout_loss": pa.array(columns[3], pa.float64()),
        }
    )


ROWS = rows([("ann", "de", 1, 1.0), ("ann", "de", 3, 2.0), ("bob", "de", 2, 3.0), ("bob", "it", 5, 4.0)])


def test_languages_by_hand():
    found = language_records(ROWS)["test"]["heldout_loss"]
    # ann in German: (1 + 3 * 2) / 4 = 1.75; bob 3: mean 2.375 over two clients, most rows first.
    assert list(found) == ["de", "it"]
    assert found["de"]["mean"] == pytest.approx(2.375)
    assert (found["de"]["num_clients"], found["de"]["num_rows"]) == (2, 3)
    assert math.isnan(found["it"]["ci_low"])
    # The order of rows changes nothing; rows without a score do not count.
    assert without_nan(language_records(ROWS.take([3, 1, 0, 2]))) == without_nan(language_records(ROWS))
    unscored = pa.concat_tables([ROWS, rows([("cyd", "de", 0, None)])])
    assert language_records(unscored)["test"]["heldout_loss"]["de"] == found["de"]


def test_rows_without_a_language_give_no_table():
    assert language_records(rows([("ann", "und", 1, 1.0), ("bob", "und", 1, 2.0)])) == {}


def test_transfer_by_hand():
    other = ROWS.set_column(
        ROWS.schema.get_field_index("heldout_loss"), "heldout_loss", pa.array([2.0, 2.0, 4.0, 1.0])
    )
    (found,) = transfer_records({"de": ROWS, "it": other})
    # Trained on German: de (1.75 + 3) / 2, it 4; on Italian: de (2 + 4) / 2, it 1. At home 2.375 and 1, else 4 and 3.
    assert found["mean"] == [pytest.approx([2.375, 4.0]), pytest.approx([3.0, 1.0])]
    assert found["num_items"] == [[2, 1], [2, 1]]
    assert found["transfer_gap"] == pytest.approx(3.5 - (2.375 + 1) / 2)


def results(losses):
    return make_results([client_scores(losses=losses)])


def test_gains_are_positive_where_the_policy_is_better_and_recover_the_way_to_pooled_training():
    policies = {"policy": results((1.0, 2.0, 4.0)), "base": results((2.0, 2.0, 5.0))}
    policies |= {"alone": results((2.0, 3.0, 6.0)), "centralised": results((1.0, 1.0, 3.0))}
    found = {item["against"]: item for item in gain_records(policies)}
    # Losses fall by 1, 0 and 1 against the base; against pooled training they are 0, 1 and 1 higher.
    assert found["base"]["gain"] == pytest.approx(2 / 3)
    assert found["base"]["better_off"] == pytest.approx(2 / 3)
    assert found["centralised"]["gain"] == pytest.approx(-2 / 3)
    # Alone 11/3, the policy 7/3, pooled 5/3: 4 of 6 thirds of the way.
    assert found["alone"]["recovered_fraction"] == pytest.approx(4 / 6)
    table = gain_table(list(found.values()))
    assert table.num_rows == 9
    assert table.filter(pa.compute.equal(table["against"], "base"))["gain"].to_pylist() == [1.0, 0.0, 1.0]


def test_policies_scored_on_other_data_are_not_set_against_one_another():
    other = make_results([client_scores(dataset={"name": "m", "revision": "x", "num_clients": 9, "num_rows": 99})])
    with pytest.raises(MetricError, match="score both alike"):
        gain_records({"policy": results((1.0, 2.0, 4.0)), "base": other})


def test_clients_that_did_not_train_alone_do_not_count_there():
    policies = {"policy": results((1.0, 2.0, 4.0)), "alone": results((2.0, 3.0, 6.0))}
    joined = join_results(policies, alone_clients={"c0", "c2"})
    (gain,) = joined.summary["gains"]
    assert gain["num_clients"] == 2
    assert gain["gain"] == pytest.approx(1.5)
    assert json.loads(json.dumps(joined.summary)) == joined.summary


def test_perplexity_is_that_of_the_pooled_loss_and_undefined_stays_undefined():
    score = {"weighted_mean": 1.0, "weighted_ci_low": None, "weighted_ci_high": 2.0}
    found = perplexity(score | {"mean": 800.0, "ci_low": 0.0, "ci_high": 1.0})
    assert found["by_token"] == pytest.approx(math.e)
    assert found["ci_low"] is None
    assert found["by_client"] is None


def test_the_hub_reads_back_what_it_is_told(tmp_path):
    commit = "0123456789" * 4
    dataset = {"name": "org/fed", "revision": commit, "num_clients": 9, "num_rows": 99}
    found = make_results([client_scores(dataset=dataset)])
    entries, index = hub_results(found.summary)
    (entry,) = parse_eval_result_entries(entries)
    assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("org/fed", "test_heldout_loss", commit)
    assert entry.value == pytest.approx(7 / 3)
    assert "3 clients" in entry.notes
    card = ModelCardData(**{"model-index": index}).to_dict()
    name, (result,) = model_index_to_eval_results(card["model-index"])
    assert (name, result.metric_type, result.dataset_split) == ("tiny", "heldout_loss", "test")
    assert result.metric_args["num_clients"] == 3
    write_results(found, tmp_path / "out")
    written = yaml.safe_load((tmp_path / "out" / ".eval_results" / "fedllm-commons.yaml").read_text())
    assert written == entries


def test_a_folder_is_no_benchmark_of_the_hub(tmp_path):
    entries, index = hub_results(results((1.0, 2.0, 4.0)).summary)
    assert entries == []
    assert index[0]["results"][0]["dataset"]["name"] == "memory"
    write_results(results((1.0, 2.0, 4.0)), tmp_path / "out")
    assert not (tmp_path / "out" / ".eval_results").exists()


def test_hostile_names_stay_text_on_the_page_and_nothing_is_loaded(tmp_path):
    evil = "<script>alert(1)</script>"
    scores = client_scores(policy={"name": f"runs/{evil}", "base": evil, "adapter_sha256": "x"}, notes=(evil,))
    joined = join_results({"policy": make_results([scores]), "base": results((2.0, 2.0, 5.0))})
    write_results(joined, tmp_path / "out")
    page = (tmp_path / "out" / "results.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1  # the one that chooses the language
    assert "&lt;script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "src=" not in page
    for anchor in ("clients", "scores", "spread", "gains", "reading"):
        assert f'id="{anchor}"' in page
    markdown = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "## What each client gains" in markdown


def test_parts_are_told_apart_by_their_key_and_nan_survives(tmp_path):
    parts = FinishedParts(tmp_path)
    made = []

    def make(value):
        def run():
            made.append(value)
            return FinishedPart({"value": value}, {"rows": pa.table({"x": [value]})})

        return run

    assert math.isnan(parts.get("a b", {"seed": 0}, make(float("nan"))).record["value"])
    assert math.isnan(parts.get("a b", {"seed": 0}, make(1.0)).record["value"])
    assert parts.get("a b", {"seed": 1}, make(2.0)).record == {"value": 2.0}
    assert parts.get("a-b", {"seed": 1}, make(3.0)).tables["rows"].to_pydict() == {"x": [3.0]}
    assert parts.get("none", None, make(4.0)).record == {"value": 4.0}
    assert parts.get("none", {}, make(5.0), complete=lambda part: False).record == {"value": 5.0}
    assert parts.get("none", {}, make(6.0)).record == {"value": 6.0}
    assert len(made) == 6
    assert parts.reused == ["a b"]
    assert parts.changed == ["a b was made with other settings and is made again: seed 0 is now 1"]
