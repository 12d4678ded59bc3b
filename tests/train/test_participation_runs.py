"""Whole runs on a simulated clock: what it changes and what it must not, from the first round to a resumed one."""

import csv
import json
from dataclasses import fields
from hashlib import sha256

import pytest
import torch
import yaml

from fedllm_train.adapters.arithmetic import adapter_sha256, flatten
from fedllm_train.engines.engine import Reply
from fedllm_train.messages import codec
from fedllm_train.participation.participation_settings import ParticipationSettings

NUMBERS = ("download_mbit", "upload_mbit", "latency_ms", "flops")
ALIKE = dict.fromkeys(("ann", "bob", "cyd", "dan", "eve"), (10.0, 1.0, 20.0, 1e9))
MIXED = {
    "ann": (10.0, 1.0, 20.0, 1e9),
    "bob": (10.0, 1.0, 20.0, 2e8),
    "cyd": (50.0, 5.0, 20.0, 5e9),
    "dan": (2.0, 0.2, 200.0, 1e9),
    "eve": (100.0, 50.0, 5.0, 1e10),
}


def table(folder, machines, **columns):
    """A client table; `columns` hold more of each client, by id."""
    path = folder / "machines.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["client_id", *NUMBERS, *columns])
        for client_id, numbers in machines.items():
            writer.writerow([client_id, *numbers, *(values.get(client_id, "") for values in columns.values())])
    return str(path)


def test_a_clock_without_losses_changes_no_bit(kit, whole_run, tmp_path):
    _, plain = whole_run()
    trainer = kit.make_trainer(tmp_path / "run", client_table=table(tmp_path, MIXED))
    state = trainer.train()
    assert adapter_sha256(state.adapter) == adapter_sha256(plain.adapter)
    records = kit.records_of(tmp_path / "run")
    before = 0.0
    for record in records:
        # A round lasts as long as its slowest client.
        assert record["clock_seconds"] == max(each["arrived"] for each in record["clients"])
        for each in record["clients"]:
            parts = [each[f"{part}_seconds"] for part in ("download", "compute", "upload")]
            assert each["arrived"] == pytest.approx(before + sum(parts))
            assert each["staleness"] == 0
        before = record["clock_seconds"]
    assert state.clock == before > 0


def test_fedbuff_of_clients_that_are_all_alike_equals_fedavg_to_the_bit(kit, whole_run, tmp_path):
    _, plain = whole_run()
    settings = {"participation": "buffered", "concurrency": 3, "client_table": table(tmp_path, ALIKE)}
    state = kit.make_trainer(tmp_path / "run", **settings).train()
    assert adapter_sha256(state.adapter) == adapter_sha256(plain.adapter)


# -- losses ---------------------------------------------------------------------------------------------------------


def shape_of(records):
    """Records without what was measured."""
    measured = ("seconds", "ledger")
    rounds = []
    for record in records:
        visits = [{k: v for k, v in each.items() if k != "seconds"} for each in record["clients"]]
        rounds.append({k: v for k, v in record.items() if k not in measured} | {"clients": visits})
        rounds[-1]["ledger"] = {k: v for k, v in record["ledger"].items() if k != "client_seconds"}
    return rounds


def spent(records):
    """Bytes and steps that the rounds' visits say, of those left out too."""
    each = [one for record in records for one in (*record["clients"], *record["left_out"])]
    return {
        "download_bytes": sum(one["download_bytes"] for one in each),
        "upload_bytes": sum(one["upload_bytes"] for one in each),
        "num_local_steps": sum(one["num_steps"] for one in each),
    }


LOSSY = {"drop_out": 0.4, "num_rounds": 6, "cohort_size": 4}


def test_lost_clients_are_named_and_what_they_cost_is_counted(kit, tmp_path):
    run = tmp_path / "run"
    kit.make_trainer(run, client_table=table(tmp_path, MIXED), **LOSSY).train()
    records = kit.records_of(run)
    lost = [each for record in records for each in record["left_out"]]
    assert {each["kind"] for each in lost} == {"lost"}
    assert all(len(record["clients"]) + len(record["left_out"]) == 4 for record in records)
    assert any(0 < each["num_steps"] for each in lost)
    assert all(each["reason"].startswith("it was lost while it ") for each in lost)
    ledger = records[-1]["ledger"]
    assert {name: ledger[name] for name in spent(records)} == spent(records)
    # A lost client's message is sent to it whole; of its own, at most a part was.
    message = max(each["download_bytes"] for each in lost)
    assert all(each["download_bytes"] == message and each["upload_bytes"] < message for each in lost)


