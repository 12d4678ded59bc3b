"""A finished run goes to the Hub in one commit and comes back: by PEFT, by `fedllm-eval`, with its reference.

Of a run with differential privacy goes only what its guarantee covers.
"""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from peft import PeftModel

from fedllm_data.errors import ConfigError, HubError
from fedllm_eval.policy.policies import load_policy, load_reference
from fedllm_eval.policy.run_folder import SECRET_FILE
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.running.assemble import join_results, make_results
from fedllm_eval.running.origins import origins_of_name
from fedllm_eval.scores import ClientScores
from fedllm_train.cli import main
from fedllm_train.config import FederatedConfig
from fedllm_train.privacy.covered import COVERED, NOT_COVERED
from fedllm_train.run_files.publish_run import publish_run
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


def test_a_published_run_loads_with_plain_peft_and_scores_by_id(hub, repo_id, run, monkeypatch):
    result = publish_run(run, repo_id)
    repo = hub.repo(repo_id, "model")
    assert len(repo.commits) == 2  # the Hub's own first commit, and ours
    assert {"adapter_model.safetensors", "start_adapter/adapter_model.safetensors", "rounds.jsonl"} <= set(repo.files)
    base = load_kit().make_model()
    published = PeftModel.from_pretrained(base, repo_id, revision=result.revision)
    local = PeftModel.from_pretrained(load_kit().make_model(), run / "adapter")
    ours, theirs = local.state_dict(), published.state_dict()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)

    with pytest.raises(ConfigError, match=r"trained on a local folder.*\(\./base\); put that base"):
        load_policy(repo_id)
    monkeypatch.chdir(run.parent)
    policy = load_policy(repo_id)
    reference = load_reference(policy)
    assert policy.location.beta == pytest.approx(0.1)
    # The reference is the base with the SFT adapter the run started from, also when read from the Hub.
    assert reference.adapter is not None
    assert reference.adapter.name == "start_adapter"
    # What it was trained on goes with it: the pairs, and the rows that its start was trained on.
    assert [origin.name for origin in origins_of_name(repo_id).known] == ["memory", "memory"]


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


def write_scores(run):
    """Scores as an evaluation leaves them, of four clients who are all named somewhere."""
    columns = {"client_id": ["ann", "bob", "cyd", "dan"], "split": ["test"] * 4, "num_rows": [2] * 4}
    columns |= dict.fromkeys(("num_tokens", "num_skipped", "num_truncated"), [9] * 4)
    scores = ClientScores(
        task="sft",
        split="test",
        table=pa.table(columns | {"heldout_loss": [1.0, 2.0, 3.0, 4.0]}),
        policy={"name": str(run)},
        reference=None,
        dataset={"name": str(run / "rows"), "revision": "r", "num_clients": 4, "num_rows": 8},
        settings={},
        notes=("2 of 4 clients never trained",),
        never_trained=("cyd", "dan"),
        took_no_part=("bob",),
    )
    write_results(join_results({"policy": make_results([scores])}), run / "scores")
    (run / "scores" / ".eval_results").mkdir(exist_ok=True)
    (run / "scores" / ".eval_results" / "words.yaml").write_text("- value: 1.5\n")
    (run / "scores" / ".work").mkdir()
    (run / "scores" / ".work" / "x").write_text("ann")


def scored(run, folder):
    """A copy of the run, with scores."""
    shutil.copytree(run, folder)
    write_scores(folder)
    return folder


def test_nobody_is_named_unless_asked_for(hub, repo_id, run, tmp_path):
    copy = scored(run, tmp_path / "run")
    result = publish_run(copy, repo_id)
    files = texts(hub.repo(repo_id, "model"))
    assert {name for name in files if name.startswith("scores/")} == {
        "scores/results.json", "scores/results.md", "scores/model-index.yaml", "scores/.eval_results/words.yaml",
    }  # fmt: skip
    assert "2 of 4 clients never trained" in files["scores/results.md"]
    assert "heldout_loss" in files["README.md"]
    whole = [(copy / "scores" / name).read_text() for name in ("results.json", "results.md", "results.html")]
    assert all("cyd" in text and "dan" in text and "bob" in text for text in whole)
    for name, text in files.items():
        if name != "tokenizer.json":
            assert not re.search(r"\b(ann|bob|cyd|dan|eve)\b", text), name
    ours = [json.loads(line) for line in (copy / "rounds.jsonl").read_text().splitlines()]
    theirs = [json.loads(line) for line in files["rounds.jsonl"].splitlines()]
    visits = [visit for record in theirs for visit in record["clients"]]
    assert len(visits) == sum(len(record["clients"]) for record in ours) > 0
    assert {name for visit in visits for name in visit} <= {"client_id", "num_steps", "seconds", "num_tokens"}
    # One number a client: those of ours and theirs map onto each other.
    pairs = {
        (mine["client_id"], public["client_id"])
        for one, other in zip(ours, theirs, strict=True)
        for mine, public in zip(one["clients"], other["clients"], strict=True)
    }
    assert len(pairs) == len({mine for mine, _ in pairs}) == len({public for _, public in pairs})
    assert any("nobody is named" in note for note in result.notes)

    publish_run(copy, repo_id, include_clients=True)
    repo = hub.repo(repo_id, "model").files
    assert {"scores/per_client.parquet", "scores/results.html"} <= set(repo)
    assert not any(".work" in name for name in repo)
    assert json.loads(repo["scores/results.json"].content)["splits"]["test"]["never_trained"] == ["cyd", "dan"]
    assert json.loads(repo["rounds.jsonl"].content.splitlines()[0]) == ours[0]


