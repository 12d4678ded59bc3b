"""A walk sees the batches and the loss of a fit: at a fit's start both report one loss, to the bit."""

import pytest
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_train import FederatedConfig, FederatedTrainer

CONFIGS = {"sft": SFTConfig, "dpo": DPOConfig, "kto": KTOConfig}


def host_of(kit, tmp_path, task, *, dropout=0.0, **changes):
    args = CONFIGS[task](
        bf16=False, use_cpu=True, activation_checkpointing=False, per_device_train_batch_size=2, learning_rate=1e-9,
        max_length=64, **changes,
    )  # fmt: skip
    config = FederatedConfig(output_dir=str(tmp_path / "run"), num_rounds=1, cohort_size=1, local_steps=3)
    trainer = FederatedTrainer(
        kit.make_model(), config, kit.make_clients("sft" if task == "sft" else "preference"), args,
        kit.lora(lora_dropout=dropout), tokenizer=kit.make_tokenizer(),
    )  # fmt: skip
    return trainer.loaded.host


@pytest.mark.parametrize("task", CONFIGS)
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_walk_has_the_losses_of_a_fit(kit, tmp_path, task, accumulated):
    host = host_of(kit, tmp_path, task, gradient_accumulation_steps=accumulated)
    resident, start = host.resident, host.resident.start_adapter
    rows = resident.with_reference("cyd", host.tokens["cyd"].rows)
    fitted = resident.fit(start, rows, learning_rate=0.0, seed=3, num_steps=3)[1]
    losses = []
    walked = resident.walk(lambda loss: losses.append(loss(start)), rows, seed=3, num_steps=3)
    assert len(losses) == 3
    assert walked["train_loss"] == pytest.approx(fitted["train_loss"], abs=1e-6)
    assert sum(losses) / 3 == pytest.approx(fitted["train_loss"], abs=1e-6)
    assert walked.keys() - {"grad_norm"} == fitted.keys() - {"grad_norm"}
    assert resident.trainer.loss_walk is None


def test_one_steps_evaluations_draw_one_dropout_and_the_next_steps_another(kit, tmp_path):
    host = host_of(kit, tmp_path, "sft", dropout=0.5)
    resident = host.resident
    start = {name: tensor + 0.1 for name, tensor in resident.start_adapter.items()}
    rows = host.tokens["bob"].rows
    pairs = []
    resident.walk(lambda loss: pairs.append((loss(start), loss(start))), rows, seed=3, num_steps=4)
    assert all(first == second for first, second in pairs)
    assert len({first for first, _ in pairs}) > 2


def test_a_walk_leaves_no_gradient_and_no_trace_in_the_next_fit(kit, tmp_path):
    host = host_of(kit, tmp_path, "sft")
    resident, start = host.resident, host.resident.start_adapter
    rows = host.tokens["cyd"].rows
    before = resident.fit(start, rows, learning_rate=1e-2, seed=3, num_steps=2)
    resident.walk(lambda loss: loss(start), rows, seed=4, num_steps=2)
    assert all(parameter.grad is None for parameter in resident.live_adapter.parameters.values())
    after = resident.fit(start, rows, learning_rate=1e-2, seed=3, num_steps=2)
    assert all((before[0][name] == after[0][name]).all() for name in start)
    assert before[1] == after[1]
