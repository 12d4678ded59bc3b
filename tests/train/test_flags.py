"""Our own flags: spellings, values, files, presets, and what is refused before anything heavy is imported."""

import os
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.arguments import parse_run_arguments
from fedllm_train.flag_fields import flag_groups
from fedllm_train.flag_names import flag_of
from fedllm_train.flags import parse_our_flags
from fedllm_train.given import given_of
from fedllm_train.strategies import STRATEGIES, settings_class

PLACES = ["--data", "org/clients", "--model", "org/model", "--output_dir", "run"]


def parse(*argv, task="sft"):
    return parse_our_flags(task, [*PLACES, *argv])


@pytest.mark.parametrize(
    "argv",
    [
        ["--num_rounds", "3", "--strategy", "ditto", "--ditto_lambda", "0.2"],
        ["--num-rounds=3", "--strategy=ditto", "--ditto-lambda=0.2"],
        ["--strategy", "ditto", "--ditto_lambda=.2", "--num-rounds", "3"],
    ],
)
def test_dashes_underscores_and_equals_are_one_spelling(argv):
    flags = parse(*argv)
    assert (flags.federated.num_rounds, flags.federated.ditto_lambda) == (3, 0.2)
    assert given_of(flags.federated) >= {"num_rounds", "strategy", "ditto_lambda"}
    assert flags.rest == []


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--reference_cache", "False"], False),
        (["--no_reference_cache"], False),
        (["--no-reference-cache"], False),
        (["--reference_cache"], True),
        (["--reference_cache=yes"], True),
        ([], True),
    ],
)
def test_what_is_true_or_false_is_said_in_any_of_trls_ways(argv, value):
    assert parse(*argv).federated.reference_cache is value


def test_none_stays_apart_from_false():
    assert parse().federated.method.uniform_weights is None
    assert parse("--uniform_weights", "False").federated.method.uniform_weights is False
    assert parse("--uniform_weights").federated.method.uniform_weights is True


def test_what_is_trls_is_left_for_its_parser_in_order():
    flags = parse("--lora_target_modules", "q_proj", "v_proj", "--seed", "3", "--learning_rate", "1e-3", "--packing")
    assert flags.rest == ["--lora-target-modules", "q_proj", "v_proj", "--learning-rate", "1e-3", "--packing"]
    assert flags.federated.seed == 3
    assert {"learning_rate", "packing", "lora_target_modules", "seed"} <= flags.given


def test_a_file_gives_defaults_that_flags_override_and_text_may_stand_for_a_number(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDLLM_OF_FILE", raising=False)
    file = tmp_path / "run.yaml"
    file.write_text(
        "num-rounds: '7'\nseed: 5\nstrategy: fedprox\nprox_mu: '1e-2'\nlearning_rate: 0.5\nreference_cache: 'no'\n"
        "env:\n  FEDLLM_OF_FILE: 3\n"
    )
    flags = parse("--config", str(file), "--seed", "6")
    federated = flags.federated
    assert (federated.num_rounds, federated.seed, federated.prox_mu) == (7, 6, 0.01)
    assert federated.reference_cache is False
    assert flags.defaults == {"learning_rate": 0.5}
    assert {"prox_mu", "num_rounds", "learning_rate"} <= flags.given
    assert os.environ.pop("FEDLLM_OF_FILE") == "3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("- a\n- b\n", "holds no settings"),
        ("a: [\n", "is no YAML file"),
        ("num_round: 3\n", "num_round is no flag of fedllm-train sft; did you mean num_rounds?"),
        ("prox_mu: 0.01\n", "prox_mu is given but strategy 'fedavg' does not use it; use strategy fedprox"),
        ("num_rounds: many\n", "num_rounds is 'many' in the --config file; it takes int"),
        ("num_rounds: [3]\n", r"num_rounds is \[3\], a list; pass a whole number"),
        ("env: 3\n", "env in --config"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "run.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        parse("--config", str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strateg", "fedavg"], "--strateg is no flag of fedllm-train sft; did you mean --strategy?"),
        (["--learning-rat=1"], "--learning-rat is no flag of fedllm-train sft; did you mean --learning-rate?"),
        (["--beta", "0.1"], "--beta is no flag of fedllm-train sft"),
        (["--num_rounds", "3.5"], "argument --num-rounds: invalid int value: '3.5'"),
        (["--core_frame", "odd", "--strategy", "fed_sb"], "invalid choice: 'odd'"),
        (["--reference_cache", "perhaps"], "'perhaps' is neither true nor false"),
        (["--hetlora_prune", "0"], "hetlora_prune is given but strategy 'fedavg' does not use it"),
        (["--preset", "nosuch"], "preset 'nosuch' is unknown"),
        (["--preset", "openfedllm/dpo"], "is for fedllm-train dpo"),
    ],
)
def test_a_wrong_flag_is_named_with_what_is_like_it(argv, message):
    with pytest.raises(ConfigError, match=message):
        parse(*argv)


def test_what_must_be_given_is_named():
    with pytest.raises(ConfigError, match="arguments are required: --out, --model"):
        parse_our_flags("sft", ["--data", "org/clients"])


