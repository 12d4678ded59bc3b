"""The worker: jobs that are asked twice, runs that are stopped or left alone, its own limits, odd requests."""

import json
import random
import threading
import time

import pytest
import yaml

from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError, SchemaError
from fedllm_train.cli import main
from fedllm_train.engines.remote import worker as worker_module
from fedllm_train.engines.remote.connect import remote_engine
from fedllm_train.engines.remote.messages import Collect, Hello, ScoreJob, Stop, VisitJob, Work, job_key, read_answer
from fedllm_train.engines.remote.organisation import Organisation
from fedllm_train.engines.remote.policy import Policy, read_policy
from fedllm_train.engines.remote.run_folders import RunFolders
from fedllm_train.engines.remote.worker import Worker
from fedllm_train.messages import codec

RUN = "ab" * 8


def ask(worker, message, body=b""):
    header, content = worker.answer(json.loads(json.dumps(message.header())), body)
    return read_answer(header), content


@pytest.fixture
def begun(kit, remote, tmp_path):
    """A worker with all clients, and what a server would tell it of a run."""
    with remote.workers_of(remote.places, tmp_path / "sites", num_sites=1) as workers:
        worker = workers["site0"]
        with remote.sites_of(workers) as clients:
            yield worker, *begin_of(remote, kit, tmp_path, clients)


@pytest.fixture
def endless(kit, remote, tmp_path):
    """As `begun`, of a run whose visits take a hundred thousand steps unless a task says fewer."""
    with remote.workers_of(remote.places, tmp_path / "sites", num_sites=1) as workers:
        worker = workers["site0"]
        with remote.sites_of(workers) as clients:
            yield worker, *begin_of(remote, kit, tmp_path, clients, local_steps=100_000)


def begin_of(remote, kit, tmp_path, clients, run=RUN, **changes):
    """The message that begins a run, and the server's first state."""
    trainer = remote.trainer_of(kit, remote.places, tmp_path / "run", clients, **changes)
    loaded = trainer.loaded
    engine = remote_engine(
        clients,
        loaded.spec(),
        trainer.plan.participants,
        run=run,
        num_rounds=trainer.plan.config.num_rounds,
        guarantee=trainer.plan.guarantee or trainer.plan.row_guarantee,
        options=remote.options,
    )
    return engine.begins("site0")[0].model_copy(update={"wait_seconds": 60.0}), loaded.start_state


def visit(client_id, step=0, **changes):
    return VisitJob(**{"step": step, "client_id": client_id, "seed": 3, "learning_rate": 0.01, **changes})


def work(worker, job, body, wait=60.0):
    return ask(worker, Work(run=RUN, jobs=[job], lengths=[len(body)], body_of=[0], wait_seconds=wait), body)


def some_client(worker):
    return max(worker.facts.splits["train"].rows, key=worker.facts.splits["train"].rows.get)


def test_a_job_that_is_asked_again_costs_no_work_and_is_the_same(begun, monkeypatch):
    worker, begin, start = begun
    assert ask(worker, begin)[0].kind == "ready"
    message, made = codec.encode(start), []
    whole = worker_module.SiteRun.visit
    monkeypatch.setattr(worker_module.SiteRun, "visit", lambda *given: made.append(given) or whole(*given))
    job = visit(some_client(worker))
    first, body = work(worker, job, message)
    again, same = work(worker, job, message)
    assert (first.results[0].key, body) == (again.results[0].key, same)
    assert len(made) == 1
    assert len(body) > 0
    other, _ = work(worker, visit(some_client(worker), seed=4), message)
    assert other.results[0].key != first.results[0].key
    assert len(made) == 2


def test_answers_outlive_the_worker_until_the_run_has_gone_past_them(begun, tmp_path, remote, monkeypatch):
    worker, begin, start = begun
    ask(worker, begin)
    message, job = codec.encode(start), visit(some_client(worker))
    first, body = work(worker, job, message)
    worker.close()
    again = Worker(worker.site, worker.policy, tmp_path / "sites" / "site0", say=lambda line: None)
    try:
        assert work(again, job, message)[0].reason == "begin first"
        assert ask(again, begin)[0].kind == "ready"
        monkeypatch.setattr(worker_module.SiteRun, "visit", lambda *given: pytest.fail("it was kept"))
        kept, same = work(again, job, message)
        assert (kept.results[0].facts, same) == (first.results[0].facts, body)
        monkeypatch.undo()
        later, _ = work(again, visit(some_client(worker), step=2, oldest_step=0), message)
        assert later.results[0].has_body
        assert not list((tmp_path / "sites" / "site0").rglob(f"{first.results[0].key}*"))
    finally:
        again.close()


