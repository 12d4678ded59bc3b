"""torch, imported on first use.

The files of methods and of the algebra on adapters take `torch` from here, so that a method's settings and its
capability record can be read, and a wrong one refused, without the seconds that importing torch takes. Such a file
begins with `from __future__ import annotations`, since an annotation would otherwise use `torch.Tensor` at once.
"""

from types import ModuleType
from typing import Any

__all__ = ["torch"]


class _Lazy(ModuleType):
    """A module that imports itself when it is first used."""

    def __getattr__(self, name: str) -> Any:
        import torch as loaded

        value = getattr(loaded, name)
        setattr(self, name, value)
        return value


torch = _Lazy("torch")
