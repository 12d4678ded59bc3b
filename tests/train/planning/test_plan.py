"""What `fedllm-train plan` says, refuses and writes; its settings are TRL's, and its figures those of the formulas."""

import json
import subprocess
import sys
from dataclasses import fields

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import DPOConfig, KTOConfig, ModelConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.flops import Work, forward_flops, visit_flops
from fedllm_eval.machines.memory import memory_need
from fedllm_eval.machines.money import split_bytes_per_step
from fedllm_train.cli import main
from fedllm_train.flags import parse_our_flags
from fedllm_train.models.adapter_shapes import AdapterSettings
from fedllm_train.models.model_shape import shape_of_folder_or_id
from fedllm_train.planning.client_settings import PlannedClient, adapter_settings, planned_client
from fedllm_train.planning.hollow import HollowTensor
from fedllm_train.planning.plan_all import plan_all
from fedllm_train.planning.plan_flags import plan_flags
from fedllm_train.planning.plan_page_words import plan_rows
from fedllm_train.planning.plan_text import candidate_label, plan_lines
from fedllm_train.planning.quick_costs import QuickInputs, quick_costs
from fedllm_train.planning.sizes import roster_of_sizes
from fedllm_train.privacy.accounting import epsilon_spent

SMALL = ["--cohort-size", "4", "--num-rounds", "3", "--local-steps", "2", "--lora-r", "4", "--max-length", "64"]


@pytest.fixture(scope="module")
def model(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    kit.make_model().save_pretrained(folder)
    return str(folder)


def plan_of(model, *flags, sizes="20:30"):
    return plan_all(plan_flags(["--model", model, "--sizes", sizes, *SMALL, *flags]))


def ours(*flags, task="sft"):
    return parse_our_flags(task, ["--data", "d", "--model", "m", "--out", "o", *flags])


def test_defaults_are_trls():
    for config in (SFTConfig, DPOConfig, KTOConfig):
        usual = config(bf16=False, use_cpu=True)
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "max_length"):
            assert getattr(PlannedClient(), name) == getattr(usual, name)
        assert PlannedClient().gradient_checkpointing == usual.gradient_checkpointing
    of_model = {each.name for each in fields(PlannedClient)} & {each.name for each in fields(ModelConfig)}
    assert of_model >= {"lora_r", "lora_alpha", "lora_target_modules", "use_dora"}
    for name in of_model:
        assert getattr(PlannedClient(), name) == getattr(ModelConfig(), name)


def test_flags_of_trl_are_read_in_every_spelling(tmp_path):
    client, unread = planned_client(
        ours(
            "--lora_r",
            "8",
            "--no-gradient-checkpointing",
            "--lora-target-modules",
            "q_proj",
            "v_proj",
            "--optim",
            "sgd",
        )
    )
    assert (client.lora_r, client.gradient_checkpointing, unread) == (8, False, ("optim",))
    assert adapter_settings(ours("--lora-r", "8", "--use-dora"), planned_client(ours("--use-dora"))[0]).kind == "dora"
    assert planned_client(ours("--activation-checkpointing", "False"))[0].gradient_checkpointing is False
    file = tmp_path / "flags.yaml"
    file.write_text("lora_r: 3\nmax_length: 99\n")
    client, _ = planned_client(ours("--config", str(file), "--max-length", "50"))
    assert (client.lora_r, client.max_length) == (3, 50)
    preset, _ = planned_client(ours("--preset", "fedllm-bench/fed-aya"))
    assert (preset.lora_r, preset.per_device_train_batch_size, preset.gradient_accumulation_steps) == (16, 4, 4)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--lora-r", "many"], r"lora_r is 'many'; it takes a whole number"),
        (["--max-length", "1.5"], r"max_length is '1.5'; it takes a whole number"),
        (["--gradient-checkpointing", "perhaps"], "it takes true or false"),
        (["--per-device-train-batch-size", "0"], "it must be at least 1"),
        (["--lora-modules-to-save", "lm_head"], "what it trains cannot be planned"),
    ],
)
def test_values_that_cannot_be_planned_are_refused(flags, line):
    with pytest.raises(ConfigError, match=line):
        planned_client(ours(*flags))


