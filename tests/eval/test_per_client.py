"""Per-client scores: hand-folded sums, ties, samples, and the invariances a reader relies on."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.per_client import evaluate_policy, sample_positions
from fedllm_eval.policy.chat import encode_pair
from fedllm_eval.policy.models import load_policy, load_reference, message_losses, pair_logps
from fedllm_eval.scores import SCORES, summarise


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder)


def columns(scores):
    return scores.table.to_pydict()


def test_a_clients_loss_is_its_total_loss_over_its_tokens(policy, sft_clients):
    rows = message_losses(policy.model, policy.tokenizer, sft_clients.rows)
    table = columns(evaluate_policy(policy, sft_clients, batch_size=2))
    assert table["client_id"] == ["ann", "bob", "eve"]
    assert table["num_rows"] == [2, 1, 1]
    # ann has rows 0 and 1, bob row 2, eve row 3.
    nll, tokens = rows.nll_sum_N, rows.num_tokens_N
    expected = [(nll[0] + nll[1]) / (tokens[0] + tokens[1]), nll[2] / tokens[2], nll[3] / tokens[3]]
    assert table["num_tokens"] == [tokens[0] + tokens[1], tokens[2], tokens[3]]
    assert table["heldout_loss"] == pytest.approx(expected, abs=1e-5)


def test_preference_scores_are_means_over_a_clients_pairs(tmp_path, preference_clients, make_run):
    policy = load_policy(make_run(tmp_path / "run", seed=1, start_seed=2))
    reference = load_reference(policy)
    with policy.active() as model:
        own = pair_logps(model, policy.tokenizer, preference_clients.rows)
    with reference.active() as model:
        ref = pair_logps(model, policy.tokenizer, preference_clients.rows)
    margin_N = 0.5 * ((own.chosen_N - ref.chosen_N) - (own.rejected_N - ref.rejected_N))
    table = columns(evaluate_policy(policy, preference_clients, reference=reference, beta=0.5))
    # ann: pairs 0, 1; bob: pairs 2, 3; eve: pair 4.
    for position, pairs in enumerate([[0, 1], [2, 3], [4]]):
        assert table["implicit_reward_margin"][position] == pytest.approx(margin_N[pairs].mean(), abs=1e-4)
        assert table["implicit_reward_accuracy"][position] == (margin_N[pairs] > 0).mean()
        assert table["implicit_reward_loss"][position] == pytest.approx(
            -np.log(1 / (1 + np.exp(-margin_N[pairs]))).mean(), abs=1e-4
        )
        assert table["ranking_accuracy"][position] == (own.chosen_N[pairs] > own.rejected_N[pairs]).mean()
        mean_chosen, mean_rejected = own.chosen_N / own.chosen_tokens_N, own.rejected_N / own.rejected_tokens_N
        assert table["ranking_accuracy_per_token"][position] == (mean_chosen[pairs] > mean_rejected[pairs]).mean()
        expected = -own.chosen_N[pairs].sum() / own.chosen_tokens_N[pairs].sum()
        assert table["chosen_loss"][position] == pytest.approx(expected, abs=1e-5)


def test_an_untrained_adapter_has_margin_and_accuracy_zero(tmp_path, preference_clients, make_run):
    policy = load_policy(make_run(tmp_path / "run", seed=None))
    table = columns(evaluate_policy(policy, preference_clients, reference=load_reference(policy)))
    assert table["implicit_reward_margin"] == [0.0, 0.0, 0.0]
    assert table["implicit_reward_accuracy"] == [0.0, 0.0, 0.0]
    assert table["implicit_reward_loss"] == pytest.approx([np.log(2)] * 3)


def test_without_a_reference_implicit_rewards_are_left_out_and_said_so(policy, preference_clients):
    scores = evaluate_policy(policy, preference_clients)
    assert scores.score_names == ["ranking_accuracy", "ranking_accuracy_per_token", "chosen_loss"]
    assert scores.reference is None
    assert any("no reference" in note for note in scores.notes)


def test_order_of_rows_and_batch_size_do_not_matter(policy, message_rows):
    forward = ClientDataset.from_dataset(Dataset.from_list(message_rows))
    backward = ClientDataset.from_dataset(Dataset.from_list(message_rows[::-1]))
    a = columns(evaluate_policy(policy, forward, batch_size=1))
    b = columns(evaluate_policy(policy, backward, batch_size=8))
    assert a["client_id"] == b["client_id"]
    assert a["heldout_loss"] == pytest.approx(b["heldout_loss"], abs=1e-5)


def test_a_client_without_a_scored_row_has_null_scores_and_is_not_averaged(policy, sft_clients):
    scores = evaluate_policy(policy, sft_clients, max_length=8)
    table = columns(scores)
    assert table["heldout_loss"][:2] == [None, None]
    assert table["num_skipped"] == [2, 1, 0]
    summary = scores.summary()["heldout_loss"]
    assert (summary["num_clients"], summary["mean"]) == (1, table["heldout_loss"][2])
    assert any("2 of 3 clients have no scored row" in note for note in scores.notes)


def test_pairs_without_room_for_an_answer_are_left_out_of_every_score(tmp_path, preference_clients, make_run):
    policy = load_policy(make_run(tmp_path / "run"))
    # The prompts of ann's and bob's second pairs are longer than those of the other three, and alike.
    longest = max(
        len(encode_pair(policy.tokenizer, row["prompt"], row["chosen"], row["rejected"])["prompt_ids"])
        for row in preference_clients.rows
    )
    scores = evaluate_policy(policy, preference_clients, reference=load_reference(policy), max_length=longest)
    table = columns(scores)
    assert table["num_rows"] == [1, 1, 1]
    assert table["num_skipped"] == [1, 1, 0]
    assert all(np.isfinite(table[name]).all() for name in scores.score_names)


def test_nothing_to_score_is_an_error_not_zero(policy, sft_clients):
    with pytest.raises(MetricError, match="none of the 3 clients has a row"):
        evaluate_policy(policy, sft_clients, max_length=2).summary()


def test_samples_depend_on_ids_and_seed_alone(policy, sft_clients):
    ids = [f"client{i}" for i in range(50)]
    sample = {ids[i] for i in sample_positions(ids, 10, 0, "clients")}
    more = ["another", *ids]
    assert len(sample & {more[i] for i in sample_positions(more, 10, 0, "clients")}) >= 9
    assert sample != {ids[i] for i in sample_positions(ids, 10, 1, "clients")}
    scores = evaluate_policy(policy, sft_clients, max_clients=2, max_rows_per_client=1)
    assert scores.table.num_rows == 2
    assert columns(scores)["num_rows"] == [1, 1]
    assert any("2 of 3 clients were sampled" in note for note in scores.notes)


def test_a_sampled_clients_scores_are_those_of_the_sampled_rows(policy, sft_clients):
    full = columns(evaluate_policy(policy, sft_clients))
    sampled = columns(evaluate_policy(policy, sft_clients, max_rows_per_client=1))
    assert sampled["num_rows"] == [1, 1, 1]
    assert sampled["heldout_loss"][1:] == pytest.approx(full["heldout_loss"][1:], abs=1e-5)
    rows = message_losses(policy.model, policy.tokenizer, sft_clients["ann"])
    assert any(sampled["heldout_loss"][0] == pytest.approx(x, abs=1e-5) for x in rows.nll_sum_N / rows.num_tokens_N)


@pytest.mark.parametrize("limit", ["max_clients", "max_rows_per_client"])
def test_an_empty_sample_is_refused(policy, sft_clients, limit):
    with pytest.raises(ConfigError, match="holds nothing"):
        evaluate_policy(policy, sft_clients, **{limit: 0})


def test_a_reference_with_another_vocabulary_is_refused(policy, preference_clients, model_folder):
    other = load_policy(model_folder)
    other.tokenizer.add_tokens(["<|more|>"])
    with pytest.raises(ConfigError, match="another vocabulary"):
        evaluate_policy(policy, preference_clients, reference=other)


def test_progress_reaches_the_end_for_policy_and_reference(tmp_path, preference_clients, make_run):
    policy = load_policy(make_run(tmp_path / "run"))
    told = []
    evaluate_policy(
        policy,
        preference_clients,
        reference=load_reference(policy),
        batch_size=2,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert ("policy", 10, 10) in told
    assert told[-1] == ("reference", 10, 10)


def test_summary_weighs_clients_alike_and_by_items():
    table = pa.table(
        {"num_rows": [1, 3], "num_tokens": [5, 15], "ranking_accuracy": [1.0, 0.0], "chosen_loss": [4.0, 2.0]}
    )
    summary = summarise(table)
    # (1 + 0) / 2; (1 * 1 + 3 * 0) / 4 pairs; (4 * 5 + 2 * 15) / 20 tokens.
    assert summary["ranking_accuracy"]["mean"] == 0.5
    assert summary["ranking_accuracy"]["weighted_mean"] == 0.25
    assert summary["chosen_loss"]["weighted_mean"] == 2.5
    assert summary["ranking_accuracy"]["num_items"] == 4
    assert summary["chosen_loss"]["num_items"] == 20
    # Worst is the lowest accuracy and the highest loss.
    assert summary["ranking_accuracy"]["worst_decile"] == 0.0
    assert summary["chosen_loss"]["worst_decile"] == 4.0


def test_every_score_names_its_task_unit_and_weight():
    assert {score.task for score in SCORES.values()} == {"sft", "preference"}
    assert all(score.unit and score.summary for score in SCORES.values())
