"""What lies beside the base model is part of the run: a resume on another one is refused, and the reason named."""

import json

import pytest
import torch

from fedllm_data.errors import ResumeError
from fedllm_eval.policy.policies import load_policy
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.models.tokenizer import tokenizer_record


class Stop(Exception):
    pass


def stop(record):
    raise Stop


def trainer(kit, folder, *callbacks):
    return FederatedTrainer(
        str(folder / "base"),
        FederatedConfig(output_dir=str(folder / "run"), num_rounds=2, cohort_size=1, local_steps=1),
        kit.make_clients(sizes={"ann": 2}),
        kit.trl_args("sft"),
        kit.lora(),
        callbacks=callbacks,
    )


def save_base(kit, folder, *, binary):
    base = folder / "base"
    kit.make_model().save_pretrained(base)
    kit.make_tokenizer().save_pretrained(base)
    if binary:
        torch.save(kit.make_model().state_dict(), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()


def another_template(base):
    path = base / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|user|>", "<|user|> "))
    path.write_text("{# another #}" + path.read_text())


def another_vocabulary(base):
    content = json.loads((base / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    (base / "tokenizer.json").write_text(json.dumps(content))


def another_end(base):
    content = json.loads((base / "tokenizer_config.json").read_text())
    content["eos_token"] = "<|user|>"
    (base / "tokenizer_config.json").write_text(json.dumps(content))


def other_weights(base):
    weights = torch.load(base / "pytorch_model.bin")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 2
    torch.save(weights, base / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (another_template, r"tokenizer\.chat_template_sha256"),
        (another_vocabulary, r"tokenizer\.sha256"),
        (another_end, r"tokenizer\.sha256"),
        (other_weights, r"model\.revision"),
    ],
)
def test_a_resume_on_a_changed_base_is_refused_with_the_reason(kit, tmp_path, change, reason):
    save_base(kit, tmp_path, binary=change is other_weights)
    with pytest.raises(Stop):
        trainer(kit, tmp_path, stop).train()
    change(tmp_path / "base")
    with pytest.raises(ResumeError, match=reason):
        trainer(kit, tmp_path).train(resume=True)


def test_a_tokenizer_has_one_digest_wherever_it_is_loaded_and_whatever_it_was_used_for(kit, tmp_path):
    tokenizer = kit.make_tokenizer()
    first = tokenizer_record(tokenizer)
    tokenizer(["say red", "two"], padding=True, truncation=True, max_length=4)
    assert tokenizer_record(tokenizer) == first == tokenizer_record(kit.make_tokenizer())
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_record(type(tokenizer).from_pretrained(tmp_path)) == first


def test_scores_of_a_base_in_bin_files_know_its_weights(kit, tmp_path):
    save_base(kit, tmp_path, binary=True)
    before = load_policy(tmp_path / "base", device="cpu").describe()["base_digest"]
    other_weights(tmp_path / "base")
    assert load_policy(tmp_path / "base", device="cpu").describe()["base_digest"] != before
