"""The run card: what a reader needs to know of an adapter, from the run folder alone."""

import json

import pytest
import yaml

from fedllm_train.run_files.run_card import is_hub_id, write_run_card


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, made once; a test works on what it says, not on the folder."""
    from tests.train import conftest as kit

    folder = tmp_path_factory.mktemp("card") / "run"
    kit.make_trainer(folder, "dpo", num_rounds=2).train()
    return folder


def change(run, tmp_path, *, config=None, records=None):
    """A copy of a run folder's papers with changes; returns the card that is made of it."""
    settings = yaml.safe_load((run / "config.yaml").read_text())
    for section, values in (config or {}).items():
        settings[section] |= values
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    for line, values in zip(lines, records or [{}] * len(lines), strict=True):
        line |= values
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return write_run_card(tmp_path).read_text()


def test_the_card_names_method_source_cost_and_error(run):
    card = (run / "README.md").read_text()
    records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert "| method | FedAvg (`fedavg`): McMahan et al. 2017" in card
    assert "| rounds | 2, 3 clients each, 2 local steps per client |" in card
    assert "| clients of a round | drawn uniformly |" in card
    assert "| DPO's reference | the base model, fixed for the whole run |" in card
    assert "| licence of the dataset | its card names none |" in card
    assert f"{records[-1]['ledger']['upload_bytes']:,} bytes came back" in card
    mean_error = sum(record["aggregation_error"] for record in records) / 2
    assert f"off by {mean_error:.2e} on average" in card
    assert 'PeftModel.from_pretrained(base, "run/adapter")' in card
    assert "best" not in card  # nothing was scored
    assert "nan" not in card.lower().split()


def test_a_base_and_a_dataset_on_the_hub_are_named_with_their_revisions(run, tmp_path):
    card = change(
        run,
        tmp_path,
        config={
            "model": {"name": "org/base", "revision": "abc123"},
            "data": {"name": "org/fed-words", "revision": "def456", "licence": "cc-by-4.0"},
        },
    )
    front = yaml.safe_load(card.split("---")[1])
    assert (front["base_model"], front["datasets"]) == ("org/base", ["org/fed-words"])
    assert 'from_pretrained("org/base", revision="abc123")' in card
    assert "| dataset | org/fed-words, revision `def456`, split `train` |" in card
    assert "| licence of the dataset | cc-by-4.0 |" in card


def test_scores_during_the_run_and_the_best_round_are_told(run, tmp_path):
    score = {"mean": 0.5, "ci_low": 0.25, "ci_high": None, "num_clients": 9}
    seen = {"eval": {"split": "test", "ranking_accuracy": score}, "monitor": {"best_round": 0, "best_value": 0.61}}
    config = {"federated": {"load_best": True, "eval_score": "ranking_accuracy", "num_rounds": 5}}
    card = change(run, tmp_path, config=config, records=[seen, seen])
    assert "| rounds | 2 of 5, ended early, 3 clients each" in card
    assert "of round 0 (from 0), the best by `ranking_accuracy` on held-out rows (0.6100)" in card
    assert "| 1 | 0.5000 [0.2500, n/a] |" in card
    assert "rows of 9 clients" in card


def test_what_went_wrong_is_told_too(run, tmp_path):
    records = [{"left_out": [{"client_id": "ann", "reason": "why"}]}, {"server_step": False, "train_loss": None}]
    card = change(run, tmp_path, records=records)
    assert "1 visits contributed nothing" in card
    assert "1 rounds had too few usable updates" in card


def test_a_local_folder_is_no_hub_id_wherever_the_card_is_written(tmp_path, monkeypatch):
    """A relative folder of two parts looks like a Hub id from any other working folder."""
    digest = "0" * 64
    (tmp_path / "data" / "tickets").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "data"):
        monkeypatch.chdir(place)
        assert not is_hub_id("data/tickets", digest)
        assert not is_hub_id("data/tickets", f"sha256:{digest}")
        assert is_hub_id("org/tickets", digest[:40])
        assert is_hub_id("org/tickets", "main")


def test_the_card_says_who_was_left_behind_and_names_nobody(run, tmp_path):
    records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    asked = sorted({visit["client_id"] for record in records for visit in record["clients"]})
    lines = [f"{client},8,8,{10 ** (9 + at)}" for at, client in enumerate(asked)]
    (tmp_path / "client_table.csv").write_text("client_id,download_mbit,upload_mbit,flops\n" + "\n".join(lines) + "\n")
    section = change(run, tmp_path).split("## Who was left behind")[1].split("\n## ")[0]
    assert "| slow clients (2 clients) |" in section
    assert "- No group of clients is shown to have made fewer steps than its share of the clients." in section
    assert "- What languages clients write is not known" in section
    assert not any(client in section for client in asked)


def test_a_private_run_does_not_say_who_was_left_behind(run, tmp_path):
    privacy = {"epsilon": 8.0, "delta": 1e-5, "clip": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.1}
    privacy |= {"accountant": "PLD", "assumptions": []}
    settings = yaml.safe_load((run / "config.yaml").read_text()) | {"privacy": privacy}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    spent = {"unit": "client", "epsilon": 8.0, "delta": 1e-5}
    lines = [json.loads(line) | {"privacy": spent} for line in (run / "rounds.jsonl").read_text().splitlines()]
    (tmp_path / "run" / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "left behind" not in write_run_card(tmp_path / "run").read_text()


def test_scores_that_say_it_already_are_not_said_twice(run, tmp_path):
    card = change(run, tmp_path)
    scores = tmp_path / "results.md"
    scores.write_text("# Scores\n\n## Who was left behind\n\nas the results say\n")
    assert card.count("## Who was left behind") == 1
    assert write_run_card(tmp_path, scores=scores).read_text().count("## Who was left behind") == 1
