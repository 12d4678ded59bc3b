"""What a Python user passes to `FederatedTrainer` becomes what it works with; all is checked before a model loads.

TRL's habits are taken where their meaning is plain: `train_dataset`, `processing_class`, `quantization_config`, a
`PeftModel`, the `peft_config` of one, a path, `model_init_kwargs`, a strategy's class. Everything else ends in one
line that says what to pass.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_train.client_inputs import as_clients
from fedllm_train.clients.memory_fit import MemoryFit, goes_by_memory, memory_fit
from fedllm_train.clients.objectives import OBJECTIVES, ClientArgs, objective_of
from fedllm_train.clients.resident_args import check_client_args, default_client_args, untouched_args
from fedllm_train.config import FederatedConfig
from fedllm_train.field_types import kind_of, refuse_text_for_numbers
from fedllm_train.given import given_of
from fedllm_train.models.base_settings import BaseSettings, base_settings
from fedllm_train.models.model_inputs import model_and_adapter
from fedllm_train.monitoring.observer import Observer

__all__ = ["TrainerInputs", "asks_to_resume", "check_options", "federation_args", "fit_of", "read_inputs"]

_SAME_AS = {"train_dataset": "clients", "processing_class": "tokenizer", "quantization_config": "quantization"}
"""TRL's name -> ours."""
_OF_TRL = {
    "ref_model": "the reference is the policy the run starts from; adapter= names another one",
    "data_collator": "rows are collated as TRL's trainers do by default",
    "formatting_func": "clients' rows are messages; format them before they are passed",
    "compute_metrics": "eval_every scores during the run, and evaluate() after it",
    "preprocess_logits_for_metrics": "eval_every scores during the run, and evaluate() after it",
    "compute_loss_func": "loss_type of client_args chooses the loss",
    "optimizers": "optim of client_args chooses the optimizer, which starts afresh at every visit",
    "optimizer_cls_and_kwargs": "optim and optim_args of client_args choose the optimizer",
    "model_init": "the model is loaded once; pass it as model",
    "reward_funcs": "clients train with SFT, DPO or KTO",
}
"""What TRL's trainers take and a federated one does not -> why; None is taken, which is TRL's default."""


@dataclass(frozen=True, kw_only=True)
class TrainerInputs:
    """What `FederatedTrainer` works with."""

    model: str | PreTrainedModel | PeftModel
    args: FederatedConfig
    clients: ClientDataset
    client_args: ClientArgs
    peft_config: PeftConfig | None
    adapter: str | None
    tokenizer: Any
    base: BaseSettings
    eval_dataset: ClientDataset | None
    callbacks: Sequence[Callable[[dict[str, Any]], None]]


def read_inputs(given: Mapping[str, Any]) -> TrainerInputs:
    """Return the inputs of a trainer, each of the kind it must have.

    Args:
        given: what `FederatedTrainer` was called with, by name; TRL's names are allowed beside ours.

    Raises:
        ConfigError: with what to pass instead.
        SchemaError: if a folder or Hub id given as clients is no client repo.
    """
    given = _in_our_words(given)
    args = federation_args(given["args"])
    model, peft_config = model_and_adapter(given["model"], given["peft_config"], given["adapter"])
    callbacks = _callbacks(given["callbacks"])
    tokenizer = given["tokenizer"]
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        remedy = "pass its tokenizer" if hasattr(tokenizer, "tokenizer") else "pass AutoTokenizer.from_pretrained(...)"
        raise ConfigError(f"tokenizer (processing_class) is {kind_of(tokenizer)}; {remedy}")
    client_args = given["client_args"]
    if client_args is not None:
        _check_kind_of_client_args(client_args)
        refuse_text_for_numbers(client_args)
        client_args = _agreeing(client_args, args)
        check_client_args(client_args)
    if given["clients"] is None:
        raise ConfigError("clients is not given; pass load_clients(...), or a dict of datasets by client id")
    clients = as_clients(given["clients"])
    if client_args is None:
        client_args = default_client_args(clients.task)
    objective = objective_of(client_args)
    if clients.task != objective.rows:
        raise ConfigError(
            f"dataset {clients.name!r} holds {clients.task} rows, which {objective.name} cannot train on; use "
            f"{'DPOConfig or KTOConfig, or an sft' if objective.rows == 'sft' else 'a preference'} dataset"
        )
    _check_together(client_args, args)
    eval_dataset = given["eval_dataset"]
    if eval_dataset is not None:
        if args.eval_every is None:
            raise ConfigError("eval_dataset is given, and nothing is scored during the run; give eval_every too")
        eval_dataset = as_clients(eval_dataset, name="eval_dataset", split=args.eval_split)
    said = BaseSettings(**{name: given[name] for name in ("revision", "trust_remote_code", "quantization")})
    base = base_settings(
        client_args,
        said,
        is_loaded=not isinstance(model, str),
        full_finetuning=args.full_finetuning,
    )
    if client_args.model_init_kwargs != (base.init_kwargs or None):
        client_args = copy.copy(client_args)
        client_args.model_init_kwargs = base.init_kwargs or None
    return TrainerInputs(
        model=model,
        args=args,
        clients=clients,
        client_args=client_args,
        peft_config=peft_config,
        adapter=given["adapter"] if given["adapter"] is None else str(given["adapter"]),
        tokenizer=tokenizer,
        base=base,
        eval_dataset=eval_dataset,
        callbacks=callbacks,
    )


