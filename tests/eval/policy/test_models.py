"""Log-probabilities against a plain loop and against TRL, and the sharing of one base by policy and reference."""

import numpy as np
import pytest
import torch

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.policy import models, policies
from fedllm_eval.policy.chat import encode_messages, encode_pair
from fedllm_eval.policy.models import load_policy, load_reference, message_losses, pair_logps, usable_length


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder)


def row_by_row(model, ids, mask):
    """Sum of log-probabilities of the masked tokens: one sequence, full logits, no padding."""
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
    targets = torch.tensor(ids[1:])
    return float((logps.gather(-1, targets[:, None])[:, 0] * torch.tensor(mask[1:])).sum())


def test_message_losses_equal_a_plain_loop_over_rows(policy, message_rows):
    losses = message_losses(policy.model, policy.tokenizer, message_rows, batch_size=3)
    for row, nll, num_tokens in zip(message_rows, losses.nll_sum_N, losses.num_tokens_N, strict=True):
        encoded = encode_messages(policy.tokenizer, row["messages"])
        expected = -row_by_row(policy.model, encoded["input_ids"], encoded["assistant_masks"])
        assert nll == pytest.approx(expected, abs=1e-4)
        assert num_tokens == sum(encoded["assistant_masks"])


def test_pair_logps_equal_a_plain_loop_over_rows(policy, pair_rows):
    logps = pair_logps(policy.model, policy.tokenizer, pair_rows, batch_size=4)
    for i, row in enumerate(pair_rows):
        encoded = encode_pair(policy.tokenizer, row["prompt"], row["chosen"], row["rejected"])
        for side, got, num_tokens in (
            ("chosen_ids", logps.chosen_N[i], logps.chosen_tokens_N[i]),
            ("rejected_ids", logps.rejected_N[i], logps.rejected_tokens_N[i]),
        ):
            ids, answer = encoded["prompt_ids"] + encoded[side], encoded[side]
            mask = [0] * len(encoded["prompt_ids"]) + [1] * len(answer)
            assert got == pytest.approx(row_by_row(policy.model, ids, mask), abs=1e-4)
            assert num_tokens == len(answer)


def test_pair_logps_equal_trl_collator_and_log_softmax(policy, pair_rows):
    from trl.trainer.dpo_trainer import DataCollatorForPreference
    from trl.trainer.utils import selective_log_softmax

    max_length = 24
    examples = [encode_pair(policy.tokenizer, row["prompt"], row["chosen"], row["rejected"]) for row in pair_rows]
    batch = DataCollatorForPreference(pad_token_id=0, max_length=max_length)(examples)
    with torch.no_grad():
        logits = policy.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    per_token = selective_log_softmax(logits, batch["input_ids"][:, 1:]) * batch["completion_mask"][:, 1:]
    expected_chosen, expected_rejected = per_token.sum(dim=1).chunk(2)
    logps = pair_logps(policy.model, policy.tokenizer, pair_rows, batch_size=2, max_length=max_length)
    np.testing.assert_allclose(logps.chosen_N, expected_chosen.numpy(), atol=1e-4)
    np.testing.assert_allclose(logps.rejected_N, expected_rejected.numpy(), atol=1e-4)
    assert logps.truncated_N.any()
    assert not logps.truncated_N.all()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batch_size_and_row_order_change_nothing_but_rounding(policy, pair_rows, batch_size):
    reference = pair_logps(policy.model, policy.tokenizer, pair_rows, batch_size=1)
    order = [3, 0, 4, 2, 1]
    got = pair_logps(policy.model, policy.tokenizer, [pair_rows[i] for i in order], batch_size=batch_size)
    np.testing.assert_allclose(got.chosen_N, reference.chosen_N[order], atol=1e-4)
    np.testing.assert_allclose(got.rejected_N, reference.rejected_N[order], atol=1e-4)


def test_a_batch_holds_no_more_padded_tokens_than_allowed(monkeypatch):
    monkeypatch.setattr(models, "MAX_BATCH_TOKENS", 20)
    # Longest first; 10 + 10 fit, a third does not; what has no token to score is in no batch.
    assert list(models.batches_by_length([10, 9, 0, 10, 30], 8)) == [[4], [0, 3], [1]]


def test_a_model_that_names_no_head_gives_the_same(policy, pair_rows, monkeypatch):
    expected = pair_logps(policy.model, policy.tokenizer, pair_rows)
    monkeypatch.setattr(policy.model, "get_output_embeddings", lambda: None)
    got = pair_logps(policy.model, policy.tokenizer, pair_rows)
    np.testing.assert_allclose(got.chosen_N, expected.chosen_N, atol=1e-5)


def test_rows_without_room_for_an_answer_are_nan_and_counted(policy, message_rows, pair_rows):
    losses = message_losses(policy.model, policy.tokenizer, message_rows, max_length=8)
    assert np.isnan(losses.nll_sum_N[:3]).all()
    assert np.isfinite(losses.nll_sum_N[3])
    assert losses.num_tokens_N[:3].tolist() == [0, 0, 0]
    assert losses.truncated_N.tolist()[:3] == [True, True, True]
    logps = pair_logps(policy.model, policy.tokenizer, pair_rows, max_length=4)
    assert np.isnan(logps.chosen_N).all()
    assert logps.chosen_tokens_N.sum() == 0


