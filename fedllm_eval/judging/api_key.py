"""The key of an endpoint: read from the environment, and kept out of everything that is printed or written."""

import os
import re

from fedllm_data.errors import ConfigError

__all__ = ["api_key", "without_key"]

_LIKE_A_KEY = re.compile(r"\b(?:sk|key|hf|gsk|xai|pk)[-_][\w*.-]{6,}", re.IGNORECASE)
"""What endpoints quote of a key that they refuse, often with stars in its middle."""


def api_key(variable: str | None, role: str) -> str | None:
    """Return the key in an environment variable; None where no variable is named.

    Args:
        variable: its name.
        role: whose key it is, for the error.

    Raises:
        ConfigError: if the variable is empty or missing.

    >>> api_key(None, "judge") is None
    True
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the {role}'s key was to be in environment variable {variable}, which is empty; set it")
    return key


def without_key(text: str, key: str | None) -> str:
    """Return a text that an endpoint said without the key that it was sent, and without what looks like one.

    >>> without_key("Incorrect API key provided: abc123def.", "abc123def")
    'Incorrect API key provided: [key].'
    >>> without_key("no such key: sk-ab****yz", None)
    'no such key: [key]'
    """
    if key:
        text = text.replace(key, "[key]")
    return _LIKE_A_KEY.sub("[key]", text)
