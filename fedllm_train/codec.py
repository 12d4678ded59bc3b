"""What travels between server and clients, as the very bytes that would be sent.

A message is a safetensors file in memory: names, shapes, precisions and values, readable without unpickling. The
ledger counts `len(message)` (design rule 7); compression will be further codecs with the same two functions.
"""

from safetensors.torch import load, save

from fedllm_train.adapter import Adapter

__all__ = ["decode", "encode"]


def encode(adapter: Adapter) -> bytes:
    """Return the message that carries an adapter, values unchanged.

    >>> import torch
    >>> len(encode({"a": torch.zeros(100)})) > 400
    True
    """
    return save({name: adapter[name].contiguous() for name in sorted(adapter)})


def decode(message: bytes) -> Adapter:
    """Return the adapter a message carries.

    >>> import torch
    >>> decode(encode({"a": torch.ones(2)}))["a"].tolist()
    [1.0, 1.0]
    """
    return load(message)
