"""A run's spec as a JSON object and back, so that a worker needs to trust nothing that it cannot check.

What travels is numbers, names and small lists. What names a path, a module or code does not: the base model is the
worker's own, and `trust_remote_code` its own flag. Either end refuses a setting that cannot travel, by name. A
starting adapter travels as tensors, beside the spec.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from enum import Enum
from typing import Any

import torch
from peft import PeftConfig
from peft.utils import PeftType
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train.clients.local_work import LocalWork
from fedllm_train.clients.objectives import ClientArgs
from fedllm_train.clients.resident_args import FATES, check_client_args, untouched_args
from fedllm_train.clients.run_spec import RunSpec
from fedllm_train.fates.fate import Elsewhere, Passed, differs
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.models.policy import PolicySource
from fedllm_train.privacy.row_privacy import RowPrivacy
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec
from fedllm_train.strategies import STRATEGIES, strategy_class
from fedllm_train.strategy import Federation

__all__ = ["SPEC_FIELDS", "check_peft_text", "peft_text", "read_row_privacy", "read_spec", "read_work", "spec_text"]

SPEC_FIELDS = tuple(each.name for each in fields(RunSpec))
"""Every field of a spec has a key of its name."""

_CONFIGS: dict[str, type[ClientArgs]] = {each.__name__: each for each in (SFTConfig, DPOConfig, KTOConfig)}
_STAYS_HERE = {
    "accelerator_config": "it may name a file",
    "chat_template_path": "it names a file; save the template beside the base model",
    "liger_kernel_config": "it names code",
    "model_init_kwargs": "",  # travels as the policy's init_kwargs
    "torch_compile_backend": "it names code",
    "trust_remote_code": "every worker says for itself whether code that comes with a model may run",
}
"""TRL's settings that a worker does not take from a message -> why; nothing where they travel elsewhere."""
_INIT_KWARGS = ("dtype", "attn_implementation")
_OWN_PEFT = ("base_model_name_or_path", "inference_mode", "peft_version", "revision")
"""PEFT's settings that every machine has of its own."""
_CODE_PEFT = ("auto_mapping", "megatron_core")
"""PEFT's settings that name code."""
_FEDERATION = ("seed", "num_clients", "cohort_size", "has_fixed_steps", "is_private", "is_asynchronous")


