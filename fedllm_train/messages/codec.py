"""What travels between server and clients, as the very bytes that would be sent.

A message is a safetensors file in memory: names, shapes, precisions and values of all its parts, readable without
unpickling. The ledger counts `len(message)` (design rule 7). `messages/packing.py` says what replaces an adapter in a
smaller message.
"""

from fedllm_train.adapters.arithmetic import Parts, flatten, separate, unflatten

__all__ = ["decode", "encode"]


def encode(parts: Parts) -> bytes:
    """Return the message that carries some adapters, values unchanged.

    >>> import torch
    >>> len(encode({"adapter": {"a": torch.zeros(100)}})) > 400
    True
    """
    from safetensors.torch import save  # brings torch

    return save(separate(flatten(parts)))


def decode(message: bytes) -> Parts:
    """Return what a message carries.

    Raises:
        ValueError: if it is no message.

    >>> import torch
    >>> decode(encode({"adapter": {"a": torch.ones(2)}}))["adapter"]["a"].tolist()
    [1.0, 1.0]
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return unflatten(load(message))
    except (
        SafetensorError,
        ArithmeticError,
        AssertionError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(str(error)) from error