def test_a_stopped_visit_ends_between_steps_and_leaves_nothing(endless, monkeypatch):
    worker, begin, start = endless
    ask(worker, begin)
    message, steps = codec.encode(start), threading.Event()
    client_id = some_client(worker)
    _, expected = work(worker, visit(client_id, seed=9, num_steps=2), message)

    host = worker.active.run.host
    end_of_step = host.resident.trainer.callback_handler.on_step_end
    monkeypatch.setattr(
        host.resident.trainer.callback_handler, "on_step_end", lambda *given: steps.set() or end_of_step(*given)
    )
    long = visit(client_id, step=1)
    pending, _ = work(worker, long, message, wait=0.0)
    assert pending.pending == [job_key(RUN, long, message)]
    assert steps.wait(30)
    assert ask(worker, Stop(run=RUN))[0].kind == "stopped"
    gone, _ = ask(worker, Collect(run=RUN, keys=pending.pending, wait_seconds=30.0))
    assert (gone.results, gone.unknown) == ([], pending.pending)

    worker.active.answers.forget_until(10)
    _, after = work(worker, visit(client_id, seed=9, num_steps=2), message)
    assert after == expected  # as if the stopped visit had never been


def test_a_run_that_nobody_asks_after_is_stopped(endless):
    worker, begin, start = endless
    ask(worker, begin.model_copy(update={"lease_seconds": 0.2}))
    work(worker, visit(some_client(worker)), codec.encode(start), wait=0.0)
    end = time.monotonic() + 30
    while worker.active.under_way is not None or worker.active.queue:
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def test_a_finished_run_leaves_nothing_but_personal_adapters(kit, remote, tmp_path):
    with (
        remote.workers_of(remote.places, tmp_path / "sites", num_sites=1) as workers,
        remote.sites_of(workers) as clients,
    ):
        worker = workers["site0"]
        begin, start = begin_of(remote, kit, tmp_path, clients, strategy="ditto")
        ask(worker, begin)
        message, client_id = codec.encode({"adapter": start["adapter"]}), some_client(worker)
        work(worker, visit(client_id), message)
        own, body = work(worker, visit(client_id, step=3, purpose="personal"), message)
        assert (own.results[0].has_body, body) == (False, b"")
        assert len(own.results[0].facts["adapter_sha256"]) == 64
        ask(worker, Stop(run=RUN, is_finished=True))
        folder = tmp_path / "sites" / "site0" / "runs" / RUN
        assert [path.name for path in folder.iterdir()] == ["personal"]
        assert work(worker, visit(client_id), message)[0].reason == "begin first"


def test_scores_of_clients_with_few_rows_are_withheld(kit, remote, tmp_path):
    with (
        remote.workers_of(remote.places, tmp_path / "sites", num_sites=1, min_rows=2) as workers,
        remote.sites_of(workers) as clients,
    ):
        worker = workers["site0"]
        begin, start = begin_of(remote, kit, tmp_path, clients)
        ask(worker, begin)
        held = load_clients(str(remote.places / "sft"), "test").sizes
        assert set(worker.facts.splits["test"].rows) == {name for name in held if held[name] >= 2}
        job = ScoreJob(step=0, split="test", clients=list(held), seed=0)
        done, _ = work(worker, job, codec.encode({"adapter": start["adapter"]}))
        scored = done.results[0].scores["client_id"]
        assert set(scored) == {name for name in held if held[name] >= 2}
        assert done.results[0].num_withheld == len(held) - len(scored)


LIMITS = {
    "another base": ({"bases": ("sha256:0",)}, "is not one that this organisation allows"),
    "method": ({"strategies": ("scaffold",)}, "strategy fedavg is not one that this organisation allows"),
    "task": ({"tasks": ("dpo",)}, "task sft is not one that this organisation allows"),
    "rounds": ({"max_rounds": 2}, "3 rounds are more than the 2"),
    "steps": ({"max_steps": 1}, "a visit of 2 steps may be longer than the 1"),
    "privacy": ({"max_epsilon": 8.0}, "the run has no guarantee, and this organisation asks for epsilon 8"),
    "secure sum": ({"needs_secure_sum": True}, "asks for a secure sum"),
}


@pytest.mark.parametrize(("limits", "reason"), LIMITS.values(), ids=list(LIMITS))
def test_what_a_policy_forbids_is_refused_before_anything_is_loaded(begun, limits, reason):
    worker, begin, _ = begun
    worker.policy = Policy(approve="auto", **limits)
    answer, _ = ask(worker, begin)
    assert answer.kind == "refused"
    assert reason in answer.reason
    assert worker.active is None


