"""What is scored here is what TRL's trainers compute on the same rows: template, masks, truncation, reference."""

import pytest
from datasets import Dataset

from fedllm_eval.per_client import evaluate_policy
from fedllm_eval.policy.models import load_policy, load_reference

MAX_LENGTH = 24
"""Cuts some rows short and leaves others whole."""


@pytest.fixture
def quiet(tmp_path):
    return {
        "output_dir": str(tmp_path / "trl"),
        "per_device_eval_batch_size": 5,
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "max_length": MAX_LENGTH,
    }


def test_implicit_rewards_equal_those_of_dpo_trainer(tmp_path, quiet, make_run, pair_rows, preference_clients):
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    run = make_run(tmp_path / "run", seed=1)
    policy = load_policy(run)
    scores = evaluate_policy(
        policy, preference_clients, reference=load_reference(policy), beta=0.3, max_length=MAX_LENGTH
    )
    summary = scores.summary()

    base = AutoModelForCausalLM.from_pretrained(policy.backbone.folder)
    rows = Dataset.from_list(pair_rows)
    trainer = DPOTrainer(
        base,
        args=DPOConfig(beta=0.3, **quiet),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=policy.tokenizer,
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    set_peft_model_state_dict(trainer.model, load_file(run / "adapter" / "adapter_model.safetensors"))
    expected = trainer.evaluate()
    assert summary["implicit_reward_margin"]["weighted_mean"] == pytest.approx(
        expected["eval_rewards/margins"], abs=1e-4
    )
    assert summary["implicit_reward_accuracy"]["weighted_mean"] == pytest.approx(expected["eval_rewards/accuracies"])
    assert summary["implicit_reward_loss"]["weighted_mean"] == pytest.approx(expected["eval_loss"], abs=1e-4)
    assert sum(scores.table["num_truncated"].to_pylist()) > 0


def test_heldout_loss_equals_the_eval_loss_of_sft_trainer_on_the_same_tokens(
    tmp_path, quiet, model_folder, sft_clients
):
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from fedllm_eval.policy.chat import encode_messages

    policy = load_policy(model_folder)
    summary = evaluate_policy(policy, sft_clients, max_length=MAX_LENGTH).summary()
    rows = Dataset.from_list(
        [encode_messages(policy.tokenizer, messages) for messages in sft_clients.rows["messages"]]
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(model_folder),
        args=SFTConfig(**quiet),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=policy.tokenizer,
    )
    expected = trainer.evaluate()["eval_loss"]
    assert summary["heldout_loss"]["weighted_mean"] == pytest.approx(expected, abs=1e-4)
    assert (
        0
        < summary["heldout_loss"]["num_items"]
        < evaluate_policy(policy, sft_clients).summary()["heldout_loss"]["num_items"]
    )
