"""The policy a run starts from: a base model with one trainable adapter, fresh or trained before.

The adapter is always named "default" in the model. A fresh LoRA draws its random half from the run seed alone, so that
every engine and every resumed run begins from the same bits.
"""

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

_LEAVES_BASE_ALONE = ("gaussian", "orthogonal")


@dataclass(frozen=True)
class StartingPolicy:
    """What training starts from."""

    model: PeftModel
    tokenizer: Any
    base_name: str | None
    """Folder or Hub id; None for a model made in memory."""
    base_revision: str | None
    """Commit on the Hub, or a digest of the folder's weights."""
    is_base: bool
    """Whether the policy still equals the base: a fresh adapter whose product is zero."""


def load_starting_policy(
    model: str | PreTrainedModel,
    *,
    tokenizer: Any = None,
    peft_config: PeftConfig | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
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
        seed: the run seed.

    Raises:
        ConfigError: if something cannot be loaded, or both `adapter` and `peft_config` are given.
    """
    if adapter is not None and peft_config is not None:
        raise ConfigError(f"adapter {adapter!r} brings its own LoRA settings; give either adapter or peft_config")
    base = model if not isinstance(model, str) else _load_base(model, revision, trust_remote_code)
    base_name = model if isinstance(model, str) else (base.config._name_or_path or None)
    if tokenizer is None:
        if base_name is None:
            raise ConfigError("the model was made in memory, so there is no tokenizer beside it; pass tokenizer=")
        tokenizer = _load_tokenizer(base_name, revision, trust_remote_code)
    if adapter is None:
        config = peft_config or LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        initialisation = getattr(config, "init_lora_weights", True)
        if not isinstance(initialisation, bool) and initialisation not in _LEAVES_BASE_ALONE:
            raise ConfigError(
                f"init_lora_weights={initialisation!r} may change the base model's own weights, and the finished "
                f"adapter would not fit the base it names; use True, False or one of {', '.join(_LEAVES_BASE_ALONE)}"
            )
        set_seed(stream_seed(seed, "adapter"))
        try:
            peft_model = get_peft_model(base, config)
        except ValueError as error:
            raise ConfigError(
                f"{type(config).__name__} does not fit {base_name!r} ({_first_line(error)}); change target_modules"
            ) from error
    else:
        peft_model = _load_adapter(base, adapter)
    # PEFT leaves None here for a model built from a config; the finished adapter must name its base.
    peft_model.peft_config["default"].base_model_name_or_path = base_name
    return StartingPolicy(
        model=peft_model,
        tokenizer=tokenizer,
        base_name=base_name,
        base_revision=getattr(base.config, "_commit_hash", None) or _folder_digest(base_name),
        is_base=adapter is None and _adds_nothing(peft_model),
    )


def _adds_nothing(model: PeftModel) -> bool:
    """Whether every lora_B is zero, as PEFT's default initialisation leaves it."""
    factors = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    return bool(factors) and not any(bool(factor.any()) for factor in factors)


def adapter_folder(adapter: str) -> str:
    """Return where the PEFT files of a run folder, a PEFT folder or a Hub id lie."""
    inside = Path(adapter) / "adapter"
    return str(inside) if (inside / "adapter_config.json").is_file() else adapter


def _load_base(name: str, revision: str | None, trust_remote_code: bool) -> PreTrainedModel:
    dtype = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    try:
        return AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model {name!r} cannot be loaded ({_first_line(error)}); give a folder with config.json and "
            "safetensors, or a Hub id"
        ) from error


def _load_tokenizer(name: str, revision: str | None, trust_remote_code: bool) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the tokenizer of model {name!r} cannot be loaded ({_first_line(error)}); save one beside the model "
            "with tokenizer.save_pretrained"
        ) from error
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"the tokenizer of model {name!r} has no chat template; use an instruct model, or set "
            "tokenizer.chat_template and save it beside the model"
        )
    return tokenizer


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
    """Digest of a local model's weights, so that a run does not resume on another model of the same name."""
    if name is None or not Path(name).is_dir():
        return None
    folder = Path(name)
    digest = sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
