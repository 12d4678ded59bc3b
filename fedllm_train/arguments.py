"""From a command line to settings: our flags beside every flag of TRL's configs, parsed by TRL's own parser.

`--config FILE.yaml` works as in `trl sft`: the file gives defaults that flags override. Imports TRL, so it is imported
only once a command really runs; the help of our own flags is made from `config.py`, which does not.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import torch
from peft import PeftConfig
from trl import ModelConfig, TrlParser

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import OBJECTIVES, ClientArgs
from fedllm_train.clients.resident_args import check_client_args
from fedllm_train.config import FederatedConfig, RunInput
from fedllm_train.fates.adapter_settings import MODEL_FATES
from fedllm_train.fates.fate import check_fates
from fedllm_train.given import given_flags, given_in_file, with_given
from fedllm_train.models.base_settings import init_kwargs_of_flags
from fedllm_train.models.peft_kinds import check_given, peft_config
from fedllm_train.models.quantization import missing_for_quantization, quantization_config
from fedllm_train.presets import DECISIVE, PRESETS, preset_defaults

__all__ = ["RunArguments", "parse_run_arguments", "print_all_flags"]


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Everything one `fedllm-train sft`, `dpo` or `kto` was told."""

    given: RunInput
    federated: FederatedConfig
    client: ClientArgs
    peft: PeftConfig | None
    """None when the run starts from an adapter, which brings its own settings, or trains all weights."""
    revision: str | None
    quantization: Any = None
    """Of the base model: a `BitsAndBytesConfig`, or None."""
    notes: tuple[str, ...] = ()
    """What a preset asks for and cannot have here, one sentence each."""


class _SharedNamespace(argparse.Namespace):
    """Lets two dataclasses name one flag: the first takes the value, the second keeps its default."""

    def __delattr__(self, name: str) -> None:
        self.__dict__.pop(name, None)


class _Parser(TrlParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(args, namespace or _SharedNamespace())

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help-all lists all flags")


def parse_run_arguments(task: str, argv: Sequence[str]) -> RunArguments:
    """Return the settings of a run.

    Args:
        task: "sft", "dpo" or "kto".
        argv: the flags after the subcommand.

    Raises:
        ConfigError: for a flag or value that cannot be used.
    """
    argv = [*argv]
    given, values = _given(argv)
    if not torch.cuda.is_available() and not given & {"bf16", "fp16"}:
        argv += ["--bf16", "False"]  # TRL's default of True needs a GPU
    defaults, notes = _preset(task, values)
    parser = _parser(task)
    unknown = parser.set_defaults_with_config(**defaults)
    assert not unknown, f"a preset sets {unknown}, which no flag is called"
    try:
        federated, run, client, model = parser.parse_args_and_config(argv)
        federated = with_given(federated, given)
    except (ValueError, TypeError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = str(error).splitlines()[0].replace("by the HfArgumentParser", f"by fedllm-train {task}")
        raise ConfigError(f"{reason}; --help-all lists all flags") from error
    check_fates(model, MODEL_FATES, default=ModelConfig(), given=given, flag="--")
    check_given(run, federated, model, given)
    # output_dir, seed and report_to are the run's.
    check_client_args(client, given=given - {each.name for each in fields(FederatedConfig)}, flag="--")
    if "assistant_only_loss" in given and client.assistant_only_loss != (federated.loss_on == "assistant"):
        raise ConfigError(
            f"--assistant_only_loss {client.assistant_only_loss} is given, and loss_on is {federated.loss_on}; leave "
            "it out, and give --loss_on"
        )
    client.model_init_kwargs = init_kwargs_of_flags(client, model, given)
    return RunArguments(
        given=run,
        federated=federated,
        client=client,
        peft=None if run.adapter is not None or federated.full_finetuning else peft_config(run, model),
        quantization=quantization_config(model),
        revision=None if model.model_revision == "main" else model.model_revision,
        notes=notes + _lost_of_preset(run, federated, defaults),
    )


def print_all_flags(task: str) -> None:
    """Print the help of every flag, TRL's and PEFT's included."""
    _parser(task).print_help(sys.stdout)


def _parser(task: str) -> _Parser:
    # output_dir, seed and report_to stand in both FederatedConfig and TRL's config: the run's are meant. "resolve"
    # lets the flag be declared twice, and the first dataclass takes its value.
    parser = _Parser(
        [FederatedConfig, RunInput, OBJECTIVES[task].config, ModelConfig],
        prog=f"fedllm-train {task}",
        conflict_handler="resolve",
        allow_abbrev=False,
    )
    parser.set_defaults(seed=0, output_dir=None, report_to="none")
    return parser


def _given(argv: Sequence[str]) -> tuple[frozenset[str], dict[str, Any]]:
    """Return the names that flags and a `--config` file set, and of what decides about a preset the values."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in ("preset", "config", *DECISIVE):
        first.add_argument(f"--{name}", *([f"--{name.replace('_', '-')}"] if "_" in name else []))
    values = vars(first.parse_known_args(list(argv))[0])
    in_file = given_in_file(values.pop("config", None))
    return given_flags(argv) | frozenset(in_file), in_file | values


def _preset(task: str, given: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the defaults of the preset that is asked for, if any, and what of it cannot be had."""
    name = given.get("preset")
    if name is None:
        return {}, ()
    defaults = preset_defaults(name, task, given)
    if not PRESETS[name].int8:
        return defaults, ()
    if (missing := missing_for_quantization()) is None:
        return defaults | {"load_in_8bit": True}, ()
    return defaults, (f"preset {name} loads the base model in 8 bit, and {missing}: it is loaded in full precision",)


def _lost_of_preset(run: RunInput, federated: FederatedConfig, defaults: dict[str, Any]) -> tuple[str, ...]:
    """What a preset says of LoRA where no LoRA adapter is made, one sentence."""
    reason = None
    if run.adapter is not None:
        reason = f"adapter {run.adapter!r} brings its own settings"
    elif federated.full_finetuning:
        reason = "full_finetuning trains no adapter"
    elif run.peft_type not in ("lora", "dora", "rslora"):
        reason = f"peft_type {run.peft_type} has no LoRA factors"
    lost = [name for name in defaults if name.startswith("lora_")]
    if reason is None or not lost:
        return ()
    return (f"preset {federated.preset} sets {', '.join(lost)}, and {reason}: they are left out",)
