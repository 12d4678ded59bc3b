"""The capability records, as the command and the docs show them."""

import json
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from fedllm_train.cli import main
from fedllm_train.flag_names import flag_of
from fedllm_train.methods import METHODS_PAGE, method_records, methods_page
from fedllm_train.strategies import STRATEGIES, settings_class

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


def test_the_command_says_of_each_method_when_to_choose_it(capsys):
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    said = [record["choose_when"] for record in method_records()]
    assert all(said)
    assert len(set(said)) == len(STRATEGIES)
    assert all(f"choose it when {each}" in text for each in said)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_command_tells_all_of_one_method(capsys, name):
    assert main(["methods", name]) == 0
    text = capsys.readouterr().out
    traits = STRATEGIES[name].traits
    assert text.startswith(f"{name}: {traits.title}. ")
    assert all(
        part in text for part in (traits.choose_when, traits.source, traits.down, traits.up, traits.server_cost)
    )
    assert sys.modules[STRATEGIES[name].__module__].__doc__.splitlines()[0] in text  # the paper and both rules
    for each in fields(settings_class(name)):
        assert f"  {flag_of(each.name)} (" in text
    assert main(["methods", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == name


def test_a_method_that_is_none_is_refused_with_what_was_meant(capsys):
    assert main(["methods", "fed-porx"]) == 2
    assert "did you mean fedprox?" in capsys.readouterr().err


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
