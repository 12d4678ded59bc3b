"""Whether the tensors of an adapter's file found their places in a model, all of them and nowhere else.

PEFT leaves what a file lacks as it was drawn, passes over what it has no place for, and writes saved embeddings into
the base itself. An adapter of a model with fewer layers, or of other modules, then counts as loaded. Imports peft when
an adapter is loaded, not before.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["check_loaded", "without_warnings_about_keys"]


@contextmanager
def without_warnings_about_keys() -> Iterator[None]:
    """Keep PEFT from warning about what `check_loaded` refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        yield


def check_loaded(model: Any, adapter_name: str, folder: str) -> None:
    """Load an adapter's weights once more and refuse it if something is left over on either side.

    Args:
        model: a `PeftModel` that has the adapter.
        adapter_name: its name inside the model.
        folder: where its files lie, or a Hub id.

    Raises:
        ConfigError: naming the first tensor without a counterpart, or that belongs to the base itself.
    """
    from peft.utils import load_peft_weights

    if model.peft_config[adapter_name].is_prompt_learning:
        return  # a single table, which PEFT loads strictly
    of_base = {name for name, _ in model.named_parameters() if adapter_name not in name.split(".")}
    if shared := sorted(of_base & load_peft_weights(folder, device="cpu").keys()):
        raise ConfigError(
            f"adapter {folder!r} also holds {shared[0]}, which is the base model's own and would change it for every "
            "policy on it; merge the adapter into its base and name that model"
        )
    result = model.load_adapter(folder, adapter_name)
    # VBLoRA's bank, which all layers share, is in the file once.
    missing = [name for name in result.missing_keys if "vblora_vector_bank" not in name.split(".")]
    for names, problem in ((missing, "lacks"), (list(result.unexpected_keys), "holds")):
        if names:
            raise ConfigError(
                f"adapter {folder!r} {problem} {sorted(names)[0]} ({len(names)} such), for which the base model has "
                f"{'room' if problem == 'lacks' else 'no room'}: it was trained on another base; name that one"
            )
