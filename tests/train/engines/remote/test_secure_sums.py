"""Runs with secure sums: one adapter whatever carries them, no update at the server, and what is lost or killed."""

import gc
import json
import re
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.engines.engine import Reply, WaitingTasks
from fedllm_train.messages import codec
from fedllm_train.monitoring.observer import Observer
from fedllm_train.privacy.secure_sum import client_side, server_side
from fedllm_train.privacy.secure_sum.exchanges import TrainHeader, joined
from fedllm_train.strategies import STRATEGIES

SECURE = {"secure_sum": True, "cohort_size": 5}
SKELLAM = {
    **SECURE,
    **{"secure_sum_skellam": True, "dp_clip": 0.5, "dp_noise_multiplier": 0.3, "dp_delta": 1e-3},
}


class Killed(Exception):
    """Stands for the death of the server."""


class Watched:
    """Visits clients one after the other; loses some answers, dies after some number of them, shows all to a test."""

    def __init__(self, host, *, lost=(), dies_after=None, see=lambda task, reply: None):
        self.host, self.lost, self.dies_after, self.see = host, set(lost), dies_after, see
        self.asked, self.waiting = Counter(), WaitingTasks()

    def submit(self, tasks):
        self.waiting.add(tasks)

    def take(self):
        if (task := self.waiting.draw()) is None:
            return None
        if self.dies_after is not None and self.asked.total() >= self.dies_after:
            raise Killed
        place = (task.step, task.purpose, self.asked[task.step, task.purpose])
        self.asked[task.step, task.purpose] += 1
        reply = self.host.visit(task)
        self.see(task, reply)
        if place in self.lost:
            return Reply(step=task.step, client_id=task.client_id, reason="it was lost", kind="lost")
        return reply


def watched(**settings):
    """An `engine=`: lost answers are named by step, purpose and position in that exchange."""
    return lambda spec, make_host: nullcontext(Watched(make_host(), **settings))


def without_masks(monkeypatch):
    """The plain fixed-point run: all is as it is, and no mask is added or taken away."""
    for module in (client_side, server_side):
        monkeypatch.setattr(module, "add_stream", lambda vector, key, sign: None)


def sha(state):
    return adapter_sha256(state.server["adapter"])


def test_a_run_equals_the_plain_fixed_point_run_to_the_bit(kit, tmp_path, monkeypatch):
    masked = kit.make_trainer(tmp_path / "masked", **SECURE).train()
    without_masks(monkeypatch)
    assert sha(kit.make_trainer(tmp_path / "plain", **SECURE).train()) == sha(masked)


def test_a_round_is_the_sum_that_whole_numbers_give(kit, tmp_path):
    """An independent calculation: updates of a plain run, weighed and rounded one by one, summed by Python."""
    updates, weights = [], []

    def see(task, reply):
        updates.append(codec.decode(reply.message)["adapter"])
        weights.append(reply.num_rows)

    plain = kit.make_trainer(tmp_path / "plain", num_rounds=1, cohort_size=5, engine=watched(see=see))
    start = {name: tensor.clone() for name, tensor in plain.start_adapter.items()}
    plain.train()
    trainer = kit.make_trainer(tmp_path / "secure", num_rounds=1, **SECURE)
    bits = trainer.plan.sums.fraction_bits
    after = trainer.train().server["adapter"]
    for name in start:
        base = start[name].double().numpy().ravel()
        changes = [update[name].double().numpy().ravel() - base for update in updates]
        totals = [
            sum(round(weight * float(change[i]) * 2**bits) for weight, change in zip(weights, changes, strict=True))
            for i in range(len(base))
        ]
        mean = base + np.array(totals, dtype=np.float64) * 2.0**-bits / sum(weights)
        assert after[name].numpy().ravel().tolist() == mean.astype(np.float32).tolist()


def test_it_is_the_plain_mean_up_to_the_steps_of_the_ring(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "plain", cohort_size=5, num_rounds=1).train()
    trainer = kit.make_trainer(tmp_path / "secure", num_rounds=1, **SECURE)
    state = trainer.train()
    for name, value in state.server["adapter"].items():
        assert torch.allclose(value, plain.server["adapter"][name], atol=2.0**-trainer.plan.sums.fraction_bits)
    (secure,), (before,) = kit.records_of(tmp_path / "secure"), kit.records_of(tmp_path / "plain")
    assert secure["train_loss"] == pytest.approx(before["train_loss"], abs=1e-3)
    assert (secure["secure_sum"]["num_summed"], secure["secure_sum"]["num_clipped"]) == (5, 0)


