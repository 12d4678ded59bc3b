"""A run folder of format 1, as versions before `format` wrote it: not resumed, but scored and published."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from peft import get_peft_model
from safetensors.torch import save_file

from fedllm_data.errors import ResumeError
from fedllm_eval import evaluate_policy
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.policy.run_folder import personal_folders, read_config, read_rounds, run_format
from fedllm_train import cli
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.run_files.publish_run import publish_run
from fedllm_train.run_files.run_card import write_run_card


def load_kit():
    spec = importlib.util.spec_from_file_location("train_kit", Path(__file__).parents[1] / "train" / "conftest.py")
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    return kit


CONFIG = {
    "task": "sft",
    "model": {"name": None, "revision": None, "weights": None},
    "tokenizer": {"sha256": "0" * 64, "chat_template_sha256": "1" * 64},
    "start_adapter": None,
    "data": {
        "name": "memory",
        "revision": None,
        "licence": None,
        "split": "train",
        "num_clients": 5,
        "client_ids": None,
    },
    "federated": {
        "strategy": "scaffold",
        "num_rounds": 2,
        "cohort_rule": "uniform",
        "cohort_size": 2,
        "local_steps": 1,
        "local_epochs": None,
        "expected_epochs": None,
        "round_rows": "all",
        "seed": 0,
        "min_learning_rate": 1e-6,
        "upload_codec": "none",
        "topk_fraction": 0.1,
        "error_feedback": False,
        "eval_score": None,
        "load_best": False,
        "prox_mu": 0.01,
        "preset": None,
    },
    "client": {"learning_rate": 2e-5, "per_device_train_batch_size": 1, "max_length": 64},
    "peft": {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
    "versions": {"fedllm-commons": "0.4.0"},
    "earlier": None,
}
ROUND = {
    "learning_rate": 2e-05,
    "train_loss": 5.5,
    "update_norm": 0.25,
    "aggregation_error": 0.0,
    "adapter_sha256": "2" * 64,
    "clients": [{"client_id": "ann", "num_rows": 3, "num_steps": 1, "seconds": 0.1, "train_loss": 5.5}],
    "left_out": [{"client_id": "bob", "reason": "none of its 4 rows holds a trained token within max_length"}],
    "server_step": True,
    "ledger": {"download_bytes": 64, "upload_bytes": 32, "num_local_steps": 1, "client_seconds": 0.1},
    "seconds": 0.2,
}
ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "inference_mode": True,
}


@pytest.fixture(scope="module")
def kit():
    return load_kit()


@pytest.fixture
def old_run(kit, tmp_path):
    """A finished run, its files written one by one as the old version wrote them."""
    run, base = tmp_path / "old", tmp_path / "base"
    kit.make_model().save_pretrained(base)
    kit.make_tokenizer().save_pretrained(base)
    memory = run / "client_memory" / "36600fcfd97e1267ab35e19ff690300f"
    for folder in (run / "adapter", run / "checkpoints" / "round-000001", memory):
        folder.mkdir(parents=True)
    (run / ".lock").touch()
    config = CONFIG | {"model": CONFIG["model"] | {"name": str(base)}}
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run / "rounds.jsonl").write_text("".join(json.dumps({"round_index": i} | ROUND) + "\n" for i in range(2)))
    (run / "README.md").write_text("card")
    live = LiveAdapter(get_peft_model(kit.make_model(), kit.lora()))
    weights = {name: tensor + 0.01 for name, tensor in live.read().items()}
    save_file(weights, run / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    targets = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights})
    adapter = ADAPTER_CONFIG | {"base_model_name_or_path": str(base), "target_modules": targets}
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    kit.make_tokenizer().save_pretrained(run / "adapter")
    save_file(weights, run / "checkpoints" / "round-000001" / "adapter.safetensors")
    state = {"next_round": 2, "ledger": ROUND["ledger"], "monitor": {}, "record": {"round_index": 1} | ROUND}
    (run / "checkpoints" / "round-000001" / "state.json").write_text(json.dumps(state))
    (memory / "round-000001.safetensors").write_bytes(b"of the client")
    return run


def files_of(run):
    return {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_it_is_not_resumed_and_the_refusal_is_one_line(kit, old_run, capfd):
    before = files_of(old_run)
    settings = {"strategy": "scaffold", "num_rounds": 2, "cohort_size": 2, "local_steps": 1}
    with pytest.raises(ResumeError, match=r"run format 1; this version writes 2\).*scored and published"):
        kit.make_trainer(old_run, **settings).train(resume=True)
    flags = [f"--{name}={value}" for name, value in settings.items()]
    rows = str(old_run / "adapter")  # never opened: the folder is refused first
    assert cli.main(["sft", "--data", rows, "--model", rows, f"--output_dir={old_run}", "--resume", *flags]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "was begun by another version" in error
    assert files_of(old_run) == before


def test_it_is_scored(kit, old_run):
    assert (run_format(read_config(old_run)), len(read_rounds(old_run)), personal_folders(old_run)) == (1, 2, {})
    policy = load_policy(str(old_run))
    table = evaluate_policy(policy, kit.make_clients("sft"))
    assert 0 < table.summary()["heldout_loss"]["mean"] < 20
    assert policy.location.kind == "run"


def test_it_is_published(hub, repo_id, old_run, monkeypatch):
    assert "in 2 visits and 1 optimizer steps" in write_run_card(old_run).read_text()
    publish_run(old_run, repo_id)
    files = set(hub.repo(repo_id, "model").files)
    assert {"adapter_model.safetensors", "config.yaml", "rounds.jsonl", "README.md"} <= files
    assert not any("client_memory" in name or "checkpoints" in name for name in files)
    monkeypatch.chdir(old_run.parent)  # where the card's "base" lies
    assert load_policy(repo_id).adapter is not None
