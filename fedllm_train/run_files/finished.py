"""What was learned, on disk: the run's adapter, the best one, those of single clients, as PEFT writes them.

Where all weights are trained, whole models take their place, as transformers writes them. Beside what the run learned
stands the tokenizer with the chat template it was trained with.
"""

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder
from fedllm_eval.policy.run_folder import ADAPTER, MODEL
from fedllm_train.adapters.arithmetic import Adapter, Parts, save_adapter
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.adapters.shifted_model import save_finished_adapter

__all__ = ["copy_finished", "finished_folder", "save_client_folder", "save_held_folder", "save_server_folder"]

Model = PeftModel | PreTrainedModel


def finished_folder(model: Model) -> str:
    """Return the name, in a run folder, of the folder that holds what was learned."""
    return ADAPTER if isinstance(model, PeftModel) else MODEL


def copy_finished(made: Path, folder: Path, tokenizer: Any) -> Path:
    """Copy what a run learned, with its tokenizer, into a folder; return where it lies.

    Args:
        made: the run's `adapter/` or `model/`.
        folder: a folder that does not exist or is empty; the run folder stands for `made` itself.
        tokenizer: saved beside it there.

    Raises:
        ConfigError: if the folder holds something.
    """
    if folder.resolve() in (made.resolve(), made.parent.resolve()):
        return made
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and holds something; choose an empty folder, or one that does not exist")
    with fill_folder(folder) as target:
        shutil.copytree(made, target, dirs_exist_ok=True)
        tokenizer.save_pretrained(target)
    return folder


def save_held_folder(model: Model, folder: Path, tokenizer: Any = None) -> None:
    """Write the adapter that a model holds, or the model itself if it has no adapter, with a tokenizer if given."""
    if isinstance(model, PeftModel):
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card; the run folder has its own
    else:
        model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def save_server_folder(model: Model, server: Parts, folder: Path, *, shifts_base: bool, tokenizer: Any = None) -> None:
    """Write what a server's state learned, for the original base; the model holds its adapter afterwards.

    Args:
        model: a model whose adapter is called "default", or that is trained as a whole.
        server: the server's state.
        folder: an empty folder.
        shifts_base: whether the method may have added something to the base weights, which the folder then holds too.
        tokenizer: what the run was trained with; saved beside the adapter.
    """
    LiveAdapter(model).load(server["adapter"])
    if shifts_base:
        save_finished_adapter(model, server, folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    else:
        save_held_folder(model, folder, tokenizer)


def save_client_folder(model: Model, adapter: Adapter, folder: Path, tokenizer: Any = None) -> None:
    """Write a client's own adapter, whose rank may be higher than the model's.

    A tokenizer goes with a whole model alone: adapters of clients are many, and the run's own adapter has it.
    """
    live = LiveAdapter(model)
    if any(adapter[name].shape != parameter.shape for name, parameter in live.parameters.items()):
        save_finished_adapter(model, {"adapter": adapter}, folder)
    elif isinstance(model, PeftModel):
        # What PEFT writes, without the card that it renders for every folder.
        config: Any = deepcopy(model.peft_config["default"])
        config.inference_mode = True
        save_adapter(adapter, folder / "adapter_model.safetensors")
        config.save_pretrained(str(folder))
    else:
        live.load(adapter)
        save_held_folder(model, folder, tokenizer)
