"""Gradients of frozen weights by hooks, against torch's own on a model whose weights are not frozen."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, TrainerCallback
from trl import DPOTrainer, SFTTrainer

from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.clients.weight_gradients import first_step, weight_gradients

BATCHES = [torch.arange(24).reshape(2, 12), torch.arange(100, 108).reshape(1, 8)]


def adapted(base, trained=True, **settings):
    settings = {"r": 2, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(base, LoraConfig(**settings))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for name, p in model.named_parameters() if trained and "lora_B" in name):
            parameter.copy_(torch.randn(parameter.shape, generator=draw) / 10)
    return model


def gradients_by_hooks(model):
    with weight_gradients(model) as sums:
        for ids in BATCHES:
            model(input_ids=ids, labels=ids).loss.backward()
    return sums


def gradients_by_torch(plain, batches=BATCHES):
    """Of every weight of a plain model, by the names of PEFT's modules."""
    plain.requires_grad_(True).train()
    for ids in batches:
        plain(input_ids=ids, labels=ids).loss.backward()
    return {
        f"base_model.model.{name}".removesuffix(".weight"): p.grad
        for name, p in plain.named_parameters()
        if name.endswith(".weight")
    }


@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_they_are_those_of_an_unfrozen_model(kit, checkpointing):
    """With a trained adapter, so that the place where they are taken is not the base; True recomputes reentrantly."""
    model = adapted(kit.make_model()).train()
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    sums = gradients_by_hooks(model)
    plain = adapted(kit.make_model()).merge_and_unload()
    expected = gradients_by_torch(plain)
    assert len(sums) == 14  # seven linear layers in each of two blocks
    for module, gradient in sums.items():
        torch.testing.assert_close(gradient, expected[module], rtol=1e-4, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules() if hasattr(module, "lora_A"))


def test_half_precision_is_summed_in_whole(kit):
    """A base in bfloat16 below factors in float32, as on a GPU."""
    model = adapted(kit.make_model().bfloat16(), trained=False).train()
    with torch.autocast("cpu", torch.bfloat16):
        sums = gradients_by_hooks(model)
    expected = gradients_by_torch(kit.make_model())
    for module, gradient in sums.items():
        assert gradient.dtype == torch.float32
        error = (gradient - expected[module]).norm() / expected[module].norm()
        assert error < 0.05  # bfloat16 keeps 8 bits


def test_transposed_weights_have_their_gradient_in_the_shape_of_b_a():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=120, n_positions=16, n_embd=12, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    base = GPT2LMHeadModel(config)
    state = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    sums = gradients_by_hooks(adapted(base, trained=False, target_modules=["c_fc"], fan_in_fan_out=True))
    plain = GPT2LMHeadModel(config)
    plain.load_state_dict(state)
    ((module, gradient),) = sums.items()
    assert gradient.shape == (48, 12)
    torch.testing.assert_close(gradient, gradients_by_torch(plain)[module].mT, rtol=1e-4, atol=1e-6)


def test_what_does_not_train_the_adapter_does_not_count(kit):
    model = adapted(kit.make_model())
    with weight_gradients(model) as sums:
        with torch.no_grad():
            model(input_ids=BATCHES[0])
        model.get_input_embeddings().weight.requires_grad_(True)
        with model.disable_adapter():
            model(input_ids=BATCHES[0], labels=BATCHES[0]).loss.backward()
    assert not any(each.any() for each in sums.values())


def test_the_first_step_by_hand(kit):
    model = adapted(kit.make_model(), target_modules=["q_proj"])
    first, second = (name for name, _ in model.named_modules() if name.endswith("q_proj"))
    gradients = {first: torch.tensor([[3.0, -1e-9, 0.0]]), second: torch.tensor([[float("inf"), 1.0, float("nan")]])}
    step = first_step(model, gradients, 0.6)
    # s = 6 / 2 = 3, so -0.6 sign(G) is 3 times -0.2 sign(G).
    torch.testing.assert_close(step[f"{first}.matrix"], torch.tensor([[-0.2, 0.2, 0.0]]))
    assert step[f"{second}.matrix"].isnan().tolist() == [[True, False, True]]  # no infinity passes for a sign


def test_the_first_step_is_adamws_own(kit):
    """torch's optimizer on the unfrozen weights, eps aside."""
    model = adapted(kit.make_model(), trained=False)
    sums = gradients_by_hooks(model)
    step = first_step(model, sums, 1e-2)
    for module, gradient in sums.items():
        weight = torch.nn.Parameter(torch.zeros_like(gradient))
        weight.grad = gradient.clone()
        torch.optim.AdamW([weight], lr=1e-2, weight_decay=0.0, eps=0.0).step()
        torch.testing.assert_close(3 * step[f"{module}.matrix"], weight.detach(), rtol=1e-5, atol=1e-8)


class SumGradients(TrainerCallback):
    def __init__(self):
        self.sums = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.sums[name] = self.sums.get(name, 0) + parameter.grad


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_visit_takes_them_over_the_batches_of_plain_trl_on_all_weights(kit, tmp_path, task):
    changes = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_grad_norm": 0.0}
    clients = kit.make_clients("sft" if task == "sft" else "preference", {"ann": 7})
    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path / "run"), strategy="fed_sb", cohort_size=1, reference_cache=False),
        clients,
        kit.trl_args(task, **changes),
        kit.lora(),
        tokenizer=kit.make_tokenizer(kit.MARKED_TEMPLATE if task == "sft" else kit.PLAIN_TEMPLATE),
    )
    host = trainer.loaded.host
    with weight_gradients(trainer.model) as sums:
        host.resident.fit(trainer.start_adapter, host.tokens["ann"].rows, learning_rate=0.0, seed=11, num_steps=3)
    only_assistant = {"assistant_only_loss": True} if task == "sft" else {}
    args = kit.trl_args(
        task, **changes, **only_assistant, seed=11, max_steps=3, lr_scheduler_type="constant", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, output_dir=str(tmp_path / "plain"),
    )  # fmt: skip
    args.learning_rate = 0.0
    collected = SumGradients()
    plain = (SFTTrainer if task == "sft" else DPOTrainer)(
        model=kit.make_model(), args=args, train_dataset=clients["ann"], callbacks=[collected],
        processing_class=kit.make_tokenizer(kit.MARKED_TEMPLATE if task == "sft" else kit.PLAIN_TEMPLATE),
        **({} if task == "sft" else {"ref_model": kit.make_model()}),
    )  # fmt: skip
    plain.train()
    assert len(sums) == 14
    for module, gradient in sums.items():
        expected = collected.sums[f"{module.removeprefix('base_model.model.')}.weight"]
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
