"""Whole runs with packed messages both ways: every method, resumes, processes, the ledger, what is refused."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256, load_parts
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Reply
from fedllm_train.messages.feedback import ESTIMATE
from fedllm_train.messages.wire_checks import check_wire_method, check_wire_rounds
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.run_files.checkpoint import load_latest
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.trainer import FederatedTrainer

BOTH_WAYS = {"wire": "drive", "error_feedback": "ef14", "download_wire": "int8"}
CLIPPED = {"dp_clip": 1.0, "dp_noise_multiplier": 0.0, "dp_delta": 1e-3}
EVERYBODY = {"cohort_rule": "all", "num_rounds": 3, "local_steps": 1, "keep_checkpoints": 3}
MORE = {"hetlora": {"client_ranks": "2,4"}, "flexlora": {"client_ranks": "2,4"}, "flora": {"client_ranks": "2,4"}}


def settings_that_fit(name):
    """The ways to pack that a method allows, one of each kind."""
    ways = [
        BOTH_WAYS,
        {"wire": "topk-int4", "download_wire": "drive", "download_base": "start"},
        {"wire": "int4", "download_wire": "topk:0.5", "download_base": "zero"},
        {"wire": "ecolora", "error_feedback": "ef14"},
        {"wire": "sign"},
    ]
    fitting, refused = [], []
    for way in ways:
        try:
            check_wire_method(WireSettings(**way), STRATEGIES[name].traits, name)
            fitting.append(way)
        except ConfigError as error:
            refused.append((way, str(error)))
    return fitting, refused


UNPACKED = ("local", "centralized", "fedkseed")
"""Nothing that could be packed travels: no message at all, or seeds and scalars."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[] if name in ("fedavg", "scaffold", "flexlora", "fed_sb", "ditto") else pytest.mark.slow
        )
        for name in STRATEGIES
        if name not in UNPACKED
    ],
)
def test_every_method_runs_packed_in_every_way_that_it_allows(kit, tmp_path, name):
    fitting, _ = settings_that_fit(name)
    assert fitting
    plain = kit.make_trainer(tmp_path / "plain", strategy=name, num_rounds=2, local_steps=1, **MORE.get(name, {}))
    plain = plain.train()
    for number, way in enumerate(fitting[:3]):
        run = tmp_path / str(number)
        settings = {"num_rounds": 2, "local_steps": 1, **MORE.get(name, {}), **way}
        state = kit.make_trainer(run, strategy=name, **settings).train()
        records = kit.records_of(run)
        assert [record["left_out"] for record in records] == [[], []]
        assert all(bool(tensor.isfinite().all()) for part in state.server.values() for tensor in part.values())
        assert state.ledger.upload_bytes < plain.ledger.upload_bytes
        if "download_wire" in way:
            assert state.ledger.download_bytes < plain.ledger.download_bytes
            whole = kit.records_of(tmp_path / "plain")[-1]["wire"]["download_bits_per_value"]
            assert records[-1]["wire"]["download_bits_per_value"] < whole


def test_which_methods_refuse_which_way_and_why():
    refused = {name: dict.fromkeys(reason for _, reason in settings_that_fit(name)[1]) for name in STRATEGIES}
    refused = {name: list(reasons) for name, reasons in refused.items() if reasons}
    assert sorted(refused) == sorted(
        [*UNPACKED, "flexlora", "flora", "hetlora", "language_clusters", "fedsvd", "fedbiscuit"]
    )
    assert {name for name in STRATEGIES if not settings_that_fit(name)[0]} == set(UNPACKED)
    for name in ("hetlora", "flexlora", "language_clusters"):
        (reason,) = refused[name]
        assert "may send each client another adapter" in reason
        assert reason.endswith("use download_base start or zero")
    assert any("sends no adapter to its clients (shift of the base weights" in reason for reason in refused["flora"])
    assert all(
        "loads nothing; leave it out" in reason for name in ("local", "centralized") for reason in refused[name]
    )


# -- one model at both ends -------------------------------------------------------------------------------------------


class Watched(FedAvg):
    """FedAvg that notes what both ends take for what a client read."""

    seen: list[tuple[bool, str, int, str]] = []  # noqa: RUF012

    def __init__(self, federation):
        super().__init__(federation)
        self._is_server = bool(federation.eligible)

    def anchor(self, received, start, client_id, round_index):
        anchor = super().anchor(received, start, client_id, round_index)
        self.seen.append((self._is_server, client_id, round_index, adapter_sha256(anchor)))
        return anchor