def test_the_record_has_nothing_of_a_single_client_that_the_server_did_not_know(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", num_rounds=1, **SECURE).train()
    (record,) = kit.records_of(tmp_path / "run")
    known = {"client_id", "num_rows", "num_steps", "seconds", "bits_per_value", "download_bytes", "upload_bytes"}
    assert all(set(client) == known for client in record["clients"])
    assert {client["client_id"]: client["num_rows"] for client in record["clients"]} == kit.SIZES
    told = record["secure_sum"]
    exchanged = told["exchange_download_bytes"] + told["exchange_upload_bytes"]
    messages = sum(client["download_bytes"] + client["upload_bytes"] for client in record["clients"])
    ledger = record["ledger"]
    assert ledger["download_bytes"] + ledger["upload_bytes"] == messages + exchanged
    assert exchanged > 0


@pytest.mark.slow
def test_the_same_run_in_two_processes_and_at_sites_ends_with_the_same_adapter(remote, tmp_path):
    changes = {**SECURE, "cohort_size": 4, "num_rounds": 2, "strategy": "scaffold"}
    _, here = remote.here(tmp_path / "here", **changes)
    _, beside = remote.here(tmp_path / "beside", num_processes=2, **changes)
    _, there = remote.there(tmp_path / "there", num_sites=3, policy={"needs_secure_sum": True}, **changes)
    assert sha(here) == sha(beside) == sha(there)
    assert here.ledger.upload_bytes == there.ledger.upload_bytes
    identities = json.loads((tmp_path / "there" / "identities.json").read_text())["clients"]
    assert all(len(bytes.fromhex(identity)) == 32 for identity in identities.values())


def trainer_on(kit, places, run, **settings):
    """A trainer on a base that other processes can load, too."""
    named = {name: settings.pop(name) for name in ("callbacks", "engine") if name in settings}
    config = FederatedConfig(output_dir=str(run), num_rounds=1, cohort_size=4, local_steps=2, seed=5, **settings)
    clients = load_clients(str(places / "sft"))
    return FederatedTrainer(str(places / "model"), config, clients, kit.trl_args("sft"), kit.lora(), **named)


class Looks(Observer):
    """Looks at all live tensors and arrays, at every reply and when the step was made."""

    def __init__(self, forbidden):
        self.forbidden, self.num_looks, self.num_seen = forbidden, 0, 0

    def look(self):
        self.num_looks += 1
        for each in gc.get_objects():
            if isinstance(each, torch.Tensor) and each.numel() and each.layout == torch.strided:
                values = each.detach().double().numpy()
            elif isinstance(each, np.ndarray) and each.dtype.kind == "f" and each.size:
                values = np.asarray(each, dtype=np.float64)
            else:
                continue
            self.num_seen += 1
            assert values.tobytes() not in self.forbidden, values.shape

    def saw(self, reply, problem):
        assert problem is None
        self.look()

    def stepped(self, step):
        self.look()
        return {}


def of_updates(kit, places, run):
    """The bytes that no array of the server may have, from a plain run of the same seed."""
    found, updates = set(), []
    plain = trainer_on(kit, places, run, engine=watched(see=lambda task, reply: updates.append(reply.message)))
    start = {name: tensor.double().numpy() for name, tensor in plain.start_adapter.items()}
    plain.train()
    for message in updates:
        whole = {name: tensor.double().numpy() for name, tensor in codec.decode(message)["adapter"].items()}
        changes = {name: whole[name] - start[name] for name in sorted(start)}
        found |= {values.tobytes() for values in (*whole.values(), *changes.values())}
        found.add(np.concatenate([each.ravel() for each in changes.values()]).tobytes())
    return found - {values.tobytes() for values in start.values()}


def test_no_live_array_of_the_server_is_a_clients_update(kit, places, tmp_path):
    """Clients work in processes of their own, so that nothing of theirs is here but what the server has."""
    looks = Looks(of_updates(kit, places, tmp_path / "plain"))
    assert len(looks.forbidden) > 20
    trainer_on(kit, places, tmp_path / "run", secure_sum=True, num_processes=2, callbacks=[looks]).train()
    assert looks.num_looks == 5
    assert looks.num_seen > 100


def test_the_look_would_find_an_update(kit, places, tmp_path):
    kept, held = set(), {}

    def see(task, reply):
        held.update(codec.decode(reply.message)["adapter"])
        kept.update(tensor.double().numpy().tobytes() for tensor in held.values())

    looks = Looks(kept)
    with pytest.raises(AssertionError):
        trainer_on(kit, places, tmp_path / "plain", engine=watched(see=see), callbacks=[looks]).train()


LOSSES = {
    "one at its keys": [(1, "keys", 2)],
    "one at its shares": [(1, "shares", 0)],
    "one while it trained": [(1, "train", 3)],
    "one that does not open": [(1, "unmask", 1)],
    "one after the other": [(0, "train", 0), (1, "keys", 4), (2, "shares", 1)],
}


@pytest.mark.parametrize(
    "lost",
    [pytest.param(each, marks=[pytest.mark.slow] * ("one at" in name)) for name, each in LOSSES.items()],
    ids=list(LOSSES),
)
def test_a_round_goes_on_without_those_who_are_lost(kit, tmp_path, monkeypatch, lost):
    rounds = 1 + max(step for step, _, _ in lost)
    settings = {**SECURE, "num_rounds": rounds, "engine": watched(lost=lost)}
    masked = kit.make_trainer(tmp_path / "masked", **settings).train()
    records = kit.records_of(tmp_path / "masked")
    assert all(record["server_step"] for record in records)
    gone = Counter(step for step, purpose, _ in lost if purpose != "unmask")
    assert [record["secure_sum"]["num_summed"] for record in records] == [5 - gone[step] for step in range(rounds)]
    assert [len(record["left_out"]) for record in records] == [gone[step] for step in range(rounds)]
    without_masks(monkeypatch)
    plain = kit.make_trainer(tmp_path / "plain", **settings).train()
    assert sha(masked) == sha(plain)


@pytest.mark.parametrize("purpose", ["keys", "shares", "train", "unmask"])
def test_with_too_few_left_a_round_makes_no_step_and_what_its_clients_kept_does_not_count(kit, tmp_path, purpose):
    lost = [(1, purpose, position) for position in (0, 1, 2)]
    settings = {**SECURE, "num_rounds": 3, "strategy": "scaffold"}
    kit.make_trainer(tmp_path / "run", engine=watched(lost=lost), keep_checkpoints=3, **settings).train()
    first, second, third = kit.records_of(tmp_path / "run")
    assert (first["server_step"], second["server_step"], third["server_step"]) == (True, False, True)
    assert second["adapter_sha256"] == first["adapter_sha256"]
    assert re.search(
        r"2 of its clients were left, and a secure sum of this round needs [34]", second["secure_sum"]["reason"]
    )
    assert len(second["left_out"]) == 5
    assert second["clients"] == []
    assert second["train_loss"] is None
    state = json.loads((tmp_path / "run" / "checkpoints" / "round-000001" / "state.json").read_text())
    assert state["refused"] == dict.fromkeys(kit.SIZES, 1)


@pytest.mark.parametrize("changes", [{}, {"strategy": "scaffold"}], ids=["fedavg", "scaffold"])
@pytest.mark.parametrize(
    "dies_after", [33, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 7, 13, 17, 20, 29, 38))]
)
def test_a_killed_run_ends_with_the_adapter_of_one_that_was_not(kit, tmp_path, changes, dies_after):
    settings = {**SECURE, **changes, "num_rounds": 2}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    with pytest.raises(Killed):
        kit.make_trainer(tmp_path / "run", engine=watched(dies_after=dies_after), **settings).train()
    assert sha(kit.make_trainer(tmp_path / "run", **settings).train(resume=True)) == sha(whole)


