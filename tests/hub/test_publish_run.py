"""A finished run goes to the Hub in one commit and comes back: by PEFT, by `fedllm-eval`, with its reference."""

import importlib.util
import json
from pathlib import Path

import pytest
from peft import PeftModel

from fedllm_data.errors import ConfigError, HubError
from fedllm_eval.policies import load_policy, load_reference
from fedllm_train.config import FederatedConfig
from fedllm_train.publish import publish_run
from fedllm_train.trainer import FederatedTrainer


def load_kit():
    spec = importlib.util.spec_from_file_location("train_kit", Path(__file__).parents[1] / "train" / "conftest.py")
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    return kit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A DPO run that started from an SFT adapter."""
    kit, folder = load_kit(), tmp_path_factory.mktemp("run")
    kit.make_model().save_pretrained(folder / "base")
    kit.make_tokenizer().save_pretrained(folder / "base")
    for task, adapter in (("sft", None), ("dpo", str(folder / "sft"))):
        FederatedTrainer(
            str(folder / "base"),
            FederatedConfig(output_dir=str(folder / task), num_rounds=2, cohort_size=2, local_steps=2),
            kit.make_clients("sft" if task == "sft" else "preference"),
            kit.trl_args(task),
            None if adapter else kit.lora(),
            adapter=adapter,
        ).train()
    return folder / "dpo"


def test_a_published_run_loads_with_plain_peft_and_scores_by_id(hub, repo_id, run):
    result = publish_run(run, repo_id)
    repo = hub.repo(repo_id, "model")
    assert len(repo.commits) == 2  # the Hub's own first commit, and ours
    assert {"adapter_model.safetensors", "start_adapter/adapter_model.safetensors", "rounds.jsonl"} <= set(repo.files)
    base = load_kit().make_model()
    published = PeftModel.from_pretrained(base, repo_id, revision=result.revision)
    local = PeftModel.from_pretrained(load_kit().make_model(), run / "adapter")
    ours, theirs = local.state_dict(), published.state_dict()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)

    policy = load_policy(repo_id)
    reference = load_reference(policy)
    assert policy.location.beta == pytest.approx(0.1)
    # The reference is the base with the SFT adapter the run started from, also when read from the Hub.
    assert reference.adapter is not None
    assert reference.adapter.name == "start_adapter"


def test_the_card_names_the_repo_and_no_path(hub, repo_id, run):
    publish_run(run, repo_id)
    card = (run / "README.md").read_text()
    assert f'from_pretrained(base, "{repo_id}")' in card
    assert str(run.parent) not in card
    assert "library_name: peft" in card
    assert "base and starting adapter together are DPO's reference" in card


def test_an_unfinished_run_is_not_published(hub, repo_id, run, tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match="finish the run first"):
        publish_run(tmp_path, repo_id)


def test_a_publish_that_dies_leaves_no_commit(hub, repo_id, run):
    hub.fail("POST", "/commit/", status=503, times=50)
    with pytest.raises(HubError):
        publish_run(run, repo_id)
    assert len(hub.repo(repo_id, "model").commits) == 1
    assert set(hub.repo(repo_id, "model").files) <= {".gitattributes"}