def test_a_plan_by_hand(model):
    # 2 layers of width 16, one key head of two, MLP of 32: q 16x16, k 8x16, v 8x16, o 16x16, three of 32x16.
    # Rank 4: q 128, k 96, v 96, o 128, three of 192: 1024 a layer.
    plan = plan_of(model)
    run = plan.runs[0]
    assert run.num_trainable == run.num_sent_values == 2 * 1024
    assert run.num_visits == 3 * 4
    # Header of 28 tensors, then 8,192 bytes of values: the same both ways.
    assert run.travel.down_visit == run.travel.up_visit > 4 * 2048
    assert run.travel.down == run.travel.up == 12 * run.travel.down_visit
    assert run.travel.up_bits == pytest.approx(8 * run.travel.up_visit / 2048)
    assert run.travel.is_exact
    assert run.time is None
    shape = shape_of_folder_or_id(model)
    assert shape.hidden_size == 16
    # Two steps of eight rows; activations are computed again by TRL's default.
    assert run.visit_flops * 12 == pytest.approx(run.total_flops)


@pytest.mark.parametrize(
    ("task", "work"),
    [
        ("sft", Work(recompute=True)),
        ("dpo", Work(objective="dpo", recompute=True, reads_reference=False)),
        ("kto", Work(objective="kto", recompute=True)),
    ],
)
def test_operations_and_memory_are_those_of_the_formulas(model, task, work):
    run = plan_of(model, "--task", task).runs[0]
    shape = shape_of_folder_or_id(model, AdapterSettings(rank=4))
    assert run.visit_flops == visit_flops(shape, work, num_rows=2 * 8, tokens_per_row=64)
    batch = 16 if task == "dpo" else 8
    need = memory_need(shape, "bf16", batch_size=batch, sequence_length=64, recompute=True)
    assert (run.memory[0].low_gb, run.memory[0].high_gb) == need.total_gb


@pytest.mark.parametrize(("task", "factor"), [("sft", 1), ("dpo", 2)])
def test_a_walk_without_gradients_reads_every_row_twice(model, task, factor):
    run = plan_of(model, "--task", task, "--strategy", "fedkseed", "--walk-seeds", "16").runs[0]
    forward = forward_flops(shape_of_folder_or_id(model, AdapterSettings(rank=4)), 64)
    assert run.visit_flops == 2 * factor * 2 * 8 * 64 * forward


def test_split_learning_stands_beside(model):
    plan = plan_of(model)
    assert plan.split.step_bytes == split_bytes_per_step(batch_size=8, sequence_length=64, hidden_size=16)
    assert plan.split.visit_bytes == 2 * plan.split.step_bytes


def test_noise_for_an_epsilon_and_epsilon_for_a_noise_agree(model):
    private = ["--cohort-rule", "poisson", "--dp-clip", "0.5", "--dp-delta", "1e-3"]
    one = plan_of(model, *private, "--dp-epsilon", "8", sizes="200:10").runs[0].privacy
    other = (
        plan_of(model, *private, "--dp-noise-multiplier", str(one.noise_multiplier), sizes="200:10").runs[0].privacy
    )
    assert one.epsilon == other.epsilon == epsilon_spent(one.noise_multiplier, 4 / 200, 3, 1e-3)
    assert 7.9 < one.epsilon <= 8
    # z C sqrt(d) / (q N), in clips
    assert one.noise_in_clips == pytest.approx(one.noise_multiplier * 2048**0.5 / 4)
    assert one.share_in_noise == pytest.approx(4 * one.noise_in_clips)