def test_after_a_kill_no_sum_of_other_clients_is_opened(kit, tmp_path):
    """The server died when the sum was open; in the next attempt a client is lost, and the difference would be it."""
    settings = {**SECURE, "num_rounds": 2}
    with pytest.raises(Killed):
        # 20 answers of round 0 and 19 of round 1: but for the last client everybody has opened the sum of five.
        kit.make_trainer(tmp_path / "run", engine=watched(dies_after=39), **settings).train()
    kit.make_trainer(tmp_path / "run", engine=watched(lost=[(1, "train", 4)]), **settings).train(resume=True)
    _, second = kit.records_of(tmp_path / "run")
    assert not second["server_step"]
    assert "0 of its clients were left" in second["secure_sum"]["reason"]


class DiesBeforeItSaves(Observer):
    """Kills the server when the sum of a round is known and its checkpoint is not written."""

    def __init__(self, at):
        self.at, self.after = at, None

    def stepped(self, step):
        if step.index == self.at:
            self.after = adapter_sha256(step.after["adapter"])
            raise Killed
        return {}


@pytest.mark.parametrize("settings", [SECURE, SKELLAM], ids=["without noise", "with noise"])
def test_a_round_that_is_made_again_has_the_same_sum_with_noise_too(kit, tmp_path, settings):
    dies = DiesBeforeItSaves(at=1)
    with pytest.raises(Killed):
        kit.make_trainer(tmp_path / "run", num_rounds=2, callbacks=[dies], **settings).train()
    state = kit.make_trainer(tmp_path / "run", num_rounds=2, **settings).train(resume=True)
    assert sha(state) == dies.after