def test_the_clients_that_are_not_lost_are_averaged_as_if_they_alone_had_been_asked(kit, tmp_path):
    run = tmp_path / "run"
    state = kit.make_trainer(run, client_table=table(tmp_path, MIXED), **LOSSY | {"num_rounds": 1}).train()
    (record,) = kit.records_of(run)
    assert record["left_out"]
    there = ",".join(each["client_id"] for each in record["clients"])
    others = kit.make_trainer(tmp_path / "others", cohort_rule="fixed", cohort_clients=there, num_rounds=1)
    assert adapter_sha256(others.train().adapter) == adapter_sha256(state.adapter)


@pytest.mark.parametrize("strategy", ["scaffold", "ditto", "fedsa_lora"])
def test_what_a_client_keeps_of_a_visit_whose_reply_was_lost_does_not_count(kit, tmp_path, strategy):
    """A run in which the lost clients never trained ends with the same memory: they are asked for nothing there."""
    settings = {"strategy": strategy, **LOSSY}
    lossy = kit.make_trainer(tmp_path / "lossy", client_table=table(tmp_path, MIXED), **settings)
    state = lossy.train()
    fates = [{each["client_id"] for each in record["left_out"]} for record in kit.records_of(tmp_path / "lossy")]
    assert sum(map(len, fates)) >= 3

    def refuse(host):
        visit = host.visit

        def of_those_not_lost(task):
            if task.purpose == "train" and task.client_id in fates[task.step]:
                return Reply(step=task.step, client_id=task.client_id, reason="never asked")
            return visit(task)

        host.visit = of_those_not_lost

    settings = {name: value for name, value in settings.items() if name != "drop_out"}
    other = kit.make_trainer(tmp_path / "other", engine=kit.in_process(refuse), **settings).train()
    assert adapter_sha256(flatten(state.server)) == adapter_sha256(flatten(other.server))
    for client_id in kit.SIZES:
        before = state.refused.get(client_id, 6)  # what it kept from its first lost update on does not count
        ours, theirs = (kit.memory_of(tmp_path / name, client_id, before=before) for name in ("lossy", "other"))
        assert adapter_sha256(flatten(ours)) == adapter_sha256(flatten(theirs)), client_id


# -- deadline -------------------------------------------------------------------------------------------------------


def test_a_round_ends_with_the_first_to_arrive_and_names_the_others(kit, tmp_path):
    settings = {"participation": "deadline", "over_selection": 1.7, "num_rounds": 3}
    kit.make_trainer(tmp_path / "run", client_table=table(tmp_path, MIXED), **settings).train()
    records = kit.records_of(tmp_path / "run")
    for record in records:
        assert len(record["clients"]) == 3
        assert len(record["left_out"]) == 2  # 1.7 * 3 = 5 asked
        assert {each["kind"] for each in record["left_out"]} == {"late"}
        assert record["clock_seconds"] == max(each["arrived"] for each in record["clients"])
        assert {each["arrived"] for each in record["left_out"]} == {record["clock_seconds"]}
    # cyd and eve have the fastest machines and lines.
    assert all({"cyd", "eve"} <= {each["client_id"] for each in record["clients"]} for record in records)
    ledger = records[-1]["ledger"]
    assert {name: ledger[name] for name in spent(records)} == spent(records)


def test_too_few_by_the_deadline_make_no_step_and_time_passes_all_the_same(kit, tmp_path):
    settings = {"participation": "deadline", "deadline_seconds": 0.05, "min_clients": 2, "num_rounds": 2}
    trainer = kit.make_trainer(tmp_path / "run", client_table=table(tmp_path, MIXED), cohort_size=5, **settings)
    state = trainer.train()
    records = kit.records_of(tmp_path / "run")
    assert [record["server_step"] for record in records] == [False, False]
    assert [record["clock_seconds"] for record in records] == [0.05, 0.1]
    assert adapter_sha256(state.adapter) == adapter_sha256(trainer.start_adapter)


def test_late_updates_are_applied_in_a_later_round_with_less_weight(kit, tmp_path):
    settings = {"participation": "deadline", "deadline_seconds": 0.9, "late": "apply", "num_rounds": 5}
    run = tmp_path / "run"
    kit.make_trainer(run, client_table=table(tmp_path, MIXED), cohort_size=5, **settings).train()
    records = kit.records_of(run)
    stale = [each for record in records for each in record["clients"] if each["staleness"]]
    assert stale
    asked = [client for record in records for client in (*record["clients"], *record["left_out"])]
    assert all(each["kind"] != "late" for record in records for each in record["left_out"])
    # Who is under way is not asked again: nobody is in a round twice.
    for record in records:
        names = [each["client_id"] for each in record["clients"]]
        assert len(names) == len(set(names))
    assert len(asked) + records[-1]["num_under_way"] <= 5 * 5


