"""A finished run goes to the Hub in one commit and comes back: by PEFT, by `fedllm-eval`, with its reference.

Of a run with differential privacy goes only what its guarantee covers.
"""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from peft import PeftModel

from fedllm_data.errors import ConfigError, HubError
from fedllm_eval.policy.policies import load_policy, load_reference
from fedllm_train.cli import main
from fedllm_train.config import FederatedConfig
from fedllm_train.privacy.covered import COVERED, NOT_COVERED
from fedllm_train.run_files.publish import publish_run
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


# -- differential privacy -----------------------------------------------------------------------------------------

UNCOVERED = re.compile(
    r"\b(ann|bob|cyd|dan|eve)\b|train_loss|num_rows|left_out|num_clipped|_bytes|bytes went|_seconds|\bseed:"
)
"""What must stand in no text file of a private push: the clients, and what only they or their cohorts say."""


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    """A private run that was scored while it ran, with scores of its own beside it."""
    kit, folder = load_kit(), tmp_path_factory.mktemp("private")
    kit.make_model().save_pretrained(folder / "base")
    kit.make_tokenizer().save_pretrained(folder / "base")
    FederatedTrainer(
        str(folder / "base"),
        FederatedConfig(
            output_dir=str(folder / "run"), cohort_rule="poisson", cohort_size=2, num_rounds=3, local_steps=2,
            seed=2**60 + 1, eval_every=1, dp_clip=0.05, dp_noise_multiplier=1.0, dp_delta=1e-2,
        ),
        kit.make_clients(),
        kit.trl_args("sft"),
        kit.lora(),
        eval_dataset=kit.make_clients(),
    ).train()  # fmt: skip
    (folder / "run" / "scores" / ".eval_results").mkdir(parents=True)
    (folder / "run" / "scores" / "results.md").write_text("| client | loss |\n| --- | --- |\n| ann | 1.5 |\n")
    (folder / "run" / "scores" / "results.json").write_text('{"clients": {"ann": 1.5}}')
    (folder / "run" / "scores" / ".eval_results" / "words.yaml").write_text("- value: 1.5\n")
    return folder / "run"


def texts(repo):
    return {name: file.content.decode() for name, file in repo.files.items() if not name.endswith(".safetensors")}


def test_of_a_private_run_only_what_the_guarantee_covers_is_published(hub, repo_id, private_run):
    result = publish_run(private_run, repo_id)
    files = texts(hub.repo(repo_id, "model"))
    # The tokenizer and its template are the base's and the settings'; no row has a part in them.
    of_settings = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    of_run = {".gitattributes", "README.md", "adapter_config.json", "config.yaml", "releases.jsonl"}
    assert set(files) == of_run | of_settings
    for name, text in files.items():
        assert UNCOVERED.search(text) is None, name
    ours = [json.loads(line) for line in (private_run / "rounds.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in files["releases.jsonl"].splitlines()]
    kept = ("round_index", "learning_rate", "update_norm", "adapter_sha256")
    for mine, public in zip(ours, theirs, strict=True):
        spent = {name: mine["privacy"][name] for name in ("unit", "epsilon", "delta")}
        assert public == {name: mine[name] for name in kept} | {"privacy": spent}
    card = files["README.md"]
    assert "Who took part in which round" in card
    assert f"epsilon {ours[-1]['privacy']['epsilon']:.3g} at delta 0.01, unit: client" in card
    assert "| rounds | 3, 2 clients each" in card  # the expected cohort, a setting
    assert "Scores\n\nNot told" in card
    assert "every setting but the seed" in card
    assert "rounds.jsonl, the seed, scores" in " ".join(result.notes).replace(" (releases.jsonl is in its place)", "")
    # What is in the run folder stays, its own card too.
    assert "clients took part at least once" in (private_run / "README.md").read_text()
    assert load_policy(repo_id).location.kind == "run"


def test_every_field_of_a_private_record_is_covered_or_not_with_a_reason(private_run):
    known = COVERED.keys() | NOT_COVERED.keys() | {"unit", "epsilon", "delta"}
    assert not COVERED.keys() & NOT_COVERED.keys()
    for line in (private_run / "rounds.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert "eval" in record
        assert record.keys() | record["privacy"].keys() <= known


def test_scores_of_a_private_run_are_published_when_asked_for_and_said_to_be_uncovered(hub, repo_id, private_run):
    result = publish_run(private_run, repo_id, include_scores=True)
    files = texts(hub.repo(repo_id, "model"))
    assert {"scores/results.json", "scores/results.md", ".eval_results/words.yaml"} <= set(files)
    assert "| ann | 1.5 |" in files["README.md"]
    assert "without noise: the guarantee above does not cover them" in files["README.md"]
    assert "rounds.jsonl" not in files
    assert any("pushed, though the guarantee does not cover them: scores" in note for note in result.notes)
    again = publish_run(private_run, repo_id)
    assert not any("scores" in name for name in hub.repo(repo_id, "model").files)
    assert not again.is_unchanged


def test_a_seed_that_can_be_guessed_is_pointed_out(hub, repo_id, private_run, tmp_path):
    shutil.copytree(private_run, tmp_path / "run")
    config = yaml.safe_load((private_run / "config.yaml").read_text())
    assert not any("found by trying" in note for note in publish_run(private_run, repo_id).notes)
    config["federated"]["seed"] = 7
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert any("found by trying" in note for note in publish_run(tmp_path / "run", repo_id).notes)


def test_clipping_without_noise_is_no_private_run(hub, repo_id, private_run, tmp_path):
    shutil.copytree(private_run, tmp_path / "run")
    config = yaml.safe_load((private_run / "config.yaml").read_text())
    config["privacy"] |= {"epsilon": None, "noise_multiplier": 0.0}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    publish_run(tmp_path / "run", repo_id)
    assert {"rounds.jsonl", "scores/results.json"} <= set(hub.repo(repo_id, "model").files)


def test_the_command_publishes_and_says_what_it_held_back(hub, repo_id, private_run, capsys):
    assert main(["publish", str(private_run), "--repo", repo_id, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["repo_id"] == repo_id
    assert any("not pushed, since the guarantee does not cover it: rounds.jsonl" in line for line in said["lines"])
    assert main(["publish", str(private_run), "--repo", repo_id, "--include-scores"]) == 0
    assert f"is at {hub.repo(repo_id, 'model').head}" in capsys.readouterr().out
    assert main(["publish", str(private_run / "scores"), "--repo", repo_id]) == 2
    assert "finish the run first" in capsys.readouterr().err
