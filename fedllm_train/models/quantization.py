"""4- and 8-bit base models by bitsandbytes: weights that are not trained take an eighth or a quarter of the memory.

LoRA and what is made of its factors work on them as on any base: the base is never written to
(`adapters/base_shift.py`). All participants and the finished adapter's users must load the same quantised base; the
adapter itself is not quantised.
"""

import importlib.util
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from trl import ModelConfig, get_quantization_config

from fedllm_data.errors import ConfigError

__all__ = ["missing_for_quantization", "quantization_config"]


def missing_for_quantization() -> str | None:
    """Return what keeps this machine from loading a quantised base, or None.

    >>> missing_for_quantization() in ("there is no GPU", "bitsandbytes is not installed", None)
    True
    """
    if not torch.cuda.is_available():
        return "there is no GPU"
    return None if importlib.util.find_spec("bitsandbytes") else "bitsandbytes is not installed"


def quantization_config(model: ModelConfig) -> BitsAndBytesConfig | None:
    """Return the settings to load the base with, from `--load-in-4bit`, `--load-in-8bit` and the bnb flags.

    Args:
        model: TRL's settings of the base.

    Returns:
        None if the base is loaded in full precision. With 4 bits, products are computed in bfloat16 where the GPU
        can, as in QLoRA (Dettmers et al. 2023, arXiv 2305.14314), whatever `--dtype` says.

    Raises:
        ConfigError: if the machine cannot load a quantised base.

    >>> quantization_config(ModelConfig()) is None
    True
    """
    if not (model.load_in_4bit or model.load_in_8bit):
        return None
    flag = "--load-in-4bit" if model.load_in_4bit else "--load-in-8bit"
    if (missing := missing_for_quantization()) is not None:
        raise ConfigError(
            f"{flag} needs an NVIDIA GPU and bitsandbytes, and {missing}; leave it out to load it in full precision"
        )
    config: Any = get_quantization_config(model)
    if model.load_in_4bit and torch.cuda.is_bf16_supported():
        config.bnb_4bit_compute_dtype = torch.bfloat16
    return config