def test_candidates_are_every_combination_and_a_refused_one_keeps_its_reason(model):
    plan = plan_all(
        plan_flags(
            [
                *("--model", model, "--sizes", "20:30", "--num-rounds", "2", "--local-steps", "1"),
                *("--strategy", "fedavg,local", "--wire", "none,int8", "--cohort-size", "4,40"),
            ]
        )
    )
    assert len(plan.runs) == 8
    labels = [candidate_label(each, ["strategy", "wire", "cohort_size"]) for each in plan.runs]
    assert labels[0] == "fedavg, none, x4"
    refused = {label: each.refused for label, each in zip(labels, plan.runs, strict=True) if each.refused}
    assert "choose at most 20" in refused["fedavg, int8, x40"]
    assert "uploads nothing" in refused["local, int8, x4"]
    assert len(refused) == 4  # local alone takes any cohort size
    text = "\n".join(plan_lines(plan))
    assert "A run would refuse" in text


def test_settings_of_one_method_are_not_told_to_the_others(model):
    plan = plan_of(model, "--strategy", "fedavg,fedprox,fedadam", "--prox-mu", "0.1")
    assert [each.refused for each in plan.runs] == [None, None, None]
    with pytest.raises(ConfigError, match="prox_mu is given but strategy 'fedavg' does not use it"):
        plan_of(model, "--strategy", "fedavg", "--prox-mu", "0.1")


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["none", "int4", "drive", "topk-int8"]),
    st.integers(1, 20),
    st.integers(1, 6),
    st.sampled_from(["fedavg", "rolora", "ffa_lora", "fedadam"]),
)
def test_text_fits_into_80_columns_and_bytes_grow_with_the_visits(model, wire, cohort, rounds, strategy):
    flags = ["--wire", wire, "--cohort-size", str(cohort), "--num-rounds", str(rounds), "--strategy", strategy]
    plan = plan_all(plan_flags(["--model", model, "--sizes", "20:30", "--client-table", "profile:phone-4g", *flags]))
    assert max(map(len, plan_lines(plan))) <= 80
    run = plan.runs[0]
    assert run.num_visits == cohort * rounds
    assert run.travel.down == pytest.approx(run.num_visits * run.travel.down_visit)
    assert run.time.total_hours == pytest.approx(rounds * run.time.median_round_seconds / 3600, rel=0.5)
    assert sum(each.num_visits for each in run.time.partners) == run.num_visits


def test_sizes_are_read_from_tables_of_every_kind(tmp_path):
    table = pa.table({"client_id": ["b", "a", "c"], "num_rows": [3, 5, 9], "split": ["train", "train", "test"]})
    pq.write_table(table, tmp_path / "sizes.parquet")
    (tmp_path / "sizes.csv").write_text("client_id,num_rows\n07,3\n08,5\n")
    (tmp_path / "sizes.json").write_text(json.dumps([{"client_id": "x", "num_rows": 4}]))
    assert roster_of_sizes(str(tmp_path / "sizes.parquet"), "sft").sizes == {"a": 5, "b": 3}
    assert roster_of_sizes(str(tmp_path / "sizes.csv"), "sft").sizes == {"07": 3, "08": 5}
    assert roster_of_sizes(str(tmp_path / "sizes.json"), "sft").table.num_rows == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("client,rows\na,1\n", "has no column client_id"),
        ("client_id,num_rows\na,0\n", "has num_rows 0"),
        ("client_id,num_rows\na,1\na,2\n", "stands twice"),
        ("client_id,num_rows\n", "names no training client"),
        ("client_id,num_rows\na,1,2\n", "cannot be read"),
    ],
)
def test_a_table_that_tells_no_sizes_is_refused(tmp_path, content, line):
    path = tmp_path / "sizes.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=line):
        roster_of_sizes(str(path), "sft")


@pytest.mark.parametrize("text", ["0:5", "5:0", "99999999:1", "5", "5:", "no.csv"])
def test_sizes_that_mean_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="--sizes is"):
        roster_of_sizes(text, "sft")


