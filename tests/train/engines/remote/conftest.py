"""Sites over socket pairs: workers of this process, each with clients of its own, and trainers here and there."""

import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedllm_data.clients import load_clients
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.engines.remote.frames import receive_frame, send_frame
from fedllm_train.engines.remote.organisation import Organisation
from fedllm_train.engines.remote.policy import Policy
from fedllm_train.engines.remote.seats import RemoteOptions
from fedllm_train.engines.remote.site_clients import clients_at_sites
from fedllm_train.engines.remote.socket_line import SocketLine
from fedllm_train.engines.remote.worker import Worker

SIZES = {f"client-{letter}": 3 + 2 * number for number, letter in enumerate("abcdefgh")}
OPTIONS = RemoteOptions(poll=2.0, retry=0.05, join=60.0, unreachable=20.0)


@pytest.fixture(scope="session")
def places(kit, tmp_path_factory):
    """A base model and two corpora on disk."""
    folder = tmp_path_factory.mktemp("sites")
    kit.make_model().save_pretrained(folder / "model")
    kit.make_tokenizer().save_pretrained(folder / "model")
    kit.build_repo(folder / "sft", sizes=SIZES)
    kit.build_repo(folder / "preference", "preference", sizes=SIZES)
    return folder


def pair_to(answerer):
    """What makes connections to an answerer of this process: socket pairs."""

    def connect():
        here, there = socket.socketpair()

        def answer():
            with there:
                try:
                    header, body = receive_frame(there)
                    send_frame(there, *answerer(header, body))
                except Exception:
                    return

        threading.Thread(target=answer, daemon=True).start()
        return here

    return connect


def parts_of(ids, num_sites):
    """The clients dealt out to sites, not in their order."""
    return {f"site{number}": list(ids)[number::num_sites] for number in range(num_sites)}


@contextmanager
def workers_of(places, folder, task="sft", num_sites=2, **policy):
    """Workers of some sites, which share one corpus and see their own clients of it."""
    data = str(places / ("sft" if task == "sft" else "preference"))
    model, made = str(places / "model"), {}
    try:
        for name, own in parts_of(load_clients(data), num_sites).items():
            limits = {"approve": "auto", "clients": tuple(own), **policy}
            made[name] = Worker(
                Organisation(data=data, model=model), Policy(**limits), Path(folder) / name, say=lambda line: None
            )
        yield made
    finally:
        for worker in made.values():
            worker.close()


@contextmanager
def sites_of(workers, **options):
    """The clients of some workers, over an open line of socket pairs."""
    with SocketLine({name: pair_to(worker.answer) for name, worker in workers.items()}) as line:
        yield clients_at_sites(line, seconds=30, **options)


def settings_of(kit, out, task="sft", strategy="fedavg", **changes):
    settings = {"num_rounds": 3, "seed": 5, **changes}
    if settings.get("cohort_rule") not in ("fixed", "all") and "buffer_size" not in settings:
        settings.setdefault("cohort_size", 3)
    if "expected_epochs" not in settings:
        settings.setdefault("local_steps", 2)
    return FederatedConfig(output_dir=str(out), strategy=strategy, **settings), kit.trl_args(task)


def trainer_of(kit, places, out, clients, task="sft", *, adapter=None, peft_config=None, at_sites=None, **changes):
    """A trainer on clients that are here, or at sites."""
    config, args = settings_of(kit, out, task, **changes)
    return FederatedTrainer(
        str(places / "model"),
        config,
        clients,
        args,
        None if adapter else peft_config or kit.lora(),
        adapter=adapter,
        at_sites=at_sites or OPTIONS,
    )


@pytest.fixture(scope="session")
def remote(kit, places):
    """What the tests of this folder are made from."""

    def here(out, task="sft", **changes):
        clients = load_clients(str(places / ("sft" if task == "sft" else "preference")))
        trainer = trainer_of(kit, places, out, clients, task, **changes)
        return trainer, trainer.train()

    def there(out, task="sft", *, num_sites=2, resume=False, policy=None, **changes):
        with (
            workers_of(
                places, Path(out).parent / f"{Path(out).name}-sites", task, num_sites, **(policy or {})
            ) as workers,
            sites_of(workers) as clients,
        ):
            trainer = trainer_of(kit, places, out, clients, task, **changes)
            return trainer, trainer.train(resume=resume)

    return SimpleNamespace(
        kit=kit,
        here=here,
        there=there,
        places=places,
        pair_to=pair_to,
        parts_of=parts_of,
        workers_of=workers_of,
        sites_of=sites_of,
        trainer_of=trainer_of,
        options=OPTIONS,
        sizes=SIZES,
    )
