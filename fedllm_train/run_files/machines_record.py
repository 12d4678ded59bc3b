"""What a run folder says of the clients' machines: where their numbers come from, and the table itself."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedllm_eval.machines.client_table import ClientTable, write_client_table
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_eval.policy.run_folder import CLIENT_TABLE_FILE

__all__ = ["machines_record", "write_machines"]

_MOST_WRITTEN = 100_000
"""A larger table follows from its setting and the run seed, and would be larger than the run."""


def machines_record(machines: ClientTable, shape: ModelShape) -> dict[str, Any]:
    """Return section `machines` of config.yaml: every source, and the model that the clock counts operations of.

    Args:
        machines: the clients' machines.
        shape: the model with what is trained of it.
    """
    return {"sources": [each._asdict() for each in machines.sources()], "model_shape": asdict(shape)}


def write_machines(run: Path, machines: ClientTable, client_ids: Sequence[str]) -> None:
    """Write the table of a run into its folder, unless it is there or very long."""
    if len(client_ids) <= _MOST_WRITTEN and not (run / CLIENT_TABLE_FILE).exists():
        write_client_table(run / CLIENT_TABLE_FILE, machines, client_ids)