def fit_of(inputs: TrainerInputs) -> MemoryFit | None:
    """Return what training needs of a client's memory, where a setting goes by it.

    Raises:
        ConfigError: if that cannot be known before the model is loaded.
    """
    if not goes_by_memory(inputs.args):
        return None
    if inputs.adapter is not None:
        raise ConfigError(
            f"adapter {inputs.adapter!r} brings its own settings, so what training needs of a client's memory is not "
            "known beforehand; start from a fresh adapter, or take column:NAME instead of memory"
        )
    return memory_fit(
        inputs.model,
        inputs.peft_config,
        inputs.client_args,
        task=objective_of(inputs.client_args).name,
        quantization=inputs.base.quantization,
        dtype=inputs.base.init_kwargs.get("dtype"),
    )


def federation_args(args: Any) -> FederatedConfig:
    """Return the settings of the federation.

    Raises:
        ConfigError: if they are of another type.
    """
    if not isinstance(args, FederatedConfig):
        trl = " TRL's settings are client_args;" if isinstance(args, (SFTConfig, DPOConfig, KTOConfig)) else ""
        raise ConfigError(f"args is {kind_of(args)};{trl} pass args=FederatedConfig(output_dir=...)")
    return args


def asks_to_resume(resume_from_checkpoint: Any, *, run: Path, resume: bool) -> bool:
    """Return whether to resume a run, whether that was asked for in TRL's way or in ours.

    Args:
        resume_from_checkpoint: TRL's argument; a path must be that of the run folder or of a checkpoint in it, since a
            run goes on in its own folder, from its newest checkpoint.
        run: the run folder.
        resume: our own argument.

    Raises:
        ConfigError: if the path lies elsewhere.

    >>> asks_to_resume("runs/a/checkpoints", run=Path("runs/a"), resume=False)
    True
    """
    if resume_from_checkpoint is None or isinstance(resume_from_checkpoint, bool):
        return bool(resume_from_checkpoint) or resume
    path = Path(resume_from_checkpoint).resolve()
    if run.resolve() not in (path, *path.parents):
        raise ConfigError(
            f"resume_from_checkpoint is {str(resume_from_checkpoint)!r}, and a run goes on in its own folder, from "
            f"its newest checkpoint; pass True, and that folder as output_dir (it is {str(run)!r})"
        )
    return True


