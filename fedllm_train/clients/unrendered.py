"""Rows that the chat template cannot render, found before round 1 without rendering every row.

Whether a template can render a conversation is nearly always a matter of its roles: it knows no system role, or wants
user and assistant in turn. So every order of roles that the clients have is tried on some of its rows. Rows that fail
for another reason are found when their client is first visited (`clients/token_cache.py`). Both are left out and
counted.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ChatTemplateError, ConfigError
from fedllm_eval.policy.run_folder import UNRENDERED_FILE, whole_lines
from fedllm_eval.policy.run_records import UnrenderedRecord
from fedllm_train.run_files.run_writing import write_json

__all__ = ["UnrenderedRows", "find_unrendered", "unrendered_at_sites", "write_unrendered"]

logger = logging.getLogger(__name__)

_COLUMNS = {"sft": ("messages",), "preference": ("prompt", "chosen", "rejected")}
_TRIES = 4
"""Rows of an order of roles that must all fail before the order counts as one that cannot be rendered."""

_AT_SITE = "the client's site said so"
"""The reason of rows that the server does not see."""

Pattern = tuple[tuple[str | None, ...], ...]
"""Roles of a row's conversations."""


@dataclass(frozen=True)
class UnrenderedRows:
    """The rows that are left out."""

    by_client: dict[str, dict[str, int]]
    """Client id -> reason -> rows of the dataset."""
    num_rows: int
    """Rows of all clients, those that are left out among them."""

    @property
    def num_unrendered(self) -> int:
        """How many rows are left out."""
        return sum(sum(reasons.values()) for reasons in self.by_client.values())

    def reasons(self) -> dict[str, int]:
        """Return how many rows are left out for each reason, the most frequent first."""
        total: dict[str, int] = {}
        for counts in self.by_client.values():
            for reason, count in counts.items():
                total[reason] = total.get(reason, 0) + count
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def line(self) -> str:
        """Return one line for people."""
        why = "; ".join(f"{reason} ({count:,})" for reason, count in list(self.reasons().items())[:3])
        return (
            f"{self.num_unrendered:,} of {self.num_rows:,} rows, from {len(self.by_client):,} clients, are left out: "
            f"the chat template cannot render them ({why})"
        )

    def as_record(self) -> UnrenderedRecord:
        """Return what the run folder keeps, JSON-ready."""
        return {
            "num_rows": self.num_rows,
            "num_unrendered_rows": self.num_unrendered,
            "reasons": self.reasons(),
            "clients": self.by_client,
        }


def find_unrendered(clients: ClientDataset, encode: Callable[[dict[str, Any]], Any]) -> UnrenderedRows:
    """Return the rows whose order of roles cannot be rendered.

    Args:
        clients: the clients that train.
        encode: renders a row and raises `ChatTemplateError` for one that cannot be.

    Raises:
        ConfigError: if no row is left.
    """
    examples: dict[Pattern, list[int]] = {}
    for index, (_, pattern) in enumerate(_patterns(clients)):
        rows = examples.setdefault(pattern, [])
        if len(rows) < _TRIES:
            rows.append(index)
    reasons = {pattern: _reason(clients, rows, encode) for pattern, rows in examples.items()}
    by_client: dict[str, dict[str, int]] = {}
    if any(reasons.values()):  # counted apart, so that memory grows with those who lose rows and not with all clients
        for client_id, pattern in _patterns(clients):
            if (reason := reasons[pattern]) is not None:
                failed = by_client.setdefault(client_id, {})
                failed[reason] = failed.get(reason, 0) + 1
    found = UnrenderedRows(by_client, clients.rows.num_rows)
    if found.num_unrendered == found.num_rows:
        raise ConfigError(
            f"the chat template renders none of the {found.num_rows:,} rows of {clients.name!r} "
            f"({'; '.join(list(found.reasons())[:3])}); give another template by chat_template_path, or a model whose "
            "template fits these conversations"
        )
    return found


def unrendered_at_sites(rounds: Path, num_rows: int) -> UnrenderedRows:
    """Return the rows that sites said they could not render, of the clients that were visited.

    Args:
        rounds: `rounds.jsonl`, in which every visit has its count.
        num_rows: rows of all clients that may be asked.
    """
    by_client: dict[str, dict[str, int]] = {}
    for record in whole_lines(rounds):
        for visit in record.get("clients", ()):
            if count := visit.get("num_unrendered_rows", 0):
                by_client[visit["client_id"]] = {_AT_SITE: count}
    return UnrenderedRows(dict(sorted(by_client.items())), num_rows)


def write_unrendered(run: Path, unrendered: UnrenderedRows) -> None:
    """Write into a run folder which rows of which clients are left out; write nothing if none are."""
    if unrendered.num_unrendered:
        write_json(run / UNRENDERED_FILE, unrendered.as_record())


def _reason(clients: ClientDataset, rows: list[int], encode: Callable[[dict[str, Any]], Any]) -> str | None:
    """Why none of some rows can be rendered; None if one can."""
    reason = None
    for index in rows:
        try:
            encode(clients.rows[index])
        except ChatTemplateError as error:
            reason = reason or error.reason
        else:
            return None
    return reason


def _patterns(clients: ClientDataset) -> Iterator[tuple[str, Pattern]]:
    """Yield client and roles of each row in order, without the text of any message."""
    columns = _COLUMNS[clients.task]
    rows = clients.rows.select_columns(["client_id", *columns]).with_format("arrow")
    for batch in rows.iter(batch_size=10_000):
        roles = [_roles(batch[column].combine_chunks()) for column in columns]
        yield from zip(batch["client_id"].to_pylist(), zip(*roles, strict=True), strict=True)


def _roles(conversations: Any) -> list[tuple[str | None, ...]]:
    lengths = [length or 0 for length in pc.list_value_length(conversations).to_pylist()]
    roles = pc.struct_field(conversations.flatten(), "role").to_pylist()
    made, begin = [], 0
    for length in lengths:
        made.append(tuple(roles[begin : begin + length]))
        begin += length
    return made