def test_with_skellam_noise_the_record_has_epsilon_and_no_sum_of_losses(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=2, **SKELLAM)
    state = trainer.train()
    config = trainer.config_record()
    records = kit.records_of(tmp_path / "run")
    assert records[-1]["privacy"]["epsilon"] == config["privacy"]["epsilon"] == trainer.guarantee.epsilon(2)
    assert records[0]["privacy"]["epsilon"] < records[1]["privacy"]["epsilon"]
    assert records[0]["train_loss"] is None
    card = (tmp_path / "run" / "README.md").read_text()
    assert "| seen by the server | sums of updates and no single one" in card
    assert "noise, Skellam, of which every client adds a share, of 0.3 times" in card
    assert "num_clipped" not in records[0]["secure_sum"]
    # Noise of 0.3 * 0.5 on the sum of five, sized for four: its norm over d values shows in the step.
    d = sum(tensor.numel() for tensor in state.adapter.values())
    expected = 0.3 * 0.5 * (5 / 4) ** 0.5 * d**0.5 / 5
    assert records[0]["update_norm"] == pytest.approx(expected, rel=0.15)


SUMMED = [name for name, method in STRATEGIES.items() if method.traits.sees in ("mean", "sum")]
REFUSED = {
    "fednova": "messages themselves have no places that add up",
    "language_clusters": "makes more of each update than one weighted sum",
    "fedkseed": "messages themselves have no places that add up",
    "fed_sb": "packed to bits that do not add up",
    "flexlora": "needs every client's own factors",
    "hetlora": "needs every client's own factors",
    "fedex_lora": "needs every client's own factors",
    "local": "exchanges nothing between clients",
    "centralized": "exchanges nothing between clients",
}


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("ffa_lora", "fedavgm") else pytest.param(name, marks=pytest.mark.slow)
        for name in SUMMED
        if name not in REFUSED
    ],
)
def test_methods_whose_updates_add_up_go_and_end_where_they_end_without(kit, tmp_path, name):
    settings = {"strategy": name, "num_rounds": 2, "cohort_size": 5}
    plain = kit.make_trainer(tmp_path / "plain", **settings).train()
    trainer = kit.make_trainer(tmp_path / "secure", secure_sum=True, **settings)
    state = trainer.train()
    if name in ("fedadam", "fedadagrad", "fedyogi"):  # they divide by what may be rounding alone
        assert all(record["server_step"] for record in kit.records_of(tmp_path / "secure"))
        return
    for part, tensors in plain.server.items():
        for tensor_name, tensor in tensors.items():
            assert torch.allclose(state.server[part][tensor_name], tensor, atol=2e-4), (part, tensor_name)


@pytest.mark.slow
def test_fed_sb_goes_with_a_frame_that_is_drawn(kit, tmp_path):
    settings = {"strategy": "fed_sb", "core_frame": "random", "num_rounds": 2, "cohort_size": 5}
    plain = kit.make_trainer(tmp_path / "plain", **settings).train()
    state = kit.make_trainer(tmp_path / "secure", secure_sum=True, **settings).train()
    for name, tensor in plain.server["adapter"].items():
        assert torch.allclose(state.server["adapter"][name], tensor, atol=2e-4)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_methods_whose_server_needs_more_are_refused_with_the_reason(kit, tmp_path, name, reason):
    settings = {"strategy": name, "secure_sum": True}
    if name in ("local", "centralized"):
        settings["local_client"] = "ann" if name == "local" else None
    with pytest.raises(ConfigError, match=f"secure_sum is on, but strategy '{name}' .*{reason}"):
        kit.make_trainer(tmp_path / "run", **{k: v for k, v in settings.items() if v is not None})
    assert not (tmp_path / "run").exists()