@pytest.mark.parametrize("base", ["previous", "start", "zero"])
def test_both_ends_have_the_anchor_to_the_bit(kit, tmp_path, base):
    Watched.seen = []
    settings = {"strategy": Watched, "wire": "int4", "download_wire": "drive", "download_base": base}
    kit.make_trainer(tmp_path / "run", **settings).train()
    of_clients = {each[1:] for each in Watched.seen if not each[0]}
    of_server = {each[1:] for each in Watched.seen if each[0]}
    assert len(of_clients) == 4 * 3
    assert of_clients < of_server  # which has its own, unpacked, besides
    # All that are asked in a round read one adapter, and it is not the server's own.
    assert len({(step, digest) for _, step, digest in of_clients}) == 4


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_host_knows_what_the_server_would_send_first(kit, tmp_path, name):
    trainer = kit.make_trainer(tmp_path / "run", strategy=name, **MORE.get(name, {}))
    plan, start = trainer.plan, trainer.start_adapter
    of_host = STRATEGIES[name](plan.federation.for_hosts())
    for client_id in plan.participants:
        first = plan.strategy.first_download(start, client_id)
        sent = plan.strategy.broadcast(plan.strategy.start(start), client_id, 0).get("adapter", {})
        assert adapter_sha256(first) == adapter_sha256(sent)
        assert adapter_sha256(of_host.first_download(start, client_id)) == adapter_sha256(first)


def test_a_download_that_loses_nothing_leaves_a_run_as_it_is_to_the_bit(kit, tmp_path):
    """All values of the adapter itself, in its own precision: the broadcast is the server's adapter."""
    plain = kit.make_trainer(tmp_path / "plain").train()
    whole = kit.make_trainer(tmp_path / "whole", download_wire="topk:1.0", download_base="zero").train()
    assert adapter_sha256(whole.adapter) == adapter_sha256(plain.adapter)
    assert whole.ledger.upload_bytes == plain.ledger.upload_bytes


# -- stops, processes -------------------------------------------------------------------------------------------------


def course(kit, run):
    """What of a run's records depends on nothing but its settings."""
    return [
        [
            record["adapter_sha256"],
            record["ledger"]["download_bytes"],
            record["ledger"]["upload_bytes"],
            record["wire"],
        ]
        for record in kit.records_of(run)
    ]


@pytest.mark.parametrize("after_round", [0, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"wire": "topk-int4", "error_feedback": "ef14", "download_wire": "int4", "num_rounds": 5},
        {"wire": "sign", "error_feedback": "ef21", "cohort_rule": "all", "download_wire": "drive"},
        {"wire": "drive", "download_wire": "int4", "download_base": "start"},
    ],
    ids=["ef14-chain", "ef21-chain", "alone"],
)
def test_a_run_that_goes_on_from_any_checkpoint_ends_in_the_same_bits_and_bytes(kit, tmp_path, settings, after_round):
    settings = {"keep_checkpoints": 5, **settings}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=after_round)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    assert course(kit, tmp_path / "cut") == course(kit, tmp_path / "whole")
    for part, tensors in whole.wire.tensors.items():
        assert adapter_sha256(resumed.wire.tensors[part]) == adapter_sha256(tensors)
    assert resumed.wire.as_record() == whole.wire.as_record()


@pytest.mark.slow
def test_two_processes_pack_as_one_does(kit, tmp_path):
    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer().save_pretrained(tmp_path / "base")
    ends = []
    for num_processes in (1, 2):
        run = tmp_path / str(num_processes)
        config = FederatedConfig(
            output_dir=str(run), num_rounds=3, cohort_size=3, local_steps=1, num_processes=num_processes, **BOTH_WAYS
        )
        args = kit.trl_args("sft")
        FederatedTrainer(str(tmp_path / "base"), config, kit.make_clients(), args, kit.lora()).train()
        ends.append(course(kit, run))
    assert ends[0] == ends[1]


def test_checkpoints_of_runs_without_packing_have_no_file_for_it(whole_run):
    run, state = whole_run("sft")
    assert not list(run.glob("checkpoints/*/wire.safetensors"))
    assert state.wire.as_record() == {"chain_start": -1, "versions": {}, "under_way": {}, "weights": {}}


