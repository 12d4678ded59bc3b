"""Values as JSON can hold them: what is undefined is null there, never NaN."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["without_nan"]


def without_nan(value: Any) -> Any:
    """Return the value as JSON can hold it: what is undefined (NaN) becomes null.

    >>> without_nan({"ci_low": float("nan"), "notes": ("a",)})
    {'ci_low': None, 'notes': ['a']}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
