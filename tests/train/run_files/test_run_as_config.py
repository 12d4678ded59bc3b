"""A run's own config.yaml as --config makes the same run again, to the bit."""

import pytest
import yaml

from fedllm_data.errors import ConfigError
from fedllm_train.cli import main
from fedllm_train.flags import parse_our_flags

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory, kit):
    """Client repos of both tasks and a base model on disk."""
    folder = tmp_path_factory.mktemp("made")
    for task in ("sft", "preference"):
        kit.build_repo(folder / task, task)
    kit.make_model().save_pretrained(folder / "base")
    kit.make_tokenizer().save_pretrained(folder / "base")
    return folder


def command(made, task, out, *more):
    data = made / ("sft" if task == "sft" else "preference")
    places = ["--data", str(data), "--model", str(made / "base"), "--output_dir", str(out)]
    short = ["--num_rounds", "2", "--use_cpu", "True", "--per_device_train_batch_size", "2", "--max_length", "64"]
    return [task, *places, *short, "--learning_rate", "1e-2", *more]


CASES = {
    "defaults": ("sft", "--cohort_size 2 --local_steps 2"),
    "method": ("sft", "--cohort_size 2 --local_epochs 1 --strategy ditto --ditto_lambda 0.3 --personal_clients all"),
    "everybody": ("sft", "--cohort_rule all --local_steps 1 --wire topk --error_feedback ef14 --loss_on all"),
    "ranks": ("sft", "--cohort_size 2 --local_steps 1 --strategy hetlora --client_ranks 2,4 --lora_r 4 --seed 3"),
    "dora": ("sft", "--cohort_size 2 --local_steps 1 --peft_type dora --lora_r 3 --lora_target_modules q_proj v_proj"),
    "ia3": ("sft", "--cohort_size 2 --local_steps 1 --peft_type ia3"),
    "whole": ("sft", "--cohort_size 2 --local_steps 1 --full_finetuning --packing --packing_strategy wrapped"),
    "dpo": ("dpo", "--cohort_size 2 --local_steps 1 --beta 0.3 --loss_type ipo --no_reference_cache"),
    "preset": ("sft", "--preset fedllm-bench/fed-aya --cohort_size 2 --local_steps 10 --lora_r 4 --max_grad_norm 0.5"),
}


@pytest.mark.parametrize(("task", "flags"), CASES.values(), ids=CASES)
def test_the_same_run_again(made, tmp_path, kit, task, flags):
    if "ia3" in flags:
        flags += " --lora_target_modules q_proj v_proj down_proj"
    assert main(command(made, task, tmp_path / "a", *flags.split())) == 0
    again = ["--config", str(tmp_path / "a" / "config.yaml"), "--output_dir", str(tmp_path / "b")]
    assert main([task, *again]) == 0
    one, other = (kit.records_of(tmp_path / name) for name in "ab")
    assert [record["adapter_sha256"] for record in one] == [record["adapter_sha256"] for record in other]
    assert [record["ledger"]["upload_bytes"] for record in one] == [r["ledger"]["upload_bytes"] for r in other]
    configs = [yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in "ab"]
    assert configs[0] == configs[1]


def test_a_run_that_began_from_an_adapter_begins_from_it_again_and_flags_change_what_they_name(made, tmp_path, kit):
    first = command(made, "sft", tmp_path / "a", "--cohort_size", "2", "--local_steps", "1")
    assert main(first) == 0
    more = ["--adapter", str(tmp_path / "a"), "--cohort_size", "2", "--local_steps", "1"]
    assert main(command(made, "dpo", tmp_path / "b", *more)) == 0
    again = ["--config", str(tmp_path / "b" / "config.yaml"), "--output_dir"]
    assert main(["dpo", *again, str(tmp_path / "c")]) == 0
    assert main(["dpo", *again, str(tmp_path / "d"), "--num_rounds", "1"]) == 0
    digests = {name: [r["adapter_sha256"] for r in kit.records_of(tmp_path / name)] for name in "bcd"}
    assert digests["b"] == digests["c"]
    assert len(digests["d"]) == 1