def test_hollow_tensors_are_cut_as_real_ones_are():
    import torch

    for places in (slice(None, 2), (slice(None), slice(None, 3)), slice(None, 9)):
        assert HollowTensor((4, 5))[places].shape == tuple(torch.zeros(4, 5)[places].shape)


def test_quick_costs_by_hand():
    # 8 Mbit/s for 10^6 bytes: 1 s each way and .1 s delay; 2 steps of 10^12 at 10^12 a second: 2 s.
    given_ = QuickInputs(
        download_bytes=1e6, upload_bytes=1e6, step_flops=1e12, num_rounds=10, cohort_size=3, local_steps=2,
        download_mbit=8, upload_mbit=8, latency_ms=100, tera_flops=1, watts=360, price_per_gb=10, price_per_kwh=1,
        price_per_hour=0, line="fixed",
    )  # fmt: skip
    costs = quick_costs(given_)
    assert costs.visit_seconds == pytest.approx(4.2)
    assert costs.hours == pytest.approx(42 / 3600)
    assert costs.device_kwh == pytest.approx(30 * 2 * 360 / 3.6e6)
    assert costs.total_down == 3e7
    assert costs.money_low == pytest.approx(0.03 * 10 + costs.device_kwh + 0.06 * 0.03)


@pytest.mark.parametrize("name", ["download_mbit", "tera_flops", "num_rounds"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_quick_costs_refuse_what_is_no_number(name, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        QuickInputs(download_bytes=1, upload_bytes=1, step_flops=1, **{name: value})


def test_the_command_prints_writes_and_refuses(model, tmp_path, capsys):
    argv = ["plan", "--model", model, "--sizes", "20:30", *SMALL, "--wire", "none,drive"]
    assert main(argv) == 0
    assert "fedavg, drive" in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [each["wire"] for each in record["runs"]] == ["none", "drive"]
    assert main([*argv, "--out", str(tmp_path / "costs"), "--dry-run"]) == 0
    assert not (tmp_path / "costs").exists()
    assert main([*argv, "--out", str(tmp_path / "costs"), "--language", "ja"]) == 0
    assert sorted(each.name for each in (tmp_path / "costs").iterdir()) == ["plan.html", "plan.json"]
    assert json.loads((tmp_path / "costs" / "plan.json").read_text()) == record
    assert '<html lang="ja">' in (tmp_path / "costs" / "plan.html").read_text()
    capsys.readouterr()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    assert main([*argv, "--out", str(tmp_path / "other")]) == 2
    assert (tmp_path / "other" / "mine.txt").read_text() == "keep"
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["--wire", "none", "int4", "--cohort-size", "2", "4"],
        ["--wire", "none,int4", "--cohort-size", "2, 4"],
        ["--wire=none", "--wire", "int4", "--cohort_size", "2,4"],
    ],
    ids=["spaces", "commas", "flags"],
)
def test_several_values_are_joined_by_commas_or_spaces_or_given_apart(argv):
    compared = plan_flags(["--sizes", "4:10", *argv, "--lora-r", "4"]).compared
    assert compared == {"wire": ["none", "int4"], "cohort_size": ["2", "4"]}


def test_a_plan_names_itself_and_shows_all_flags(model, capsys):
    assert main(["plan", "--model", model, "--sizes", "4:10", "--wir", "int4"]) == 2
    assert "--wir is no flag of fedllm-train plan; did you mean --wire? --help-all" in capsys.readouterr().err
    assert main(["plan", "--help-all"]) == 0
    shown = capsys.readouterr().out
    assert "--cohort-size N [N ...]" in shown
    assert "--weight-decay" in shown


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("client_id,drop_out\n*,x", "column 'drop_out' holds 'x'"),
        ("client_id,drop_out\n*,1.5", "column 'drop_out' is 1.5"),
        ("client_id,drop_uot\n*,0", "'drop_out'"),
        ("client,drop_out\n*,0", "'drop_out'"),
    ],
    ids=["text", "range", "misspelt", "no ids"],
)
def test_columns_of_a_client_table_are_not_called_flags(model, tmp_path, capsys, rows, line):
    (tmp_path / "machines.csv").write_text(rows + "\n")
    assert main(["plan", "--model", model, "--sizes", "40:10", "--client-table", str(tmp_path / "machines.csv")]) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert "--drop-out" not in shown