def test_partial_work_lets_slow_clients_make_the_steps_that_fit(kit, tmp_path):
    settings = {"participation": "deadline", "deadline_seconds": 1.0, "local_steps": 6, "num_rounds": 1}
    machines = table(tmp_path, MIXED)
    whole = kit.make_trainer(tmp_path / "whole", client_table=machines, cohort_size=5, **settings)
    whole.train()
    partial = kit.make_trainer(tmp_path / "part", client_table=machines, cohort_size=5, partial_work=True, **settings)
    partial.train()
    (without,), (record,) = kit.records_of(tmp_path / "whole"), kit.records_of(tmp_path / "part")
    steps = {each["client_id"]: each["num_steps"] for each in record["clients"]}
    assert {each["client_id"] for each in without["clients"]} < steps.keys()
    assert set(steps.values()) & set(range(1, 6))
    assert steps["eve"] == 6
    assert all(each["arrived"] <= 1.0 for each in record["clients"])


def test_fednova_makes_up_for_the_steps_that_a_deadline_cut_off(kit, tmp_path):
    """theta + (sum_k p_k a_k) sum_k p_k (theta_k - theta) / a_k, worked out from the clients' own replies."""
    settings = {"participation": "deadline", "deadline_seconds": 1.0, "local_steps": 6, "num_rounds": 1}
    settings |= {"client_table": table(tmp_path, MIXED), "cohort_size": 5, "partial_work": True}
    replies = []

    def watch(host):
        visit = host.visit
        host.visit = lambda task: replies.append(visit(task)) or replies[-1]

    trainer = kit.make_trainer(tmp_path / "run", strategy="fednova", engine=kit.in_process(watch), **settings)
    state = trainer.train()
    (record,) = kit.records_of(tmp_path / "run")
    used = {each["client_id"]: each["num_steps"] for each in record["clients"]}
    assert len(set(used.values())) > 1
    sent = [
        (each.num_rows, used[each.client_id], codec.decode(each.message)) for each in replies if each.client_id in used
    ]
    assert all(parts["steps"]["num_steps"].item() == steps for _, steps, parts in sent)
    rows = sum(num_rows for num_rows, _, _ in sent)
    mean_steps = sum(num_rows * steps for num_rows, steps, _ in sent) / rows
    for name, start in trainer.start_adapter.items():
        moves = sum(
            num_rows / rows * (parts["adapter"][name].double() - start.double()) / steps
            for num_rows, steps, parts in sent
        )
        torch.testing.assert_close(
            state.adapter[name].double(), start.double() + mean_steps * moves, rtol=1e-5, atol=1e-6
        )


# -- buffered, and resumed ------------------------------------------------------------------------------------------

BUFFERED = {
    "participation": "buffered",
    "buffer_size": 2,
    "concurrency": 4,
    "drop_out": 0.2,
    "num_rounds": 6,
    "cohort_size": 2,
}


