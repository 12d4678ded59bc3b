"""What a name stands for, and one line for each way it can be wrong."""

import json

import pytest

from fedllm_data.errors import ConfigError, HubError
from fedllm_eval.policy.locate import locate


def test_a_run_names_its_base_adapter_and_beta(tmp_path, make_run, model_folder):
    location = locate(make_run(tmp_path / "run", beta=0.3, start_seed=2))
    assert location.kind == "run"
    assert location.base == str(model_folder)
    assert location.adapter == tmp_path / "run" / "adapter"
    assert location.start_adapter == tmp_path / "run" / "start_adapter"
    assert location.beta == 0.3


def test_an_sft_run_has_no_beta_and_no_start_adapter(tmp_path, make_run):
    location = locate(make_run(tmp_path / "run", task="sft"))
    assert location.beta is None
    assert location.start_adapter is None


def test_an_adapter_folder_names_its_base(tmp_path, make_adapter, model_folder):
    location = locate(make_adapter(tmp_path / "adapter"))
    assert (location.kind, location.base) == ("adapter", str(model_folder))


def test_a_plain_model_is_its_own_base(model_folder):
    location = locate(model_folder)
    assert (location.kind, location.base, location.adapter) == ("model", None, None)


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="neither a run"):
        locate(tmp_path)


def test_an_unfinished_run_is_told_apart(tmp_path):
    (tmp_path / "config.yaml").write_text("task: sft\n")
    with pytest.raises(ConfigError, match="has no adapter yet"):
        locate(tmp_path)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="neither a folder here nor a Hub id"):
        locate(tmp_path / "file")


def test_an_adapter_without_a_base_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="names no base model"):
        locate(tmp_path)


@pytest.mark.parametrize(("name", "content"), [("adapter_config.json", "{"), ("adapter_config.json", "[]")])
def test_a_broken_adapter_config_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match="adapter_config"):
        locate(tmp_path)


def test_a_broken_run_config_is_refused(tmp_path, make_run):
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text("model: [unclosed")
    with pytest.raises(ConfigError, match="not readable YAML"):
        locate(run)


@pytest.fixture
def push(loopback_hub):
    """Upload a folder to the Hub on loopback and return its id."""
    from huggingface_hub import HfApi

    loopback_hub.clear()
    api = HfApi(token="hf_of_the_tests")

    def upload(folder, repo_id):
        api.create_repo(repo_id)
        return api.upload_folder(repo_id=repo_id, folder_path=folder).oid

    yield upload
    loopback_hub.clear()


def test_a_run_on_the_hub_is_scored_like_the_folder_it_came_from(tmp_path, push, make_run, model_folder, pair_rows):
    from fedllm_eval.policy.models import load_policy, load_reference, pair_logps

    run = make_run(tmp_path / "run", start_seed=2)
    push(model_folder, "org/tiny")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(model_folder), "org/tiny"))
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "round-0.json").write_text("{}")
    commit = push(run, "org/run")

    here, there = load_policy(run), load_policy("org/run")
    assert there.location.revision == commit
    assert not (there.location.folder / "checkpoints").exists()
    # Both bases came from the Hub's cache: one commit, one folder.
    assert here.backbone.folder == there.backbone.folder
    assert there.describe()["base"] == "org/tiny"
    for a, b in ((here, there), (load_reference(here), load_reference(there))):
        with a.active() as model:
            expected = pair_logps(model, a.tokenizer, pair_rows).chosen_N.tolist()
        with b.active() as model:
            assert pair_logps(model, b.tokenizer, pair_rows).chosen_N.tolist() == expected


@pytest.mark.parametrize("revision", [None, "v9"])
def test_an_unknown_hub_id_or_revision_is_one_line(push, make_adapter, tmp_path, revision):
    if revision is not None:
        push(make_adapter(tmp_path / "adapter"), "org/model")
    with pytest.raises(HubError, match=r"'org/model'.* is no folder here") as caught:
        locate("org/model", revision)
    assert "\n" not in str(caught.value)
