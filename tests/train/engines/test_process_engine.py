"""Several processes: the same bits as one, tasks drawn when a process is free, and what is said when one dies."""

import multiprocessing
import operator
import os
import signal
from functools import partial

import pytest
import torch

from fedllm_data.errors import ConfigError, WorkerError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Task, replies_of
from fedllm_train.engines.process_engine import ProcessEngine, check_processes
from fedllm_train.trainer import FederatedTrainer

echo = partial(operator.attrgetter, "client_id")
"""Makes a host that gives back the task's client id: another process can import it."""


def task(client_id):
    return Task(run="key", step=0, client_id=client_id, message=b"m", learning_rate=1.0, seed=0)


def processes_of_clients():
    return [child for child in multiprocessing.active_children() if child.name.startswith("clients-")]


def test_every_task_is_done_once_and_none_is_drawn_before_a_process_is_free():
    drawn = []

    def tasks():
        for number in range(7):
            drawn.append(number)
            yield task(f"c{number}")

    with ProcessEngine(echo, {}, num_processes=2) as engine:
        results = []
        engine.submit(tasks())
        for result in replies_of(engine):
            # Done ones, this one, and at most one in each process: what would wait in memory is never drawn.
            assert len(drawn) <= len(results) + 1 + 2
            results.append(result)
        assert sorted(results) == [f"c{number}" for number in range(7)]
        engine.submit([])
        assert engine.take() is None
        processes = processes_of_clients()
    assert len(processes) == 2
    assert not any(process.is_alive() for process in processes)


def test_a_process_that_is_killed_is_named_with_its_client():
    with ProcessEngine(echo, {}, num_processes=1) as engine:
        (process,) = processes_of_clients()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        engine.submit([task("ann")])
        with pytest.raises(
            WorkerError, match=r"process 0 of 1 ended with signal SIGKILL while it trained client 'ann'"
        ):
            engine.take()


def test_an_error_in_a_process_is_named_and_one_at_the_start_too():
    with ProcessEngine(partial(partial, int), {}, num_processes=1) as engine:  # int(task) raises TypeError
        engine.submit([task("ann")])
        with pytest.raises(WorkerError, match=r"failed while it trained client 'ann': TypeError.*--resume"):
            engine.take()
    with pytest.raises(WorkerError, match="exit code 3 while it started"):
        ProcessEngine(partial(os._exit, 3), {}, num_processes=1).__enter__()
    with pytest.raises(ConfigError, match="must not be negative"):  # the project's own errors come through as they are
        ProcessEngine(FederatedConfig, {"output_dir": "run", "seed": -1}, num_processes=1).__enter__()


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        ProcessEngine(lambda: None, {}, num_processes=1).__enter__()


def test_models_in_memory_and_idle_processes_are_refused(kit, tmp_path):
    with pytest.raises(ConfigError, match="given in memory"):
        kit.make_trainer(tmp_path / "run", num_processes=2)
    with pytest.raises(ConfigError, match="choose at most 2"):
        check_processes(3, 2, model_is_named=True)


def from_disk(kit, tmp_path, run, task, *, callbacks=(), **settings):
    base = tmp_path / "base"
    if not base.exists():
        kit.make_model().save_pretrained(base)
        kit.make_tokenizer().save_pretrained(base)
    config = {"num_rounds": 3, "cohort_size": 3, "local_steps": 2, "seed": 5, **settings}
    return FederatedTrainer(
        str(base),
        FederatedConfig(output_dir=str(tmp_path / run), **config),
        kit.make_clients("sft" if task == "sft" else "preference"),
        kit.trl_args(task),
        kit.lora(),
        callbacks=callbacks,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "strategy"), [("sft", "scaffold"), ("dpo", "fedavg"), ("sft", "ravan"), ("dpo", "fedbiscuit")]
)
def test_two_processes_give_the_adapter_of_one_to_the_bit(kit, tmp_path, task, strategy):
    """SCAFFOLD's clients remember something, which another process may need in the next round."""
    one = from_disk(kit, tmp_path, "one", task, strategy=strategy).train()
    two = from_disk(kit, tmp_path, "two", task, strategy=strategy, num_processes=2).train()
    assert adapter_sha256(two.adapter) == adapter_sha256(one.adapter)
    assert two.ledger.upload_bytes == one.ledger.upload_bytes
    assert not (tmp_path / "two" / ".work").exists()


