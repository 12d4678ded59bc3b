"""Whether a client's update can be folded in: the right tensors, finite, and not beyond the bound on its norm.

One client's broken update must not end a run or poison the average: it is left out, and the round record says why.
"""

from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, distance, flatten

__all__ = ["update_problem"]


def update_problem(update: Parts, expected: Shapes, anchor: Adapter, *, max_norm: float | None) -> str | None:
    """Return why an update is refused, or None.

    Args:
        update: what the client returned.
        expected: the names and shapes it must have.
        anchor: what the client's training started from, from which the norm is measured.
        max_norm: largest allowed Euclidean norm of the adapter's change; None allows any norm.

    >>> import torch
    >>> shapes = {"adapter": {"a": (2,)}}
    >>> update_problem({"adapter": {"a": torch.full((2,), float("nan"))}}, shapes, {}, max_norm=None)
    'its update is not finite; lower the learning rate'
    >>> update_problem({"adapter": {"a": torch.ones(3)}}, shapes, {}, max_norm=None)
    'its update has shape (3,) for adapter//a where (2,) is expected'
    """
    got = flatten(update)
    wanted = {f"{part}//{name}": shape for part, shapes in expected.items() for name, shape in shapes.items()}
    if odd := sorted(got.keys() ^ wanted.keys()):
        side = "lacks" if odd[0] in wanted else "has the unexpected"
        return f"its update {side} {odd[0]}" + (f" and {len(odd) - 1} more odd tensors" if len(odd) > 1 else "")
    for name, tensor in got.items():
        if tuple(tensor.shape) != wanted[name]:
            return f"its update has shape {tuple(tensor.shape)} for {name} where {wanted[name]} is expected"
    if not all(bool(tensor.isfinite().all()) for tensor in got.values()):
        return "its update is not finite; lower the learning rate"
    if max_norm is not None and "adapter" in expected:
        if (norm := distance(update["adapter"], anchor)) > max_norm:
            return f"its update has norm {norm:.4g}, beyond max_update_norm {max_norm:g}"
    return None