def test_pairs_that_trl_drops_are_those_without_a_score(policy, pair_rows):
    lengths = [
        len(encode_pair(policy.tokenizer, r["prompt"], r["chosen"], r["rejected"])["prompt_ids"]) for r in pair_rows
    ]
    max_length = max(lengths)
    logps = pair_logps(policy.model, policy.tokenizer, pair_rows, max_length=max_length)
    assert np.isnan(logps.chosen_N).tolist() == [length >= max_length for length in lengths]


def test_no_rows_give_empty_results(policy):
    assert message_losses(policy.model, policy.tokenizer, []).nll_sum_N.shape == (0,)
    assert pair_logps(policy.model, policy.tokenizer, []).chosen_N.shape == (0,)


def test_a_model_that_trains_goes_back_to_training(policy, message_rows):
    policy.model.train()
    message_losses(policy.model, policy.tokenizer, message_rows)
    assert policy.model.training
    policy.model.eval()


def test_broken_weights_are_an_error_not_a_score(model_folder, message_rows):
    broken = load_policy(model_folder)
    broken.model.lm_head.weight.data[0] = float("nan")
    with pytest.raises(MetricError, match="log-probability nan"):
        message_losses(broken.model, broken.tokenizer, message_rows)


def test_batch_size_must_be_positive(policy, message_rows):
    with pytest.raises(ConfigError, match="batch_size is 0"):
        message_losses(policy.model, policy.tokenizer, message_rows, batch_size=0)


def test_max_length_beyond_the_model_is_refused(policy):
    assert usable_length(policy.model) == 128
    with pytest.raises(ConfigError, match="128 positions"):
        usable_length(policy.model, 129)


def test_an_untrained_adapter_scores_exactly_as_its_base(tmp_path, policy, make_adapter, pair_rows):
    adapted = load_policy(make_adapter(tmp_path / "adapter"))
    with adapted.active() as model:
        got = pair_logps(model, adapted.tokenizer, pair_rows)
    expected = pair_logps(policy.model, policy.tokenizer, pair_rows)
    assert got.chosen_N.tolist() == expected.chosen_N.tolist()


def test_policy_and_references_share_one_base_and_switch_adapters(tmp_path, model_folder, make_run, pair_rows):
    run = make_run(tmp_path / "run", seed=1, start_seed=2)
    policy = load_policy(run)
    reference = load_reference(policy)
    base = load_policy(model_folder, share=policy)
    assert policy.backbone is reference.backbone is base.backbone

    alone = {
        "policy": load_policy(run / "adapter"),
        "reference": load_policy(run / "start_adapter"),
        "base": load_policy(model_folder),
    }
    # Interleaved on purpose: what was on before must not matter.
    for name, shared in [
        ("policy", policy),
        ("base", base),
        ("reference", reference),
        ("base", base),
        ("policy", policy),
    ]:
        with shared.active() as model:
            got = pair_logps(model, shared.tokenizer, pair_rows).chosen_N
        with alone[name].active() as model:
            expected = pair_logps(model, alone[name].tokenizer, pair_rows).chosen_N
        assert got.tolist() == expected.tolist(), name


def test_a_run_that_started_from_the_base_has_the_base_as_reference(tmp_path, policy, make_run, pair_rows):
    reference = load_reference(make_run(tmp_path / "run"))
    with reference.active() as model:
        got = pair_logps(model, reference.tokenizer, pair_rows).chosen_N
    assert got.tolist() == pair_logps(policy.model, policy.tokenizer, pair_rows).chosen_N.tolist()


def test_a_plain_model_has_no_reference_of_its_own(policy):
    with pytest.raises(ConfigError, match="has no reference of its own"):
        load_reference(policy)


def test_an_adapter_of_another_shape_is_one_line(tmp_path, make_adapter, model_folder):
    folder = make_adapter(tmp_path / "adapter")
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 2', '"r": 3'))
    with pytest.raises(ConfigError, match="does not fit base model") as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value)


def test_a_base_has_one_digest_under_any_name_and_another_after_training(tmp_path, model_folder, policy):
    import shutil

    shutil.copytree(model_folder, tmp_path / "copy")
    copied = load_policy(tmp_path / "copy")
    assert copied.describe()["base_digest"] == policy.describe()["base_digest"]
    copied.model.model.norm.weight.data += 1e-3
    copied.model.save_pretrained(tmp_path / "trained")
    copied.tokenizer.save_pretrained(tmp_path / "trained")
    assert load_policy(tmp_path / "trained").describe()["base_digest"] != policy.describe()["base_digest"]


def test_a_description_names_base_and_adapter(tmp_path, make_adapter, model_folder):
    folder = make_adapter(tmp_path / "adapter")
    description = load_policy(folder).describe()
    assert description["base"] == str(model_folder)
    assert description["adapter_sha256"] == policies.adapter_digest(folder)
