"""Hosts of clients: made of a run's spec elsewhere, they answer as the trainer's own does, to the bit."""

import pickle

import pytest

from fedllm_train.clients.host import ClientHost
from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer


def from_disk(kit, tmp_path, task="sft", **settings):
    """A trainer whose base and tokenizer lie in a folder, so that another machine could load them."""
    base = tmp_path / "base"
    if not base.exists():
        kit.make_model().save_pretrained(base)
        kit.make_tokenizer().save_pretrained(base)
    return FederatedTrainer(
        str(base),
        FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=3, local_steps=2, seed=5, **settings),
        kit.make_clients("sft" if task == "sft" else "preference"),
        kit.trl_args(task),
        kit.lora(lora_dropout=0.1),
    )


def answers(kit, trainer, host):
    """What a host says to two rounds of three clients, and at the end; without the time it took."""
    strategy, state = trainer.plan.strategy, trainer.loaded.start_state
    made = []
    for step, purpose in ((0, "train"), (1, "train"), (2, "personal")):
        if purpose == "personal" and not strategy.traits.personal:
            continue
        for client_id in ("ann", "bob", "eve"):
            sent = strategy.broadcast(state, client_id, step)
            reply = host.visit(kit.question(client_id, sent, step=step, seed=step, purpose=purpose))
            assert reply.reason is None
            made.append((reply.client_id, reply.step, reply.num_rows, reply.message, {**reply.facts, "seconds": 0}))
    return made


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("sft", {"strategy": "fedavg"}),
        ("sft", {"strategy": "scaffold"}),
        ("sft", {"strategy": "flora", "client_ranks": "2,4"}),
        ("sft", {"strategy": "ditto", "wire": "topk", "error_feedback": "ef14"}),
        ("sft", {"strategy": "language_clusters"}),
        ("dpo", {"strategy": "fedavg"}),
    ],
    ids=str,
)
def test_a_host_loaded_from_the_spec_alone_equals_the_trainers_own_to_the_bit(kit, tmp_path, task, settings):
    trainer = from_disk(kit, tmp_path, task, **settings)
    spec = pickle.loads(pickle.dumps(trainer.loaded.spec()))  # as it travels
    elsewhere = ClientHost.load(spec, trainer.clients, tmp_path / "elsewhere")
    own = answers(kit, trainer, trainer.loaded.host)
    assert answers(kit, trainer, elsewhere) == own
    assert len({message for _, step, _, message, _ in own if step < 2}) == 6  # each differs from all others


def test_what_a_host_keeps_lies_in_its_own_folder_by_run(kit, tmp_path):
    trainer = from_disk(kit, tmp_path, strategy="scaffold")
    host = ClientHost.load(trainer.loaded.spec(), trainer.clients, tmp_path / "elsewhere")
    sent = trainer.loaded.start_state
    first, again, other = (
        host.visit(kit.question("ann", sent, run=run, step=step, seed=1)).message
        for run, step in (("one", 0), ("one", 1), ("two", 1))
    )
    assert first == other  # another run finds nothing of what the client kept in the first
    assert first != again
    assert sorted(path.name for path in (tmp_path / "elsewhere" / "client_memory").iterdir()) == ["one", "two"]
    assert not (tmp_path / "run").exists()


def test_a_host_needs_the_rows_of_its_own_clients_alone(kit, tmp_path):
    trainer = from_disk(kit, tmp_path)
    alone = ClientHost.load(trainer.loaded.spec(), trainer.clients.select(["bob"]), tmp_path / "bob")
    task = kit.question("bob", trainer.loaded.start_state)
    assert alone.visit(task).message == trainer.loaded.host.visit(task).message