def test_columns_that_a_dataset_lacks_are_not_called_flags(model, capsys):
    assert main(["plan", "--model", model, "--sizes", "40:10", "--client-table", "columns"]) == 2
    shown = capsys.readouterr().err
    assert "none of 'download_mbit'" in shown
    assert "--drop-out" not in shown


@pytest.mark.parametrize(
    ("flags", "is_exact"),
    [(["--wire", "int4"], True), (["--wire", "topk-int8"], False), (["--strategy", "fedex_lora"], False)],
    ids=["packed", "entropy", "shift"],
)
def test_hours_of_messages_of_uncertain_length_are_estimates(model, flags, is_exact):
    plan = plan_of(model, "--client-table", "profile:phone-4g", *flags)
    hours = f"{plan.runs[0].time.total_hours:.3g}"
    line = next(line for line in plan_lines(plan) if line.startswith("1  "))
    row = plan_rows(plan)[0]
    assert plan.runs[0].travel.is_exact == is_exact
    assert line.endswith(f" {hours}" if is_exact else f" ~{hours}")
    assert [shown.startswith("~") for shown in (row.median, row.slowest, row.hours, row.whole)] == 4 * [not is_exact]


@pytest.mark.parametrize("targets", [["lm_head"], ["q_proj", "lm_head"], [".*"]], ids=" ".join)
def test_an_adapter_on_the_head_is_refused_as_a_run_refuses_it(model, targets):
    with pytest.raises(ConfigError, match=r"this LoraConfig puts an adapter on lm_head, .* leave lm_head out"):
        plan_of(model, "--lora-target-modules", *targets)


def test_more_candidates_than_anybody_reads_are_refused(model):
    many = ",".join(map(str, range(1, 21)))
    flags = plan_flags(["--model", model, "--sizes", "30:5", "--cohort-size", many, "--wire", "none,int8,int4,drive"])
    with pytest.raises(ConfigError, match="make 80 candidates; compare at most 60"):
        plan_all(flags)


def test_a_runs_own_config_is_planned_again(kit, model, tmp_path, capsys):
    kit.build_repo(tmp_path / "clients")
    kit.make_tokenizer().save_pretrained(model)
    argv = ["--data", str(tmp_path / "clients"), "--model", model, "--cohort-size", "2", "--num-rounds", "2"]
    argv += ["--local-steps", "1", "--lora-r", "2", "--bf16", "False", "--wire", "int8", "--seed", "3"]
    assert main(["sft", *argv, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    plan = plan_all(plan_flags(["--config", str(tmp_path / "run" / "config.yaml")]))
    last = json.loads((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()[-1])
    assert (plan.task, plan.runs[0].wire) == ("sft", "int8")
    assert plan.runs[0].travel.up == last["ledger"]["upload_bytes"]
    again = [*argv[:4], "--adapter", str(tmp_path / "run"), *argv[4:8], "--local-steps", "1"]
    onwards = plan_all(plan_flags(again))
    assert onwards.runs[0].num_trainable == plan.runs[0].num_trainable


def test_the_plan_of_plain_methods_needs_no_torch(model):
    methods = "fedavg,fedprox,fedadam,fedyogi,ffa_lora,rolora,fedsa_lora,flexlora,hetlora,lora_fair,ditto,"
    methods += "ravan,fedsvd,fedrot_lora"
    argv = ["plan", "--model", model, "--sizes", "20:30", "--cohort-size", "2", "--strategy", methods]
    code = f"import sys; from fedllm_train.cli import main; main({argv!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
