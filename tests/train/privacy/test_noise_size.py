"""How large the noise is, in words before the first round and in numbers against the released adapters."""

import logging
from dataclasses import replace

import pytest

from fedllm_train.privacy.accounting import Guarantee, epsilon_spent
from fedllm_train.privacy.noise_size import noise_in_clips, noise_note

# z sqrt(d) / S = 0.5 * 400 / 10 = 20 over d = 160,000 values.
MADE = Guarantee(clip=0.3, noise_multiplier=0.5, sampling_rate=0.01, expected_cohort=10, delta=1e-5, num_rounds=20)


def test_the_note_says_by_how_much_and_what_would_help():
    assert noise_in_clips(MADE, 160_000) == 20.0
    note = noise_note(MADE, num_values=160_000, num_clients=1000)
    assert "20 times dp_clip" in note
    assert "its norm is 6 over 160,000 trained values" in note  # 20 * 0.3
    assert "one client's share of it is 200 times smaller than the noise" in note  # C / 10 against 20 C
    assert "cohort_size 200 at this dp_noise_multiplier" in note  # 0.5 * 400
    assert "; 400 trained values" in note  # (10 / 0.5)^2
    assert "dp_noise_multiplier 0.025 (too little for any guarantee)" in note  # 10 / 400
    assert "\n" not in note


def test_it_names_the_epsilon_that_less_noise_would_cost():
    made = replace(MADE, noise_multiplier=4.0)
    note = noise_note(made, num_values=400, num_clients=1000)  # 4 * 20 / 10 = 8; z = 10 / 20 = 0.5
    assert f"dp_noise_multiplier 0.5 (epsilon {epsilon_spent(0.5, 0.01, 20, 1e-5):.3g})" in note


def test_that_there_are_fewer_clients_than_the_cohort_would_take_is_said():
    assert "cohort_size 200 (and there are 150 clients)" in noise_note(MADE, num_values=160_000, num_clients=150)


@pytest.mark.parametrize(("num_values", "is_said"), [(400, False), (401, True)])
def test_nothing_is_said_of_noise_no_larger_than_the_clip(num_values, is_said):
    assert (noise_note(MADE, num_values=num_values, num_clients=1000) is not None) == is_said


SETTINGS = {"cohort_rule": "all", "cohort_size": 5, "num_rounds": 1, "local_steps": 1}
SETTINGS |= {"dp_clip": 0.05, "dp_noise_multiplier": 1.0, "dp_delta": 1e-2}


def test_a_run_says_it_before_its_first_round_and_moves_by_as_much(kit, tmp_path, caplog):
    seen = []
    trainer = kit.make_trainer(
        tmp_path / "run", callbacks=[lambda record: seen.append([r.message for r in caplog.records])], **SETTINGS
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    num_values = sum(tensor.numel() for tensor in trainer.start_adapter.values())
    (note,) = [message for message in seen[0] if "times dp_clip" in message]
    expected = num_values**0.5 / 5
    assert f"{expected:.3g} times dp_clip" in note
    # The step of the round is the noise and at most dp_clip more.
    (record,) = kit.records_of(tmp_path / "run")
    assert record["update_norm"] == pytest.approx(expected * 0.05, rel=0.1)


def test_what_travels_is_counted_and_not_what_rests(kit, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = kit.make_trainer(tmp_path / "run", strategy="ffa_lora", **SETTINGS)
        trainer.train()
    num_b = sum(tensor.numel() for name, tensor in trainer.start_adapter.items() if "lora_B" in name)
    assert f"over {num_b:,} trained values" in caplog.text


def test_a_run_that_clips_only_says_nothing(kit, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        kit.make_trainer(tmp_path / "run", **SETTINGS | {"dp_noise_multiplier": 0.0}).train()
    assert "dp_clip" not in caplog.text
