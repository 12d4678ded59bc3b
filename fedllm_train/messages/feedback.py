"""Error feedback at the client: what a lossy codec did not send is not lost, where the client returns.

Symbols: v the client's change in this round, C the codec, s what is sent, d values each.

none   s = C(v)
ef14   s = C(v + e), then e <- v + e - s (Seide et al. 2014; Stich et al. 2018, arXiv 1809.07599): the sum of all that
       was sent is the sum of all changes but for the last e. e is kept in float32
ef21   s = C(v - g), then g <- g + s (Richtarik et al. 2021, arXiv 2106.05203): the client and the server have the
       same g, which stands for the client's change, also in a round whose upload is lost. g is kept in float64, so
       that the sum which the server keeps (`estimates.py`) is that of its clients' g up to the rounding of float64

e and g are parts of the client's memory, which counts from the step of an update that was accepted
(`clients/client_memory.py`): an upload that was lost or refused changes neither. A method that sends some tensors in
one round and others in the next (rolora) has an e and a g for each.
"""

from __future__ import annotations

from typing import Literal

from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.lazy_torch import torch
from fedllm_train.messages.packing import as_adapter, as_vector

__all__ = ["ESTIMATE", "HIDDEN", "RESIDUAL", "Feedback", "kept_after", "to_pack"]

Feedback = Literal["none", "ef14", "ef21"]
RESIDUAL = "upload residual"
"""The part of a client's memory with what it did not send yet (e)."""
ESTIMATE = "upload estimate"
"""The part of a client's memory with what the server takes for its change (g)."""
HIDDEN = (RESIDUAL, ESTIMATE)
"""Client rules do not see these."""
_PART = {"none": "", "ef14": RESIDUAL, "ef21": ESTIMATE}


def to_pack(rule: Feedback, change: torch.Tensor, hidden: Parts, like: Adapter) -> torch.Tensor:
    """Return what is packed instead of a change: v, v + e or v - g.

    Args:
        rule: the kind of feedback.
        change: v, in float64, tensors in the order of their names.
        hidden: what the client kept of the wire at its last visit that counts.
        like: names and shapes of what is sent.

    >>> v, like = torch.tensor([1.0, 2.0]).double(), {"a": torch.zeros(2)}
    >>> to_pack("ef14", v, {RESIDUAL: {"a": torch.tensor([0.0, 0.5])}}, like).tolist()
    [1.0, 2.5]
    >>> to_pack("ef21", v, {ESTIMATE: {"a": torch.tensor([1.0, 0.5])}}, like).tolist()
    [0.0, 1.5]
    """
    if rule == "none":
        return change
    kept = _vector_of(hidden.get(_PART[rule], {}), like)
    return change + kept if rule == "ef14" else change - kept


def kept_after(rule: Feedback, packed: torch.Tensor, sent: torch.Tensor, hidden: Parts, like: Adapter) -> Parts:
    """Return what the client keeps once its message is made, as a part of its memory.

    Args:
        rule: the kind of feedback.
        packed: what `to_pack` returned.
        sent: what the server unpacks.
        hidden: as for `to_pack`.
        like: names and shapes of what is sent.

    >>> x, s, like = torch.tensor([1.0, 2.5]).double(), torch.tensor([0.0, 2.5]).double(), {"a": torch.zeros(2)}
    >>> kept_after("ef14", x, s, {}, like)[RESIDUAL]["a"].tolist()
    [1.0, 0.0]
    >>> kept_after("ef21", x, s, {ESTIMATE: {"a": torch.ones(2).double()}}, like)[ESTIMATE]["a"].tolist()
    [1.0, 3.5]
    """
    if rule == "none":
        return {}
    part = _PART[rule]
    before = hidden.get(part, {})
    if rule == "ef14":
        now = as_adapter((packed - sent).to(torch.float32), like)
    else:
        now = as_adapter(_vector_of(before, like) + sent, like)
    return {part: before | now}


def _vector_of(kept: Adapter, like: Adapter) -> torch.Tensor:
    """What is kept of the tensors that are sent, zeros where nothing is."""
    return as_vector({name: kept.get(name, torch.zeros_like(tensor)).double() for name, tensor in like.items()})