def spec_text(spec: RunSpec, client_ids: frozenset[str] | None = None) -> dict[str, Any]:
    """Return a spec as a JSON object.

    Args:
        spec: the run's spec.
        client_ids: the clients of the worker that it is for; ranks and layers of others are left out. None for all.

    Raises:
        ConfigError: naming a setting that cannot be sent.
    """
    if spec.strategy not in STRATEGIES:
        raise ConfigError(f"strategy {spec.strategy!r} is none of the project's own, and code does not travel")
    federation = spec.federation
    dealt = {
        name: {
            key: value for key, value in getattr(federation, name).items() if client_ids is None or key in client_ids
        }
        for name in ("ranks", "layers")
    }
    made = {
        "strategy": spec.strategy,
        "federation": {name: getattr(federation, name) for name in _FEDERATION}
        | {"settings": _plain_fields(federation.settings)}
        | dealt,
        "seed": spec.seed,
        "wire": _plain_fields(spec.wire),
        "client_args": _args_text(spec.client_args),
        "work": asdict(spec.work),
        "loss_on": spec.loss_on,
        "reference_cache": spec.reference_cache,
        "kernel": spec.kernel,
        "policy": _policy_text(spec.policy),
        "template_date": spec.template_date,
        "sums": None if spec.sums is None else asdict(spec.sums),
        "digests": dict(spec.digests),
        "versions": dict(spec.versions),
        "rows": None if spec.rows is None else asdict(spec.rows),
    }
    try:
        json.dumps(made, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the run's settings cannot be sent to other machines: {error}") from error
    return made


def read_spec(
    text: Mapping[str, Any], *, model: str, adapter: str | None, revision: str | None, trust_remote_code: bool
) -> RunSpec:
    """Return the spec that a JSON object describes, for the base model of this machine.

    Args:
        text: from `spec_text`, on another machine; nothing in it is believed.
        model: the worker's own base model.
        adapter: the folder into which the worker put the starting adapter that came beside the spec; None if none did.
        revision: of the worker's own base model.
        trust_remote_code: whether the worker's user lets code run that comes with its base model.

    Raises:
        ConfigError: naming what is missing, unknown, of a wrong type, or a setting that may not travel.
    """
    if (wrong := set(text) ^ set(SPEC_FIELDS)) or not all(isinstance(name, str) for name in text):
        raise ConfigError(f"the run's spec should have the fields {', '.join(SPEC_FIELDS)}; {_some(wrong)} differ")
    try:
        spec = RunSpec(
            strategy=_own_strategy(text["strategy"]),
            federation=_federation(text["federation"], _own_strategy(text["strategy"])),
            seed=_whole(text["seed"], "seed"),
            wire=_made(WireSettings, text["wire"], "wire"),
            client_args=_read_args(text["client_args"]),
            work=read_work(text["work"]),
            loss_on=_one_of(text["loss_on"], ("assistant", "all"), "loss_on"),
            reference_cache=_of_type(text["reference_cache"], bool, "reference_cache"),
            kernel=_one_of(text["kernel"], ("trl", "plain"), "kernel"),
            policy=_read_policy(text["policy"], adapter),
            template_date=None if text["template_date"] is None else _of_type(text["template_date"], str, "date"),
            sums=None if text["sums"] is None else _made(SumSpec, text["sums"], "sums"),
            digests=_texts(text["digests"], "digests"),
            versions=_texts(text["versions"], "versions"),
            rows=None if text["rows"] is None else read_row_privacy(text["rows"]),
        )
    except ConfigError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise ConfigError(f"the run's spec cannot be read: {' '.join(str(error).split())[:200]}") from error
    policy = replace(spec.policy, model=model, revision=revision, trust_remote_code=trust_remote_code)
    return replace(spec, policy=policy)


def _plain_fields(settings: Any) -> dict[str, Any]:
    """The fields of a settings object that were given: those left out keep their defaults, and their checks."""
    return {
        each.name: getattr(settings, each.name)
        for each in fields(settings)
        if each.default is MISSING or getattr(settings, each.name) != each.default
    }


def _made(kind: type[Any], named: Any, what: str) -> Any:
    known = {each.name: each for each in fields(kind)}
    if not isinstance(named, Mapping):
        raise ConfigError(f"{what} of the run's spec is no object")
    if unknown := set(named) - set(known):
        raise ConfigError(f"{what} of the run's spec has {_some(unknown)}, and should have some of {', '.join(known)}")
    _check_plain(dict(named), what)
    made = kind(**named)
    if hasattr(made, "check"):
        made.check()
    return made


def _federation(text: Any, strategy: str) -> Federation:
    names = {*_FEDERATION, "settings", "ranks", "layers"}
    if not isinstance(text, Mapping) or set(text) != names:
        raise ConfigError(f"federation of the run's spec should be an object of {', '.join(sorted(names))}")
    plain = {name: _whole(text[name], name) for name in _FEDERATION[:3]}
    flags = {name: _of_type(text[name], bool, name) for name in _FEDERATION[3:]}
    dealt = {
        name: {_of_type(key, str, name): _whole(each, name) for key, each in text[name].items()}
        for name in ("ranks", "layers")
    }
    settings_class = strategy_class(strategy).Settings
    settings = _made(settings_class, text["settings"], f"the settings of {strategy}")
    return Federation(settings=settings, **plain, **flags, **dealt)


def read_work(text: Any) -> LocalWork:
    """Return how much a client does in a visit.

    Raises:
        ConfigError: naming what is wrong.
    """
    made = _made(LocalWork, text, "work")
    assert isinstance(made, LocalWork)
    return made


def read_row_privacy(text: Any) -> RowPrivacy:
    """Return how visits are private to rows.

    Raises:
        ConfigError: naming what is wrong.
    """
    names = {each.name for each in fields(RowPrivacy)}
    if not isinstance(text, Mapping) or set(text) != names:
        raise ConfigError(f"rows of the run's spec should be an object of {', '.join(sorted(names))}")
    numbers = {name: text[name] for name in ("clip", "noise_multiplier")}
    for name, value in numbers.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < float("inf") or (name == "clip" and value == 0):
            raise ConfigError(f"{name} of the run's spec is {value!r}; it should be a positive number")
    counts = {name: _whole(text[name], name) for name in names - numbers.keys()}
    if min(counts["batch_rows"], counts["fits_per_visit"], counts["num_rounds"]) < 1 or counts["final_steps"] < 0:
        raise ConfigError("rows of the run's spec has a count below 1, with which nothing could be trained")
    return RowPrivacy(**{name: float(value) for name, value in numbers.items()}, **counts)


def _args_text(args: ClientArgs) -> dict[str, Any]:
    kind = type(args).__name__
    if type(args) not in _CONFIGS.values():
        raise ConfigError(f"{kind} is no config of TRL's own, and code does not travel")
    untouched, found = untouched_args(args), {"kind": kind}
    for name in _travelling(type(args)):
        value = getattr(args, name)
        if name not in ("bf16", "fp16", "use_cpu") and not differs(value, getattr(untouched, name)):
            continue
        if reason := _STAYS_HERE.get(name):
            raise ConfigError(f"{name}={value!r} cannot be sent to other machines: {reason}")
        if name not in _STAYS_HERE:
            found[name] = _as_plain(value, name)
    return found


def _read_args(text: Any) -> ClientArgs:
    if not isinstance(text, Mapping) or text.get("kind") not in _CONFIGS:
        raise ConfigError(f"client_args of the run's spec should name a kind of {', '.join(_CONFIGS)}")
    kind = _CONFIGS[text["kind"]]
    named = {name: value for name, value in text.items() if name != "kind"}
    allowed = set(_travelling(kind)) - set(_STAYS_HERE)
    if unknown := set(named) - allowed:
        raise ConfigError(f"client_args of the run's spec names {_some(unknown)}, which does not travel")
    _check_plain(named, "client_args")
    args = kind(**named)
    check_client_args(args)
    return args


def _travelling(kind: type[ClientArgs]) -> list[str]:
    return sorted(name for name, fate in FATES[kind].items() if isinstance(fate, Passed | Elsewhere))


def _policy_text(policy: PolicySource) -> dict[str, Any]:
    if not isinstance(policy.model, str):
        raise ConfigError("the model is in memory, and other machines must load their own; name a folder or a Hub id")
    if policy.tokenizer is not None:
        raise ConfigError("the tokenizer is in memory, and other machines take the one beside their base model")
    if policy.quantization is not None and not hasattr(policy.quantization, "to_diff_dict"):
        raise ConfigError("quantization cannot be sent to other machines; give a BitsAndBytesConfig")
    if other := set(policy.init_kwargs) - set(_INIT_KWARGS):
        raise ConfigError(f"model_init_kwargs has {_some(other)}, which does not travel; leave it out")
    return {
        "peft_config": None if policy.peft_config is None else peft_text(policy.peft_config),
        "full_finetuning": policy.full_finetuning,
        "quantization": None if policy.quantization is None else policy.quantization.to_diff_dict(),
        "init_kwargs": {name: _as_plain(value, name) for name, value in policy.init_kwargs.items()},
        "seed": policy.seed,
    }


def _read_policy(text: Any, adapter: str | None) -> PolicySource:
    names = {"peft_config", "full_finetuning", "quantization", "init_kwargs", "seed"}
    if not isinstance(text, Mapping) or set(text) != names:
        raise ConfigError(f"policy of the run's spec should be an object of {', '.join(sorted(names))}")
    init_kwargs = _of_type(text["init_kwargs"], dict, "init_kwargs")
    if other := set(init_kwargs) - set(_INIT_KWARGS):
        raise ConfigError(f"init_kwargs of the run's spec has {_some(other)}, which does not travel")
    _check_plain(init_kwargs, "init_kwargs")
    if (attention := init_kwargs.get("attn_implementation")) is not None:
        _one_of(attention, ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"), "attention")
    if (dtype := init_kwargs.get("dtype")) is not None:
        _one_of(dtype, ("auto", "float32", "float16", "bfloat16"), "dtype")
        init_kwargs = {**init_kwargs, "dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    quantization = text["quantization"]
    if quantization is not None:
        from transformers import BitsAndBytesConfig

        _check_plain(_of_type(quantization, dict, "quantization"), "quantization")
        quantization = BitsAndBytesConfig(**{key: v for key, v in quantization.items() if key != "quant_method"})
    return PolicySource(
        model="",
        peft_config=None if text["peft_config"] is None else _read_peft(text["peft_config"]),
        adapter=adapter,
        full_finetuning=_of_type(text["full_finetuning"], bool, "full_finetuning"),
        quantization=quantization,
        init_kwargs=init_kwargs,
        seed=_whole(text["seed"], "seed"),
    )


def peft_text(config: PeftConfig) -> dict[str, Any]:
    """Return PEFT's settings of an adapter as a JSON object: what differs from the defaults.

    Raises:
        ConfigError: naming a setting that does not travel.
    """
    default, found = type(config)().to_dict(), {"peft_type": _as_plain(config.peft_type, "peft_type")}
    for name, value in config.to_dict().items():
        if name in _OWN_PEFT or not differs(value, default.get(name)):
            continue
        if name in _CODE_PEFT:
            raise ConfigError(f"{name} of the adapter names code and cannot be sent to other machines; leave it out")
        found[name] = _as_plain(value, name)
    return found


def check_peft_text(text: Any) -> None:
    """Refuse what is no object from `peft_text`.

    Raises:
        ConfigError: naming what is wrong.
    """
    if not isinstance(text, Mapping) or text.get("peft_type") not in [each.value for each in PeftType]:
        raise ConfigError("peft_config of the run's spec names no kind of adapter that is known here")
    if refused := set(text) & {*_OWN_PEFT, *_CODE_PEFT}:
        raise ConfigError(f"peft_config of the run's spec has {_some(refused)}, which does not travel")
    _check_plain(dict(text), "peft_config")


def _read_peft(text: Any) -> PeftConfig:
    check_peft_text(text)
    return PeftConfig.from_peft_type(**dict(text))


def _as_plain(value: Any, name: str) -> Any:
    """A value as JSON has it: sets sorted, enumerations and torch's types by their names."""
    if isinstance(value, Enum):
        return _as_plain(value.value, name)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, Mapping):
        return {_of_type(key, str, name): _as_plain(each, name) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_as_plain(each, name) for each in value)
    if isinstance(value, list | tuple):
        return [_as_plain(each, name) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{name}={value!r} cannot be sent to other machines")


def _check_plain(value: Any, what: str, depth: int = 0) -> None:
    """Refuse what is no small piece of JSON."""
    if depth > 6:
        raise ConfigError(f"{what} of the run's spec is nested too deep")
    if isinstance(value, Mapping):
        for key, each in value.items():
            _of_type(key, str, what)
            _check_plain(each, what, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check_plain(each, what, depth + 1)
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise ConfigError(f"{what} of the run's spec holds a {type(value).__name__}")


def _own_strategy(name: Any) -> str:
    if name not in STRATEGIES:
        raise ConfigError(f"strategy {name!r} is none of {', '.join(STRATEGIES)}")
    return str(name)


def _texts(value: Any, what: str) -> dict[str, Any]:
    found = _of_type(value, dict, what)
    if not all(isinstance(each, str | None) for each in found.values()):
        raise ConfigError(f"{what} of the run's spec should hold texts")
    return dict(found)


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{what} of the run's spec is {value!r}; it should be a whole number")
    return value


def _of_type(value: Any, kind: type[Any], what: str) -> Any:
    if not isinstance(value, kind):
        raise ConfigError(f"{what} of the run's spec is a {type(value).__name__}; it should be a {kind.__name__}")
    return value


def _one_of(value: Any, choices: tuple[str, ...], what: str) -> Any:
    if value not in choices:
        raise ConfigError(f"{what} of the run's spec is {value!r}; it should be one of {', '.join(choices)}")
    return value


def _some(names: Any) -> str:
    return ", ".join(sorted(map(str, names))[:5])