def test_a_run_of_a_version_that_had_upload_codec_is_made_again_and_goes_on(made, tmp_path, kit):
    """Its config.yaml names settings that are now part of `wire`, and lacks `wire` itself."""
    flags = ["--cohort_size", "2", "--local_steps", "1", "--wire", "topk:0.2", "--error_feedback", "ef14"]
    assert main(command(made, "sft", tmp_path / "a", *flags)) == 0
    file = tmp_path / "a" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    assert config["federated"].pop("wire") == "topk:0.2"
    assert config["federated"].pop("error_feedback") == "ef14"
    config["federated"] |= {"upload_codec": "topk", "topk_fraction": 0.2, "error_feedback": True}
    for name in ("download_wire", "download_base"):
        del config["federated"][name]
    file.write_text(yaml.safe_dump(config))
    assert main(["sft", "--config", str(file), "--output_dir", str(tmp_path / "b")]) == 0
    one, other = (kit.records_of(tmp_path / name) for name in "ab")
    assert [record["adapter_sha256"] for record in one] == [record["adapter_sha256"] for record in other]
    assert [record["ledger"]["upload_bytes"] for record in one] == [r["ledger"]["upload_bytes"] for r in other]
    assert main(command(made, "sft", tmp_path / "a", *flags, "--resume")) == 0
    other_share = [*flags[:-3], "topk:0.3", "--error_feedback", "ef14", "--resume"]
    assert main(command(made, "sft", tmp_path / "a", *other_share)) == 2


def test_what_no_flag_can_say_is_refused_by_name(made, tmp_path, capsys):
    assert main(command(made, "sft", tmp_path / "a", "--cohort_size", "2", "--local_steps", "1")) == 0
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())

    def refused(**changes):
        file = tmp_path / "changed.yaml"
        file.write_text(yaml.safe_dump(config | changes))
        capsys.readouterr()
        assert main(["sft", "--config", str(file), "--output_dir", str(tmp_path / "b")]) == 2
        return capsys.readouterr().err

    assert "rank_pattern={'q_proj': 2}" in refused(peft=config["peft"] | {"rank_pattern": {"q_proj": 2}})
    assert "peft_type LOHA" in refused(peft=config["peft"] | {"peft_type": "LOHA"})
    assert "belongs to a dpo run; use fedllm-train dpo" in refused(task="dpo")
    assert "whose clients were made in memory" in refused(data=config["data"] | {"revision": None})
    assert "whose model was made in memory" in refused(model=config["model"] | {"name": None})


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("federated", {"num_roundz": 3}, "FederatedConfig has no num_roundz; did you mean num_rounds"),
        ("federated", {"prox_mu": 0.2}, "prox_mu is given but strategy 'fedavg' does not use it"),
        ("client", {"learning_ratez": 3}, "learning_ratez under client in --config"),
        (None, {"num_rounds": 3}, "num_rounds stands outside the sections"),
        (None, {"federated": ["a"]}, "has a section federated without names"),
        (None, {"data": {"revision": "1"}}, "lacks name, which the config.yaml of every run has"),
        (None, {"peft": {"peft_type": "LORA", "target_modules": ["q_proj"]}}, "lacks r, which"),
    ],
)
def test_a_slip_in_a_config_edited_by_hand_is_named(tmp_path, section, changes, message):
    content = {
        "task": "sft", "data": {"name": "org/data", "revision": "1"}, "model": {"name": "org/base", "revision": "1"},
        "federated": {"strategy": "fedavg", "num_rounds": 2, "prox_mu": 0.01}, "client": {"max_steps": 1},
        "peft": None,
    }  # fmt: skip
    (content if section is None else content[section]).update(changes)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        parse_our_flags("sft", ["--config", str(tmp_path / "config.yaml"), "--output_dir", "run"])


def test_a_preset_beside_a_runs_config_is_refused(tmp_path):
    places = {"data": {"name": "org/data", "revision": "1"}, "model": {"name": "org/base"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"task": "sft", "federated": {}, "client": {}, **places}))
    argv = ["--config", str(tmp_path / "config.yaml"), "--output_dir", "run"]
    assert parse_our_flags("sft", argv).federated.preset is None
    with pytest.raises(ConfigError, match=r"--preset is given, and --config .* is a run's"):
        parse_our_flags("sft", [*argv, "--preset", "fedllm-bench/fed-aya"])