def test_a_checkpoint_of_a_version_that_packed_no_downloads_is_read(kit, tmp_path, whole_run):
    run, state = whole_run("sft")
    kit.cut_after(run, tmp_path / "old", after_round=1)
    for checkpoint in (tmp_path / "old" / "checkpoints").iterdir():
        content = json.loads((checkpoint / "state.json").read_text())
        del content["wire"]
        (checkpoint / "state.json").write_text(json.dumps(content))
        digests = json.loads((checkpoint / "sha256.json").read_text())
        digests["state.json"] = sha256((checkpoint / "state.json").read_bytes()).hexdigest()
        (checkpoint / "sha256.json").write_text(json.dumps(digests))
    resumed = kit.make_trainer(tmp_path / "old", keep_checkpoints=4).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(state.adapter)


# -- EF21 -------------------------------------------------------------------------------------------------------------


def lost_in_round_1(host):
    """cyd's upload of round 1 does not arrive."""
    visit = host.visit

    def changed(task):
        reply = visit(task)
        if (task.client_id, task.step) == ("cyd", 1):
            return Reply(step=task.step, client_id=task.client_id, reason="lost on the way")
        return reply

    host.visit = changed


def test_with_ef21_a_lost_upload_stays_in_the_mean_as_it_was_and_both_ends_agree(kit, tmp_path):
    run = tmp_path / "run"
    settings = {"wire": "topk-int4", "error_feedback": "ef21", **EVERYBODY}
    kit.make_trainer(run, engine=kit.in_process(lost_in_round_1), **settings).train()
    assert [each["client_id"] for each in kit.records_of(run)[1]["left_out"]] == ["cyd"]
    state, _ = load_latest(run)
    assert dict(state.wire.weights) == {name: float(rows) for name, rows in kit.SIZES.items()}
    memories = {client_id: kit.memory_of(run, client_id, before=3)[ESTIMATE] for client_id in kit.SIZES}
    for name, total in state.wire.tensors["estimate"].items():
        expected = sum(rows * memories[client_id][name] for client_id, rows in kit.SIZES.items())
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-15)
    # After round 1 its estimate was that of round 0.
    middle = load_parts(run / "checkpoints" / "round-000001" / "wire.safetensors")["estimate"]
    first = load_parts(run / "checkpoints" / "round-000000" / "wire.safetensors")["estimate"]
    assert adapter_sha256(middle) != adapter_sha256(first)


def test_with_ef21_and_one_client_the_server_moves_by_what_the_client_has(kit, tmp_path):
    settings = {"wire": "sign", "error_feedback": "ef21", "cohort_rule": "fixed", "cohort_clients": "ann"}
    kit.make_trainer(tmp_path / "run", num_rounds=3, keep_checkpoints=3, **settings).train()
    steps = sorted((tmp_path / "run" / "checkpoints").iterdir())
    before, after = (load_parts_of_adapter(step) for step in steps[1:])
    estimate = kit.memory_of(tmp_path / "run", "ann", before=3)[ESTIMATE]
    for name, tensor in after.items():
        assert torch.equal(tensor, (before[name].double() + estimate[name]).to(tensor.dtype))


