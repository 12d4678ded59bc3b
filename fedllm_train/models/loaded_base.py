"""Whether a model in memory is still the one in the folder that it says it was loaded from.

Merging an adapter or training on leaves the name in place, so that a new adapter would name a base it was not trained
on, and be scored on that one. The first rows of every tensor are compared: both ways of changing a model move them.
"""

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

__all__ = ["is_as_saved"]

logger = logging.getLogger(__name__)

_NUM_ROWS = 8


@torch.no_grad()
def is_as_saved(model: PreTrainedModel, folder: Path | None) -> bool:
    """Return whether no weight of a model is known to differ from those in a folder; if one does, warn.

    Args:
        model: in memory, perhaps in another precision than on disk.
        folder: where it was loaded from; None if that is not known.
    """
    files = [] if folder is None else sorted(folder.glob("*.safetensors"))
    held = {name.replace(".base_layer", ""): tensor for name, tensor in model.state_dict().items()}
    for path in files:
        try:
            with safe_open(path, framework="pt") as saved:
                for name in sorted(saved.keys() & held.keys()):
                    if not _equal(held[name], saved.get_slice(name)):
                        logger.warning(
                            "the model in memory is not the one in %s (%s differs; an adapter was merged, or it was "
                            "trained since it was loaded), so the adapter of this run names no base; save the model "
                            "in a folder of its own and name that",
                            *(folder, name),
                        )
                        return False
        except (OSError, SafetensorError):  # whoever loads it will say what is wrong
            continue
    return True


def _equal(held: torch.Tensor, saved: object) -> bool:
    shape = saved.get_shape()  # type: ignore[attr-defined]
    if not held.is_floating_point() or not shape or shape[1:] != list(held.shape[1:]):
        return True  # quantised, a single number, or laid out in another way: nothing can be said
    rows = saved[: min(_NUM_ROWS, held.shape[0], shape[0])]  # type: ignore[index]
    ours = held[: rows.shape[0]].cpu()
    if not rows.is_floating_point() or rows.element_size() < 2 or ours.element_size() < 2:
        return True
    # Loaded in a lower precision, and perhaps widened again.
    rounded = (rows.to(dtype).to(ours.dtype) for dtype in (ours.dtype, torch.bfloat16, torch.float16))
    return any(torch.equal(ours, each) for each in rounded)
