"""The starting adapter of a run as it travels: PEFT's settings as JSON, the tensors as safetensors, never a path."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder
from fedllm_eval.policy.run_folder import ADAPTER
from fedllm_train.engines.remote.spec_text import check_peft_text, peft_text
from fedllm_train.run_files.run_writing import may_be_replaced

__all__ = ["read_start", "write_start"]

_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"


def read_start(adapter: Path) -> tuple[dict[str, Any], bytes]:
    """Return the settings and the tensors of an adapter's folder, for other machines.

    Args:
        adapter: a PEFT folder, or a run folder with one.

    Raises:
        ConfigError: if it is no such folder, or something in it does not travel.
    """
    from peft import PeftConfig

    folder = adapter / ADAPTER if (adapter / ADAPTER / _CONFIG).is_file() else adapter
    if not (folder / _CONFIG).is_file() or not (folder / _TENSORS).is_file():
        raise ConfigError(
            f"{adapter} has no {_CONFIG} with {_TENSORS}, which other machines are sent; give a run folder or a PEFT "
            "folder on this machine"
        )
    return peft_text(PeftConfig.from_pretrained(str(folder))), (folder / _TENSORS).read_bytes()


def write_start(config: Mapping[str, Any], tensors: bytes, folder: Path) -> Path:
    """Put a starting adapter that came over a line into a folder of this machine.

    Args:
        config: PEFT's settings, from `read_start`.
        tensors: safetensors.
        folder: replaced as a whole.

    Raises:
        ConfigError: if it is no adapter.
    """
    check_peft_text(config)
    try:
        load(tensors)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ConfigError(f"the starting adapter that came with the run is no safetensors: {error}") from error
    with fill_folder(folder, check=may_be_replaced) as made:
        (made / _CONFIG).write_text(json.dumps({**config, "inference_mode": True}), encoding="utf-8")
        (made / _TENSORS).write_bytes(tensors)
    return folder