def load_parts_of_adapter(checkpoint):
    from safetensors.torch import load_file

    return load_file(checkpoint / "adapter.safetensors")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "cohort_rule is 'uniform': the changes that it remembers of clients that are not asked"),
        (
            {"cohort_rule": "all", **CLIPPED},
            "with dp_clip use ef14",
        ),
        ({"cohort_rule": "all", "max_update_norm": 1.0}, "max_update_norm has no change to bound"),
        ({"cohort_rule": "all", "strategy": "scaffold"}, "strategy 'scaffold' needs more of them than that; use ef14"),
    ],
)
def test_ef21_is_refused_where_it_means_nothing(kit, tmp_path, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        kit.make_trainer(tmp_path / "run", wire="topk", error_feedback="ef21", **changes)


def test_ef21_is_refused_with_rounds_that_leave_clients_behind():
    class Rounds:
        cohort_rule, protects_clients, participation = "all", False, "deadline"

    with pytest.raises(ConfigError, match="participation is 'deadline', where some clients are left behind"):
        check_wire_rounds(WireSettings(wire="topk", error_feedback="ef21"), Rounds())


def test_ef21_is_refused_where_clients_also_send_something_else(kit, tmp_path):
    settings = {"strategy": "fed_sb", "wire": "int4", "error_feedback": "ef21", "cohort_rule": "all"}
    with pytest.raises(ConfigError, match="clients also send their first step, of which it keeps no mean"):
        kit.make_trainer(tmp_path / "run", **settings)
    kit.make_trainer(tmp_path / "random", core_frame="random", num_rounds=2, **settings).train()
    assert [record["left_out"] for record in kit.records_of(tmp_path / "random")] == [[], []]


# -- records ----------------------------------------------------------------------------------------------------------


def test_the_ledger_is_the_sum_of_what_was_sent_and_so_are_the_visits_bytes(kit, tmp_path):
    down, up = [], []

    def count(host):
        visit = host.visit

        def counted(task):
            down.append(len(task.message))
            reply = visit(task)
            up.append(len(reply.message))
            return reply

        host.visit = counted

    run = tmp_path / "run"
    state = kit.make_trainer(run, engine=kit.in_process(count), **BOTH_WAYS).train()
    assert (state.ledger.download_bytes, state.ledger.upload_bytes) == (sum(down), sum(up))
    visits = [visit for record in kit.records_of(run) for visit in record["clients"]]
    assert [visit["download_bytes"] for visit in visits] == down
    assert [visit["upload_bytes"] for visit in visits] == up


def test_every_round_says_how_it_was_packed(kit, tmp_path, caplog):
    kit.make_trainer(tmp_path / "plain", num_rounds=1).train()
    (record,) = kit.records_of(tmp_path / "plain")
    wire = record["wire"]
    assert wire["relative_error"] == wire["download_relative_error"] == 0.0
    assert 32 < wire["bits_per_value"] < 60  # the header of a model of 2,048 values is long
    kit.make_trainer(tmp_path / "packed", num_rounds=2, **BOTH_WAYS).train()
    first, second = (record["wire"] for record in kit.records_of(tmp_path / "packed"))
    assert first["download_relative_error"] == 0.0  # nothing had changed yet
    assert 0 < second["download_relative_error"] < 0.05
    assert 0.6 < second["relative_error"] < 0.85  # sqrt(pi / 2 - 1) = 0.7555 for long vectors
    assert second["bits_per_value"] < 4
    visit = kit.records_of(tmp_path / "packed")[1]["clients"][0]
    assert visit["relative_error"] > 0
    assert not [each for each in caplog.records if "farther from the true ones" in each.getMessage()]


def test_a_method_that_sends_nothing_has_nothing_to_say_of_its_messages(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", strategy="local", num_rounds=1).train()
    (record,) = kit.records_of(tmp_path / "run")
    assert set(record["wire"].values()) == {None}
    assert {(visit["download_bytes"], visit["upload_bytes"]) for visit in record["clients"]} == {(0, 0)}


def test_a_message_that_is_damaged_on_its_way_costs_its_client_the_round_and_nobody_else(kit, tmp_path):
    def damage(host):
        visit = host.visit

        def damaged(task):
            reply = visit(task)
            if task.client_id != "cyd":
                return reply
            broken = {0: b"", 1: b"{}", 2: reply.message[:-7]}[task.step]
            return replace(reply, message=broken)

        host.visit = damaged

    run = tmp_path / "run"
    kit.make_trainer(run, engine=kit.in_process(damage), **(BOTH_WAYS | EVERYBODY)).train()
    for record in kit.records_of(run):
        ((client_id, reason),) = {(each["client_id"], each["reason"]) for each in record["left_out"]}
        assert client_id == "cyd"
        assert reason.startswith("its message cannot be read")


class Extreme(FedAvg):
    """FedAvg whose client cyd ends at the largest float32, and in round 1 says that it began at the most negative."""

    def client_update(self, visit):
        update = super().client_update(visit)
        return update if visit.client_id != "cyd" else {"adapter": full_of(LARGEST, update["adapter"])}

    def anchor(self, received, start, client_id, round_index):
        anchor = super().anchor(received, start, client_id, round_index)
        return full_of(-LARGEST, anchor) if (client_id, round_index) == ("cyd", 1) else anchor


LARGEST = torch.finfo(torch.float32).max


def full_of(value, adapter):
    return {name: torch.full_like(tensor, value) for name, tensor in adapter.items()}


def test_a_change_beyond_what_the_codec_can_say_is_left_out_with_the_reason(kit, tmp_path):
    run = tmp_path / "run"
    kit.make_trainer(run, strategy=Extreme, wire="int4", **(EVERYBODY | {"num_rounds": 2})).train()
    left_out = [[(each["client_id"], each["reason"]) for each in record["left_out"]] for record in kit.records_of(run)]
    ((one, decoded),), ((other, packed),) = left_out
    assert one == other == "cyd"
    assert decoded == "its update is not finite; lower the learning rate"  # rounded up beyond it
    assert packed.startswith("its update cannot be packed: a value is beyond the largest float32")
