"""From a command line to settings: our flags (`flags.py`) beside every flag of TRL's configs, parsed by TRL's parser.

Imports TRL, so it is imported only once a command really runs and `flags.py` has found nothing wrong.
"""

import argparse
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import torch
from peft import PeftConfig
from trl import ModelConfig, TrlParser

from fedllm_data.command_line.one_line_parser import DashedHelp, check_choice
from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import OBJECTIVES, ClientArgs
from fedllm_train.clients.resident_args import RESIDENT_FIELDS, check_client_args
from fedllm_train.config import FederatedConfig, RunInput
from fedllm_train.fates.adapter_settings import MODEL_FATES
from fedllm_train.fates.fate import Refused, check_fates
from fedllm_train.flag_fields import TASK_FATES
from fedllm_train.flags import OurFlags, parse_our_flags
from fedllm_train.models.base_settings import init_kwargs_of_flags
from fedllm_train.models.peft_kinds import check_given, peft_config
from fedllm_train.models.quantization import missing_for_quantization, quantization_config
from fedllm_train.presets import PRESETS

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


class _Help(DashedHelp, argparse.ArgumentDefaultsHelpFormatter):
    """Dashes, and TRL's habit of naming defaults."""


_WIDEST_CHOICES = 34
_BOTH_SPELLINGS = re.compile(r"^argument --\w+/(?=--)")


class _Parser(TrlParser):
    """TRL's parser, which knows each flag with underscores and with dashes; shown are the dashes."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{_BOTH_SPELLINGS.sub('argument ', message)}; --help-all lists all flags")

    def format_flags(self, task: str, hidden: Collection[str]) -> str:
        """Return the help of the flags alone, short metavars instead of TRL's, without what is hidden."""
        kinds = {int: "N", float: "X"}
        for action in self._actions:
            if action.dest in (*hidden, "help") or any(flag.startswith("--no-") for flag in action.option_strings):
                action.help = argparse.SUPPRESS
            elif action.choices is not None and len(shown := ",".join(map(str, action.choices))) > _WIDEST_CHOICES:
                action.metavar = "WHICH"
                action.help = f"{action.help or ''} One of {shown.replace(',', ', ')}."
            elif action.choices is None:
                is_switch = action.nargs == "?" and action.const is True
                last = action.dest.rpartition("_")[2].upper()
                action.metavar = "{true,false}" if is_switch else kinds.get(action.type, last)  # type: ignore[arg-type]
        self.usage = f"fedllm-train {task} ... [flags of TRL and PEFT]"
        return self.format_help()

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        check_choice(action, value)


def parse_run_arguments(task: str, argv: Sequence[str], *, flags: OurFlags | None = None) -> RunArguments:
    """Return the settings of a run.

    Args:
        task: "sft", "dpo" or "kto".
        argv: the flags after the subcommand.
        flags: what `parse_our_flags` made of them, if that was asked already.

    Raises:
        ConfigError: for a flag or value that cannot be used.
    """
    flags = flags or parse_our_flags(task, argv)
    given, federated, run, theirs = flags.given, flags.federated, flags.run, list(flags.rest)
    defaults = dict(flags.defaults) | _changed_by_run(task, flags)
    if not torch.cuda.is_available() and not given & {"bf16", "fp16"} and "bf16" not in defaults:
        theirs += ["--bf16", "False"]  # TRL's default of True needs a GPU
    notes = ()
    if federated.preset in PRESETS and not flags.of_run:
        eight_bits, notes = _of_int8(federated.preset)
        defaults = eight_bits | defaults
    parser = _parser(task)
    unknown = parser.set_defaults_with_config(**defaults)
    assert not unknown, f"{unknown} passed the check of names and is no flag"
    try:
        client, model = parser.parse_args_and_config(theirs)
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
            f"--assistant-only-loss {client.assistant_only_loss} is given, and loss_on is {federated.loss_on}; leave "
            "it out, and give --loss-on"
        )
    client.model_init_kwargs = init_kwargs_of_flags(client, model, given)
    return RunArguments(
        given=run,
        federated=federated,
        client=client,
        peft=None if run.adapter is not None or federated.full_finetuning else peft_config(run, model),
        quantization=quantization_config(model),
        revision=None if model.model_revision == "main" else model.model_revision,
        notes=notes + _lost_of_preset(run, federated, flags.preset),
    )


def print_all_flags(task: str) -> None:
    """Print the help of every flag of TRL's and PEFT's that a federated run can honour; ours are in the other help."""
    refused = {name for name, fate in (TASK_FATES[task] | MODEL_FATES).items() if isinstance(fate, Refused)}
    ours = {each.name for each in (*fields(FederatedConfig), *fields(RunInput))}
    print(f"\n{_parser(task).format_flags(task, refused | ours)}", end="")


def _parser(task: str) -> _Parser:
    return _Parser(
        [OBJECTIVES[task].config, ModelConfig],
        prog=f"fedllm-train {task}",
        conflict_handler="resolve",
        allow_abbrev=False,
        formatter_class=_Help,
    )


def _changed_by_run(task: str, flags: OurFlags) -> dict[str, Any]:
    """TRL's settings of a run's `config.yaml` that differ from TRL's own defaults."""
    if not flags.of_run:
        return {}
    usual = json.loads(OBJECTIVES[task].config(bf16=False, use_cpu=True).to_json_string())
    kept = {"bf16", "use_cpu"} & flags.of_run.keys()
    return {
        name: value
        for name, value in flags.of_run.items()
        if name in kept or (name in usual and name not in RESIDENT_FIELDS and value != usual[name])
    }


def _of_int8(preset: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return how a preset loads the base, and what of that cannot be had."""
    if not PRESETS[preset].int8:
        return {}, ()
    if (missing := missing_for_quantization()) is None:
        return {"load_in_8bit": True}, ()
    return {}, (f"preset {preset} loads the base model in 8 bit, and {missing}: it is loaded in full precision",)


def _lost_of_preset(run: RunInput, federated: FederatedConfig, preset: Mapping[str, Any]) -> tuple[str, ...]:
    """What a preset says of LoRA where no LoRA adapter is made, one sentence."""
    reason = None
    if run.adapter is not None:
        reason = f"adapter {run.adapter!r} brings its own settings"
    elif federated.full_finetuning:
        reason = "full_finetuning trains no adapter"
    elif run.peft_type not in ("lora", "dora", "rslora"):
        reason = f"peft_type {run.peft_type} has no LoRA factors"
    lost = [name for name in preset if name.startswith("lora_")]
    if reason is None or not lost:
        return ()
    return (f"preset {federated.preset} sets {', '.join(lost)}, and {reason}: they are left out",)
