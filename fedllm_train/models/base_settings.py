"""How the base model is loaded: TRL's `model_init_kwargs`, and the flags and arguments that say the same.

`dtype` and `attn_implementation` are what transformers' `from_pretrained` takes; everything else in
`model_init_kwargs` goes there too, except what a client's trainer decides: a single device.
"""

from dataclasses import dataclass, field
from typing import Any

from trl import ModelConfig

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import ClientArgs
from fedllm_train.flag_names import flag_of
from fedllm_train.models.quantization import missing_for_quantization

__all__ = ["BaseSettings", "base_settings", "init_kwargs_of_flags"]


@dataclass(frozen=True, kw_only=True)
class BaseSettings:
    """The arguments of `load_starting_policy` that concern the base model."""

    revision: str | None = None
    trust_remote_code: bool = False
    quantization: Any = None
    init_kwargs: dict[str, Any] = field(default_factory=dict)
    """Of `from_pretrained`, beside the above."""


def base_settings(
    client_args: ClientArgs, given: BaseSettings, *, is_loaded: bool, full_finetuning: bool
) -> BaseSettings:
    """Return how the base model is loaded, whether the trainer or TRL's settings say it.

    Args:
        client_args: TRL's settings, with `model_init_kwargs` and `trust_remote_code`.
        given: what `FederatedTrainer` was called with.
        is_loaded: whether the model is given in memory.
        full_finetuning: whether all its weights are trained.

    Raises:
        ConfigError: if both say different things, or something that cannot be honoured.
    """
    kwargs = dict(client_args.model_init_kwargs or {})
    if "torch_dtype" in kwargs:
        kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
    if is_loaded:
        if kwargs:
            raise ConfigError(
                f"model_init_kwargs has {', '.join(kwargs)}, and the model is loaded already; load it so, or name its "
                "folder or Hub id"
            )
        if given.revision is not None:
            raise ConfigError(f"revision={given.revision!r} is given, and the model is loaded already; leave it out")
    quantization = _either("quantization_config", given.quantization, kwargs.pop("quantization_config", None))
    if quantization is not None and is_loaded:
        raise ConfigError("the model is loaded already; quantise it where it is loaded, or name its folder or Hub id")
    if quantization is not None and (missing := missing_for_quantization()) is not None:
        raise ConfigError(
            f"quantization_config needs an NVIDIA GPU and bitsandbytes, and {missing}; leave it out to load the base "
            "in full precision"
        )
    for name in ("device_map", "max_memory", "tp_plan", "device_mesh"):
        if kwargs.pop(name, None) is not None:
            raise ConfigError(f"model_init_kwargs has {name}, and a client trains on a single device; leave it out")
    kwargs["dtype"] = _name_of_dtype(kwargs.get("dtype"))
    if kwargs["dtype"] is None:
        del kwargs["dtype"]
    elif full_finetuning and kwargs["dtype"] != "float32":
        raise ConfigError(
            f"dtype={kwargs['dtype']} is given, and full_finetuning trains the weights themselves, in float32; leave "
            "it out"
        )
    trusts = kwargs.pop("trust_remote_code", False) or client_args.trust_remote_code
    return BaseSettings(
        revision=_either("revision", given.revision, kwargs.pop("revision", None)),
        trust_remote_code=bool(given.trust_remote_code or trusts),
        quantization=quantization,
        init_kwargs=kwargs,
    )


def init_kwargs_of_flags(client_args: ClientArgs, model: ModelConfig, given: frozenset[str]) -> dict[str, Any] | None:
    """Return `model_init_kwargs` with the flags `--dtype` and `--attn-implementation`, as TRL's scripts make them.

    Args:
        client_args: TRL's settings.
        model: has the two flags.
        given: names of the flags that were given: TRL's default of float32 does not count.

    Raises:
        ConfigError: if a flag and `--model-init-kwargs` differ.
    """
    kwargs = dict(client_args.model_init_kwargs or {})
    for name in ("dtype", "attn_implementation"):
        value = getattr(model, name)
        if name in given and value is not None:
            kwargs[name] = _either(flag_of(name), value, kwargs.get(name))
    return kwargs or None


def _either(name: str, one: Any, other: Any) -> Any:
    if one is not None and other is not None and one != other:
        raise ConfigError(f"{name} is {one!r}, and model_init_kwargs says {other!r}; give it once")
    return one if one is not None else other


def _name_of_dtype(dtype: Any) -> str | None:
    """The name, which can be written to `config.yaml`.

    Raises:
        ConfigError: for what is no floating-point type.
    """
    name = str(dtype).removeprefix("torch.") if dtype is not None else None
    if name not in (known := (None, "auto", "float32", "bfloat16", "float16")):
        raise ConfigError(f"dtype is {dtype!r}; choose from {', '.join(each for each in known if each)}")
    return name
