"""How large the noise is, in words before the first round and in numbers against the released adapters."""

import logging
from dataclasses import replace

import pytest

from fedllm_train.privacy.accounting import Guarantee, epsilon_spent
from fedllm_train.privacy.adaptive_clip import AdaptiveClip
from fedllm_train.privacy.beginning import num_values_sent
from fedllm_train.privacy.few_values import values_by_method
from fedllm_train.privacy.noise_forms import Toeplitz
from fedllm_train.privacy.noise_size import first_line, needed_cohort, noise_in_clips, noise_note
from fedllm_train.privacy.related_noise import related_noise

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


# -- the first line, and what fewer values would leave --------------------------------------------------------------


def test_the_values_of_methods_are_those_that_they_send(kit, tmp_path):
    sent = {}
    for name, settings in (("fedavg", {}), ("ffa_lora", {}), ("fed_sb", {"core_frame": "random"})):
        trainer = kit.make_trainer(tmp_path / name, strategy=name, **settings)
        start = trainer.plan.strategy.start(trainer.start_adapter)
        sent[name] = num_values_sent(trainer.plan.strategy, start, "ann")
    shapes = {name: tuple(tensor.shape) for name, tensor in trainer.start_adapter.items()}
    assert values_by_method(shapes) == sent
    assert sent["fed_sb"] < sent["ffa_lora"] < sent["fedavg"]


def test_other_tensors_than_factors_have_no_methods():
    assert values_by_method({}) == {}
    assert values_by_method({"m.weight": (3, 3)}) == {}
    assert values_by_method({"m.lora_A.weight": (3, 3), "m.bias": (3,)}) == {}


def test_every_private_run_begins_with_what_is_left(kit, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="fedllm_train"):
        trainer = kit.make_trainer(tmp_path / "run", **SETTINGS)
        trainer.train()
    num_values = sum(tensor.numel() for tensor in trainer.start_adapter.values())
    (line,) = [each.getMessage() for each in caplog.records if each.getMessage().startswith("private run:")]
    made = trainer.guarantee
    assert f"epsilon {made.epsilon(made.num_rounds):.4g} at delta" in line
    assert "claimed by PLD; RDP " in line
    assert f"a cohort_size of {needed_cohort(made, num_values):,} would make it as long as an update" in line
    shapes = {name: tuple(tensor.shape) for name, tensor in trainer.start_adapter.items()}
    few = values_by_method(shapes)
    assert f"fed_sb {few['fed_sb']:,} values (noise of {noise_in_clips(made, few['fed_sb']):.3g} clips)" in line
    assert f"ffa_lora {few['ffa_lora']:,} values" in line


def test_a_run_that_clips_only_says_that_there_is_no_epsilon(kit, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="fedllm_train"):
        kit.make_trainer(tmp_path / "run", **SETTINGS | {"dp_noise_multiplier": 0.0}).train()
    assert "private run: no epsilon: updates were clipped, and no noise was added" in caplog.text


def test_related_noise_is_counted_round_by_round_and_in_the_sum():
    related = related_noise(None, num_rounds=16, min_separation=16, max_participations=None)
    made = replace(MADE, related=related, is_sampled=False, num_rounds=16, sampling_rate=1.0)
    # Each round changes as many nodes as its trailing zeros say: 31 of 16 rounds; then one node is the whole sum.
    assert noise_in_clips(made, 160_000) == pytest.approx(
        20.0 * (related.form.round_deviations(16) ** 2).mean() ** 0.5
    )
    line = first_line(made, num_values=160_000, num_clients=1000, by_method={})
    assert "Later rounds take noise back: on the sum of all 16 rounds it is" in line
    assert related.noise_on_sum(16) == 1.0
    assert "keeps" not in line  # a tree's noise is drawn again
    bands = replace(related, form=Toeplitz(coefficients=(1.0, 0.5, 0.375)))
    line = first_line(replace(made, related=bands), num_values=160_000, num_clients=1000, by_method={})
    assert line.endswith("; the server keeps 2 noises of the adapter's size for it, 2.56 MB")


def test_the_clip_that_adapts_counts_its_own_noise():
    rule = AdaptiveClip(quantile=0.5, learning_rate=0.2, count_noise=0.5, update_noise_multiplier=1.0)
    assert noise_in_clips(replace(MADE, adaptive=rule), 160_000) == 40.0
