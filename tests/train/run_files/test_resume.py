"""A run that stops goes on to the same bits, and never over another run's folder."""

import json
import shutil

import pytest

from fedllm_data.errors import ConfigError, ResumeError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.clients.client_memory import client_folder_name


def shape_of(records):
    """Records without what a clock decided."""
    text = json.dumps([{k: v for k, v in r.items() if k not in ("seconds", "ledger", "clients")} for r in records])
    visits = [[{k: v for k, v in c.items() if k != "seconds"} for c in r["clients"]] for r in records]
    return text, visits


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(kit, whole_run, tmp_path, task):
    folder, whole = whole_run(task)
    kit.run_and_stop(tmp_path / "cut", task, after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    assert shape_of(kit.records_of(tmp_path / "cut")) == shape_of(kit.records_of(folder))
    finished = [run / "adapter" / "adapter_model.safetensors" for run in (folder, tmp_path / "cut")]
    assert finished[0].read_bytes() == finished[1].read_bytes()


def test_records_cut_short_or_ahead_of_the_checkpoint_are_mended(kit, whole_run, tmp_path):
    run = tmp_path / "run"
    kit.cut_after(whole_run()[0], run, after_round=2)
    lines = (run / "rounds.jsonl").read_text().splitlines()
    # Killed while round 2's line was being written: half of it is there.
    (run / "rounds.jsonl").write_text("\n".join([*lines[:2], lines[2][:40]]))
    kit.make_trainer(run).train(resume=True)
    assert [record["round_index"] for record in kit.records_of(run)] == [0, 1, 2, 3]


def test_resume_starts_afresh_where_no_checkpoint_is(kit, whole_run, tmp_path):
    fresh = kit.make_trainer(tmp_path / "run").train(resume=True)
    assert adapter_sha256(fresh.adapter) == adapter_sha256(whole_run()[1].adapter)


def test_a_run_folder_is_not_overwritten_without_resume(kit, whole_run, tmp_path):
    shutil.copytree(whole_run()[0], tmp_path / "run")
    before = (tmp_path / "run" / "rounds.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run"):
        kit.make_trainer(tmp_path / "run").train()
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == before


def test_resuming_with_other_settings_is_refused_and_names_them(kit, whole_run, tmp_path):
    shutil.copytree(whole_run()[0], tmp_path / "run")
    with pytest.raises(ResumeError, match=r"federated\.local_steps: 2 -> 3"):
        kit.make_trainer(tmp_path / "run", local_steps=3).train(resume=True)


def test_settings_that_change_no_result_may_differ(kit, whole_run, tmp_path):
    kit.cut_after(whole_run()[0], tmp_path / "run", after_round=2)
    kit.make_trainer(tmp_path / "run", keep_checkpoints=3, keep_every=2).train(resume=True)
    with pytest.raises(ResumeError, match=r"federated\.round_rows"):
        kit.make_trainer(tmp_path / "run", round_rows="fedllm-bench").train(resume=True)


def test_every_so_many_checkpoints_are_kept_for_good(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", strategy="scaffold", num_rounds=5, keep_checkpoints=1, keep_every=2).train()
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["round-000001", "round-000003", "round-000004"]
    # Whichever of the checkpoints a run goes on from, what a client kept last before its end is there.
    visited = [{each["client_id"] for each in record["clients"]} for record in kit.records_of(tmp_path / "run")]
    for client_id in set.union(*visited):
        (folder,) = (tmp_path / "run" / "client_memory").glob(f"*/{client_folder_name(client_id)}")
        there = {int(path.stem.removeprefix("round-")) for path in folder.iterdir()}
        for checkpoint in (1, 3, 4):
            last = [step for step in range(checkpoint + 1) if client_id in visited[step]][-1:]
            assert set(last) <= there, (client_id, checkpoint)


def test_only_the_newest_checkpoints_are_kept(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", keep_checkpoints=2).train()
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "round-000002",
        "round-000003",
    ]
    assert not (tmp_path / "run" / ".work").exists()
