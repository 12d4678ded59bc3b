"""The policy a run starts from: a base model with one trainable adapter, fresh or trained before, or the model itself.

The adapter is always named "default" in the model. A fresh LoRA draws its random half from the run seed alone, so that
every engine and every resumed run begins from the same bits. With full fine-tuning there is no adapter, and all
weights of the model are trained, in float32.
"""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer, PreTrainedModel, set_seed

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.base_identity import BaseIdentity, snapshot_folder, weights_digest
from fedllm_eval.policy.causal_base import check_causal, load_causal_base
from fedllm_train.models.loaded_base import is_as_saved
from fedllm_train.models.start_adapter import check_found, check_trains, load_start_adapter, trainable_config
from fedllm_train.seeds import stream_seed

__all__ = ["PolicySource", "StartingPolicy", "load_starting_policy"]

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.py")
"""What of a model's folder decides what it computes, beside config.json."""


@dataclass(frozen=True)
class StartingPolicy:
    """What training starts from."""

    model: PeftModel | PreTrainedModel
    """A plain model where all its weights are trained."""
    tokenizer: Any
    base_name: str | None
    """Folder or Hub id; None for a model made, or changed, in memory."""
    base_revision: str | None
    """Commit on the Hub, or a digest of the folder's weights."""
    base_weights: str | None
    """Digest of the base's weights alone (`fedllm_eval/policy/base_identity.py`); None for a model made in memory."""
    is_base: bool
    """Whether the policy still equals the base: a fresh adapter that changes nothing yet, or none."""


@dataclass(frozen=True, kw_only=True)
class PolicySource:
    """What a run's starting policy is made of, as every machine that trains must load it."""

    model: str | PreTrainedModel | PeftModel
    """Folder, Hub id, or a loaded model (which is then changed in place); of a `PeftModel`, the adapter "default" is
    trained from where it is."""
    tokenizer: Any = None
    """By default the one beside the model."""
    peft_config: PeftConfig | None = None
    """The fresh adapter's settings; by default a `LoraConfig` of rank 8 on all linear layers."""
    adapter: str | None = None
    """A run folder, a PEFT folder or a Hub id to start from instead of a fresh adapter."""
    revision: str | None = None
    """Revision of the base model, if it is a Hub id."""
    trust_remote_code: bool = False
    """Run code that comes with the model; off unless the user asks."""
    full_finetuning: bool = False
    """Train all weights of the model, without an adapter."""
    quantization: Any = None
    """A `BitsAndBytesConfig` for the base model, from `models/quantization.py`."""
    init_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `from_pretrained` for the base model (`models/base_settings.py`)."""
    seed: int = 0
    """The run seed, from which a fresh adapter is drawn."""


def load_starting_policy(source: PolicySource) -> StartingPolicy:
    """Load a base model and put the adapter on it.

    Args:
        source: base model, adapter and tokenizer.

    Raises:
        ConfigError: if something cannot be loaded, the base lacks weights or is no decoder-only causal language model,
            the adapter is known to be another base's, nothing would be trained, or both `adapter` and `peft_config`
            are given.
    """
    model, adapter = source.model, source.adapter
    peft_config, quantization = source.peft_config, source.quantization
    if adapter is not None and peft_config is not None:
        raise ConfigError(f"adapter {adapter!r} brings its own LoRA settings; give either adapter or peft_config")
    if source.full_finetuning:
        _check_whole(model, adapter, peft_config, quantization)
    if quantization is not None and not isinstance(model, str):
        raise ConfigError("the model is loaded already; quantise it where it is loaded, or name its folder or Hub id")
    base = model
    if isinstance(model, str):
        settings = {"trust_remote_code": source.trust_remote_code, **source.init_kwargs}
        base = _load_base(model, source.revision, settings, float32=source.full_finetuning, quantization=quantization)
    else:
        check_causal(model.get_base_model() if isinstance(model, PeftModel) else model, None)
    base_name = model if isinstance(model, str) else (base.config._name_or_path or None)
    commit = getattr(base.config, "_commit_hash", None)
    tokenizer = source.tokenizer
    if tokenizer is None:
        if base_name is None:
            raise ConfigError("the model was made in memory, so there is no tokenizer beside it; pass tokenizer=")
        tokenizer = _load_tokenizer(base_name, source.revision, source.trust_remote_code)
    if not isinstance(model, str):
        plain = model.get_base_model() if isinstance(model, PeftModel) else model
        if not is_as_saved(plain, snapshot_folder(base_name, commit)):
            base_name = commit = None
            base.config._name_or_path = ""  # PEFT reads the base's name here
            if isinstance(model, PeftModel):
                model.peft_config["default"].base_model_name_or_path = None
    weights = weights_digest(snapshot_folder(base_name, commit))
    if source.full_finetuning:
        peft_model = base.requires_grad_(True)
    elif isinstance(base, PeftModel):
        peft_model = _trained_on(base)
    elif adapter is None:
        # PEFT writes the base's name and the modules it found into the settings it is given.
        config = (
            trainable_config(deepcopy(peft_config))
            if peft_config
            else LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
        check_found(base, config)
        set_seed(stream_seed(source.seed, "adapter"))
        try:
            with warnings.catch_warnings():
                # Layer norms are what LN tuning is for; PEFT 0.21 looks for the widths of a linear layer in them.
                warnings.filterwarnings("ignore", message="Unsupported layer type .*Norm")
                peft_model = get_peft_model(base, config)
        except ValueError as error:
            raise ConfigError(
                f"{type(config).__name__} does not fit {base_name!r} ({_first_line(error)}); change its settings"
            ) from error
    else:
        identity = BaseIdentity(name=base_name, revision=commit, weights=weights)
        peft_model = load_start_adapter(base, adapter, identity)
    check_trains(peft_model)
    if not source.full_finetuning:
        # PEFT leaves None here for a model built from a config; the finished adapter must name its base.
        own = peft_model.peft_config["default"]
        own.base_model_name_or_path = base_name or (own.base_model_name_or_path if peft_model is model else None)
    return StartingPolicy(
        model=peft_model,
        tokenizer=tokenizer,
        base_name=base_name,
        base_revision=commit or _folder_digest(base_name),
        base_weights=weights,
        is_base=source.full_finetuning or (adapter is None and peft_model is not model and _adds_nothing(peft_model)),
    )


def _trained_on(model: PeftModel) -> PeftModel:
    """The model with its adapter trained on, which `PeftModel.from_pretrained` freezes unless it is told otherwise."""
    model.peft_config["default"].inference_mode = False
    model.set_adapter("default")
    if model.peft_config["default"].is_prompt_learning:
        model.prompt_encoder["default"].requires_grad_(True)
    return model


def _adds_nothing(model: PeftModel) -> bool:
    """Whether every lora_B is zero, or every factor of IA3 one, as PEFT's default initialisation leaves them."""
    deviations = [parameter.detach() for name, parameter in model.named_parameters() if "lora_B" in name]
    deviations += [parameter.detach() - 1 for name, parameter in model.named_parameters() if "ia3_l" in name]
    return bool(deviations) and not any(bool(each.any()) for each in deviations)


