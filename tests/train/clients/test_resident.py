"""One client and one round of FedAvg equal plain TRL on that client's rows, to the bit."""

import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PrinterCallback
from trl import DPOTrainer, SFTTrainer

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import load_adapter
from fedllm_train.config import FederatedConfig
from fedllm_train.messages import codec
from fedllm_train.seeds import stream_seed
from fedllm_train.trainer import FederatedTrainer


def federated(
    kit, tmp_path, task, *, template, peft_config, sizes=None, cohort_size=1, reference_cache=True, **changes
):
    clients = kit.make_clients("sft" if task == "sft" else "preference", sizes or {"ann": 7})
    config = FederatedConfig(
        output_dir=str(tmp_path / "run"),
        num_rounds=1,
        cohort_size=cohort_size,
        local_steps=5,
        seed=3,
        reference_cache=reference_cache,
    )
    return FederatedTrainer(
        kit.make_model(),
        config,
        clients,
        kit.trl_args(task, **changes),
        peft_config,
        tokenizer=kit.make_tokenizer(template),
    )


def plain_trl(kit, tmp_path, task, start, *, template, peft_config, learning_rate=1e-2, **changes):
    """Train as a TRL user would: a new trainer, the client's rows as they are."""
    model = get_peft_model(kit.make_model(), peft_config)
    set_peft_model_state_dict(model, start)
    seed = stream_seed(3, "client", round_index=0, client_id="ann")
    args = kit.trl_args(
        task,
        seed=seed,
        max_steps=5,
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        output_dir=str(tmp_path / "plain"),
        **changes,
    )
    args.learning_rate = learning_rate
    rows = kit.make_clients("sft" if task == "sft" else "preference", {"ann": 7})["ann"]
    trainer = (SFTTrainer if task == "sft" else DPOTrainer)(
        model=model, args=args, train_dataset=rows, processing_class=kit.make_tokenizer(template)
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}


def assert_bit_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_one_client_one_round_sft_equals_plain_trl_to_the_bit(kit, tmp_path, dropout):
    peft_config = kit.lora(lora_dropout=dropout)
    trainer = federated(kit, tmp_path, "sft", template=kit.MARKED_TEMPLATE, peft_config=peft_config)
    start = trainer.start_adapter
    result = trainer.train().adapter
    expected = plain_trl(
        kit, tmp_path, "sft", start, template=kit.MARKED_TEMPLATE, peft_config=peft_config, assistant_only_loss=True
    )
    assert_bit_equal(result, expected)
    assert_bit_equal(
        load_adapter(tmp_path / "run" / "adapter" / "adapter_model.safetensors"),
        {name: tensor for name, tensor in expected.items()},
    )
    assert any(not torch.equal(start[name], expected[name]) for name in start)


@pytest.mark.parametrize("cache", [False, True])
def test_one_client_one_round_dpo_equals_plain_trl_to_the_bit(kit, tmp_path, cache):
    settings = {"template": kit.PLAIN_TEMPLATE, "peft_config": kit.lora()}
    trainer = federated(kit, tmp_path, "dpo", reference_cache=cache, **settings)
    start = trainer.start_adapter
    result = trainer.train().adapter
    expected = plain_trl(kit, tmp_path, "dpo", start, precompute_ref_log_probs=cache, **settings)
    assert_bit_equal(result, expected)
    assert any(not torch.equal(start[name], expected[name]) for name in start)