@pytest.mark.slow
def test_a_run_whose_process_was_killed_goes_on_to_the_same_bits_with_another_number_of_them(kit, tmp_path):
    whole = from_disk(kit, tmp_path, "whole", "sft", strategy="scaffold").train()

    def kill(record):
        if record["round_index"] == 0:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(WorkerError, match="go on with --resume"):
        from_disk(kit, tmp_path, "cut", "sft", strategy="scaffold", num_processes=2, callbacks=[kill]).train()
    assert len(kit.records_of(tmp_path / "cut")) == 1
    resumed = from_disk(kit, tmp_path, "cut", "sft", strategy="scaffold").train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)


@pytest.mark.slow
def test_a_private_run_in_two_processes_has_the_noise_of_one(kit, tmp_path, monkeypatch):
    """The secret stays with the server: no process that trains clients draws or needs one."""
    monkeypatch.setattr("fedllm_train.privacy.secret.draw_secret", lambda: b"s" * 32)
    private = {"cohort_rule": "poisson", "dp_clip": 0.05, "dp_noise_multiplier": 1.0, "dp_delta": 1e-2}
    one = from_disk(kit, tmp_path, "one", "sft", **private).train()
    two = from_disk(kit, tmp_path, "two", "sft", num_processes=2, **private).train()
    assert adapter_sha256(two.adapter) == adapter_sha256(one.adapter)


@pytest.mark.slow
def test_scaffold_counts_who_takes_part_alike_in_one_process_and_in_two(kit, tmp_path):
    fixed = {"strategy": "scaffold", "cohort_rule": "fixed", "cohort_clients": "ann,cyd", "cohort_size": 2}
    ends = [from_disk(kit, tmp_path, str(n), "sft", num_processes=n, **fixed).train().server for n in (1, 2)]
    for name, tensor in ends[0]["control"].items():
        assert torch.equal(ends[1]["control"][name], tensor)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        {"participation": "deadline", "deadline_seconds": 2.0, "over_selection": 1.5, "late": "apply"},
        {"participation": "buffered", "buffer_size": 2, "concurrency": 4, "cohort_size": 2},
    ],
    ids=["deadline", "buffered"],
)
def test_two_processes_change_neither_a_bit_nor_a_simulated_second(kit, tmp_path, rule):
    """Which visits are made before their time depends on the processes; what comes of it does not."""
    settings = {"strategy": "ditto", "client_table": "profile:phone-4g~0.6", "drop_out": 0.2, "num_rounds": 5, **rule}
    one = from_disk(kit, tmp_path, "one", "sft", **settings).train()
    two = from_disk(kit, tmp_path, "two", "sft", num_processes=2, **settings).train()
    assert adapter_sha256(two.adapter) == adapter_sha256(one.adapter)
    assert (two.clock, two.under_way) == (one.clock, one.under_way)
    ones, twos = (kit.records_of(tmp_path / name) for name in ("one", "two"))
    assert [record["left_out"] for record in twos] == [record["left_out"] for record in ones]
    assert [record["clock_seconds"] for record in twos] == [record["clock_seconds"] for record in ones]
    for name in ("download_bytes", "upload_bytes", "num_local_steps"):
        assert getattr(two.ledger, name) == getattr(one.ledger, name)

    def kill(record):
        if record["round_index"] == 2:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(WorkerError, match="go on with --resume"):
        from_disk(kit, tmp_path, "cut", "sft", num_processes=2, callbacks=[kill], **settings).train()
    assert len(kit.records_of(tmp_path / "cut")) == 3
    resumed = from_disk(kit, tmp_path, "cut", "sft", **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(one.adapter)
    assert (resumed.clock, resumed.under_way) == (one.clock, one.under_way)
