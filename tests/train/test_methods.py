"""The capability records, as the command and the docs show them."""

import json
from pathlib import Path

from fedllm_train.cli import main
from fedllm_train.methods import METHODS_PAGE, method_records, methods_page
from fedllm_train.strategies import STRATEGIES

ROOT = Path(__file__).parents[2]


def test_the_command_names_every_method_and_what_travels(capsys):
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    for name in STRATEGIES:
        assert f"\n{name} " in f"\n{text}"
    assert "down: adapter + control variate; up: adapter + change of control variate" in text
    assert main(["methods", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["name"] for record in records] == list(STRATEGIES)
    assert all(record["source"] for record in records)


def test_records_agree_with_what_the_methods_do():
    records = {record["name"]: record for record in method_records()}
    assert not records["fedavg"]["exact_aggregation"]  # the mean of products is no product of means
    assert all(records[name]["exact_aggregation"] for name in ("ffa_lora", "rolora", "fedex_lora", "flora"))
    assert all(records[name]["personal"] for name in ("ditto", "feddpa", "fedsa_lora", "fedavg_ft"))
    assert all(records[name]["mixed_ranks"] for name in ("flora", "flexlora", "hetlora"))
    assert records["fedex_lora"]["sees"] == "each"
    assert records["local"]["sees"] == "nothing"


def test_the_page_in_docs_is_current():
    assert (ROOT / METHODS_PAGE).read_text() == methods_page(), "run python -m fedllm_train.methods"
