"""Score each client with the adapter it ended with: what a method that personalises is worth to whom it is for.

A run of such a method holds `personal/clients.json`, from client ids to folders of plain PEFT adapters (of whole
models, where all weights were trained). A client of the split is scored with its own adapter on its own rows; one that
has none (it came too late, or was left out) with the run's global adapter, or it is left out, and a note says how many
there are.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.per_client import Progress, evaluate_policy, sample_positions
from fedllm_eval.policy.policies import Policy, load_policy
from fedllm_eval.scores import ClientScores, warnings_about

__all__ = ["Others", "evaluate_personal", "personal_folders"]

Others = ClientScores | Literal["score", "leave out"]
"""What becomes of clients without an adapter of their own."""


def personal_folders(run: Path) -> dict[str, Path]:
    """Return the adapter folder of each client of a run; empty for a run that made none.

    Raises:
        ConfigError: if the list of clients cannot be read or names a folder that is not there.

    >>> personal_folders(Path("no/such/run"))
    {}
    """
    listed = run / "personal" / "clients.json"
    if not listed.is_file():
        return {}
    try:
        entries = json.loads(listed.read_text(encoding="utf-8"))
        made = {client_id: entry["folder"] for client_id, entry in entries.items() if "folder" in entry}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{listed} cannot be read ({error}); finish the run again with --resume") from error
    folders = {client_id: listed.parent / name for client_id, name in made.items()}
    for client_id, folder in folders.items():
        if not any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
            raise ConfigError(f"{listed} names {folder.name} for client {client_id!r}, which holds no adapter")
    return folders


def evaluate_personal(
    policy: Policy,
    folders: Mapping[str, Path],
    clients: ClientDataset,
    *,
    reference: Policy | None = None,
    others: Others = "score",
    max_clients: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> ClientScores:
    """Score each client of a split with its own adapter.

    Args:
        policy: the run's global policy; its base is shared.
        folders: client id -> adapter folder, from `personal_folders`.
        clients: the clients of one split.
        reference: as in `evaluate_policy`.
        others: what becomes of clients without an adapter of their own: their scores under the global policy, given
            as they were made with the same settings (so that they neither gain nor lose a last digit) or to be made;
            or they are left out.
        max_clients: score at most so many clients: the same ones that `evaluate_policy` would.
        seed: of the samples.
        progress: told (what is scored, clients done, clients in all) after every client.
        options: further ones of `evaluate_policy`.

    Returns:
        The per-client table; `policy.personal` counts the adapters that were used.

    Raises:
        ConfigError: if no client of the split has an adapter.
    """
    known = list(clients)
    chosen = [known[position] for position in sample_positions(known, max_clients, seed, "clients")]
    own = [client_id for client_id in chosen if client_id in folders]
    if not own:
        raise ConfigError(
            f"none of the {len(chosen)} clients of split {clients.split!r} has an adapter of its own; score split test"
        )
    num_sampled = len(chosen)
    if others == "leave out":
        chosen = own
    parts = []
    for position, client_id in enumerate(chosen):
        if client_id not in folders and isinstance(others, ClientScores):
            parts.append(_of_client(others, client_id))
            continue
        folder, name = folders.get(client_id), f"{policy.name}: {client_id}"
        whole = folder is not None and not (folder / "adapter_config.json").is_file()
        if folder is None:
            scored = policy
        elif whole:  # full fine-tuning: a model of its own, which is gone after its turn
            scored = replace(load_policy(folder), name=name)
        else:
            scored = replace(policy, name=name, adapter=folder)
            policy.backbone.load_adapter(folder)
        parts.append(evaluate_policy(scored, clients.select([client_id]), reference=reference, seed=seed, **options))
        due = folders.get(chosen[position + 1]) if position + 1 < len(chosen) else None
        if folder is not None and not whole and folder != due:  # clients may share an adapter
            policy.backbone.unload_adapter(folder)
        if progress is not None:
            progress("personal adapters", position + 1, len(chosen))
    table = pa.concat_tables([part.table for part in parts])
    notes = []
    if others == "leave out" and len(own) < num_sampled:
        notes.append(f"{num_sampled - len(own)} of {num_sampled} clients have no adapter of their own: left out")
    elif len(own) < len(chosen):
        without = len(chosen) - len(own)
        notes.append(f"{without} of {len(chosen)} clients have no adapter of their own: scored with the global one")
    if num_sampled < len(known):
        notes.append(f"{num_sampled} of {len(known)} clients were sampled (seed {seed})")
    rows = [part.rows for part in parts if part.rows is not None]
    first = next(part for part, client_id in zip(parts, chosen, strict=True) if client_id in folders)
    return replace(
        first,
        table=table,
        rows=pa.concat_tables(rows) if len(rows) == len(parts) else None,
        policy={**policy.describe(), "personal": len(own)},
        dataset={**first.dataset, "num_clients": len(known), "num_rows": clients.rows.num_rows},
        settings={**first.settings, "max_clients": max_clients},
        notes=(*notes, *warnings_about(table)),
    )


def _of_client(scores: ClientScores, client_id: str) -> ClientScores:
    """One client's part of what was scored before."""

    def own(table: pa.Table) -> pa.Table:
        return table.filter(pc.equal(table["client_id"], client_id))

    return replace(scores, table=own(scores.table), rows=None if scores.rows is None else own(scores.rows))
