"""Clients scored with adapters of their own."""

import json
import shutil

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.per_client import evaluate_policy
from fedllm_eval.policy.policies import load_policy, load_reference
from fedllm_eval.policy.run_folder import personal_folders
from fedllm_eval.running import personal_scores
from fedllm_eval.running.personal_scores import evaluate_personal, policy_content


@pytest.fixture
def run(tmp_path, make_run, make_adapter):
    folder = make_run(tmp_path / "run", task="sft")
    for client_id, seed in (("ann", 5), ("bob", 6)):
        make_adapter(folder / "personal" / client_id, seed)
    entries = {"ann": {"folder": "ann"}, "bob": {"folder": "bob"}, "zoe": {"left_out": "no rows"}}
    (folder / "personal" / "clients.json").write_text(json.dumps(entries))
    return folder


def losses(scores):
    return dict(zip(scores.table["client_id"].to_pylist(), scores.table["heldout_loss"].to_pylist(), strict=True))


def test_every_client_is_scored_as_with_its_adapter_alone(run, sft_clients):
    policy = load_policy(run)
    got = evaluate_personal(policy, personal_folders(run), sft_clients)
    expected = {
        client_id: losses(evaluate_policy(load_policy(run / "personal" / client_id), sft_clients))[client_id]
        for client_id in ("ann", "bob")
    }
    # eve has none: the global adapter.
    expected["eve"] = losses(evaluate_policy(policy, sft_clients))["eve"]
    assert losses(got) == pytest.approx(expected, abs=1e-5)
    assert got.policy["personal"] == 2
    assert any("1 of 3 clients have no adapter of their own" in note for note in got.notes)
    assert len(policy.backbone.adapters) == 1  # one adapter after the other was forgotten


def test_the_same_clients_are_sampled_as_for_the_global_adapter(run, sft_clients):
    policy = load_policy(run)
    plain = evaluate_policy(policy, sft_clients, max_clients=2, seed=3)
    own = evaluate_personal(policy, personal_folders(run), sft_clients, max_clients=2, seed=3)
    assert list(losses(own)) == list(losses(plain))


def test_a_split_nobody_has_an_adapter_for_and_a_broken_list_are_errors(run, sft_clients):
    policy = load_policy(run)
    with pytest.raises(ConfigError, match="score split test"):
        evaluate_personal(policy, {}, sft_clients)
    (run / "personal" / "bob" / "adapter_config.json").unlink()
    with pytest.raises(ConfigError, match="for client 'bob', which holds no adapter"):
        personal_folders(run)
    (run / "personal" / "clients.json").write_text("[1]")
    with pytest.raises(ConfigError, match="cannot be read"):
        personal_folders(run)


def test_who_has_no_adapter_keeps_the_global_scores_to_the_last_digit_or_is_left_out(run, sft_clients):
    policy = load_policy(run)
    plain = evaluate_policy(policy, sft_clients)
    own = evaluate_personal(policy, personal_folders(run), sft_clients, others=plain)
    assert losses(own)["eve"] == losses(plain)["eve"]
    assert losses(own)["ann"] != losses(plain)["ann"]
    assert own.rows.num_rows == plain.rows.num_rows
    alone = evaluate_personal(policy, personal_folders(run), sft_clients, others="leave out")
    assert losses(alone) == {name: loss for name, loss in losses(own).items() if name != "eve"}
    assert any("1 of 3 clients have no adapter of their own: left out" in note for note in alone.notes)


def test_who_never_trained_keeps_the_scores_of_the_start_to_the_last_digit(
    tmp_path, make_run, make_adapter, sft_clients
):
    folder = make_run(tmp_path / "run", task="sft")
    for client_id, seed in (("ann", 5), ("bob", None), ("eve", None)):
        make_adapter(folder / "personal" / client_id, seed)
    entries = {client_id: {"folder": client_id} for client_id in ("ann", "bob", "eve")}
    (folder / "personal" / "clients.json").write_text(json.dumps(entries))
    policy = load_policy(folder)
    base = evaluate_policy(load_reference(policy), sft_clients)
    known = {"unchanged": base}
    own = evaluate_personal(policy, personal_folders(folder), sft_clients, known=known)
    assert {name: losses(own)[name] for name in ("bob", "eve")} == {
        name: losses(base)[name] for name in ("bob", "eve")
    }
    assert losses(own)["ann"] != losses(base)["ann"]
    assert own.never_trained == ("bob", "eve")
    assert any("2 of 3 clients never trained" in note for note in own.notes)
    assert not any("bob" in note for note in own.notes)


def test_equal_adapters_are_scored_together_and_equal_ones_of_the_run_not_at_all(
    tmp_path, make_run, sft_clients, monkeypatch
):
    folder = make_run(tmp_path / "run", task="sft")
    for client_id in ("ann", "bob", "eve"):
        shutil.copytree(folder / "adapter", folder / "personal" / client_id)
    entries = {client_id: {"folder": client_id} for client_id in ("ann", "bob", "eve")}
    (folder / "personal" / "clients.json").write_text(json.dumps(entries))
    policy = load_policy(folder)
    plain = evaluate_policy(policy, sft_clients)
    # Scored without knowing the global scores: once, in the same batches.
    alike = evaluate_personal(policy, personal_folders(folder), sft_clients)
    assert losses(alike) == losses(plain)
    assert alike.never_trained == ()

    def never(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(personal_scores, "evaluate_policy", never)
    again = evaluate_personal(policy, personal_folders(folder), sft_clients, known={policy_content(policy): plain})
    assert losses(again) == losses(plain)
