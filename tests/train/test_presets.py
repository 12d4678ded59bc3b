"""The published set-ups: every value, as flags give them, what replaces them, and what cannot be had here."""

import json
from dataclasses import fields

import pytest
import torch
import yaml

from fedllm_data.errors import ConfigError
from fedllm_train.arguments import parse_run_arguments
from fedllm_train.cli import main
from fedllm_train.presets import PRESETS, preset_defaults
from fedllm_train.schedule import cosine_learning_rate
from fedllm_train.strategies import STRATEGIES, settings_class

# rounds, clients a round, local steps, batch, accumulation, length, lr max, lr min, LoRA r, alpha
GOLDEN = {
    "fedllm-bench/fed-aya": (200, 4, 10, 4, 4, 1024, 2e-5, 1e-6, 16, 32),
    "fedllm-bench/fed-chatbotit": (100, 10, 5, 4, 4, 1024, 2e-5, 1e-6, 16, 32),
    "fedllm-bench/fed-wildchat-single": (100, 5, 10, 4, 4, 1024, 2e-5, 1e-6, 16, 32),
    "fedllm-bench/fed-wildchat-multi": (100, 3, 10, 4, 4, 2048, 2e-5, 1e-6, 16, 32),
    "fedllm-bench/fed-chatbotpa": (200, 10, None, 8, 1, 512, 1e-4, 1e-5, 8, 16),
    "openfedllm/sft": (200, 2, 10, 16, 1, 512, 5e-5, 1e-6, 32, 64),
    "openfedllm/dpo": (200, 2, 10, 16, 1, 512, 5e-4, 1e-5, 8, 16),
}


def parse(task, *argv):
    return parse_run_arguments(task, ["--data", "d", "--model", "m", "--output_dir", "o", *argv])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_preset_is_the_published_set_up(name):
    run = parse(PRESETS[name].task, "--preset", name)
    federated, client, peft = run.federated, run.client, run.peft
    steps = None if federated.expected_epochs else federated.local_steps
    assert GOLDEN[name] == (
        *(federated.num_rounds, federated.cohort_size, steps),
        *(client.per_device_train_batch_size, client.gradient_accumulation_steps, client.max_length),
        *(client.learning_rate, federated.min_learning_rate, peft.r, peft.lora_alpha),
    )
    assert (peft.lora_dropout, peft.bias, set(peft.target_modules)) == (0.05, "none", {"q_proj", "v_proj"})
    assert (federated.seed, federated.cohort_rule, client.gradient_checkpointing) == (2023, "fedllm-bench", True)
    assert federated.preset == name
    if name == "fedllm-bench/fed-chatbotpa":
        assert federated.expected_epochs == 3
    if run.client.__class__.__name__ == "DPOConfig":
        assert client.beta == 0.1
    else:
        assert client.packing == (name == "fedllm-bench/fed-wildchat-multi")
    assert federated.round_rows == ("all" if name == "fedllm-bench/fed-wildchat-multi" else "fedllm-bench")


def test_the_learning_rates_of_fed_aya():
    settings = PRESETS["fedllm-bench/fed-aya"].settings
    rates = {"maximum": settings["learning_rate"], "minimum": settings["min_learning_rate"]}
    seen = [cosine_learning_rate(t, settings["num_rounds"], **rates) for t in (0, 50, 100, 199)]
    assert seen == pytest.approx([2e-5, 1.72175e-5, 1.05e-5, 1.0012e-6], rel=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_flags_and_files_override_a_preset(tmp_path):
    (tmp_path / "run.yaml").write_text("preset: fedllm-bench/fed-aya\nnum_rounds: 7\nlora_r: 2\n")
    run = parse("sft", "--config", str(tmp_path / "run.yaml"), "--lora_r", "3", "--local_epochs", "1")
    assert (run.federated.num_rounds, run.peft.r, run.peft.lora_alpha) == (7, 3, 32)
    assert (run.federated.local_epochs, run.federated.cohort_size) == (1.0, 4)
    everybody = parse("sft", "--preset", "fedllm-bench/fed-aya", "--cohort_rule", "all")
    assert everybody.federated.cohort_size == 10  # the default, which the rule does not look at


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_preset_sets_for_a_method_is_what_the_method_reads(strategy):
    for name, preset in PRESETS.items():
        assert set(preset.of_method.get(strategy, {})) <= {each.name for each in fields(settings_class(strategy))}
        defaults = preset_defaults(name, preset.task, {"strategy": strategy})
        assert defaults["preset"] == name
    if strategy == "fedadam":
        momenta = [PRESETS[name].of_method[strategy]["server_momentum"] for name in list(PRESETS)[::6]]
        assert momenta == [0.5, 0.9]  # FedLLM-Bench's and OpenFedLLM's


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, the base is loaded in 8 bit")
def test_a_base_in_8_bit_that_cannot_be_had_is_said_in_a_line():
    (note,) = parse("sft", "--preset", "openfedllm/sft").notes
    assert "8 bit, and there is no GPU" in note


def test_presets_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="choose from fedllm-bench/fed-aya"):
        parse("sft", "--preset", "fed-aya")
    with pytest.raises(ConfigError, match="is for fedllm-train dpo"):
        parse("sft", "--preset", "openfedllm/dpo")


def test_presets_are_listed(capsys):
    assert main(["presets"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PRESETS)
    assert main(["presets", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["name"]: record["num_clients"] for record in records} == {
        "fedllm-bench/fed-aya": 38,
        "fedllm-bench/fed-chatbotit": 237,
        "fedllm-bench/fed-wildchat-single": 100,
        "fedllm-bench/fed-wildchat-multi": 50,
        "fedllm-bench/fed-chatbotpa": 747,
        "openfedllm/sft": 20,
        "openfedllm/dpo": 5,
    }


def test_a_run_names_its_preset(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", num_rounds=1, preset="openfedllm/sft").train()
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["federated"]["preset"] == "openfedllm/sft"
