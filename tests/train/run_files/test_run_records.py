"""What a run writes is what `run_records.py` declares; what a kill left between two renames is put back."""

import json
import os

import pytest
import yaml

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder
from fedllm_eval.policy.run_folder import BEST, CLIENT_TABLE_FILE, CONFIG_FILE, RUN_FORMAT, read_rounds, run_format
from fedllm_eval.policy.run_records import (
    CheckpointRecord,
    LeftOutClient,
    RoundRecord,
    RunConfig,
    SecureSumRound,
    Visit,
)
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.run_files.open_run import check_run_folder
from fedllm_train.run_files.resume import restore_folders
from fedllm_train.run_files.run_writing import may_be_replaced


def keys_of(record):
    return record.__required_keys__ | record.__optional_keys__


def test_every_field_that_a_run_writes_is_declared(kit, tmp_path):
    FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path), num_rounds=2, cohort_size=5, local_steps=1, eval_every=1),
        kit.make_clients("sft"),
        kit.trl_args("sft"),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
        eval_dataset=kit.make_clients("sft"),
    ).train()
    rounds = read_rounds(tmp_path)
    assert [record.keys() - keys_of(RoundRecord) for record in rounds] == [set(), set()]
    of_the_clock = {"clock_seconds", "num_under_way"}
    assert keys_of(RoundRecord) - rounds[0].keys() == {"privacy", "secure_sum"} | of_the_clock
    for visit in rounds[0]["clients"]:
        assert Visit.__required_keys__ <= visit.keys()
        assert visit.keys() - keys_of(Visit) <= {"entropy", "mean_token_accuracy"}  # what TRL measures
    config = yaml.safe_load((tmp_path / CONFIG_FILE).read_text())
    assert config.keys() <= keys_of(RunConfig)
    assert run_format(config) == RUN_FORMAT
    state = json.loads((tmp_path / "checkpoints" / "round-000001" / "state.json").read_text())
    assert state.keys() == keys_of(CheckpointRecord) - {"privacy"}
    assert state["record"] == rounds[1]


def test_every_field_of_a_secure_sum_is_declared(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", num_rounds=1, secure_sum=True).train()
    (record,) = read_rounds(tmp_path / "run")
    assert record.keys() <= keys_of(RoundRecord)
    assert record["secure_sum"].keys() == keys_of(SecureSumRound)


def test_every_field_of_a_run_on_a_clock_is_declared(kit, tmp_path):
    settings = {"participation": "buffered", "client_table": "profile:phone-4g", "drop_out": 0.5, "cohort_size": 2}
    kit.make_trainer(tmp_path / "run", concurrency=3, **settings).train()
    rounds = read_rounds(tmp_path / "run")
    assert all({"clock_seconds", "num_under_way"} <= record.keys() <= keys_of(RoundRecord) for record in rounds)
    timed = {"arrived", "download_seconds", "compute_seconds", "upload_seconds", "staleness", "num_steps"}
    for visit in (each for record in rounds for each in record["clients"]):
        assert timed <= visit.keys()
        assert visit.keys() - keys_of(Visit) <= {"entropy", "mean_token_accuracy"}
    left_out = [each for record in rounds for each in record["left_out"]]
    assert left_out
    assert all(timed | {"kind"} <= each.keys() <= keys_of(LeftOutClient) for each in left_out)
    config = yaml.safe_load((tmp_path / "run" / CONFIG_FILE).read_text())
    assert config.keys() <= keys_of(RunConfig)
    assert {each["name"] for each in config["machines"]["sources"]}
    assert config["machines"]["model_shape"]["num_layers"] == 2
    assert (tmp_path / "run" / CLIENT_TABLE_FILE).read_text().count("\n") == 6  # a header and five clients


def test_best_is_there_again_after_a_kill_between_two_renames(tmp_path, monkeypatch):
    with fill_folder(tmp_path / BEST) as best:
        (best / "adapter").write_text("first")
    rename = os.rename

    def rename_or_die(old, new):
        if new.name == BEST:
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(os, "rename", rename_or_die)
    with (
        pytest.raises(KeyboardInterrupt),
        fill_folder(tmp_path / BEST, check=may_be_replaced) as best,
    ):
        (best / "adapter").write_text("second")
    monkeypatch.undo()
    assert not (tmp_path / BEST).exists()
    restore_folders(tmp_path)
    assert (tmp_path / BEST / "adapter").read_text() == "first"


def test_a_run_killed_while_its_config_was_written_may_begin_again(tmp_path):
    for name in (".lock", f".{CONFIG_FILE}.0.partial"):
        (tmp_path / name).touch()
    check_run_folder(tmp_path, resume=False)
    check_run_folder(tmp_path, resume=True)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="not a run folder"):
        check_run_folder(tmp_path, resume=True)
