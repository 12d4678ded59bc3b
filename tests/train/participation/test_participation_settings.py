"""Settings of participation: each is checked, and refused where nothing looks at it, before a model is loaded."""

import pytest

from fedllm_data.errors import ConfigError
from fedllm_data.roster import roster_of
from fedllm_train.cli import main
from fedllm_train.config import FederatedConfig
from fedllm_train.participation.turnout import resolve_turnout
from fedllm_train.prepare import prepare

TABLE = {"client_table": "profile:phone-4g"}
DEADLINE = {**TABLE, "participation": "deadline", "deadline_seconds": 60.0}
BUFFERED = {**TABLE, "participation": "buffered"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"participation": "bufered"}, "unknown; did you mean buffered"),
        ({**DEADLINE, "late": "never"}, "choose from drop, apply"),
        ({**DEADLINE, "deadline_seconds": 0.0}, "deadline_seconds is 0.0; it must be positive"),
        ({**DEADLINE, "over_selection": 0.9}, "over_selection is 0.9; it must be 1 or more"),
        ({**TABLE, "drop_out": 1.0}, "drop_out is 1.0"),
        ({**BUFFERED, "staleness_exponent": -1.0}, "must not be negative"),
        ({**BUFFERED, "max_staleness": -1}, "must not be negative"),
        ({**BUFFERED, "buffer_size": 0}, "buffer_size is 0; it must be at least 1"),
        ({"drop_out": 0.1}, "drop_out is given, and nothing looks at it here; use a client_table"),
        ({"tokens_per_row": 9}, "use a client_table"),
        ({**TABLE, "deadline_seconds": 9.0}, "deadline_seconds is given, .* use participation deadline"),
        ({**BUFFERED, "over_selection": 1.3}, "over_selection is given, .* use participation deadline"),
        ({**BUFFERED, "partial_work": True}, "partial_work is given"),
        ({**DEADLINE, "buffer_size": 3}, "buffer_size is given, .* use participation buffered"),
        ({**DEADLINE, "max_staleness": 3}, "use participation buffered, or late apply"),
        ({"participation": "deadline", "deadline_seconds": 9.0}, "give a client_table"),
        ({"participation": "buffered"}, "give a client_table"),
        ({**TABLE, "participation": "deadline"}, "there is none; give deadline_seconds, or over_selection"),
        ({**TABLE, "participation": "deadline", "over_selection": 2.0, "partial_work": True}, "so all steps fit"),
        ({**BUFFERED, "cohort_rule": "all"}, "asks clients one by one; use cohort_rule uniform or weighted"),
        ({**BUFFERED, "cohort_size": 3, "buffer_size": 4}, "give one of them"),
        ({**BUFFERED, "concurrency": 1, "min_clients": 2}, "let as many clients train"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        FederatedConfig(output_dir="unused", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**BUFFERED, "buffer_size": 9}, "buffer_size is 9 but the dataset has 5 clients"),
        ({**BUFFERED, "concurrency": 6, "buffer_size": 2}, "concurrency is 6, and there are 5 clients"),
        ({**DEADLINE, "cohort_size": 4, "over_selection": 2.0}, "asks 8 clients in a round, and there are 5"),
        ({**DEADLINE, "cohort_size": 4, "over_selection": 1e308}, r"asks inf clients in a round, and there are 5"),
        ({**DEADLINE, "cohort_rule": "all", "over_selection": 2.0}, "asks all its clients anyway"),
        ({**TABLE, "cohort_size": 2, "strategy": "centralized"}, "rows of all clients together, in one place"),
        ({**BUFFERED, "buffer_size": 2, "strategy": "scaffold"}, "SCAFFOLD also sums what belongs to the step"),
        ({**DEADLINE, "cohort_size": 2, "late": "apply", "strategy": "flora"}, "late is 'apply', but FLoRA works on"),
        ({**BUFFERED, "buffer_size": 2, "strategy": "rolora"}, "trains A and B in turns"),
        ({"client_table": "profile:phone-5h", "cohort_size": 2}, "phone-5h"),
        ({"client_table": "columns", "cohort_size": 2}, "client_table is columns"),
    ],
)
def test_what_the_clients_or_the_method_do_not_allow_is_refused_before_a_model_is_loaded(kit, changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(FederatedConfig(output_dir="unused", **changes), roster_of(kit.make_clients()), kit.trl_args("sft"))


def test_a_table_without_speeds_is_refused_before_a_model_is_loaded(kit, tmp_path):
    table = tmp_path / "machines.csv"
    table.write_text("client_id,download_mbit,upload_mbit\n*,10,1\n")
    config = FederatedConfig(output_dir="unused", client_table=str(table), cohort_size=2)
    with pytest.raises(
        ConfigError, match="client 'ann' has no flops, so how long its visits take is not known; state flops"
    ):
        prepare(config, roster_of(kit.make_clients()), kit.trl_args("sft"))


@pytest.mark.parametrize(
    ("changes", "wanted", "asked"),
    [
        ({**TABLE, "cohort_size": 3}, 3, 3),
        ({**DEADLINE, "cohort_size": 2, "drop_out": 0.0}, 2, 2),
        # ceil(2 / 0.9 + 2 sqrt(0.2) / 0.9) = ceil(3.216) = 4
        ({**DEADLINE, "cohort_size": 2, "drop_out": 0.1}, 2, 4),
        # 14 of 5 clients
        ({**DEADLINE, "cohort_size": 4, "drop_out": 0.5}, 4, 5),
        ({**DEADLINE, "cohort_size": 2, "over_selection": 1.5}, 2, 3),
        ({**DEADLINE, "cohort_rule": "all"}, 5, 5),
        ({**BUFFERED, "buffer_size": 2}, 2, 4),
        ({**BUFFERED, "cohort_size": 3}, 3, 5),
        ({**BUFFERED, "buffer_size": 2, "concurrency": 3}, 2, 3),
    ],
)
def test_how_many_are_asked_and_waited_for(kit, changes, wanted, asked):
    plan = prepare(FederatedConfig(output_dir="unused", **changes), roster_of(kit.make_clients()), kit.trl_args("sft"))
    assert (plan.turnout.wanted, plan.turnout.asked) == (wanted, asked)
    assert plan.cohort_size == wanted


def test_the_tables_drop_outs_decide_how_many_are_asked(kit, tmp_path):
    table = tmp_path / "machines.csv"
    rows = ["client_id,download_mbit,upload_mbit,flops,drop_out", "ann,1,1,1,0.5", "*,1,1,1,0"]
    table.write_text("\n".join(rows) + "\n")
    config = FederatedConfig(output_dir="unused", **DEADLINE | {"client_table": str(table)}, cohort_size=2)
    plan = prepare(config, roster_of(kit.make_clients()), kit.trl_args("sft"))
    assert plan.turnout.drop_out == pytest.approx(0.1)
    assert plan.turnout == resolve_turnout(config, plan.participants, 2, plan.machines)
    assert plan.turnout.asked == 4


def test_a_dry_run_says_what_the_server_waits_for(kit, tmp_path, monkeypatch, capsys):
    kit.build_repo(tmp_path / "clients")
    monkeypatch.chdir(tmp_path)
    command = ["sft", "--data", "clients", "--model", "org/model", "--out", "run", "--use-cpu", "--dry-run"]
    command += ["--participation", "deadline", "--client-table", "profile:phone-4g", "--deadline-seconds", "60"]
    assert main([*command, "--cohort-size", "2", "--drop-out", "0.1"]) == 0
    said = capsys.readouterr().out
    assert "the first 2 of 4 clients, or 60 s; late ones are dropped" in said
    assert "profile:phone-4g" in said
