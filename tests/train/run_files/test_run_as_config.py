"""A run's own config.yaml as --config makes the same run again, to the bit."""

import pytest
import yaml

from fedllm_train.cli import main

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
    "everybody": ("sft", "--cohort_rule all --local_steps 1 --upload_codec topk --error_feedback --loss_on all"),
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