def check_options(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse options that a function does not take, before it does anything.

    Args:
        name: the method that passes them on.
        function: receives them.
        options: the options by name.

    Raises:
        ConfigError: naming the first such option and the options that exist.
    """
    known = [each.name for each in inspect.signature(function).parameters.values() if each.default is not each.empty]
    if odd := [each for each in options if each not in known]:
        raise ConfigError(f"{name} takes no {odd[0]}; its options are {', '.join(known)}")


def _in_our_words(given: Mapping[str, Any]) -> dict[str, Any]:
    ours = {name: value for name, value in given.items() if name not in _SAME_AS and name not in _OF_TRL}
    if odd := [name for name in ours if name not in _KNOWN]:
        raise ConfigError(f"FederatedTrainer takes no {odd[0]}; it takes {', '.join(_KNOWN)}")
    for name, reason in _OF_TRL.items():
        value = given.get(name)
        if value is not None and value != (None, None):
            raise ConfigError(f"{name} is given and cannot be honoured in a federated run: {reason}; leave it out")
    for name, same in _SAME_AS.items():
        if given.get(name) is None:
            continue
        if ours[same] is not None:
            raise ConfigError(f"{name} and {same} mean the same and are both given; pass one of them")
        ours[same] = given[name]
    return ours


_KNOWN = (
    *("model", "args", "clients", "client_args", "peft_config", "adapter", "tokenizer", "revision"),
    *("trust_remote_code", "quantization", "eval_dataset", "callbacks"),
)


def _check_kind_of_client_args(client_args: Any) -> None:
    if isinstance(client_args, tuple(each.config for each in OBJECTIVES.values())):
        return
    ours = "; a FederatedConfig goes to args" if isinstance(client_args, FederatedConfig) else ""
    lora = "; an adapter's settings go to peft_config" if isinstance(client_args, PeftConfig) else ""
    raise ConfigError(
        f"client_args is {kind_of(client_args)}; pass TRL's SFTConfig, DPOConfig or KTOConfig, or nothing for TRL's "
        f"defaults{ours}{lora}"
    )


def _agreeing(client_args: ClientArgs, args: FederatedConfig) -> ClientArgs:
    """The client's settings, in which what the federation says too, and in the same words, counts as not given."""
    untouched = untouched_args(client_args)
    same = {}
    if client_args.output_dir is not None and Path(client_args.output_dir) == Path(args.output_dir):
        same["output_dir"] = untouched.output_dir
    if client_args.seed == args.seed:
        same["seed"] = untouched.seed
    if client_args.report_to in (args.report_to, [args.report_to]):
        same["report_to"] = untouched.report_to
    if not same:
        return client_args
    agreed = copy.copy(client_args)
    for name, value in same.items():
        setattr(agreed, name, value)
    return agreed


def _check_together(client_args: ClientArgs, args: FederatedConfig) -> None:
    """Refuse what the other config leaves nothing to do for."""
    objective = objective_of(client_args)
    of_others = {"preference_kernel": "trl"} if objective.name == "sft" else {"loss_on": None, "sft_kernel": "trl"}
    for name, anyway in of_others.items():
        if name in given_of(args) and getattr(args, name) != anyway:
            raise ConfigError(f"{name} is given, and {objective.title} does not look at it; leave it out")
    if isinstance(client_args, SFTConfig) and client_args.assistant_only_loss and args.loss_on == "all":
        raise ConfigError("assistant_only_loss=True and loss_on='all' contradict each other; leave one of them out")
    evaluates = args.eval_every is not None
    if (
        not evaluates
        and client_args.per_device_eval_batch_size != untouched_args(client_args).per_device_eval_batch_size
    ):
        raise ConfigError(
            f"per_device_eval_batch_size={client_args.per_device_eval_batch_size} is given, and nothing is scored "
            "during the run; give eval_every too, or leave it out"
        )
    if getattr(client_args, "precompute_ref_batch_size", None) is not None and not args.reference_cache:
        raise ConfigError(
            "precompute_ref_batch_size is given, and reference_cache is off, so nothing is computed before the steps; "
            "leave one of them out"
        )


def _callbacks(callbacks: Any) -> Sequence[Callable[[dict[str, Any]], None]]:
    if callbacks is None:
        return ()
    if callable(callbacks) and not isinstance(callbacks, type):
        callbacks = [callbacks]
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ConfigError(f"callbacks is {kind_of(callbacks)}; pass a list of functions of a round's record")
    for each in callbacks:
        if isinstance(each, Observer):
            continue
        of_trainer = isinstance(each, TrainerCallback) or (
            isinstance(each, type) and issubclass(each, TrainerCallback)
        )
        if of_trainer:
            name = each.__name__ if isinstance(each, type) else type(each).__name__
            raise ConfigError(
                f"callbacks has the TrainerCallback {name}, which follows the steps of one trainer, and a run has "
                "rounds; pass a function that takes a round's record (early_stopping_patience and load_best stop and "
                "choose)"
            )
        if not callable(each) or not _takes_one(each):
            raise ConfigError(
                f"callbacks has {kind_of(each)}; pass functions that take one argument, a round's record"
            )
    return tuple(callbacks)


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind({})
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True