def test_steps_of_a_visit_are_all_that_its_method_takes_and_no_other_number_is_believed(kit, remote, tmp_path):
    with (
        remote.workers_of(remote.places, tmp_path / "sites", num_sites=1, max_steps=4) as workers,
        remote.sites_of(workers) as clients,
    ):
        worker = workers["site0"]
        begin, _ = begin_of(remote, kit, tmp_path, clients, strategy="ditto")
        assert ask(worker, begin)[0].kind == "ready"  # two for the global adapter, two for its own
        worker.policy = Policy(approve="auto", max_steps=3)
        assert "a visit of 4 steps may be longer than the 3" in ask(worker, begin)[0].reason
        reason = ask(worker, begin.model_copy(update={"max_steps": 2}))[0].reason
        assert reason == "the run tells of 2 steps a visit, and its settings make 4"
        begin, _ = begin_of(remote, kit, tmp_path, clients, strategy="fedavg_ft", personal_steps=9)
        assert "a visit of 9 steps may be longer than the 3" in ask(worker, begin)[0].reason


def test_a_run_does_not_begin_on_other_rows_than_it_was_planned_with(begun):
    worker, begin, _ = begun
    assert begin.data == worker.facts.splits["train"].digest
    answer, _ = ask(worker, begin.model_copy(update={"data": "0" * 64}))
    assert answer.kind == "refused"
    assert "are not those that the run was planned with (000000000000)" in answer.reason


def test_rows_that_cannot_be_trained_on_are_refused_at_once(begun, monkeypatch):
    worker, begin, _ = begun

    def unsorted(*_):
        raise SchemaError("rows are not sorted")

    monkeypatch.setattr(Organisation, "clients", unsorted)
    answer, _ = ask(worker, begin)
    assert (answer.kind, answer.reason) == ("refused", "rows are not sorted")


def test_a_full_disk_leaves_a_client_out_and_the_worker_goes_on(begun, monkeypatch):
    worker, begin, start = begun
    ask(worker, begin)

    def full(*_):
        raise OSError(28, "No space left on device")

    message, client_id = codec.encode(start), some_client(worker)
    with monkeypatch.context() as patch:
        patch.setattr("fedllm_train.engines.remote.kept_answers.write_sealed", full)
        done, body = work(worker, visit(client_id), message)
        assert done.results[0].reason == "its site cannot write what came of the visit: No space left on device"
        assert (done.results[0].has_body, body) == (False, b"")
    with monkeypatch.context() as patch:
        patch.setattr("fedllm_train.engines.remote.worker_log.json_text", full)
        answer, _ = ask(worker, Hello())
        assert answer.reason == "its record of requests cannot be written: No space left on device"
    assert work(worker, visit(client_id, step=1), message)[0].results[0].has_body


def test_two_workers_do_not_share_a_folder(begun, tmp_path):
    worker, _, _ = begun
    with pytest.raises(ConfigError, match="is used by another worker; give each worker a folder of its own"):
        Worker(worker.site, worker.policy, tmp_path / "sites" / "site0")


def test_clients_that_are_not_offered_cannot_be_asked(begun):
    worker, begin, start = begun
    one, other = sorted(begin.clients)[:2]
    worker.policy = Policy(approve="auto", clients=(one,))
    assert f"client {other!r} may not be asked" in ask(worker, begin)[0].reason
    assert ask(worker, begin.model_copy(update={"clients": [one]}))[0].kind == "ready"
    done, _ = work(worker, visit(other), codec.encode(start))
    assert done.results[0].reason == "the run did not name this client when it began"


def test_another_base_or_package_is_refused(begun):
    worker, begin, _ = begun
    for name, what in (("digests", "tokenizer"), ("versions", "torch")):
        spec = {**begin.spec, name: {**begin.spec[name], what: "other"}}
        answer, _ = ask(worker, begin.model_copy(update={"spec": spec}))
        assert answer.kind == "refused"
        assert f"this machine's {what} is" in answer.reason


def test_approval_is_asked_for_once_and_for_exactly_one_run(begun, tmp_path, capsys):
    worker, begin, _ = begun
    worker.policy = Policy(approve="ask")
    assert "has not approved" in ask(worker, begin)[0].reason
    folder = str(tmp_path / "sites" / "site0")
    assert main(["worker", "list", "--folder", folder]) == 0
    assert (
        f"{RUN}: fedavg, 3 rounds, {len(begin.clients)} clients, 2 steps a visit, no guarantee"
        in capsys.readouterr().out
    )
    assert main(["worker", "approve", "ff", "--folder", folder]) == 2
    assert "0 runs that ask for approval begin with 'ff'" in capsys.readouterr().err
    assert main(["worker", "approve", RUN[:4], "--folder", folder]) == 0
    longer = begin.model_copy(update={"num_rounds": 99})
    assert "has not approved" in ask(worker, longer)[0].reason
    assert RunFolders(tmp_path / "sites" / "site0").waiting() == [longer]
    assert ask(worker, begin)[0].kind == "ready"
    asked = [json.loads(line) for line in (tmp_path / "sites" / "site0" / "requests.jsonl").read_text().splitlines()]
    assert [each["kind"] for each in asked if each["run"]][-3:] == ["begin", "begin", "begin"]