@pytest.fixture(scope="module")
def buffered_run(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("buffered")
    machines = table(folder, MIXED)
    state = kit.make_trainer(folder / "run", client_table=machines, keep_checkpoints=6, **BUFFERED).train()
    return folder, machines, state


def test_a_buffered_run_makes_a_step_of_every_two_updates_and_names_everybody(kit, buffered_run):
    folder, _, _ = buffered_run
    records = kit.records_of(folder / "run")
    assert [len(record["clients"]) for record in records] == [2] * 6
    assert max(each["staleness"] for record in records for each in record["clients"]) >= 1
    assert [record["clock_seconds"] for record in records] == sorted(record["clock_seconds"] for record in records)
    for record in records:
        names = [each["client_id"] for each in (*record["clients"], *record["left_out"])]
        assert len(names) == len(set(names))
    assert records[-1]["num_under_way"] > 0


@pytest.mark.parametrize("after_round", range(5))
def test_a_buffered_run_killed_anywhere_goes_on_to_the_same_bits(kit, buffered_run, tmp_path, after_round):
    folder, machines, whole = buffered_run
    kit.cut_after(folder / "run", tmp_path / "cut", after_round=after_round)
    resumed = kit.make_trainer(tmp_path / "cut", client_table=machines, keep_checkpoints=6, **BUFFERED)
    state = resumed.train(resume=True)
    assert adapter_sha256(state.adapter) == adapter_sha256(whole.adapter)
    assert (state.clock, state.under_way) == (whole.clock, whole.under_way)
    assert shape_of(kit.records_of(tmp_path / "cut")) == shape_of(kit.records_of(folder / "run"))


@pytest.mark.parametrize(
    "packing",
    [
        {"wire": "topk:0.2", "error_feedback": "ef14"},
        {"wire": "drive", "download_wire": "int4"},
        {"download_wire": "int8", "download_base": "start"},
        {"strategy": "ditto"},
    ],
    ids=["feedback", "chain", "alone", "memory"],
)
def test_so_does_one_with_packed_messages_or_memory(kit, tmp_path, packing):
    settings = {"client_table": table(tmp_path, MIXED), "keep_checkpoints": 6, **BUFFERED, **packing}
    whole = kit.make_trainer(tmp_path / "run", **settings).train()
    assert max(each["staleness"] for each in _visits(kit, tmp_path / "run")) >= 1
    for after_round in (1, 3):
        cut = tmp_path / f"cut {after_round}"
        kit.cut_after(tmp_path / "run", cut, after_round=after_round)
        state = kit.make_trainer(cut, **settings).train(resume=True)
        assert adapter_sha256(state.adapter) == adapter_sha256(whole.adapter)
        assert shape_of(kit.records_of(cut)) == shape_of(kit.records_of(tmp_path / "run"))


def _visits(kit, run):
    return [each for record in kit.records_of(run) for each in record["clients"]]


def test_a_run_with_late_updates_killed_anywhere_goes_on_to_the_same_bits(kit, tmp_path):
    settings = {"participation": "deadline", "deadline_seconds": 0.9, "late": "apply", "num_rounds": 4}
    settings |= {"client_table": table(tmp_path, MIXED), "keep_checkpoints": 4, "cohort_size": 5, "drop_out": 0.1}
    whole = kit.make_trainer(tmp_path / "run", **settings).train()
    assert max(each["staleness"] for each in _visits(kit, tmp_path / "run")) >= 1
    for after_round in range(3):
        cut = tmp_path / f"cut {after_round}"
        kit.cut_after(tmp_path / "run", cut, after_round=after_round)
        state = kit.make_trainer(cut, **settings).train(resume=True)
        assert adapter_sha256(state.adapter) == adapter_sha256(whole.adapter)
        assert shape_of(kit.records_of(cut)) == shape_of(kit.records_of(tmp_path / "run"))


def test_a_checkpoint_without_a_clock_is_read_as_ever(kit, whole_run, tmp_path):
    """As versions wrote it that had no clock, with the settings of then."""
    run = tmp_path / "run"
    kit.cut_after(whole_run()[0], run, after_round=2)
    newest = max((run / "checkpoints").iterdir())
    state = json.loads((newest / "state.json").read_text())
    for name in ("clock", "under_way"):
        del state[name]
    (newest / "state.json").write_text(json.dumps(state))
    digests = json.loads((newest / "sha256.json").read_text())
    digests["state.json"] = sha256((newest / "state.json").read_bytes()).hexdigest()
    (newest / "sha256.json").write_text(json.dumps(digests))
    config = yaml.safe_load((run / "config.yaml").read_text())
    for each in fields(ParticipationSettings):
        if each.name not in ("cohort_rule", "cohort_size", "cohort_clients", "min_clients"):
            del config["federated"][each.name]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    resumed = kit.make_trainer(run).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole_run()[1].adapter)
    assert (resumed.clock, resumed.under_way) == (0.0, ())


def test_old_states_are_kept_only_while_somebody_is_under_way_from_them(kit, buffered_run):
    folder, _, _ = buffered_run
    for number, checkpoint in enumerate(sorted((folder / "run" / "checkpoints").iterdir())):
        state = json.loads((checkpoint / "state.json").read_text())
        needed = {each["step"] for each in state["under_way"]}
        kept = {int(path.stem.removeprefix("earlier-")) for path in checkpoint.glob("earlier-*")}
        assert kept == needed
        assert len(state["under_way"]) <= 4
        assert all(step <= number for step in kept)


def test_what_is_too_stale_is_given_up_and_named(kit, tmp_path):
    settings = BUFFERED | {"max_staleness": 0, "drop_out": None}
    machines = {**MIXED, "dan": (0.2, 0.02, 500.0, 1e8)}
    kit.make_trainer(tmp_path / "run", client_table=table(tmp_path, machines), **settings).train()
    records = kit.records_of(tmp_path / "run")
    assert all(each["staleness"] == 0 for record in records for each in record["clients"])
    late = [each for record in records for each in record["left_out"]]
    assert late
    assert all(each["kind"] == "late" and "max_staleness" in each["reason"] for each in late)