def test_packed_downloads_go_with_secure_sums(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=2, download_wire="int8", **SECURE)
    trainer.train()
    assert all(record["server_step"] for record in kit.records_of(tmp_path / "run"))


def test_so_do_all_weights_of_a_model(kit, tmp_path):
    settings = {"num_rounds": 1, "cohort_size": 3, "local_steps": 1, "secure_sum": True, "full_finetuning": True}
    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path / "run"), **settings),
        kit.make_clients(),
        kit.trl_args("sft"),
        tokenizer=kit.make_tokenizer(),
    )
    trainer.train()
    assert kit.records_of(tmp_path / "run")[0]["secure_sum"]["num_summed"] == 3


@pytest.mark.slow
def test_with_a_clock_lost_clients_are_those_of_the_plain_run(kit, tmp_path):
    clock = {"client_table": "profile:laptop-home", "drop_out": 0.2, "num_rounds": 4, "cohort_size": 5}
    kit.make_trainer(tmp_path / "plain", **clock).train()
    kit.make_trainer(tmp_path / "secure", secure_sum=True, **clock).train()
    before, after = kit.records_of(tmp_path / "plain"), kit.records_of(tmp_path / "secure")
    assert any(record["left_out"] for record in before)
    for plain, secure in zip(before, after, strict=True):
        lost = {each["client_id"] for each in plain["left_out"]}
        assert lost <= {each["client_id"] for each in secure["left_out"]}
        assert secure["server_step"] == (len(lost) <= 1)


def test_a_client_of_a_secure_run_sends_no_update_that_is_not_masked(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=1, **SECURE)
    host = trainer.loaded.host
    broadcast = {"adapter": trainer.start_adapter}
    bare = host.visit(kit.question("ann", broadcast))
    assert bare.message is None
    assert "names no secure sum" in bare.reason
    alone = TrainHeader(attempt="0" * 32, summed=["ann"])
    task = kit.question("ann", broadcast)
    lied = host.visit(type(task)(**{**vars(task), "message": joined(alone, task.message)}))
    assert lied.message is None
    assert "no keys of this attempt" in lied.reason


def test_a_client_of_a_plain_run_answers_no_exchange(kit, tmp_path):
    host = kit.make_trainer(tmp_path / "run", num_rounds=1).loaded.host
    for purpose in ("keys", "shares", "unmask"):
        reply = host.visit(kit.question("ann", {}, purpose=purpose))
        assert reply.message is None
        assert reply.reason == f"it is asked for {purpose}, and the run has no secure sums"


def test_a_site_that_asks_for_a_secure_sum_believes_no_claim_of_one(remote, tmp_path):
    """A server may call its run what it likes: the worker looks at what it would be made to do."""
    with remote.workers_of(remote.places, tmp_path / "plain", num_sites=1, needs_secure_sum=True) as workers:
        begin, tensors = begins(remote, workers, tmp_path / "a")
        (worker,) = workers.values()
        assert "asks for a secure sum" in worker.answer(begin.header(), tensors)[0]["reason"]
        claimed = begin.model_copy(update={"secure_sum": True})
        assert "something other than its spec" in worker.answer(claimed.header(), tensors)[0]["reason"]
        alone = {**SPEC_OF_ONE, "num_rounds": 3}
        for sums, why in (
            (alone, "three at least"),
            ({**alone, "min_clients": 3, "max_clients": 3, "threshold": 0.1}, "more than half"),
            ({**alone, "more": 1}, "should have some of"),
            ({}, "cannot be read"),
        ):
            lied = claimed.model_copy(update={"spec": {**begin.spec, "sums": sums}, "wait_seconds": 60.0})
            answer, _ = worker.answer(lied.header(), tensors)
            assert answer["kind"] == "refused", answer
            assert why in answer["reason"]


SPEC_OF_ONE = {
    **{"bits": 32, "fraction_bits": 10, "clip": 1.0, "max_clients": 1, "max_weight": 1, "threshold": 1.0},
    **{"min_clients": 1, "noise": 0.0},
}


def begins(remote, workers, out):
    """What a plain run would tell a site of itself."""
    with remote.sites_of(workers) as clients:
        config = FederatedConfig(output_dir=str(out), num_rounds=3, cohort_size=3, local_steps=1)
        trainer = FederatedTrainer(
            str(remote.places / "model"),
            config,
            clients,
            remote.kit.trl_args("sft"),
            remote.kit.lora(),
            at_sites=remote.options,
        )
        (site,) = workers
        engine = trainer.loaded.engine("ab" * 8)
        return engine.begins(site)
