"""Whether the tensors of an adapter's file have their places in a model, all of them and nowhere else.

PEFT leaves what a file lacks as it was drawn, passes over what it has no place for, and writes embeddings that it
saved beside an adapter into the base itself. An adapter of a model with fewer layers, or of other modules, then counts
as loaded. Imports peft when an adapter is loaded, not before.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["check_leaves_base_alone", "check_loaded", "without_warnings_about_keys"]


@contextmanager
def without_warnings_about_keys() -> Iterator[None]:
    """Keep PEFT from warning about what `check_loaded` refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        yield


def check_leaves_base_alone(model: Any, config: Any, folder: str) -> None:
    """Refuse an adapter whose file would overwrite weights of the base: embeddings saved beside it, with other values.

    Args:
        model: the base, or a `PeftModel` around it.
        config: the adapter's settings.
        folder: where its files lie, or a Hub id.

    Raises:
        ConfigError: naming the weight. Where the file holds the base's very values, it may have them.
    """
    from peft.utils import load_peft_weights

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    of_base = {name.replace(".base_layer.", "."): each for name, each in base.named_parameters()}
    replaced = tuple(getattr(config, "modules_to_save", None) or ())
    for key, tensor in load_peft_weights(folder, device="cpu").items():
        name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if name not in of_base or _within(name, replaced):
            continue
        own = of_base[name].detach().cpu()
        if own.shape != tensor.shape or not bool((tensor.to(own.dtype) == own).all()):
            raise ConfigError(
                f"adapter {folder!r} also holds {name} of its base, with other values than this base has: it would "
                "change the base for every policy on it; merge the adapter into its own base and name that model"
            )


def check_loaded(model: Any, adapter_name: str, folder: str) -> None:
    """Load an adapter's weights once more and refuse it if something is left over on either side.

    Args:
        model: a `PeftModel` that has the adapter.
        adapter_name: its name inside the model.
        folder: where its files lie, or a Hub id.

    Raises:
        ConfigError: naming the first tensor without a counterpart.
    """
    if model.peft_config[adapter_name].is_prompt_learning:
        return  # a single table, which PEFT loads strictly
    result = model.load_adapter(folder, adapter_name)
    # VBLoRA's bank, which all layers share, is in the file once.
    missing = [name for name in result.missing_keys if "vblora_vector_bank" not in name.split(".")]
    for names, problem in ((missing, "lacks"), (list(result.unexpected_keys), "holds")):
        if names:
            raise ConfigError(
                f"adapter {folder!r} {problem} {sorted(names)[0]} ({len(names)} such), for which the base model has "
                f"{'room' if problem == 'lacks' else 'no room'}: it was trained on another base; name that one"
            )


def _within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a weight lies in one of some modules, which are named by how their paths end, as PEFT reads them."""
    parts = name.split(".")
    return any(".".join(parts[:depth]).endswith(modules) for depth in range(1, len(parts)))
