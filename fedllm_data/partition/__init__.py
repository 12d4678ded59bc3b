"""Artificial partitions of the same rows: the controls that natural clients are compared with."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedllm_data.partition.make import partition
    from fedllm_data.partition.rules import PartitionRule

__all__ = ["PartitionRule", "partition"]


def __getattr__(name: str) -> Any:
    """Import what builds client repos when it is asked for: a report needs the clusters alone."""
    if name == "partition":
        from fedllm_data.partition.make import partition

        return partition
    if name == "PartitionRule":
        from fedllm_data.partition.rules import PartitionRule

        return PartitionRule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
