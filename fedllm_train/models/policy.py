"""The policy a run starts from: a base model with one trainable adapter, fresh or trained before, or the model itself.

The adapter is always named "default" in the model. A fresh LoRA draws its random half from the run seed alone, so that
every engine and every resumed run begins from the same bits. With full fine-tuning there is no adapter, and all
weights of the model are trained, in float32.
"""

import warnings
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, set_seed

from fedllm_data.errors import ConfigError
from fedllm_train.seeds import stream_seed

__all__ = ["StartingPolicy", "adapter_folder", "load_starting_policy"]

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.py")
"""What of a model's folder decides what it computes, beside config.json."""
_LEAVES_BASE_ALONE = ("gaussian", "orthogonal")


@dataclass(frozen=True)
class StartingPolicy:
    """What training starts from."""

    model: PeftModel | PreTrainedModel
    """A plain model where all its weights are trained."""
    tokenizer: Any
    base_name: str | None
    """Folder or Hub id; None for a model made in memory."""
    base_revision: str | None
    """Commit on the Hub, or a digest of the folder's weights."""
    is_base: bool
    """Whether the policy still equals the base: a fresh adapter that changes nothing yet, or none."""


def load_starting_policy(
    model: str | PreTrainedModel,
    *,
    tokenizer: Any = None,
    peft_config: PeftConfig | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    full_finetuning: bool = False,
    quantization: Any = None,
    seed: int = 0,
) -> StartingPolicy:
    """Load a base model and put the adapter on it.

    Args:
        model: folder, Hub id, or a loaded model (which is then changed in place).
        tokenizer: by default the one beside the model.
        peft_config: the fresh adapter's settings; by default a `LoraConfig` of rank 8 on all linear layers.
        adapter: a run folder, a PEFT folder or a Hub id to start from instead of a fresh adapter.
        revision: of the base model, if it is a Hub id.
        trust_remote_code: run code that comes with the model; off unless the user asks.
        full_finetuning: train all weights of the model, without an adapter.
        quantization: a `BitsAndBytesConfig` for the base model, from `models/quantization.py`.
        seed: the run seed.

    Raises:
        ConfigError: if something cannot be loaded, or both `adapter` and `peft_config` are given.
    """
    if adapter is not None and peft_config is not None:
        raise ConfigError(f"adapter {adapter!r} brings its own LoRA settings; give either adapter or peft_config")
    if full_finetuning:
        _check_whole(model, adapter, peft_config, quantization)
    if quantization is not None and not isinstance(model, str):
        raise ConfigError("the model is loaded already; quantise it where it is loaded, or name its folder or Hub id")
    base = model
    if isinstance(model, str):
        base = _load_base(model, revision, trust_remote_code, float32=full_finetuning, quantization=quantization)
    base_name = model if isinstance(model, str) else (base.config._name_or_path or None)
    if tokenizer is None:
        if base_name is None:
            raise ConfigError("the model was made in memory, so there is no tokenizer beside it; pass tokenizer=")
        tokenizer = _load_tokenizer(base_name, revision, trust_remote_code)
    if full_finetuning:
        peft_model = base.requires_grad_(True)
    elif adapter is None:
        # PEFT writes the base's name and the modules it found into the settings it is given.
        config = deepcopy(peft_config) or LoraConfig(
            r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        initialisation = getattr(config, "init_lora_weights", True)
        if not isinstance(initialisation, bool) and initialisation not in _LEAVES_BASE_ALONE:
            raise ConfigError(
                f"init_lora_weights={initialisation!r} may change the base model's own weights, and the finished "
                f"adapter would not fit the base it names; use True, False or one of {', '.join(_LEAVES_BASE_ALONE)}"
            )
        set_seed(stream_seed(seed, "adapter"))
        try:
            with warnings.catch_warnings():
                # Layer norms are what LN tuning is for; PEFT 0.21 looks for the widths of a linear layer in them.
                warnings.filterwarnings("ignore", message="Unsupported layer type .*Norm")
                peft_model = get_peft_model(base, config)
        except ValueError as error:
            raise ConfigError(
                f"{type(config).__name__} does not fit {base_name!r} ({_first_line(error)}); change target_modules"
            ) from error
    else:
        peft_model = _load_adapter(base, adapter)
    if not full_finetuning:
        # PEFT leaves None here for a model built from a config; the finished adapter must name its base.
        peft_model.peft_config["default"].base_model_name_or_path = base_name
    return StartingPolicy(
        model=peft_model,
        tokenizer=tokenizer,
        base_name=base_name,
        base_revision=getattr(base.config, "_commit_hash", None) or _folder_digest(base_name),
        is_base=full_finetuning or (adapter is None and _adds_nothing(peft_model)),
    )


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


def adapter_folder(adapter: str) -> str:
    """Return where the PEFT files of a run folder, a PEFT folder or a Hub id lie."""
    inside = Path(adapter) / "adapter"
    return str(inside) if (inside / "adapter_config.json").is_file() else adapter


def _load_base(
    name: str, revision: str | None, trust_remote_code: bool, *, float32: bool, quantization: Any
) -> PreTrainedModel:
    # Weights that are trained need float32: an update below bfloat16's resolution would be lost.
    short = torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not float32
    settings = {"dtype": torch.bfloat16 if short else torch.float32, "trust_remote_code": trust_remote_code}
    try:
        if quantization is None:
            return AutoModelForCausalLM.from_pretrained(name, revision=revision, **settings)
        # Quantised weights cannot be moved between devices afterwards.
        settings |= {"quantization_config": quantization, "device_map": {"": torch.cuda.current_device()}}
        return AutoModelForCausalLM.from_pretrained(name, revision=revision, **settings)
    except (OSError, ValueError) as error:
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


def _load_adapter(base: PreTrainedModel, adapter: str) -> PeftModel:
    try:
        model = PeftModel.from_pretrained(base, adapter_folder(adapter), is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"adapter {adapter!r} cannot be loaded on this base model ({_first_line(error)}); give a run folder, a "
            "folder with adapter_config.json, or a Hub id, trained on the same base"
        ) from error
    return model


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
