"""Packing changes how rows lie in a batch, not which rows count: the same rows, the same weight."""

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_train.clients.token_cache import TokenCache, encoder_for
from tests.train import conftest as makers

pytestmark = pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode is deprecated")  # TRL's
LENGTH = 32
LONG = "red blue green one two three " * 6


def clients_of(rows):
    return ClientDataset.from_dataset(Dataset.from_list(rows))


def prompts_only(client_id, num_rows):
    """Rows whose prompt fills LENGTH tokens alone."""
    rows = makers.sft_rows(client_id, num_rows)
    for row in rows:
        row["messages"][0]["content"] = LONG
    return rows


def encoded(folder, rows, **changes):
    args = makers.trl_args("sft", max_length=LENGTH, **changes)
    cache = TokenCache(clients_of(rows), args, makers.make_tokenizer(), folder, loss_on="assistant")
    return cache[rows[0]["client_id"]]


def test_a_client_without_a_trained_token_weighs_nothing(kit, tmp_path):
    # ann holds 5 rows, bob 3 of which truncation leaves the prompt alone: bob has no share, not 3/8.
    clients = clients_of([*makers.sft_rows("ann", 5), *prompts_only("bob", 3)])
    ended = {}
    for name, sizes in (("both", clients), ("ann", clients_of(makers.sft_rows("ann", 5)))):
        args = makers.trl_args("sft", max_length=LENGTH, packing=True, packing_strategy="bfd")
        trainer = kit.FederatedTrainer(
            kit.make_model(),
            kit.FederatedConfig(
                output_dir=str(tmp_path / name), num_rounds=1, cohort_size=len(sizes), local_steps=2, seed=5
            ),
            sizes,
            args,
            kit.lora(),
            tokenizer=kit.make_tokenizer(),
        )
        ended[name] = trainer.train().adapter
    (record,) = kit.records_of(tmp_path / "both")
    assert [(visit["client_id"], visit["num_rows"]) for visit in record["clients"]] == [("ann", 5)]
    assert [each["client_id"] for each in record["left_out"]] == ["bob"]
    assert all((ended["both"][name] == tensor).all() for name, tensor in ended["ann"].items())


@pytest.mark.parametrize("truncation_mode", ["keep_start", "keep_end"])
def test_a_packed_client_has_the_rows_it_has_unpacked(tmp_path, truncation_mode):
    rows = [*makers.sft_rows("ann", 5), *prompts_only("ann", 3)]
    plain = encoded(tmp_path / "plain", rows, truncation_mode=truncation_mode)
    packed = encoded(tmp_path / "packed", rows, truncation_mode=truncation_mode, packing=True)
    assert (packed.num_rows, packed.num_dropped_rows) == (plain.num_rows, plain.num_dropped_rows)
    assert (plain.num_rows, plain.num_dropped_rows) == ((5, 3) if truncation_mode == "keep_start" else (8, 0))

    def trained(tokens):
        return sorted(label for row in tokens.rows["labels"] for label in row if label != -100)

    assert trained(packed) == trained(plain)


@pytest.mark.parametrize("strategy", ["bfd_split", "wrapped"])
def test_packing_that_splits_rows_trains_on_all_of_them(tmp_path, strategy):
    rows = prompts_only("ann", 3)
    packed = encoded(tmp_path / "packed", rows, packing=True, packing_strategy=strategy)
    whole = encoded(tmp_path / "whole", rows, packing=False).num_rows
    labels = [label for row in packed.rows["labels"] for label in row if label != -100]
    assert whole == 0
    assert (packed.num_rows, packed.num_dropped_rows) == (3, 0)
    assert labels  # they are trained on, so they count


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 45), st.integers(1, 12)), min_size=1, max_size=6),
    max_length=st.integers(4, 60),
    keep_end=st.booleans(),
)
def test_a_row_counts_alike_with_and_without_packing(lengths, max_length, keep_end):
    tokenizer = makers.make_tokenizer()
    mode = "keep_end" if keep_end else "keep_start"
    for prompt, answer in lengths:
        row = {"messages": [makers.user("red " * prompt), makers.assistant("blue " * answer)]}
        kept = [
            encoder_for(
                makers.trl_args("sft", max_length=max_length, truncation_mode=mode, packing=packing), tokenizer
            )(row)[0]
            for packing in (False, True)
        ]
        assert kept[0] == kept[1]
        if kept[0] is not None:
            assert len(kept[0]["input_ids"]) <= max_length
            assert any(label != -100 for label in kept[0]["labels"][1:])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"packing": True, "max_length": None}, "packing fills sequences of max_length tokens"),
        ({"packing": True, "packing_strategy": "tight"}, "packing_strategy 'tight' is unknown"),
        (
            {"packing": True, "packing_strategy": "wrapped", "truncation_mode": "keep_end"},
            "cuts nothing off",
        ),
    ],
)
def test_packing_that_cannot_be_done_is_refused_before_the_model_is_loaded(kit, tmp_path, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        kit.FederatedTrainer(
            "no/such/model",
            kit.FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2),
            kit.make_clients(),
            kit.trl_args("sft", **changes),
        )
