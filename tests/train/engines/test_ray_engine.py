"""The engine on a Ray cluster: the same bits as one process, and dead actors are lost seats."""

import importlib.util
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError, WorkerError
from fedllm_train import FederatedTrainer
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.cli import main
from fedllm_train.engines import ray_engine as module
from fedllm_train.engines.engine import Reply, Task, replies_of
from fedllm_train.engines.ray_engine import RayEngine, ray_engine

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (extra ray)")


def test_without_ray_one_line_names_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    words = ["sft", "--engine", "ray", "--data", "d", "--model", "m", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "engine ray needs Ray; pip install -c constraints.txt 'fedllm-commons[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--num-actors", "2"], "--num-actors is 2, and the engine is process"),
        (["--engine", "ray", "--min-sites", "2"], "--min-sites is 2, and the engine ray has no sites"),
        (["--engine", "flower"], "engine is flower, and deployment is not given"),
        (["--engine", "sockets", "--deployment", "nowhere.yaml"], "data 'd' is given, and the clients are at sites"),
        (["--engine", "rya"], "did you mean ray"),
    ],
)
def test_settings_that_an_engine_does_not_look_at_are_refused(words, reason, tmp_path, capsys):
    assert main(["sft", "--data", "d", "--model", "m", "--out", str(tmp_path / "run"), *words]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) == 1


def echo(folder):
    """Answers with the message; the client `dies` takes its actor with it, once."""

    def visit(task):
        if task.client_id == "dies" and not (Path(folder) / "died").exists():
            (Path(folder) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if task.client_id == "always dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.client_id == "fails":
            raise ValueError("no such row")
        return Reply(step=task.step, client_id=task.client_id, message=task.message, num_rows=os.getpid())

    return visit


def tasks(*names, message=b"m" * 1000):
    return [Task(run="r", step=0, client_id=name, seed=1, learning_rate=0.1, message=message) for name in names]


@needs_ray
@pytest.mark.slow
def test_a_dead_actor_is_a_lost_seat_and_the_last_one_ends_the_run(tmp_path):
    with RayEngine(partial(echo, str(tmp_path)), num_actors=2) as engine:
        engine.submit(tasks("a", "b", "dies", "c", "d"))
        replies = {reply.client_id: reply for reply in replies_of(engine)}
        assert sorted(replies) == ["a", "b", "c", "d", "dies"]
        assert all(reply.message == b"m" * 1000 for reply in replies.values())
        engine.submit(tasks("fails"))
        with pytest.raises(WorkerError, match="the visit of client 'fails' failed: ValueError: no such row"):
            engine.take()
        engine.submit(tasks("always dies"))
        with pytest.raises(WorkerError, match="the last actor of the Ray cluster died"):
            list(replies_of(engine))


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("case", ["fedavg", "scaffold", "ravan", "dpo"])
def test_two_actors_give_the_adapter_of_one_process(kit, tmp_path, case):
    kit.make_model().save_pretrained(tmp_path / "model")
    kit.make_tokenizer().save_pretrained(tmp_path / "model")
    task = "dpo" if case == "dpo" else "sft"
    kit.build_repo(tmp_path / "data", "preference" if task == "dpo" else "sft")
    clients, found = load_clients(str(tmp_path / "data")), []
    for name in ("here", "ray"):
        out = tmp_path / name

        def actors(spec, host, out=out):
            return ray_engine(spec, clients, out, num_actors=2, address=None)

        from fedllm_train import FederatedConfig

        config = FederatedConfig(
            output_dir=str(out),
            strategy="fedavg" if task == "dpo" else case,
            num_rounds=3,
            cohort_size=2,
            local_steps=2,
        )
        trainer = FederatedTrainer(
            str(tmp_path / "model"), config, clients, kit.trl_args(task), kit.lora(),
            engine=actors if name == "ray" else None,
        )  # fmt: skip
        found.append(adapter_sha256(trainer.train().server["adapter"]))
    assert found[0] == found[1]


def test_a_model_in_memory_is_refused(kit, monkeypatch):
    monkeypatch.setattr(module, "check_ray", lambda: None)
    trainer = kit.make_trainer("run")
    with pytest.raises(ConfigError, match="it was given in memory"):
        ray_engine(trainer.loaded.spec(), None, Path("x"), num_actors=1, address=None)
