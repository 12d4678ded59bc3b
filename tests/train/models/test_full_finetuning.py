"""All weights trained and averaged: equal to plain TRL, a fixed reference, tied weights, a plain model at the end."""

import pyarrow.compute as pc
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PrinterCallback
from trl import DPOTrainer, KTOConfig, SFTTrainer

from fedllm_data.errors import ConfigError
from fedllm_eval.per_client import evaluate_policy
from fedllm_eval.policy.policies import load_policy, load_reference
from fedllm_eval.policy.run_folder import personal_folders
from fedllm_eval.running.personal_scores import evaluate_personal
from fedllm_train.config import FederatedConfig
from fedllm_train.messages import codec
from fedllm_train.seeds import stream_seed
from fedllm_train.trainer import FederatedTrainer


def make_model(kit, *, tied=False):
    model = kit.make_model()
    if not tied:
        return model
    model.config.tie_word_embeddings = True
    torch.manual_seed(7)
    return LlamaForCausalLM(model.config)


def federated(kit, run, task="sft", *, model=None, sizes=None, args=None, peft_config=None, callbacks=(), **changes):
    settings = {"num_rounds": 1, "cohort_size": 1, "local_steps": 3, "seed": 3, **changes}
    return FederatedTrainer(
        model or make_model(kit),
        FederatedConfig(output_dir=str(run), full_finetuning=True, **settings),
        kit.make_clients("sft" if task == "sft" else "preference", sizes or {"ann": 7}),
        args or kit.trl_args(task, learning_rate=1e-3),
        peft_config,
        tokenizer=kit.make_tokenizer(kit.MARKED_TEMPLATE),
        callbacks=callbacks,
    )