@pytest.mark.parametrize("with_start_adapter", [False, True])
def test_a_cached_reference_gives_the_run_that_computes_it_in_every_step(kit, tmp_path, with_start_adapter):
    start = None
    if with_start_adapter:
        kit.make_trainer(tmp_path / "sft", num_rounds=1).train()
        start = str(tmp_path / "sft")
    adapters = []
    for cache in (False, True):
        trainer = kit.make_trainer(tmp_path / str(cache), "dpo", adapter=start, reference_cache=cache)
        adapters.append(trainer.train().adapter)
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "round_index", "rests", "with_start_adapter"),
    [("ffa_lora", 0, "lora_A", False), ("ffa_lora", 0, "lora_A", True), ("rolora", 1, "lora_B", True)],
)
def test_what_rests_has_no_gradient_to_clip_when_the_reference_is_computed_in_the_step(
    kit, tmp_path, strategy, round_index, rests, with_start_adapter
):
    """TRL switches to the reference and back, and PEFT then lets all of the adapter be trained again."""
    start = None
    if with_start_adapter:
        kit.make_trainer(tmp_path / "sft", num_rounds=1).train()
        start = str(tmp_path / "sft")
    ended = []
    for cache in (False, True):
        trainer = FederatedTrainer(
            kit.make_model(),
            FederatedConfig(
                output_dir=str(tmp_path / str(cache)), strategy=strategy, num_rounds=2, cohort_size=1, local_steps=5,
                reference_cache=cache,
            ),
            kit.make_clients("preference", {"ann": 7}),
            # Plain steps, long ones, that a clip shortens: what else is clipped together shows in the result.
            kit.trl_args("dpo", optim="sgd", max_grad_norm=1e-3),
            None if start else kit.lora(),
            adapter=start,
            tokenizer=kit.make_tokenizer(),
        )  # fmt: skip
        resident, sent = trainer.loaded.host.resident, trainer.start_adapter
        accelerator, live = resident.trainer.accelerator, resident.live_adapter
        clip, norms, resting = accelerator.clip_grad_norm_, [], []

        def spy(parameters, *limits, clip=clip, live=live, norms=norms, resting=resting):
            resting.extend(name for name, each in live.parameters.items() if rests in name and each.grad is not None)
            norms.append(clip(parameters, *limits))
            return norms[-1]

        accelerator.clip_grad_norm_ = spy
        task = kit.question("ann", {"adapter": sent}, step=round_index, learning_rate=30.0)
        reply = trainer.loaded.host.visit(task)
        assert resting == []
        assert len(norms) == 5
        assert float(min(norms)) > 1e-3  # every step was clipped
        ended.append(codec.decode(reply.message)["adapter"])
        assert any(not torch.equal(each, sent[name]) for name, each in ended[-1].items())
    for name, tensor in ended[0].items():
        torch.testing.assert_close(ended[1][name], tensor, rtol=0, atol=1e-5)


def test_the_reference_of_a_client_is_computed_once_a_run(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", "dpo")
    host = trainer.loaded.host
    inner = host.resident.trainer
    batches = []
    compute = inner.compute_ref_log_probs
    inner.compute_ref_log_probs = lambda model, batch: (
        batches.append(len(batch["input_ids"]) // 2) or compute(model, batch)
    )
    for step in range(2):
        for client_id in trainer.clients:
            host.visit(kit.question(client_id, {"adapter": trainer.start_adapter}, step=step))
    assert sum(batches) == sum(kit.SIZES.values())


def test_a_later_visit_to_a_used_trainer_equals_plain_trl_too(kit, tmp_path):
    """Three clients go before; nothing of their optimizers, gradients or random numbers may linger."""
    peft_config = kit.lora(lora_dropout=0.2)
    trainer = federated(
        kit,
        tmp_path,
        "sft",
        template=kit.MARKED_TEMPLATE,
        peft_config=peft_config,
        sizes={"ann": 7, "bob": 3, "cyd": 12, "dan": 5},
        cohort_size=4,
    )
    start = trainer.start_adapter
    for client_id in ("dan", "cyd", "bob", "ann"):
        seed = stream_seed(3, "client", round_index=0, client_id=client_id)
        reply = trainer.loaded.host.visit(kit.question(client_id, {"adapter": start}, seed=seed))
    expected = plain_trl(
        kit, tmp_path, "sft", start, template=kit.MARKED_TEMPLATE, peft_config=peft_config, assistant_only_loss=True
    )
    assert_bit_equal(codec.decode(reply.message)["adapter"], expected)


def test_a_template_without_marks_gives_the_same_training_as_one_with_marks(kit, tmp_path):
    adapters = []
    for name, template in (("plain", kit.PLAIN_TEMPLATE), ("marked", kit.MARKED_TEMPLATE)):
        trainer = federated(kit, tmp_path / name, "sft", template=template, peft_config=kit.lora())
        adapters.append(trainer.train().adapter)
    assert_bit_equal(*adapters)


def test_no_client_with_a_trained_token_is_refused_before_the_first_round(kit, tmp_path):
    trainer = federated(kit, tmp_path, "sft", template=kit.PLAIN_TEMPLATE, peft_config=kit.lora(), max_length=1)
    with pytest.raises(ConfigError, match="raise max_length"):
        trainer.train()
