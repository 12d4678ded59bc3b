"""A run that people at a site must let in: the command may end meanwhile, and their word holds when it goes on."""

import re
from dataclasses import replace

import pytest

from fedllm_data.errors import WorkerError
from fedllm_eval.policy.run_folder import ROUNDS_FILE
from fedllm_train.engines.remote.run_folders import RunFolders
from fedllm_train.engines.remote.seats import RemoteOptions
from fedllm_train.run_files.checkpoint import load_latest
from fedllm_train.run_files.resume import first_state


def approve_all(workers, folder):
    keys = set()
    for name in workers:
        folders = RunFolders(folder / name)
        keys |= {folders.approve(begin.run).run for begin in folders.waiting()}
    return keys


def test_a_run_that_was_ended_while_it_waited_is_let_in_when_it_is_resumed(remote, tmp_path):
    impatient = RemoteOptions(poll=0.2, request=20.0, retry=0.05, join=1.0, approval=0.5, unreachable=5.0)
    with remote.workers_of(remote.places, tmp_path / "sites", approve="ask") as workers:
        with pytest.raises(WorkerError, match="has not approved run") as refused, remote.sites_of(workers) as clients:
            remote.trainer_of(remote.kit, remote.places, tmp_path / "run", clients, at_sites=impatient).train()
        (key,) = approve_all(workers, tmp_path / "sites")
        assert re.search(f"run {key} yet", str(refused.value))
        patient = replace(impatient, join=60.0, scores_at_end=False)
        with remote.sites_of(workers) as clients:
            trainer = remote.trainer_of(remote.kit, remote.places, tmp_path / "run", clients, at_sites=patient)
            trainer.train(resume=True)
        state, _ = load_latest(tmp_path / "run")
        assert state.run_key == key
        assert approve_all(workers, tmp_path / "sites") == set()


def test_a_start_that_made_a_round_has_another_key(tmp_path):
    (tmp_path / ".work").mkdir()
    first = first_state(tmp_path, {}).run_key
    assert first_state(tmp_path, {}).run_key == first
    (tmp_path / ROUNDS_FILE).write_text("{}\n")
    second = first_state(tmp_path, {}).run_key
    assert second != first
    assert first_state(tmp_path, {}).run_key == second
    (tmp_path / ".work" / "run_key").write_text("../../elsewhere")
    assert re.fullmatch("[0-9a-f]{16}", first_state(tmp_path, {}).run_key)