@pytest.mark.parametrize("include_clients", [False, True])
def test_no_path_of_this_machine_leaves(hub, repo_id, run, tmp_path, include_clients):
    publish_run(scored(run, tmp_path / "run"), repo_id, include_clients=include_clients)
    files = texts(hub.repo(repo_id, "model"))
    for name, text in files.items():
        for path in (tmp_path, run.parent, Path.home(), Path.cwd()):
            assert str(path) not in text, name
    assert yaml.safe_load(files["config.yaml"])["model"]["name"] == "./base"
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "./base"


def test_a_run_on_a_local_dataset_is_private_unless_public(hub, repo_id, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["name"] = str(tmp_path / "rows")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    result = publish_run(tmp_path / "run", f"{repo_id}-a")
    assert hub.repo(f"{repo_id}-a", "model").private
    assert any("--public makes it public" in note for note in result.notes)
    assert main(["publish", str(tmp_path / "run"), "--repo", f"{repo_id}-b", "--public"]) == 0
    assert not hub.repo(f"{repo_id}-b", "model").private
    config["data"]["name"] = "org/fed-oasst"
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    publish_run(tmp_path / "run", f"{repo_id}-c")
    assert not hub.repo(f"{repo_id}-c", "model").private


def test_clients_of_a_run_with_a_guarantee_cannot_be_asked_for(hub, repo_id, private_run):
    with pytest.raises(ConfigError, match="covers nothing that speaks of single clients"):
        publish_run(private_run, repo_id, include_clients=True)


# -- differential privacy -----------------------------------------------------------------------------------------

UNCOVERED = re.compile(
    r"\b(ann|bob|cyd|dan|eve)\b|train_loss|num_rows|left_out|num_clipped|_bytes|bytes went"
    r"|(?<!deadline)_seconds|\bseed:"
)
"""What must stand in no text file of a private push: the clients, and what only they or their cohorts say."""


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    """A private run that was scored while it ran, with scores of its own beside it."""
    kit, folder = load_kit(), tmp_path_factory.mktemp("private")
    kit.make_model().save_pretrained(folder / "base")
    kit.make_tokenizer().save_pretrained(folder / "base")
    trainer = FederatedTrainer(
        str(folder / "base"),
        FederatedConfig(
            output_dir=str(folder / "run"), cohort_rule="poisson", cohort_size=2, num_rounds=3, local_steps=2,
            seed=2**60 + 1, eval_every=1, dp_clip=0.05, dp_noise_multiplier=1.0, dp_delta=1e-2,
        ),
        kit.make_clients(),
        kit.trl_args("sft"),
        kit.lora(),
        eval_dataset=kit.make_clients(),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:  # cohorts that are not all empty
        patched.setattr("fedllm_train.privacy.secret.draw_secret", lambda: bytes(range(32)))
        trainer.train()
    write_scores(folder / "run")
    return folder / "run"


def texts(repo):
    return {name: file.content.decode() for name, file in repo.files.items() if not name.endswith(".safetensors")}


def test_of_a_private_run_only_what_the_guarantee_covers_is_published(hub, repo_id, private_run, monkeypatch):
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
    assert "rounds.jsonl, the seed, scores" in " ".join(result.notes).replace(" (releases.jsonl replaces it)", "")
    # What is in the run folder stays, its own card too.
    assert "clients took part at least once" in (private_run / "README.md").read_text()
    monkeypatch.chdir(private_run.parent)
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
    assert "heldout_loss" in files["README.md"]
    assert not any(re.search(r"\b(ann|bob|cyd|dan|eve)\b", text) for text in files.values())
    assert "without noise: the guarantee above does not cover them" in files["README.md"]
    assert "rounds.jsonl" not in files
    assert any("pushed, though the guarantee does not cover them: scores" in note for note in result.notes)
    again = publish_run(private_run, repo_id)
    assert not any("scores" in name for name in hub.repo(repo_id, "model").files)
    assert not again.is_unchanged


def test_the_secret_behind_the_noise_is_never_pushed(hub, repo_id, private_run):
    secret = (private_run / SECRET_FILE).read_text().split()[0]
    assert len(bytes.fromhex(secret)) == 32
    publish_run(private_run, repo_id, include_scores=True)
    for name, file in hub.repo(repo_id, "model").files.items():
        assert SECRET_FILE not in name
        assert secret.encode() not in file.content
        assert bytes.fromhex(secret) not in file.content
    # Nor does it stand anywhere else in the run folder.
    others = [path for path in private_run.rglob("*") if path.is_file() and path.name != SECRET_FILE]
    assert not any(
        secret.encode() in path.read_bytes() or bytes.fromhex(secret) in path.read_bytes() for path in others
    )


def test_of_a_run_whose_noise_follows_from_its_seed_a_seed_that_can_be_guessed_is_pointed_out(
    hub, repo_id, private_run, tmp_path
):
    shutil.copytree(private_run, tmp_path / "run")
    config = yaml.safe_load((private_run / "config.yaml").read_text())
    config["federated"]["seed"] = 7
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert not any("found by trying" in note for note in publish_run(tmp_path / "run", repo_id).notes)
    del config["privacy"]["randomness"]
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
    assert "it is not a run folder" in capsys.readouterr().err
