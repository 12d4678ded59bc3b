"""A run that starts from another hands on what that one was trained on, and warns of held-out rows among it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fedllm_data.clients import load_clients
from fedllm_data.schema import SCHEMAS
from fedllm_eval.running.origins import origins_of
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.privacy.covered import covered_config
from fedllm_train.run_files.earlier import earlier_record

SALTED = {"hashed": True, "salt_fingerprint": "aaaa", "artificial": False}
PLAIN = {"hashed": False, "salt_fingerprint": None, "artificial": False}


def make_repo(folder, task, splits, client_ids):
    (folder / "data").mkdir(parents=True)
    for split, rows in splits.items():
        fill = {"detected_language": "en"}
        filled = [{**fill, **row} for row in sorted(rows, key=lambda row: row["client_id"])]
        table = pa.Table.from_pylist(filled, SCHEMAS["sft" if task == "sft" else "preference"])
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "build.json").write_text(json.dumps({"client_ids": client_ids}))
    return folder


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def sft_run(kit, tmp_path):
    """An SFT run on ann's first three prompts and bob's next two."""
    splits = {"train": [*kit.sft_rows("ann", 3), *kit.sft_rows("bob", 2, shift=3)]}
    data = make_repo(tmp_path / "sft-data", "sft", splits, PLAIN)
    kit.make_trainer(tmp_path / "sft", clients=load_clients(data), num_rounds=1, cohort_size=2, local_steps=1).train()
    return tmp_path / "sft"


def dpo_trainer(kit, run, data, adapter):
    short = {"num_rounds": 1, "cohort_size": 1, "local_steps": 1}
    return kit.make_trainer(run, "dpo", clients=load_clients(data), adapter=str(adapter), **short)


def test_dpo_from_an_sft_run_warns_with_counts(kit, tmp_path, sft_run, caplog):
    # ann trained on words 0 to 2 and bob on 3 and 4. unseen asks for 0 to 2 (ann) and 3 (dan): four of four, and one
    # client of two; test asks for 6 and 7.
    splits = {
        "train": kit.preference_rows("cyd", 2, shift=8),
        "test": kit.preference_rows("cyd", 2, shift=6),
        "unseen": [*kit.preference_rows("ann", 3), *kit.preference_rows("dan", 1, shift=3)],
    }
    data = make_repo(tmp_path / "pairs", "dpo", splits, PLAIN)
    caplog.clear()
    dpo_trainer(kit, tmp_path / "dpo", data, sft_run).train()
    told = [text for text in warnings_in(caplog) if "before this run" in text]
    assert [text.split(": ", 1)[1].split(" are ")[0].split(" have ")[0] for text in told] == [
        "4 of 4 prompts (4 of 4 rows)",
        "1 of 2 clients",
    ]
    assert all(f"split unseen of {data}" in text for text in told)
    config = yaml.safe_load((tmp_path / "dpo" / "config.yaml").read_text())
    assert config["data"]["client_ids"] == PLAIN
    assert [each["name"] for each in config["earlier"]["data"]] == [str(tmp_path / "sft-data")]
    # A third run knows of both, and its folder alone tells: neither of the earlier runs is needed.
    for folder in (sft_run, tmp_path / "dpo"):
        assert origins_of(folder).is_complete
    assert [origin.name for origin in origins_of(tmp_path / "dpo" / "adapter").known] == [
        str(data),
        str(tmp_path / "sft-data"),
    ]


def test_another_salt_is_said_before_training(kit, tmp_path, sft_run, caplog):
    splits = {"train": kit.preference_rows("x1", 2, shift=8), "unseen": kit.preference_rows("x2", 1, shift=7)}
    data = make_repo(tmp_path / "pairs", "dpo", splits, SALTED)
    caplog.clear()
    dpo_trainer(kit, tmp_path / "dpo", data, sft_run).train()
    (told,) = [text for text in warnings_in(caplog) if "before this run" in text]
    assert "the ids here are hashed (salt aaaa) and the ids there are not" in told


def test_an_adapter_of_which_nothing_is_known_is_said(kit, tmp_path, sft_run, caplog):
    bare = (sft_run / "adapter").rename(tmp_path / "bare")
    splits = {"train": kit.preference_rows("cyd", 2), "test": kit.preference_rows("cyd", 2, shift=6)}
    data = make_repo(tmp_path / "pairs", "dpo", splits, PLAIN)
    caplog.clear()
    dpo_trainer(kit, tmp_path / "dpo", data, bare).train()
    assert any("does not say all that it was trained on" in text for text in warnings_in(caplog))
    assert not origins_of(tmp_path / "dpo").is_complete


def test_a_fresh_start_warns_of_nothing_and_a_run_of_an_older_version_resumes(kit, tmp_path, caplog):
    splits = {"train": kit.sft_rows("ann", 3), "test": kit.sft_rows("ann", 2, shift=5)}
    data = make_repo(tmp_path / "data", "sft", splits, PLAIN)
    run, settings = tmp_path / "run", {"num_rounds": 2, "cohort_size": 1, "local_steps": 1}
    kit.run_and_stop(run, after_round=0, clients=load_clients(data), **settings)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config.pop("earlier") is None
    del config["data"]["client_ids"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    kit.make_trainer(run, clients=load_clients(data), **settings).train(resume=True)
    assert not [text for text in warnings_in(caplog) if "trained on" in text]
    assert origins_of(run).is_complete


def test_scores_during_a_run_on_its_own_training_rows_are_said(kit, tmp_path, caplog):
    FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path / "run"), eval_every=1, cohort_size=2),
        kit.make_clients(sizes={"ann": 7, "bob": 3}),
        kit.trl_args("sft"),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
        # ann's seven prompts are the words 0 to 6, bob's 2 to 4; cyd's the words 5 to 9: 5 and 6 are shared.
        eval_dataset=type(kit.make_clients()).from_dataset(
            kit.Dataset.from_list(kit.sft_rows("cyd", 5, shift=5)), name="mine", split="test"
        ),
    )
    (told,) = [text for text in warnings_in(caplog) if "eval_dataset" in text]
    assert "2 of 5 prompts (2 of 5 rows)" in told


def test_a_private_run_publishes_no_digest_of_an_earlier_local_dataset():
    data = [{"name": "./sft", "revision": "a" * 64}, {"name": "org/sft", "revision": "b" * 40}]
    covered = covered_config({"earlier": {"data": data, "is_complete": True}}, dataset_is_public=True)
    assert [each["revision"] for each in covered["earlier"]["data"]] == [None, "b" * 40]
    assert covered_config({"earlier": None}, dataset_is_public=True) == {"earlier": None}


def test_a_model_that_an_earlier_run_left_counts_as_a_start(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    data = {"name": "org/sft", "revision": "b" * 40, "split": "train"}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": data, "start_adapter": None}))
    record = earlier_record(None, str(tmp_path / "run" / "model"))
    assert [each["name"] for each in record["data"]] == ["org/sft"]
    both = earlier_record(str(tmp_path), str(tmp_path / "run" / "model"))
    assert not both["is_complete"]
    assert earlier_record(None, str(tmp_path)) is None
