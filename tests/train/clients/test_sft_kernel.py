"""The ordinary forward in place of TRL's kernel: the same loss and gradient, and refused where it would not be."""

import pytest
import torch
from peft import PromptTuningConfig
from trl import SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train.clients.sft_kernel import chosen_kernel
from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer


def make_trainer(kit, run, kernel, peft_config=None, **changes):
    return FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(run), num_rounds=2, cohort_size=2, local_steps=2, seed=3, sft_kernel=kernel),
        kit.make_clients(),
        kit.trl_args("sft", **changes),
        peft_config or kit.lora(),
        tokenizer=kit.make_tokenizer(),
    )


@pytest.mark.parametrize("adapter", ["lora", "prompt_tuning"])
def test_a_batch_has_the_loss_and_gradient_of_trl(kit, tmp_path, adapter):
    config = kit.lora() if adapter == "lora" else PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    host = make_trainer(kit, tmp_path / "run", "trl", config).loaded.host
    resident, rows = host.resident, host.tokens["cyd"].rows
    trainer = resident.trainer
    found = []
    for plain in (False, True):
        trainer.plain_kernel = plain
        trainer.model.zero_grad()
        inputs = trainer._prepare_inputs(trainer.data_collator([rows[i] for i in range(4)]))
        loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(20))
        loss.backward()
        found.append((loss.item(), {n: p.grad.clone() for n, p in resident.live_adapter.parameters.items()}))
    (trl, gradient), (plain, plain_gradient) = found
    assert plain == pytest.approx(trl, rel=1e-5)
    for name, tensor in gradient.items():
        torch.testing.assert_close(plain_gradient[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_run_ends_where_the_run_with_trls_kernel_ends(kit, tmp_path):
    # Plain SGD: AdamW's first step is the sign of the gradient, which rounding may turn where it is nearly 0.
    settings = {"gradient_accumulation_steps": 2, "optim": "sgd", "learning_rate": 0.1}
    ends, losses = [], []
    for kernel in ("trl", "plain"):
        trainer = make_trainer(kit, tmp_path / kernel, kernel, **settings)
        ends.append(trainer.train().adapter)
        losses.append([record["train_loss"] for record in kit.records_of(tmp_path / kernel)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=0, atol=1e-5)


def test_auto_takes_the_plain_kernel_on_a_cpu_where_it_gives_the_same_loss():
    cpu = {"bf16": False, "use_cpu": True}
    assert chosen_kernel("auto", SFTConfig(**cpu)) == "plain"
    assert chosen_kernel("auto", SFTConfig(loss_type="dft", **cpu)) == "trl"
    assert chosen_kernel("trl", SFTConfig(**cpu)) == "trl"


@pytest.mark.parametrize("changes", [{"loss_type": "dft"}, {"label_smoothing_factor": 0.1}])
def test_another_loss_than_the_mean_is_refused(kit, tmp_path, changes):
    with pytest.raises(ConfigError, match="sft_kernel plain computes the mean loss of SFT alone"):
        make_trainer(kit, tmp_path / "run", "plain", **changes)