def plain_trl(kit, tmp_path, task, model, **changes):
    args = kit.trl_args(
        task,
        **{"seed": stream_seed(3, "client", round_index=0, client_id="ann"), "max_steps": 3, "learning_rate": 1e-3},
        **{"lr_scheduler_type": "constant", "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True},
        output_dir=str(tmp_path / "plain"),
        **changes,
    )
    reference = {} if task == "sft" or args.precompute_ref_log_probs else {"ref_model": make_model(kit)}
    trainer = (SFTTrainer if task == "sft" else DPOTrainer)(
        model=model,
        args=args,
        train_dataset=kit.make_clients("sft" if task == "sft" else "preference", {"ann": 7})["ann"],
        processing_class=kit.make_tokenizer(kit.MARKED_TEMPLATE),
        **reference,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return dict(model.named_parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_one_client_one_round_sft_equals_plain_trl_to_the_bit_and_is_saved_whole(kit, tmp_path, tied):
    trainer = federated(kit, tmp_path / "run", model=make_model(kit, tied=tied))
    result = trainer.train().adapter
    expected = plain_trl(kit, tmp_path, "sft", make_model(kit, tied=tied), assistant_only_loss=True)
    assert result.keys() == expected.keys()
    assert ("lm_head.weight" in result) is not tied
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    assert not (tmp_path / "run" / "adapter").exists()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model", dtype=torch.float32)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in saved.named_parameters())
    if tied:
        assert saved.lm_head.weight is saved.model.embed_tokens.weight
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").chat_template == kit.MARKED_TEMPLATE


@pytest.mark.parametrize("cache", [False, True])
def test_one_client_one_round_dpo_equals_plain_trl_to_the_bit(kit, tmp_path, cache):
    result = federated(kit, tmp_path / "run", "dpo", reference_cache=cache).train().adapter
    expected = plain_trl(kit, tmp_path, "dpo", make_model(kit), precompute_ref_log_probs=cache)
    assert all(torch.equal(result[name], expected[name]) for name in expected)


@pytest.mark.parametrize("objective", ["dpo", "dpo, no cache", "kto"])
def test_the_reference_stays_the_starting_model_whoever_trained_before(kit, tmp_path, objective):
    args = KTOConfig(
        **{"bf16": False, "use_cpu": True, "activation_checkpointing": False, "per_device_train_batch_size": 4},
        max_length=64,
    )
    trainer = federated(
        kit, tmp_path / "run", "dpo", sizes={"ann": 7, "bob": 3}, reference_cache=objective == "dpo",
        args=args if objective == "kto" else None,
    )  # fmt: skip

    def visit(client_id, weights, rate):
        return trainer.loaded.host.visit(kit.question(client_id, {"adapter": weights}, step=1, learning_rate=rate))

    def rewards(reply):
        return max(abs(reply.facts["rewards/chosen"]), abs(reply.facts["rewards/rejected"]))

    trained = codec.decode(visit("bob", trainer.start_adapter, 1e-2).message)["adapter"]
    assert rewards(visit("ann", trainer.start_adapter, 0.0)) < 1e-5
    assert rewards(visit("ann", trained, 0.0)) > 1e-3


def test_a_finished_run_is_scored_as_a_policy_whose_reference_is_its_base(kit, tmp_path):
    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer(kit.MARKED_TEMPLATE).save_pretrained(tmp_path / "base")
    trainer = federated(kit, tmp_path / "run", model=str(tmp_path / "base"))
    trained = trainer.train().adapter
    policy = load_policy(tmp_path / "run")
    assert policy.location.kind == "run"
    with policy.active() as model:
        assert all(torch.equal(tensor, trained[name]) for name, tensor in model.named_parameters())
    with load_reference(policy).active() as model:
        assert all(torch.equal(tensor, trainer.start_adapter[name]) for name, tensor in model.named_parameters())


@pytest.mark.parametrize("strategy", ["fedadam", "scaffold", "local", "centralized", "ditto", "fedavg_ft"])
def test_methods_that_need_no_factors_train_whole_models(kit, tmp_path, strategy):
    run = tmp_path / "run"
    changes = {"personal_steps": 1} if strategy == "fedavg_ft" else {}
    trainer = federated(
        kit, run, sizes={"ann": 4, "bob": 3}, strategy=strategy, cohort_size=2, num_rounds=2, local_steps=1, **changes
    )
    state = trainer.train()
    moved = [name for name, tensor in state.adapter.items() if not torch.equal(tensor, trainer.start_adapter[name])]
    assert bool(moved) is (strategy != "local")  # without local_client the global model stays as it was
    personal = [path.parent for path in (run / "personal").glob("*/config.json")]
    assert len(personal) == (2 if strategy in ("local", "ditto", "fedavg_ft") else 0)
    for folder in personal:
        AutoModelForCausalLM.from_pretrained(folder)


def test_clients_are_scored_with_the_models_they_ended_with(kit, tmp_path):
    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer(kit.MARKED_TEMPLATE).save_pretrained(tmp_path / "base")
    run = tmp_path / "run"
    settings = {"sizes": {"ann": 4, "bob": 3}, "strategy": "local", "cohort_size": 2}
    trainer = federated(kit, run, model=str(tmp_path / "base"), **settings)
    trainer.train()
    folders = personal_folders(run)
    scored = evaluate_personal(load_policy(run), folders, trainer.clients)
    for client_id, folder in folders.items():
        alone = evaluate_policy(load_policy(folder), trainer.clients.select([client_id])).table
        of_client = scored.table.filter(pc.equal(scored.table["client_id"], client_id))
        assert of_client["heldout_loss"].to_pylist() == alone["heldout_loss"].to_pylist()
    assert len(set(scored.table["heldout_loss"].to_pylist())) == 2


def test_a_resumed_run_ends_at_the_same_bits(kit, tmp_path):
    class Stop(Exception):
        pass

    def stop(record):
        raise Stop

    settings = {"sizes": {"ann": 4, "bob": 3}, "cohort_size": 1, "num_rounds": 2, "local_steps": 1}
    whole = federated(kit, tmp_path / "whole", **settings).train().adapter
    broken = federated(kit, tmp_path / "broken", callbacks=[stop], **settings)
    with pytest.raises(Stop):
        broken.train()
    resumed = federated(kit, tmp_path / "broken", **settings).train(resume=True).adapter
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("strategy", ["ffa_lora", "flora", "feddpa"])
def test_lora_aware_methods_are_refused(kit, tmp_path, strategy):
    with pytest.raises(ConfigError, match="works on LoRA factors, and with full_finetuning there are none"):
        federated(kit, tmp_path / "run", strategy=strategy)
    assert not (tmp_path / "run").exists()


def test_an_adapter_beside_full_finetuning_is_refused(kit, tmp_path):
    with pytest.raises(ConfigError, match="trains the model's own weights"):
        federated(kit, tmp_path / "run", peft_config=kit.lora())
