"""YAML in which a key stands once: of two equal keys plain YAML lets the last win, and the first one is lost."""

from typing import Any

import yaml

__all__ = ["RepeatedKeyError", "read_yaml"]


class RepeatedKeyError(yaml.YAMLError):
    """A mapping names a key twice."""

    def __init__(self, key: str | int, line: int) -> None:
        """Take the key, and the line of its second place, counted from 1."""
        super().__init__(f"it names the key {key!r} twice (line {line}); leave one out")
        self.key, self.line = key, line


def read_yaml(text: str) -> Any:
    r"""Return what a YAML text holds.

    Raises:
        RepeatedKeyError: if a mapping names a key twice.
        yaml.YAMLError: if it is no YAML.

    >>> read_yaml("approve: ask\nmax_rounds: 5\n")
    {'approve': 'ask', 'max_rounds': 5}
    >>> read_yaml("approve: ask\napprove: auto\n")
    Traceback (most recent call last):
    fedllm_data.unique_keys.RepeatedKeyError: it names the key 'approve' twice (line 2); leave one out
    """
    return yaml.load(text, _UniqueKeyLoader)


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int) and key in seen:
                raise RepeatedKeyError(key, key_node.start_mark.line + 1)
            seen.add(key if isinstance(key, str | int) else repr(key))
        return super().construct_mapping(node, deep)