@pytest.mark.parametrize("content", ["", "{}", '{"kind": 3}', "\udcff"])
def test_a_damaged_request_is_named_and_can_be_forgotten(tmp_path, capsys, content):
    asked = tmp_path / "runs" / RUN / "asked.json"
    asked.parent.mkdir(parents=True)
    asked.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert main(["worker", "list", "--folder", str(tmp_path)]) == 2
    assert f"{asked} is no request of this version; remove it with fedllm-train worker forget {RUN}" in (
        capsys.readouterr().err
    )
    assert main(["worker", "forget", RUN, "--folder", str(tmp_path)]) == 0
    assert main(["worker", "list", "--folder", str(tmp_path)]) == 0


@pytest.mark.parametrize("number", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_drawn_requests_are_answered_and_harm_nothing(begun, number):
    worker, begin, start = begun
    rng, message = random.Random(number), codec.encode(start)
    good = [
        Hello().header(),
        begin.header(),
        Work(run=RUN, jobs=[visit(some_client(worker))], lengths=[len(message)], body_of=[0]).header(),
        Collect(run=RUN, keys=["0" * 64]).header(),
        Stop(run=RUN).header(),
    ]
    odd = [None, -1, 10**30, "x", "../x", [], {}, True, 0.5, ["x"], {"a": {}}]
    for _ in range(number):
        header = json.loads(json.dumps(rng.choice(good)))
        place = header
        while isinstance(place, dict) and place and rng.random() < 0.6 and (inner := rng.choice(list(place))):
            if not isinstance(place[inner], dict) or not place[inner]:
                break
            place = place[inner]
        if place:
            place[rng.choice(list(place))] = rng.choice(odd)
        answer, _ = worker.answer(header, rng.choice([b"", message, rng.randbytes(20)]))
        told = read_answer(json.loads(json.dumps(answer)))
        assert "Traceback" not in str(getattr(told, "reason", ""))
    assert ask(worker, Hello())[0].kind == "site"
    ask(worker, Stop(run=RUN))
    assert ask(worker, begin)[0].kind == "ready"
    assert work(worker, visit(some_client(worker)), message)[0].results[0].has_body


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("max_round: 3", "'max_round', which no policy has; did you mean max_rounds"),
        ("max_rounds: many", "max_rounds is 'many'; write a whole number from 1"),
        ("max_rounds: 0", "write a whole number from 1"),
        ("max_epsilon: .inf", "write a positive number"),
        ("approve: yes", "approve is True; write auto or ask"),
        ("tasks: [sft, ppo]", "tasks has 'ppo'; choose from sft, dpo, kto"),
        ("clients: 3", "write a list of names"),
        ("scores: 1", "write true or false"),
        ("- a", "is no list of keys and values"),
        ("a: [", "cannot be read"),
        ("approve: ask\napprove: auto", "it names the key 'approve' twice (line 2)"),
    ],
)
def test_a_policy_that_is_none_is_refused_by_key(tmp_path, content, reason):
    (tmp_path / "worker.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        read_policy(tmp_path / "worker.yaml")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_policy_is_what_its_file_says(tmp_path):
    said = {"approve": "auto", "tasks": ["sft"], "max_epsilon": 3, "clients": "all", "columns": [], "min_rows": 5}
    (tmp_path / "worker.yaml").write_text(yaml.safe_dump(said))
    assert read_policy(tmp_path / "worker.yaml") == Policy(
        approve="auto", tasks=("sft",), max_epsilon=3, columns=(), min_rows=5
    )
    assert read_policy(None).approve == "ask"


def test_columns_go_only_where_the_policy_lets_them(remote, tmp_path):
    site = Organisation(data=str(remote.places / "sft"), model=str(remote.places / "model"))
    for columns, told in ((("num_rows", "nothing"), ["num_rows"]), ((), [])):
        worker = Worker(site, Policy(columns=columns), tmp_path / str(len(columns)), say=lambda line: None)
        worker.close()
        assert sorted(worker.facts.table) == told


def test_what_a_worker_keeps_is_its_users_alone(begun, tmp_path):
    worker, begin, _ = begun
    assert ask(worker, begin)[0].kind in ("ready", "waiting")
    folder = tmp_path / "sites" / "site0"
    assert (folder / "runs").stat().st_mode & 0o077 == 0
    assert (folder / "requests.jsonl").stat().st_mode & 0o077 == 0


ROWS = {"dp_unit": "example", "dp_clip": 1.0, "dp_noise_multiplier": 4.0, "dp_delta": 1e-3}


@pytest.fixture
def of_rows(kit, remote, tmp_path):
    """As `begun`, of a run whose clients add noise to their own steps."""
    with remote.workers_of(remote.places, tmp_path / "sites", num_sites=1) as workers:
        worker = workers["site0"]
        with remote.sites_of(workers) as clients:
            yield worker, *begin_of(remote, kit, tmp_path, clients, **ROWS)


def test_a_limit_of_epsilon_says_of_which_unit_it_is(of_rows):
    worker, begin, _ = of_rows
    row, client = begin.privacy.epsilon, begin.privacy.client_epsilon
    assert begin.privacy.unit == "example"
    assert row < client
    between = (row + client) / 2
    worker.policy = Policy(approve="auto", max_epsilon=between)
    assert f"guarantees epsilon {client:g}, and this organisation asks" in ask(worker, begin)[0].reason
    worker.policy = Policy(approve="auto", max_epsilon=row / 2, epsilon_unit="example")
    assert f"guarantees epsilon {row:g}, and this organisation asks" in ask(worker, begin)[0].reason
    worker.policy = Policy(approve="auto", max_epsilon=between, epsilon_unit="example")
    assert ask(worker, begin)[0].kind == "ready"


@pytest.mark.parametrize(("name", "value"), [("noise_multiplier", 0.5), ("clip", 9.0), ("num_rounds", 99)])
def test_a_claim_that_the_spec_does_not_keep_is_refused(of_rows, name, value):
    worker, begin, _ = of_rows
    worker.policy = Policy(approve="auto", max_epsilon=1e9)
    spec = {**begin.spec, "rows": {**begin.spec["rows"], name: value}}
    assert (
        "claims another clip, noise or number of rounds"
        in ask(worker, begin.model_copy(update={"spec": spec}))[0].reason
    )


def test_a_site_calculates_itself_what_a_run_is_worth(of_rows):
    worker, begin, _ = of_rows
    worker.policy = Policy(approve="auto", max_epsilon=1e9)
    for field in ("epsilon", "client_epsilon"):
        privacy = begin.privacy.model_copy(update={field: getattr(begin.privacy, field) / 2})
        reason = ask(worker, begin.model_copy(update={"privacy": privacy}))[0].reason
        assert "and what it asks of the clients gives" in reason
    weaker = {**begin.spec["rows"], "noise_multiplier": 0.5}
    privacy = begin.privacy.model_copy(update={"noise_multiplier": 0.5})
    asked = begin.model_copy(update={"spec": {**begin.spec, "rows": weaker}, "privacy": privacy})
    assert "and what it asks of the clients gives" in ask(worker, asked)[0].reason
    longer = begin.model_copy(update={"spec": {**begin.spec, "work": {**begin.spec["work"], "amount": 50}}})
    assert "and what it asks of the clients gives" in ask(worker, longer)[0].reason


def test_a_site_draws_its_own_noise_and_keeps_its_secret(of_rows, tmp_path):
    worker, begin, start = of_rows
    worker.policy = Policy(approve="auto")
    assert ask(worker, begin)[0].kind == "ready"
    done, update = work(worker, visit(some_client(worker)), codec.encode(start))
    assert done.results[0].reason is None
    assert "train_loss" not in done.results[0].facts
    secrets = [*(tmp_path / "sites").rglob("row_secret")]
    assert len(secrets) == 1
    assert bytes.fromhex(secrets[0].read_text().split()[0]) not in update


@pytest.mark.parametrize(
    "rows",
    [{}, {"clip": 1.0}, "x", {"clip": 0.0}, {"noise_multiplier": -1.0}, {"batch_rows": 0}, {"num_rounds": True}],
    ids=str,
)
def test_a_spec_with_odd_privacy_of_rows_is_refused(of_rows, rows):
    worker, begin, _ = of_rows
    worker.policy = Policy(approve="auto")
    changed = rows if rows in ({}, {"clip": 1.0}, "x") else {**begin.spec["rows"], **rows}
    assert ask(worker, begin.model_copy(update={"spec": {**begin.spec, "rows": changed}}))[0].kind == "refused"
