"""A plan's bytes, hours and steps are those of the run: every method and wire, trained for real and compared."""

import json

import pytest

from fedllm_train.cli import main
from fedllm_train.planning.plan_all import plan_all
from fedllm_train.planning.plan_flags import plan_flags
from fedllm_train.strategies import STRATEGIES

SETTINGS = [
    *("--num-rounds", "3", "--max-length", "64", "--seed", "5"),
    *("--per-device-train-batch-size", "4", "--no-gradient-checkpointing"),
]
TABLE = """client_id,download_mbit,upload_mbit,latency_ms,flops,memory_gb,watts,drop_out
ann,10,2,20,1e9,8,5,0
bob,5,1,50,2e8,4,5,0.3
cyd,80,30,5,5e9,16,90,0
dan,1,0.5,300,1e8,2,3,0.5
eve,20,10,30,8e8,8,20,0
"""


@pytest.fixture(scope="module")
def places(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    model = folder / "model"
    kit.make_model().save_pretrained(model)
    kit.make_tokenizer().save_pretrained(model)
    # Of all clients of a corpus some are held out whole, so that there are more than five.
    kit.build_repo(folder / "sft")
    kit.build_repo(folder / "preference", "preference")
    return folder


@pytest.fixture(scope="module")
def table(places):
    from fedllm_data.clients import load_clients

    ids = list(load_clients(str(places / "sft")))
    rows = TABLE.splitlines()
    text = "\n".join([rows[0], *(f"{name},{row.partition(',')[2]}" for name, row in zip(ids, rows[1:], strict=False))])
    path = places / "machines.csv"
    path.write_text(text + "\n")
    return path, len(ids)


def compared(places, tmp_path, capsys, task, *flags):
    """The plan's only candidate, and the records of the run."""
    data = places / ("sft" if task == "sft" else "preference")
    argv = ["--model", str(places / "model"), "--data", str(data), *SETTINGS, *flags]
    argv += [] if "--full-finetuning" in flags else ["--lora-r", "4"]
    argv += [] if "--local-epochs" in flags else ["--local-steps", "2"]
    plan = plan_all(plan_flags(["--task", task, *argv]))
    run = tmp_path / "run"
    assert main([task, *argv, "--bf16", "False", "--out", str(run)]) == 0
    capsys.readouterr()
    return plan.runs[0], [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def check(planned, records):
    """Every figure that a run's ledger has."""
    ledger = records[-1]["ledger"]
    assert (planned.travel.down, planned.travel.up) == (ledger["download_bytes"], ledger["upload_bytes"])
    assert round(planned.steps_visit * planned.num_visits) == ledger["num_local_steps"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_method_sends_what_was_planned(places, tmp_path, capsys, strategy):
    more = ("--residual-energy", "1") if strategy == "fedmomentum" else ()  # else it drops what nobody can foresee
    flags = ("--strategy", strategy, "--cohort-size", "2", *more)
    planned, records = compared(places, tmp_path, capsys, "sft", *flags)
    check(planned, records)
    assert planned.travel.is_exact == (strategy not in ("flora", "fedex_lora", "fedmomentum"))


@pytest.mark.parametrize("wire", ["bf16", "int8", "int4", "int3", "sign", "drive", "topk", "segments:3+int4:block=64"])
def test_every_wire_of_fixed_length_sends_what_was_planned(places, tmp_path, capsys, wire):
    planned, records = compared(places, tmp_path, capsys, "dpo", "--wire", wire, "--cohort-size", "2")
    check(planned, records)
    assert planned.travel.is_exact


@pytest.mark.parametrize("wire", ["topk-int8", "topk-int4", "ecolora", "int4+huffman"])
def test_an_entropy_coded_wire_is_an_estimate_that_says_so(places, tmp_path, capsys, wire):
    planned, records = compared(places, tmp_path, capsys, "sft", "--wire", wire, "--cohort-size", "2")
    assert not planned.travel.is_exact
    assert planned.travel.down == records[-1]["ledger"]["download_bytes"]
    assert planned.travel.up == pytest.approx(records[-1]["ledger"]["upload_bytes"], rel=0.25)


@pytest.mark.parametrize(
    "flags",
    [
        ("--strategy", "hetlora", "--client-ranks", "1,2,4", "--wire", "int8"),
        ("--strategy", "flexlora", "--client-ranks", "random:1,3"),
        ("--strategy", "fed_sb", "--core-frame", "random", "--wire", "drive"),
        ("--strategy", "scaffold", "--wire", "int4"),
        ("--strategy", "ravan", "--ravan-heads", "2", "--head-frame", "normal", "--wire", "int8"),
        ("--strategy", "fedbiscuit", "--biscuit-adapters", "2", "--biscuit-regroup", "2", "--num-rounds", "6"),
        ("--strategy", "fedbiscuit", "--biscuit-adapters", "2", "--num-rounds", "5", "--wire", "int8"),
        ("--cohort-rule", "all"),
        ("--cohort-rule", "weighted", "--cohort-size", "2"),
        ("--cohort-rule", "poisson", "--cohort-size", "2"),
        ("--lora-target-modules", "q_proj", "v_proj", "--local-epochs", "1"),
        ("--peft-type", "dora", "--cohort-size", "1"),
        ("--full-finetuning", "--cohort-size", "2", "--wire", "int8"),
    ],
    ids=lambda flags: "_".join(flags).replace("--", "").replace(" ", ""),
)
def test_other_settings_send_what_was_planned(places, tmp_path, capsys, flags):
    size = () if {"--cohort-size", "--cohort-rule"} & {*flags} else ("--cohort-size", "2")
    settings = [*flags, *size]
    planned, records = compared(places, tmp_path, capsys, "sft", *settings)
    check(planned, records)


@pytest.mark.parametrize(
    "flags",
    [
        ("--download-wire", "int8"),
        ("--download-wire", "int4", "--wire", "drive", "--cohort-size", "3"),
        ("--download-wire", "int8", "--download-base", "start", "--strategy", "ffa_lora"),
        ("--download-wire", "topk:0.3", "--download-base", "zero", "--wire", "int8"),
        ("--download-wire", "int8", "--strategy", "scaffold", "--wire", "int4"),
        (
            "--download-wire",
            "int8",
            "--client-table",
            "ALL",
            "--participation",
            "deadline",
            "--deadline-seconds",
            "1.5",
        ),
        ("--download-wire", "int8", "--client-table", "ALL", "--participation", "buffered", "--concurrency", "3"),
        ("--wire", "int8", "--error-feedback", "ef14"),
        ("--wire", "int8", "--error-feedback", "ef21", "--cohort-rule", "all"),
    ],
    ids=lambda flags: "_".join(flags).replace("--", ""),
)
def test_packed_downloads_are_as_long_as_planned_in_every_round(places, tmp_path, capsys, flags):
    path = places / "everybody.csv"
    path.write_text(f"{TABLE.splitlines()[0]}\n*,10,2,20,1e9,8,5,0.3\n")
    flags = [str(path) if each == "ALL" else each for each in flags]
    flags += [] if {"--cohort-size", "--cohort-rule"} & {*flags} else ["--cohort-size", "2"]
    planned, records = compared(places, tmp_path, capsys, "sft", *flags, "--num-rounds", "7")
    check(planned, records)
    assert planned.travel.is_exact


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
@pytest.mark.parametrize(
    "flags",
    [
        ("--participation", "synchronous"),
        ("--participation", "deadline", "--deadline-seconds", "3", "--over-selection", "1.5"),
        ("--participation", "deadline", "--deadline-seconds", "2", "--late", "apply"),
        ("--participation", "deadline", "--deadline-seconds", "2", "--partial-work"),
        ("--participation", "buffered", "--concurrency", "3"),
    ],
    ids=["synchronous", "over", "late", "partial", "buffered"],
)
def test_the_simulated_clock_stands_where_the_plan_says(places, table, tmp_path, capsys, task, flags):
    path, _ = table
    if task != "sft":
        path = places / "one.csv"
        path.write_text(f"{TABLE.splitlines()[0]}\n*,10,2,20,1e9,8,5,0.2\n")
    planned, records = compared(
        places, tmp_path, capsys, task, "--client-table", str(path), "--cohort-size", "2", "--wire", "int8", *flags
    )
    assert planned.time.total_hours * 3600 == pytest.approx(records[-1]["clock_seconds"], rel=1e-12)
    assert planned.time.num_made == sum(each["server_step"] for each in records)
    check(planned, records)
    seconds = [
        sum(visit[f"{part}_seconds"] for part in ("download", "compute", "upload"))
        for record in records
        for visit in record["clients"]
    ]
    arrived = sum(seconds) / 3600
    assert sum(each.hours for each in planned.time.partners) >= arrived * (1 - 1e-9)
