"""The ordinary forward under TRL's DPO and KTO: the same loss, gradient, metrics and reference as with its kernel."""

import pytest
import torch
from peft import PromptTuningConfig
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import rows_of_visit
from fedllm_train.clients.preference_kernel import PlainHead
from fedllm_train.clients.sft_kernel import chosen_kernel
from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer

LOSSES = {
    "dpo": [
        {},
        {"loss_type": ["ipo", "sft"], "loss_weights": [0.5, 1.0]},
        {"use_weighting": True},
        {"ld_alpha": 0.5},
        {"f_divergence_type": "js_divergence"},
    ],
    "kto": [{"loss_type": "kto"}, {"loss_type": "apo_zero_unpaired"}],
}


CPU = {"bf16": False, "use_cpu": True, "activation_checkpointing": False, "max_length": 64}


def make_args(task, **changes):
    batch = {"per_device_train_batch_size": 4}
    return (DPOConfig if task == "dpo" else KTOConfig)(**{**CPU, **batch, **changes})


def make_trainer(kit, run, kernel, task="dpo", peft_config=None, changes=None, **federated):
    settings = {"num_rounds": 2, "cohort_size": 2, "local_steps": 2, "seed": 3} | federated
    return FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(run), preference_kernel=kernel, **settings),
        kit.make_clients("preference"),
        make_args(task, **(changes or {})),
        peft_config or kit.lora(),
        tokenizer=kit.make_tokenizer(),
    )


def moved(trainer):
    """Move the policy away from its reference, so that no log-ratio is 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.loaded.host.resident.live_adapter.parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(("task", "changes"), [(task, changes) for task, each in LOSSES.items() for changes in each])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_batch_has_the_loss_gradient_and_metrics_of_trl(kit, tmp_path, task, changes, keeps):
    found = []
    for kernel in ("trl", "plain"):
        trainer = make_trainer(kit, tmp_path / kernel, kernel, task, changes=changes, reference_cache=keeps)
        resident = trainer.loaded.host.resident
        rows = resident.with_reference("cyd", trainer.loaded.host.tokens["cyd"].rows)
        rows = rows_of_visit(rows, resident.trainer.args, seed=3)
        moved(trainer)
        inner = resident.trainer
        inner.model.train()
        inputs = inner._prepare_inputs(inner.data_collator([rows[i] for i in range(4)]))
        loss = inner.compute_loss(inner.model, inputs)
        loss.backward()
        gradient = {name: each.grad.clone() for name, each in resident.live_adapter.parameters.items()}
        inner.log({})  # TRL's means of its metrics since the last time: those of this batch
        found.append((loss.item(), gradient, inner.state.log_history[-1]))
    (trl, gradient, metrics), (plain, plain_gradient, plain_metrics) = found
    assert plain == pytest.approx(trl, rel=1e-5)
    assert plain_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    assert any(tensor.abs().max() > 0 for tensor in gradient.values())
    for name, tensor in gradient.items():
        torch.testing.assert_close(plain_gradient[name], tensor, rtol=1e-3, atol=1e-6)


def test_every_tensor_of_the_fused_head_is_there_with_the_virtual_tokens_of_prompt_tuning_too(kit, tmp_path):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    trainer = make_trainer(kit, tmp_path / "run", "trl", peft_config=config, changes={"use_weighting": True})
    inner = trainer.loaded.host.resident.trainer
    batch = inner.data_collator([trainer.loaded.host.tokens["cyd"].rows[i] for i in range(3)])
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    given["labels"] = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inner.model.eval()
    with torch.no_grad():
        fused = inner.model(**given, fused_lm_head=True)
        plain = PlainHead(inner.model, sums_squares=True)(**given, fused_lm_head=True)
    num_tokens = batch["input_ids"].shape[1] - 1
    for name in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"):
        expected = getattr(fused, name)[:, -num_tokens:]  # TRL's hold the virtual tokens too
        assert getattr(plain, name).shape == (6, num_tokens)
        torch.testing.assert_close(getattr(plain, name), expected, rtol=1e-4, atol=1e-5)
    assert plain.loss.item() == pytest.approx(fused.loss.item(), rel=1e-5)


def test_a_batch_without_an_answer_has_a_loss_of_zero_that_still_has_a_gradient(kit, tmp_path):
    model = make_trainer(kit, tmp_path / "run", "plain").model
    ids = torch.tensor([[5, 6, 7]])
    outputs = PlainHead(model)(input_ids=ids, labels=torch.full_like(ids, -100))
    assert outputs.log_probs.tolist() == [[0.0, 0.0]]
    outputs.log_probs.sum().backward()


def test_a_run_ends_where_the_run_with_trls_kernel_ends(kit, tmp_path):
    # Plain SGD: AdamW's first step is the sign of the gradient, which rounding may turn where it is nearly 0.
    ends = []
    for kernel in ("trl", "plain"):
        changes = {"optim": "sgd", "learning_rate": 0.1}
        ends.append(make_trainer(kit, tmp_path / kernel, kernel, changes=changes).train().adapter)
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=0, atol=1e-5)


def test_auto_takes_the_plain_kernel_on_a_cpu():
    assert chosen_kernel("auto", make_args("dpo")) == "plain"
    assert chosen_kernel("auto", make_args("kto")) == "plain"
    assert chosen_kernel("auto", make_args("dpo", router_aux_loss_coef=0.1)) == "trl"
    assert chosen_kernel("trl", make_args("dpo")) == "trl"


def test_it_is_refused_where_it_would_be_ignored_or_compute_another_loss(kit, tmp_path):
    with pytest.raises(ConfigError, match=r"preference_kernel is given, and .* does not look at it"):
        FederatedTrainer(
            "no/model",
            FederatedConfig(output_dir=str(tmp_path / "run"), preference_kernel="plain"),
            kit.make_clients(),
            SFTConfig(bf16=False, use_cpu=True),
        )
    with pytest.raises(ConfigError, match="preference_kernel plain computes log-probabilities alone, and router_aux"):
        make_trainer(kit, tmp_path / "run", "plain", changes={"router_aux_loss_coef": 0.1})