def test_a_flag_of_trl_for_another_task_is_known_there():
    assert parse("--beta", "0.1", task="dpo").rest == ["--beta", "0.1"]


def test_what_a_preset_sets_is_nobodys_word_and_what_flags_set_is():
    flags = parse("--preset", "fedllm-bench/fed-aya", "--cohort_size", "3")
    assert (flags.federated.num_rounds, flags.federated.cohort_size) == (200, 3)
    assert flags.defaults["lora_r"] == 16
    assert "cohort_size" in flags.given
    assert "num_rounds" not in flags.given
    assert "local_steps" not in given_of(parse("--preset", "fedllm-bench/fed-aya").federated)


def test_a_value_behind_one_of_our_flags_does_not_become_trls():
    with pytest.raises(ConfigError, match="unrecognized arguments: v_proj"):
        parse("--lora_target_modules", "q_proj", "--num_rounds", "3", "v_proj")


def test_what_is_none_in_a_file_or_behind_a_flag_is_left_out(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("preset: null\nprox_mu: null\nadapter: null\neval_every: none\n")
    flags = parse("--config", str(file), "--keep_every", "None", "--local_epochs", "null")
    assert flags.federated.strategy == "fedavg"
    assert flags.federated.preset is None
    assert (flags.federated.eval_every, flags.federated.keep_every, flags.federated.local_epochs) == (None,) * 3
    assert not given_of(flags.federated) & {"preset", "prox_mu", "eval_every", "keep_every", "local_epochs"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "no_reference_cache: true",
            "no_reference_cache is no flag of fedllm-train sft; did you mean reference_cache",
        ),
        ("config: other.yaml", "config stands in the --config file"),
        ("help: true", "help stands in the --config file"),
        ("strategy: [fedavg]", "strategy is .* a list; pass text"),
    ],
)
def test_what_only_a_command_line_can_say_is_refused_in_a_file(tmp_path, content, message):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        parse("--config", str(file))


OURS = sorted({each.name for name in STRATEGIES for group in flag_groups(name) for each in fields(group)} - {"method"})


def owner(name):
    return next((each for each in STRATEGIES if name in {one.name for one in fields(settings_class(each))}), "fedavg")


def hint(name):
    groups = flag_groups(owner(name))
    return next(get_type_hints(group)[name] for group in groups if name in {each.name for each in fields(group)})


@pytest.mark.parametrize("name", OURS)
def test_each_setting_has_one_flag_and_its_former_spellings_are_read_the_same(name):
    kinds = get_args(hint(name)) or (hint(name),)
    argument = {bool: "yes", int: "3", float: "0.5", str: "x"}.get(kinds[0], str(kinds[0]))
    place = ["--data", "d", "--model", "m", "--out", "o", "--strategy", owner(name)]
    read = []
    for flag in {flag_of(name), f"--{name}", f"--{name.replace('_', '-')}"}:
        for words in ([flag, argument], [f"{flag}={argument}"]):
            try:
                read.append(parse_our_flags("sft", [*place, *words]))
            except ConfigError as error:  # the same answer is what counts: some settings need others
                read.append(str(error))
    assert "_" not in flag_of(name)
    assert all(each == read[0] for each in read)
    assert "is no flag" not in str(read[0])


@pytest.mark.parametrize("key", ["out", "output_dir", "output-dir"])
def test_a_file_names_settings_in_every_spelling(tmp_path, key):
    file = tmp_path / "run.yaml"
    file.write_text(f"{key}: run\ncohort-size: 3\nlocal_steps: 2\nlora-r: 4\n")
    flags = parse_our_flags("sft", ["--data", "d", "--model", "m", "--config", str(file)])
    federated = flags.federated
    assert (federated.output_dir, federated.cohort_size, federated.local_steps) == ("run", 3, 2)
    assert flags.defaults == {"lora_r": 4}


def test_a_file_that_says_a_setting_in_two_spellings_is_refused(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("out: a\noutput_dir: b\n")
    with pytest.raises(ConfigError, match="says output_dir twice, in two spellings"):
        parse_our_flags("sft", ["--data", "d", "--model", "m", "--config", str(file)])


def test_trls_flags_are_read_with_dashes():
    words = (
        "--learning-rate 0.5 --per-device-train-batch-size 3 --lora-r 5 --no-gradient-checkpointing --use-cpu".split()
    )
    dashes = parse_run_arguments("sft", [*PLACES, *words])
    underscores = parse_run_arguments(
        "sft", [*PLACES, *(word.replace("-", "_").replace("__", "--") for word in words)]
    )
    for read in (dashes, underscores):
        assert (read.client.learning_rate, read.client.per_device_train_batch_size, read.peft.r) == (0.5, 3, 5)
        assert read.client.gradient_checkpointing is False


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rate", "much"], "^argument --learning-rate: invalid float value: 'much'"),
        (["--lora-r", "1.5"], "^argument --lora-r: invalid int value: '1.5'"),
    ],
)
def test_an_error_of_trls_parser_names_the_flag_with_dashes_alone(argv, message):
    with pytest.raises(ConfigError, match=message):
        parse_run_arguments("sft", [*PLACES, *argv])
