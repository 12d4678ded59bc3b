"""Every field of TRL's configs has a fate, and it is the one that the tables say."""

import copy
from dataclasses import dataclass, fields, replace

import pytest
from transformers.trainer_utils import SchedulerType
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.arguments import parse_run_arguments
from fedllm_train.clients import resident
from fedllm_train.clients.resident_args import FATES, check_client_args, resident_args
from fedllm_train.fates.fate import Elsewhere, NoEffect, Passed, Refused, check_fates

# TRL announces which of its settings will go.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

CPU = {"bf16": False, "use_cpu": True}
TASKS = {SFTConfig: "sft", DPOConfig: "dpo", KTOConfig: "kto"}

# What a trainer can be built and run with on a CPU, all at once: another value than TRL's own.
COMMON = {
    **{"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "optim": "adamw_torch"},
    **{"weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "max_grad_norm": 0.5},
    **{"neftune_noise_alpha": 1.0, "use_cache": True, "activation_checkpointing": False, "use_cpu": True},
    **{"torch_empty_cache_steps": 7, "bf16": False, "gradient_checkpointing": False, "max_length": 60},
    **{"dataloader_in_order": False, "remove_unused_columns": False, "label_names": ["labels"]},
    **{"pad_to_multiple_of": 8, "logging_nan_inf_filter": False, "include_num_input_tokens_seen": "all"},
    **{"log_level": "error"},
}
VALUES = {
    SFTConfig: COMMON
    | {"train_sampling_strategy": "sequential", "label_smoothing_factor": 0.1, "eos_token": "<|user|>"}
    | {"packing": True, "packing_strategy": "wrapped"},
    DPOConfig: COMMON
    | {"train_sampling_strategy": "sequential", "disable_dropout": False, "precompute_ref_batch_size": 3}
    | {"loss_type": ["exo_pair", "discopop"], "loss_weights": [0.5, 0.5], "label_smoothing": 0.1, "beta": 0.3}
    | {"discopop_tau": 0.1, "ld_alpha": 0.5, "pad_token": "<|user|>"},
    KTOConfig: COMMON
    | {"loss_type": "apo_zero_unpaired", "beta": 0.3, "desirable_weight": 2.0, "undesirable_weight": 3.0}
    | {"disable_dropout": False, "precompute_ref_batch_size": 3},
}
# What needs a GPU, a package, a mixture of experts, worker processes or settings that exclude the above: seen in the
# resident trainer's settings, without training.
WITHOUT_TRAINING = {
    **{"optim_args": "a=1", "optim_target_modules": "all-linear", "tf32": True, "fp16": False},
    **{"activation_checkpointing_kwargs": {"use_reentrant": False}, "torch_compile": True},
    **{"gradient_checkpointing_kwargs": {"use_reentrant": False}, "torch_compile_backend": "eager"},
    **{"torch_compile_mode": "default", "use_liger_kernel": True, "liger_kernel_config": {"rope": True}},
    **{"accelerator_config": {"even_batches": False}, "router_aux_loss_coef": 0.1, "full_determinism": True},
    **{"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "dataloader_prefetch_factor": 2},
    **{"dataloader_multiprocessing_context": "fork", "chat_template_path": "t.jinja", "pad_token": "<|user|>"},
    **{"truncation_mode": "keep_end", "padding_free": True, "loss_type": "dft", "activation_offloading": False},
    **{"f_divergence_type": "forward_kl", "f_alpha_divergence_coef": 0.2, "use_weighting": True},
    **{"train_sampling_strategy": "sequential"},
}


def untouched(config):
    return config(**CPU)


def odd_value(name, default):
    """Some value that a field does not have by default."""
    if name == "lr_scheduler_type":
        return SchedulerType.COSINE
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    return "odd"


def with_value(config, name, value):
    args = copy.copy(untouched(config))
    setattr(args, name, value)
    return args


@pytest.mark.parametrize("config", FATES)
def test_every_field_of_the_installed_version_is_known(config):
    names = {each.name for each in fields(config)}
    assert names - FATES[config].keys() == set(), "a new field: look at what it does to a federated run"
    assert FATES[config].keys() - names == set(), "a field that is gone"
    assert all(isinstance(fate, Passed | Elsewhere | Refused | NoEffect) for fate in FATES[config].values())


@pytest.mark.parametrize("config", FATES)
def test_what_is_refused_is_refused_in_a_line_that_says_what_to_do(config):
    for name, fate in FATES[config].items():
        if not isinstance(fate, Refused):
            continue
        default = getattr(untouched(config), name)
        if (odd := odd_value(name, default)) not in fate.kept:
            with pytest.raises(ConfigError, match=rf"^{name}[= ].*cannot be honoured in a federated run; ") as caught:
                check_client_args(with_value(config, name, odd))
            assert "\n" not in str(caught.value)
        for kept in fate.kept:
            check_client_args(with_value(config, name, kept), given={name})
        if default not in fate.kept:
            with pytest.raises(ConfigError, match=name):  # the default is somebody's word, where it is known to be
                check_client_args(untouched(config), given={name})


@pytest.mark.parametrize("config", FATES)
def test_what_is_passed_on_is_never_refused_by_the_table(config):
    default = untouched(config)
    for name, fate in FATES[config].items():
        if not isinstance(fate, Refused):
            value = odd_value(name, getattr(default, name))
            check_fates(with_value(config, name, value), FATES[config], default=default, given={name})


def test_a_token_is_never_shown():
    with pytest.raises(ConfigError, match="hub_token is given") as caught:
        check_client_args(with_value(SFTConfig, "hub_token", "hf_secret"))
    assert "hf_secret" not in str(caught.value)


def test_what_a_subclass_adds_is_its_own():
    @dataclass
    class Mine(SFTConfig):
        note: str = ""

    check_client_args(Mine(note="x", **CPU))
    with pytest.raises(ConfigError, match="max_steps=3"):
        check_client_args(Mine(max_steps=3, **CPU))


def test_a_field_of_a_newer_version_is_refused_where_it_is_set():
    fates = {name: fate for name, fate in FATES[SFTConfig].items() if name != "optim"}
    check_fates(untouched(SFTConfig), fates, default=untouched(SFTConfig))
    with pytest.raises(ConfigError, match="newer SFTConfig"):
        check_fates(with_value(SFTConfig, "optim", "sgd"), fates, default=untouched(SFTConfig))


@pytest.mark.parametrize("config", FATES)
def test_every_field_that_is_passed_on_is_looked_at_below(config):
    passed = {name for name, fate in FATES[config].items() if isinstance(fate, Passed)}
    assert passed <= VALUES[config].keys() | WITHOUT_TRAINING.keys()
    assert VALUES[config].keys() <= passed
    for name in passed & WITHOUT_TRAINING.keys() - {"activation_offloading", "fp16"}:
        if name in VALUES[config] or (config is KTOConfig and name == "train_sampling_strategy"):
            continue
        if config is DPOConfig and name in ("padding_free", "loss_type", "use_weighting"):
            continue  # `check_objective` knows these
        value = WITHOUT_TRAINING[name]
        if name in ("optim_args", "f_alpha_divergence_coef"):
            check_fates(with_value(config, name, value), FATES[config], default=untouched(config))
            continue
        made = resident_args(with_value(config, name, value), local_steps=1, workspace="w")
        assert getattr(made, name) == value, name


@pytest.mark.parametrize("config", FATES)
def test_what_is_passed_on_reaches_the_trainer_that_clients_train_with(kit, tmp_path, monkeypatch, config):
    seen = []

    def spy(*args, **kwargs):
        seen.append(build(*args, **kwargs))
        return seen[-1]

    build = resident.build_trainer
    monkeypatch.setattr(resident, "build_trainer", spy)
    FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(tmp_path / "run"), num_rounds=1, cohort_size=1, local_steps=1),
        kit.make_clients("sft" if config is SFTConfig else "preference", {"ann": 4}),
        config(learning_rate=1e-3, **VALUES[config]),
        kit.lora(lora_dropout=0.1),
        tokenizer=kit.make_tokenizer(),
    ).train()
    (trainer,) = seen
    assert {name: getattr(trainer.args, name) for name in VALUES[config]} == VALUES[config]
    assert trainer.args.learning_rate == 1e-3
    assert trainer.model.config.use_cache is True
    if config is not SFTConfig:  # the model itself: TRL switches dropout off unless it is told to leave it
        assert {m.p for m in trainer.model.modules() if isinstance(m, kit.torch.nn.Dropout)} == {0.1}


@pytest.mark.parametrize("config", FATES)
def test_what_is_passed_on_is_read_from_the_command_line(config, tmp_path):
    flags = []
    for name, value in (VALUES[config] | {"include_num_input_tokens_seen": True}).items():  # TRL makes "all" of it
        flags += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    given = ["--data", "d", "--model", "m", "--output_dir", str(tmp_path), *flags]
    client = parse_run_arguments(TASKS[config], given).client
    assert {name: getattr(client, name) for name in VALUES[config]} == VALUES[config]


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        (SFTConfig, {"fp16": True}, "fp16=True cannot be honoured on a CPU"),
        (SFTConfig, {"activation_offloading": True}, "training runs on a CPU"),
        (SFTConfig, {"optim": "adamw_8bit"}, "needs a package"),
        (DPOConfig, {"train_sampling_strategy": "group_by_length"}, "looks for input_ids"),
        (DPOConfig, {"label_smoothing_factor": 0.1}, "losses of preferences do not look at it"),
        (DPOConfig, {"f_alpha_divergence_coef": 0.3}, "f_divergence_type alpha_divergence"),
    ],
)
def test_what_this_machine_or_this_loss_cannot_do_is_refused(config, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        check_client_args(config(**CPU | changes))


def test_what_both_configs_say_in_the_same_words_is_no_contradiction(kit, tmp_path):
    run = str(tmp_path / "run")

    def trainer(seed, **changes):
        return FederatedTrainer(
            kit.make_model(), FederatedConfig(output_dir=run, seed=7, cohort_size=2), kit.make_clients(),
            kit.trl_args("sft", seed=seed, **changes), kit.lora(), tokenizer=kit.make_tokenizer(),
        )  # fmt: skip

    assert trainer(7, output_dir=run, report_to="none").args.seed == 7
    with pytest.raises(ConfigError, match="seed=8 cannot be honoured in a federated run; use seed of FederatedConfig"):
        trainer(8)
    with pytest.raises(ConfigError, match="the run folder is output_dir of FederatedConfig"):
        trainer(7, output_dir=str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("task", "client", "federated", "reason"),
    [
        ("sft", {"assistant_only_loss": True}, {"loss_on": "all"}, "contradict each other"),
        ("sft", {"per_device_eval_batch_size": 2}, {}, "give eval_every too"),
        ("sft", {"completion_only_loss": True}, {}, "use loss_on of FederatedConfig"),
        ("sft", {"dataset_text_field": "question"}, {}, "dataset_text_field='question'"),
        ("dpo", {}, {"loss_on": "assistant"}, "loss_on is given, and preference tuning"),
        ("dpo", {}, {"sft_kernel": "auto"}, "sft_kernel is given, and preference tuning"),
        ("dpo", {"precompute_ref_batch_size": 2}, {"reference_cache": False}, "reference_cache is off"),
    ],
)
def test_what_the_two_configs_say_together_is_refused_where_one_would_be_lost(
    kit, tmp_path, task, client, federated, reason
):
    with pytest.raises(ConfigError, match=reason):
        FederatedTrainer(
            "no/model",
            FederatedConfig(output_dir=str(tmp_path / "run"), **federated),
            kit.make_clients("sft" if task == "sft" else "preference"),
            kit.trl_args(task, **client),
        )


def test_assistant_only_loss_is_what_a_run_does(kit, tmp_path):
    def loss(name, **changes):
        trainer = FederatedTrainer(
            kit.make_model(),
            FederatedConfig(output_dir=str(tmp_path / name), num_rounds=1, cohort_size=1, local_steps=1),
            kit.make_clients(), replace(kit.trl_args("sft"), **changes), kit.lora(), tokenizer=kit.make_tokenizer(),
        )  # fmt: skip
        trainer.train()
        return kit.records_of(trainer.run)[0]["train_loss"]

    assert loss("asked", assistant_only_loss=True) == loss("not_asked")
