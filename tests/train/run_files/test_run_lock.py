"""One process at a time in a run folder; who was killed stands in nobody's way."""

import multiprocessing
import signal

import pytest

from fedllm_data.errors import ConfigError, ResumeError
from fedllm_train.run_files.run_lock import locked


def hold(run, line):
    with locked(run):
        line.send("held")
        line.recv()


def test_a_second_process_is_refused_and_a_killed_one_leaves_nothing_behind(tmp_path):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "run", there))
    process.start()
    assert here.recv() == "held"
    with pytest.raises(ResumeError, match="another process is training in"), locked(tmp_path / "run"):
        pass
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with locked(tmp_path / "run"):
        pass


def test_a_trainer_refuses_a_folder_that_another_one_trains_in(kit, tmp_path):
    def second(record):
        with pytest.raises(ResumeError, match="another process is training in"):
            kit.make_trainer(tmp_path / "run", num_rounds=1, cohort_size=2, local_steps=1).train(resume=True)

    first = {"num_rounds": 1, "cohort_size": 2, "local_steps": 1}
    kit.make_trainer(tmp_path / "run", callbacks=[second], **first).train()
    # The lock is given back: the folder can be looked at again.
    with pytest.raises(ConfigError, match="already holds a run"):
        kit.make_trainer(tmp_path / "run", **first).train()
    kit.make_trainer(tmp_path / "run", **first).train(resume=True)


def test_a_folder_that_is_no_run_gets_no_lock(kit, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not a run folder"):
        kit.make_trainer(tmp_path).train()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_lock_that_an_unfinished_start_left_does_not_make_a_folder_somebody_elses(kit, tmp_path):
    with locked(tmp_path / "run"):
        pass
    kit.make_trainer(tmp_path / "run", num_rounds=1, cohort_size=2, local_steps=1).train()
