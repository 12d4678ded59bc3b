"""The TRL settings of a trainer that is kept for the whole run, and those that must be refused.

A resident trainer owns its number of steps, its schedule, its logging and its saving. A value of the user's that would
be ignored is refused, and the error names the setting to use instead (design rule 8): `fates/client_settings.py` says
what becomes of every field.
"""

import copy
import logging
from collections.abc import Collection

import torch
from transformers import Trainer
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_data.schema import Task
from fedllm_train.clients.number_checks import check_numbers
from fedllm_train.clients.objectives import ClientArgs, check_objective, objective_of
from fedllm_train.fates.client_settings import DPO_FATES, KTO_FATES, SFT_FATES
from fedllm_train.fates.fate import Fate, check_fates

__all__ = ["FATES", "RESIDENT_FIELDS", "check_client_args", "default_client_args", "resident_args", "untouched_args"]

logger = logging.getLogger(__name__)

RESIDENT_FIELDS = (
    *(
        "output_dir",
        "max_steps",
        "lr_scheduler_type",
        "save_strategy",
        "logging_strategy",
        "report_to",
        "disable_tqdm",
    ),
    *("assistant_only_loss", "dataloader_pin_memory", "seed"),
)
"""TRL's settings that a trainer which stays has of its own, or of the run."""

FATES: dict[type[ClientArgs], dict[str, Fate]] = {SFTConfig: SFT_FATES, DPOConfig: DPO_FATES, KTOConfig: KTO_FATES}
"""Config -> what becomes of its fields."""


def check_client_args(client_args: ClientArgs, *, given: Collection[str] = (), flag: str = "") -> None:
    """Refuse settings that a federated run cannot honour, or that fail on this machine in the first step.

    Args:
        client_args: TRL's settings.
        given: fields that were set explicitly, even to TRL's default; only a command line or a file can tell.
        flag: the prefix of a field's name there.

    Raises:
        ConfigError: naming the setting and what to use instead.
    """
    check_objective(client_args)
    kind = objective_of(client_args).config
    check_fates(client_args, FATES[kind], default=untouched_args(client_args), given=given, flag=flag)
    check_numbers(client_args, flag=flag)
    on_cpu = client_args.device.type == "cpu"
    if on_cpu and client_args.fp16:
        raise ConfigError(
            f"{flag}fp16=True cannot be honoured on a CPU, where training would run in float32; leave it out, or "
            "train on a GPU"
        )
    if on_cpu and client_args.activation_offloading:
        raise ConfigError(
            f"{flag}activation_offloading=True moves activations from a GPU to the CPU, and training runs on a CPU; "
            "leave it out"
        )
    if client_args.train_sampling_strategy == "group_by_length" and kind is not SFTConfig:
        raise ConfigError(
            f"{flag}train_sampling_strategy='group_by_length' looks for input_ids, which rows of {kind.__name__} do "
            "not have; leave it out"
        )
    try:
        Trainer.get_optimizer_cls_and_kwargs(client_args)
    except ImportError as error:
        raise ConfigError(
            f"{flag}optim={client_args.optim!s} needs a package: {' '.join(str(error).split())}"
        ) from error
    except ValueError as error:
        # Some of them want to see the model, which is not there yet.
        logger.debug("optim=%s cannot be tried before the model is loaded: %s", client_args.optim, error)


def untouched_args(client_args: ClientArgs) -> ClientArgs:
    """Return TRL's own settings on the same device in the same precision, with everything else at its default.

    >>> untouched_args(SFTConfig(bf16=False, use_cpu=True, max_length=7)).max_length
    1024
    """
    same = {name: getattr(client_args, name) for name in ("use_cpu", "bf16", "fp16")}
    return objective_of(client_args).config(**same)


def resident_args(client_args: ClientArgs, *, local_steps: int, workspace: str) -> ClientArgs:
    """Return a copy of the client's TRL settings for a trainer that is kept for the whole run.

    Raises:
        ConfigError: for a setting that a federated run cannot honour.
    """
    check_client_args(client_args)
    args = copy.copy(client_args)
    args.output_dir = workspace
    args.max_steps = local_steps
    args.lr_scheduler_type = SchedulerType.CONSTANT
    args.save_strategy = SaveStrategy.NO
    args.logging_strategy = IntervalStrategy.NO
    args.report_to = []
    args.disable_tqdm = True
    # The trainer would look for generation marks in the template; rows bring their mask (`clients/token_cache.py`).
    if isinstance(args, SFTConfig):
        args.assistant_only_loss = False
    if args.device.type == "cpu":
        args.dataloader_pin_memory = False  # means nothing without an accelerator, and torch warns about it
    if args.bf16 and args.device.type == "cpu":
        # TRL's default, meant for GPUs. SmolLM2-135M: over 100 s a step against 3 s in float32, on two cores.
        logger.warning("bf16 is on and training runs on a CPU, where it can be thirty times slower; pass bf16=False")
    return args


def default_client_args(task: Task) -> SFTConfig | DPOConfig:
    """Return TRL's own defaults for a task; on a machine without an accelerator, in float32."""
    precision = {} if torch.cuda.is_available() else {"bf16": False}
    return (SFTConfig if task == "sft" else DPOConfig)(**precision)
