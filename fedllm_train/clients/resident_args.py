"""Which of TRL's settings a federation takes over, and which values it must refuse.

A resident trainer owns its number of steps, its schedule, its logging and its saving. A value of the user's that would
be ignored is refused instead, with the setting to use in its place (design rule 8).
"""

import copy
import logging
from dataclasses import fields
from typing import Any

import torch
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType
from trl import DPOConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_data.schema import Task
from fedllm_train.clients.objectives import ClientArgs, check_objective

__all__ = ["default_client_args", "resident_args"]

logger = logging.getLogger(__name__)

# Settings a resident trainer owns: what the user would have to use instead. A value that differs from TRL's default
# was meant, and could not be honoured.
_OWNED = {
    "max_steps": "local_steps",
    "num_train_epochs": "local_epochs",
    "warmup_steps": "nothing: the learning rate is constant inside a round",
    "warmup_ratio": "nothing: the learning rate is constant inside a round",
    "lr_scheduler_kwargs": "min_learning_rate, the floor of the cosine over rounds",
    "eval_strategy": "eval_every, or fedllm-eval after the run",
    "load_best_model_at_end": "load_best, with eval_every",
    "resume_from_checkpoint": "--resume, for the whole run",
    "push_to_hub": "push_to_hub() of the federated trainer",
    "shuffle_dataset": "nothing: a client's rows are shuffled in every round",
    "data_seed": "seed, from which every stream derives",
    "precompute_ref_log_probs": "reference_cache, which is on by default",
    "sync_ref_model": "nothing: the reference is fixed for the run",
    "deepspeed": "a single device",
    "fsdp": "a single device",
    "auto_find_batch_size": "per_device_train_batch_size",
}


def resident_args(client_args: ClientArgs, *, local_steps: int, workspace: str) -> ClientArgs:
    """Return a copy of the client's TRL settings for a trainer that is kept for the whole run.

    Raises:
        ConfigError: for a setting that a federated run cannot honour.
    """
    check_objective(client_args)
    defaults = {each.name: each.default for each in fields(client_args)}
    for name, instead in _OWNED.items():
        if name in defaults and _differs(getattr(client_args, name), defaults[name]):
            raise ConfigError(
                f"{name}={getattr(client_args, name)!r} cannot be honoured in a federated run; use {instead}"
            )
    if client_args.report_to not in ([], ["none"], "none", None):
        raise ConfigError(
            f"report_to={client_args.report_to!r} stands in the settings of a client, and would open a run per visit; "
            "give it to FederatedConfig"
        )
    scheduler = SchedulerType(client_args.lr_scheduler_type)
    if scheduler not in (SchedulerType(defaults["lr_scheduler_type"]), SchedulerType.CONSTANT):
        raise ConfigError(
            f"lr_scheduler_type={scheduler.value!r} cannot be honoured: the learning rate follows a cosine over "
            "rounds and is constant inside a round; leave it out"
        )
    args = copy.copy(client_args)
    args.output_dir = workspace
    args.max_steps = local_steps
    args.lr_scheduler_type = SchedulerType.CONSTANT
    args.save_strategy = SaveStrategy.NO
    args.logging_strategy = IntervalStrategy.NO
    args.report_to = []
    args.disable_tqdm = True
    # The trainer would look for generation marks in the template; the rows bring their mask (`clients/tokens.py`).
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


def _differs(value: Any, default: Any) -> bool:
    if not value and not default:  # TRL fills some defaults of None in with False, [] or {}
        return False
    return bool(getattr(value, "value", value) != default)