def _check_whole(model: Any, adapter: str | None, peft_config: PeftConfig | None, quantization: Any) -> None:
    if adapter is not None or peft_config is not None or isinstance(model, PeftModel):
        raise ConfigError("full_finetuning trains the model's own weights; merge an adapter first, or leave one out")
    if quantization is not None or getattr(model, "is_quantized", False):
        raise ConfigError("full_finetuning cannot train quantised weights; load the model in full precision")


def _load_base(
    name: str, revision: str | None, given: dict[str, Any], *, float32: bool, quantization: Any
) -> PreTrainedModel:
    # Weights that are trained need float32: an update below bfloat16's resolution would be lost.
    short = torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not float32
    settings = {"dtype": torch.bfloat16 if short else torch.float32, **given}
    try:
        if quantization is None:
            return load_causal_base(name, revision=revision, **settings)
        # Quantised weights cannot be moved between devices afterwards.
        settings |= {"quantization_config": quantization, "device_map": {"": torch.cuda.current_device()}}
        return load_causal_base(name, revision=revision, **settings)
    except ConfigError:
        raise
    except (OSError, ValueError, ImportError, TypeError) as error:
        if set(given) - {"trust_remote_code"} and not isinstance(error, OSError):
            shown = ", ".join(f"{key}={value!r}" for key, value in given.items() if key != "trust_remote_code")
            raise ConfigError(f"model {name!r} cannot be loaded with {shown} ({_first_line(error)})") from error
        raise ConfigError(
            f"model {name!r} cannot be loaded ({_first_line(error)}); give a folder with config.json and "
            "safetensors, or a Hub id"
        ) from error


def _load_tokenizer(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the tokenizer of model {name!r} cannot be loaded ({_first_line(error)}); save one beside the model "
            "with tokenizer.save_pretrained"
        ) from error


def _folder_digest(name: str | None) -> str | None:
    """Digest of a local model's weights and code, so that a run does not resume on another model of the same name.

    Its tokenizer has a digest of its own (`models/tokenizer.py`).
    """
    if name is None or not Path(name).is_dir():
        return None
    folder = Path(name)
    digest = sha256()
    weights = [path for kind in _WEIGHTS for path in folder.glob(kind)]
    for path in sorted([*weights, folder / "config.json"]):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
