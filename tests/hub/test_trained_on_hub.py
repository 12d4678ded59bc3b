"""What was trained on is found by Hub id, and fetched only where it could hold what is scored."""

import shutil
from pathlib import Path

import pytest
import yaml

from fedllm_data.clients import load_clients
from fedllm_data.hub.publish import publish
from fedllm_eval.running.origins import origins_of, origins_of_name
from fedllm_eval.running.trained_on import ScoredSplits
from tests.hub.server import LoopbackHub


def run_on(folder: Path, name: str, revision: str) -> Path:
    folder.mkdir()
    data = {"name": name, "revision": revision, "split": "train"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "start_adapter": None}))
    return folder


def test_other_splits_of_one_commit_share_nothing_and_fetch_nothing(
    hub: LoopbackHub, client_repo: Path, repo_id: str, tmp_path: Path
) -> None:
    commit = publish(client_repo, repo_id).revision
    splits = [load_clients(repo_id, split, commit) for split in ("test", "unseen")]
    origins = origins_of(run_on(tmp_path / "run", repo_id, commit))
    hub.requests.clear()
    found = ScoredSplits(splits).trained_on(origins)
    assert not [request for request in hub.requests if "data/train" in request.path]
    for split, (overlap,) in found.items():
        assert overlap.num_prompts_trained_on == 0
        assert overlap.notes(split) == []


def test_training_rows_of_another_repo_are_read_by_id(
    hub: LoopbackHub, client_repo: Path, repo_id: str, tmp_path: Path
) -> None:
    commit = publish(client_repo, repo_id).revision
    (tmp_path / "mine" / "data").mkdir(parents=True)
    for path in (client_repo / "data").glob("train-*.parquet"):
        shutil.copy(path, tmp_path / "mine" / "data" / path.name.replace("train", "test"))
    scored = load_clients(tmp_path / "mine", "test")
    (overlap,) = ScoredSplits([scored]).trained_on(origins_of(run_on(tmp_path / "run", repo_id, commit)))["test"]
    assert overlap.num_rows_trained_on == scored.rows.num_rows
    assert overlap.num_clients_trained_on == len(scored)
    # build.json says on the Hub, too, how ids were made.
    facts = load_clients(client_repo, "test").id_facts
    assert facts is not None
    assert load_clients(repo_id, "test", commit).id_facts == facts


def test_what_is_not_on_the_hub_is_said_not_raised(
    hub: LoopbackHub, client_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = [load_clients(client_repo, "test")]
    for name in ("org/absent", "not a name", "./moved"):
        run = run_on(tmp_path / name.replace("/", "-"), name, "a" * 40)
        (overlap,) = ScoredSplits(splits).trained_on(origins_of(run))["test"]
        assert overlap.num_prompts_trained_on is None
        assert name in overlap.notes("test")[0]
        assert origins_of_name(name) is None
