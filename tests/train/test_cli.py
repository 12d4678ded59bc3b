"""The command: help without torch, one line for bad input, a run from folder to adapter, TRL's own flags."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from fedllm_train.cli import main


@pytest.fixture
def folders(kit, tmp_path):
    """A client repo and a base model on disk."""

    kit.build_repo(tmp_path / "clients")
    model = kit.make_model()
    model.save_pretrained(tmp_path / "base")
    kit.make_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path


def sft(folders, *more):
    return [
        "sft", "--data", str(folders / "clients"), "--model", str(folders / "base"), "--output_dir",
        str(folders / "run"), "--num_rounds", "2", "--cohort_size", "2", "--local_steps", "1", "--use_cpu", "True",
        "--per_device_train_batch_size", "4", "--max_length", "64", "--activation_checkpointing", "False", *more,
    ]  # fmt: skip


def test_a_run_leaves_adapter_config_records_and_card(folders, capsys):
    assert main(sft(folders, "--learning_rate", "1e-2", "--lora_r", "3", "--lora_target_modules", "q_proj")) == 0
    run = folders / "run"
    assert "2 rounds, 4 local steps" in capsys.readouterr().out
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["peft"]["r"] == 3
    assert config["peft"]["target_modules"] == ["q_proj"]
    assert config["client"]["learning_rate"] == 1e-2
    assert config["federated"]["min_learning_rate"] == pytest.approx(5e-4)
    assert config["data"]["revision"]
    assert config["model"]["revision"].startswith("sha256:")
    assert len((run / "rounds.jsonl").read_text().splitlines()) == 2
    card = (run / "README.md").read_text()
    assert "2, 2 clients each, 1 local steps per client" in card
    assert "| licence of the dataset | cc0-1.0 |" in card
    assert str(folders) not in card  # a card tells no path of the machine
    peft = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert peft["base_model_name_or_path"] == str(folders / "base")


def test_resume_goes_on_and_a_second_run_needs_it(folders, capsys):
    assert main(sft(folders)) == 0
    assert main(sft(folders)) == 2
    assert "already holds a run; resume it" in capsys.readouterr().err
    assert main(sft(folders, "--resume")) == 0


def test_settings_come_from_a_yaml_file_that_flags_override(folders):
    (folders / "run.yaml").write_text("learning_rate: 0.5\nlora_r: 2\nlocal_steps: 3\n")
    assert main(sft(folders, "--config", str(folders / "run.yaml"))) == 0
    config = yaml.safe_load((folders / "run" / "config.yaml").read_text())
    assert (config["client"]["learning_rate"], config["peft"]["r"]) == (0.5, 2)
    assert config["federated"]["local_steps"] == 1  # the flag


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nonsense", "3"], "--nonsense"),
        (["--num_rounds", "x"], "invalid int value: 'x'"),
        (["--num_rounds", "0"], "--num-rounds is 0; it must be at least 1"),
        (["--cohort_size", "99"], "--cohort-size is 99 but"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
        (["--model", "/no/such/model"], "model '/no/such/model' is no folder here"),
        (["--adapter", "/no/such/run"], "adapter '/no/such/run' is no folder here"),
        (["--strategy", "fedmagic"], "strategy 'fedmagic' is unknown"),
        (["--max_steps", "5"], "use --local-steps"),
        (["--model_name_or_path", "m"], "is called --model here"),
        (["--load_in_4bit", "True"], "--load-in-4bit needs an NVIDIA GPU"),
        (["--lora_target_modules", "nowhere"], "look at model.named_modules()"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folders, capsys, argv, message):
    assert main([*sft(folders), *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    # What only TRL's parser knows is refused after the line that says what the run would do.
    (line,) = [each for each in error.splitlines() if not each.endswith("; loading")]
    assert line.startswith("fedllm-train: error: ")
    assert not (folders / "run").exists()


def test_methods_are_listed(capsys):
    assert main(["methods", "--json"]) == 0
    assert {"local", "fedavg", "scaffold"} <= {method["name"] for method in json.loads(capsys.readouterr().out)}


def test_help_names_every_setting_of_the_federation(capsys):
    assert main(["sft", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("--data", "--out", "--strategy", "--cohort-size", "--resume", "--help-all"))


def test_a_run_says_at_once_what_it_will_do_and_then_how_long_is_left(folders, capsys):
    assert main(sft(folders, "--lora_r", "2")) == 0
    lines = capsys.readouterr().err.splitlines()
    size = "2 rounds of 2 of 5 clients, 1 step each"
    assert lines[0] == (
        f"fedllm-train sft: fedavg on {folders / 'clients'}, {size}; from {folders / 'base'} into {folders / 'run'}; "
        "loading"
    )
    assert lines[1].startswith("loaded in ")
    assert size in lines[1]
    first, last = (line for line in lines if line.startswith("round "))
    assert re.search(r"; about \d+ s left$", first)
    assert "left" not in last


def test_what_a_run_will_do_is_said_before_torch_is_there(folders):
    """The heavy imports and the model come after the first line."""
    program = (
        "import sys, builtins\n"
        "def said(*words, file=None, **_):\n"
        "    if file is sys.stderr:\n"
        "        assert 'loading' in words[0] and 'torch' not in sys.modules\n"
        "        raise SystemExit(7)\n"
        "builtins.print = said\n"
        "from fedllm_train.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    finished = subprocess.run([sys.executable, "-c", program, *sft(folders)], check=False, capture_output=True)
    assert finished.returncode == 7, finished.stderr.decode()


def test_a_private_run_says_how_large_its_noise_is_first_and_ends_with_epsilon(folders, capsys):
    private = ["--cohort_rule", "poisson", "--dp_clip", "0.1", "--dp_noise_multiplier", "1", "--dp_delta", "1e-2"]
    assert main(sft(folders, "--lora_r", "2", *private)) == 0
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    (noise,) = [index for index, line in enumerate(lines) if "times dp_clip" in line]
    assert lines[noise].startswith("warning: the noise of a round is ")
    (left,) = [index for index, line in enumerate(lines) if line.startswith("private run: epsilon ")]
    assert left < noise
    assert "claimed by PLD; RDP " in lines[left]
    assert noise < next(index for index, line in enumerate(lines) if line.startswith("round 1/2"))
    last = json.loads((folders / "run" / "rounds.jsonl").read_text().splitlines()[-1])["privacy"]
    assert shown.out.splitlines()[-1].endswith(f"epsilon {last['epsilon']:.4g} at delta 0.01, unit: client")


def test_a_run_that_only_clips_ends_by_saying_that_there_is_no_epsilon(folders, capsys):
    private = ["--cohort_rule", "all", "--dp_clip", "0.1", "--dp_noise_multiplier", "0", "--dp_delta", "1e-2"]
    arguments = sft(folders, *private)
    position = arguments.index("--cohort_size")
    assert main(arguments[:position] + arguments[position + 2 :]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1].endswith("no epsilon: updates were clipped, and no noise was added")
    )


def test_where_the_template_renders_no_row_there_is_one_line_and_exit_code_2(folders, capsys):
    (folders / "broken.jinja").write_text("{% for m in messages %}{{ m['content'] }")
    assert main(sft(folders, "--chat_template_path", str(folders / "broken.jinja"))) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error:" in each]
    assert line.startswith("fedllm-train: error: the chat template renders none of the 30 rows")
    assert "--chat-template-path" in line
    assert not (folders / "run").exists()
