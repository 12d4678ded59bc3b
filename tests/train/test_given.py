"""A setting that nothing looks at is refused where somebody gave it, be it with the value it has anyway."""

from dataclasses import MISSING, fields, replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_data.roster import roster_of
from fedllm_train import FederatedConfig
from fedllm_train.arguments import parse_run_arguments
from fedllm_train.cli import main
from fedllm_train.given import given_flags, given_of, with_given
from fedllm_train.prepare import make_strategy
from fedllm_train.presets import PRESETS
from fedllm_train.strategies import STRATEGIES, settings_class

DEFAULTS = {each.name: each.default for each in fields(FederatedConfig) if each.default is not MISSING}
DEFAULTS.pop("method")
OF_METHODS = {
    each.name: each.default for name in STRATEGIES for each in fields(settings_class(name)) if each.default is not None
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_setting_of_another_method_is_refused_at_its_default(kit, strategy):
    own = {each.name for each in fields(settings_class(strategy))}
    for name in OF_METHODS.keys() - own:
        with pytest.raises(ConfigError, match=f"{name} is given but strategy '{strategy}' does not use it"):
            FederatedConfig(output_dir="run", strategy=strategy, **{name: OF_METHODS[name]})
    given = {name: OF_METHODS[name] for name in OF_METHODS.keys() & own}
    local = {"local_client": "ann"} if strategy == "local" else {}
    config = FederatedConfig(output_dir="run", strategy=strategy, **given, **local)
    make_strategy(config, roster_of(kit.make_clients()))


@pytest.mark.parametrize("how", ["flag", "equals", "dashes", "file", "preset", "python"])
@pytest.mark.parametrize("value", ["0.1", "0.2"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ditto_lambda_with_fedprox_is_refused_however_it_is_given(tmp_path, how, value):
    argv = ["--data", "d", "--model", "m", "--output_dir", "o", "--strategy", "fedprox"]
    (tmp_path / "run.yaml").write_text(f"ditto_lambda: {value}\n")
    more = {
        "flag": ["--ditto_lambda", value],
        "equals": [f"--ditto_lambda={value}"],
        "dashes": ["--ditto-lambda", value],
        "file": ["--config", str(tmp_path / "run.yaml")],
        "preset": ["--preset", "openfedllm/sft", "--ditto_lambda", value],
    }
    if how == "python":
        give = partial(FederatedConfig, output_dir="o", strategy="fedprox", ditto_lambda=float(value))
    else:
        give = partial(parse_run_arguments, "sft", argv + more[how])
    with pytest.raises(ConfigError, match="ditto_lambda is given but strategy 'fedprox'"):
        give()


def test_the_command_refuses_it_in_one_line(kit, tmp_path, capsys):
    rows = kit.make_clients().rows
    assert rows.num_rows  # clients in memory; the command needs a folder, which is looked for first
    argv = ["sft", "--data", "/no/folder", "--model", "m", "--output_dir", str(tmp_path / "run")]
    assert main([*argv, "--local_steps", "10", "--local_epochs", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--local-steps and --local-epochs are both given" in error


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_preset_sets_is_nobodys_word(kit, name, strategy):
    """A preset fits every method: its settings of others are not taken for the user's."""
    argv = ["--data", "d", "--model", "m", "--output_dir", "o", "--preset", name, "--strategy", strategy]
    argv += ["--local_client", "ann"] if strategy == "local" else []
    argv += ["--local_steps", "5"] if strategy == "centralized" else []  # one client's epochs mean nothing to it
    federated = parse_run_arguments(PRESETS[name].task, argv).federated
    assert federated.preset == name
    clients = kit.make_clients("sft" if PRESETS[name].task == "sft" else "preference")
    make_strategy(federated, roster_of(clients))


@pytest.mark.parametrize("flags", ["--adapter a", "--full_finetuning", "--peft_type ln_tuning"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_preset_says_of_lora_is_told_where_no_lora_is_made(flags):
    argv = ["--data", "d", "--model", "m", "--output_dir", "o", "--preset", "openfedllm/dpo", *flags.split()]
    notes = parse_run_arguments("dpo", argv).notes
    assert any("sets lora_dropout, lora_target_modules, lora_r, lora_alpha, and" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"local_steps": 10, "local_epochs": 1}, "local_steps and local_epochs are both given"),
        ({"local_steps": 10, "expected_epochs": 3}, "choose one measure"),
        ({"eval_clients": 20}, "eval_clients is given, and nothing is scored"),
        ({"eval_split": "test"}, "eval_split is given, and nothing is scored"),
        ({"topk_fraction": 0.1}, "topk_fraction is part of wire now; write for example wire: topk:0.1"),
        ({"download_base": "previous"}, "download_base is given without a download_wire"),
        ({"upload_codec": "int8"}, "upload_codec is part of wire now; write for example wire: int8"),
    ],
)
def test_what_goes_with_another_setting_is_refused_at_its_default(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        FederatedConfig(output_dir="run", **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, TRL's own default stands")
def test_a_precision_in_a_file_is_not_overridden_on_a_cpu(tmp_path):
    (tmp_path / "run.yaml").write_text("bf16: true\nuse_cpu: true\n")
    argv = ["--data", "d", "--model", "m", "--output_dir", "o"]
    assert parse_run_arguments("sft", [*argv, "--config", str(tmp_path / "run.yaml")]).client.bf16 is True
    assert parse_run_arguments("sft", argv).client.bf16 is False


def test_what_is_off_and_said_so_is_no_contradiction():
    FederatedConfig(output_dir="run", load_best=False, error_feedback="none", eval_every=None, local_steps=10)


NEED_ANOTHER = ("eval_clients", "eval_split", "download_base", "late", "staleness_exponent")
"""Settings that are refused, even at their default, where the one that looks at them is not given."""


@given(st.sets(st.sampled_from(sorted(DEFAULTS.keys() - {"cohort_clients"}))))
@settings(max_examples=50, deadline=None)
def test_what_was_given_is_known_after_copies(names):
    """Names set to their defaults are given, None stands for nothing, and copies keep what differs."""
    chosen = {name: DEFAULTS[name] for name in names if name not in NEED_ANOTHER}
    config = FederatedConfig(output_dir="run", **chosen)
    expected = {name for name, value in chosen.items() if value is not None} | {"output_dir"}
    assert given_of(config) == expected
    assert given_of(with_given(config, expected)) == expected
    assert given_of(replace(config, num_rounds=7)) == {"output_dir", "num_rounds"}
    assert config == FederatedConfig(output_dir="run")


@given(
    st.lists(st.sampled_from(["--lora_r", "--lora-r", "--lora_r=3", "-3", "7", "word", "--no_packing", "--packing"]))
)
def test_flags_are_found_in_every_spelling(argv):
    names = given_flags(argv)
    assert ("lora_r" in names) == any(word.startswith(("--lora_r", "--lora-r")) for word in argv)
    assert ("packing" in names) == any("packing" in word for word in argv)
    assert not {"7", "3", "word"} & names
