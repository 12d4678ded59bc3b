"""Logits where answers stand, and nowhere else.

With a vocabulary of 50,000 the last multiplication is a fifth of a small model's time and most of its memory, while in
a batch of conversations a good part of the positions belong to nobody's answer. `logits_to_keep` of transformers takes
one set of positions for the whole batch; here each row has its own: the hidden states are gathered on their way into
the model's head. What models do to logits afterwards (scaling, capping) they do to each by itself. Imports torch when
called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["logits_at", "summed_logps"]


def logits_at(model: Any, rows_M: "torch.Tensor", columns_M: "torch.Tensor", **inputs: Any) -> "torch.Tensor":
    """Return the (M, V) logits of M places of a batch.

    Args:
        model: a causal language model.
        rows_M: rows of the batch.
        columns_M: positions in those rows; virtual tokens that an adapter puts first are not counted.
        inputs: of the model, `input_ids` among them.
    """
    rows_M, columns_M = rows_M.to(model.device), columns_M.to(model.device)
    width, num_rows = inputs["input_ids"].shape[1], inputs["input_ids"].shape[0]
    was_gathered = False

    def gather(_: Any, given: tuple[Any, ...]) -> Any:
        nonlocal was_gathered
        hidden = given[0]
        if hidden.ndim != 3 or hidden.shape[0] != num_rows or hidden.shape[1] < width:
            return None
        was_gathered = True
        return (hidden[rows_M, columns_M + (hidden.shape[1] - width)][None], *given[1:])

    head = _head(model)
    hook = None if head is None else head.register_forward_pre_hook(gather)
    try:
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    finally:
        if hook is not None:
            hook.remove()
    if was_gathered:
        return logits[0]
    return logits[rows_M, columns_M + (logits.shape[1] - width)]


def summed_logps(logits_TV: "torch.Tensor", tokens_T: "torch.Tensor") -> float:
    """Return the sum of T tokens' log-probabilities, in nats, given the logits at the places before them.

    >>> import torch
    >>> round(summed_logps(torch.zeros(2, 4), torch.tensor([0, 3])), 4)
    -2.7726
    """
    logits_TV = logits_TV.float()
    selected = logits_TV.gather(-1, tokens_T[:, None]).squeeze(-1).double()
    return float((selected - logits_TV.logsumexp(-1).double()).sum())


def _head(model: Any) -> Any:
    """The module that makes logits of hidden states; None where a model has none that it names."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        return base.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
