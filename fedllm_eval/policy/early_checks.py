"""What can be refused before a library of models is imported and before anything is fetched."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.locate import HUB_ID, locate

__all__ = ["check_policies"]

_NEEDED = ("torch", "transformers", "peft")
"""What the extra `train` brings and a policy needs."""


def check_policies(names: Iterable[object]) -> None:
    """Refuse names that can stand for no policy; a Hub id passes, since only the Hub knows it.

    Args:
        names: folders and Hub ids; whatever else is among them (None, a policy in memory) passes.

    Raises:
        ConfigError: if a name is neither a folder nor a Hub id, or a folder holds no run, adapter or model.
        ModuleNotFoundError: if a library that every policy needs is not installed.

    >>> check_policies([None, "org/model"])
    >>> check_policies(["no/such/folder"])
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: 'no/such/folder' is neither a folder here nor a Hub id; check the path
    """
    for name in names:
        if not isinstance(name, str | Path):
            continue
        if Path(name).is_dir():
            locate(name)
        elif Path(name).exists() or not HUB_ID.fullmatch(str(name)):
            raise ConfigError(f"{str(name)!r} is neither a folder here nor a Hub id; check the path")
    for module in _NEEDED:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
