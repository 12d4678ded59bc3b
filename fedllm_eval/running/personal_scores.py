"""Score each client with the adapter it ended with: what a method that personalises is worth to whom it is for.

A run of such a method holds `personal/clients.json`, from client ids to folders of plain PEFT adapters (of whole
models, where all weights were trained). A client of the split is scored with its own adapter on its own rows; one that
has none (it came too late, or was left out) with the run's global adapter, or it is left out, and a note says how many
there are.

Equal adapters give equal scores, to the last digit: clients whose folders hold the same content are scored together,
and a client whose adapter is the global one, or still what the run started from, takes the scores of that policy where
they are known. Who still has what the run started from never trained, and a note names them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import words
from fedllm_eval.per_client import Progress, evaluate_policy, sample_positions
from fedllm_eval.policy.adapter_content import adapter_content
from fedllm_eval.policy.known_logps import Kept, KeptOfOne
from fedllm_eval.policy.policies import Policy, load_policy
from fedllm_eval.policy.run_folder import is_private_run
from fedllm_eval.scores import ClientScores, warnings_about

__all__ = ["Others", "evaluate_personal", "policy_content"]

Others = ClientScores | Literal["score", "leave out"]
"""What becomes of clients without an adapter of their own."""


def evaluate_personal(
    policy: Policy,
    folders: Mapping[str, Path],
    clients: ClientDataset,
    *,
    reference: Policy | None = None,
    others: Others = "score",
    known: Mapping[str, ClientScores] | None = None,
    max_clients: int | None = None,
    seed: int = 0,
    kept: Kept | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ClientScores:
    """Score each client of a split with its own adapter.

    Args:
        policy: the run's global policy; its base is shared.
        folders: client id -> adapter folder, from `run_folder.personal_folders`.
        clients: the clients of one split.
        reference: as in `evaluate_policy`.
        others: what becomes of clients without an adapter of their own: their scores under the global policy, given
            as they were made with the same settings (so that they neither gain nor lose a last digit) or to be made;
            or they are left out.
        known: content of a policy (`policy_content`) -> its scores on this split with the same settings, such as those
            of the global policy and of the base.
        max_clients: score at most this many clients: the same ones that `evaluate_policy` would.
        seed: seeds the samples.
        kept: log-probabilities of earlier passes. The reference's are taken from it and kept; personal adapters are
            too many.
        progress: called with (what is scored, clients done, clients in all) after every client.
        options: further ones of `evaluate_policy`.

    Returns:
        The per-client table; `policy.personal` counts the adapters that were used, and `never_trained` names the
        clients whose adapter is still the start's.

    Raises:
        ConfigError: if no client of the split has an adapter.
    """
    all_ids = clients.ids
    chosen = [all_ids[position] for position in sample_positions(all_ids, max_clients, seed, "clients")]
    own = [client_id for client_id in chosen if client_id in folders]
    if not own:
        raise ConfigError(
            f"none of the {len(chosen)} clients of split {clients.split!r} has an adapter of its own; score split test"
        )
    options["kept"] = None if kept is None else KeptOfOne(kept, reference)
    num_sampled = len(chosen)
    if others == "leave out":
        chosen = own
    contents = {client_id: adapter_content(folders[client_id]) for client_id in own}
    # Content -> clients that it was scored on before.
    scored_on = {content: set(scores.table["client_id"].to_pylist()) for content, scores in (known or {}).items()}
    groups: dict[str | None, list[str]] = {}
    made: dict[str, ClientScores] = {}
    for client_id in chosen:
        content = contents.get(client_id)
        if client_id not in folders and isinstance(others, ClientScores):
            made[client_id] = _of_client(others, client_id)
        elif known is not None and content is not None and client_id in scored_on.get(content, ()):
            made[client_id] = _of_client(known[content], client_id)
        else:
            key = None if client_id not in folders else content or f"client {client_id}"
            groups.setdefault(key, []).append(client_id)
    for key, members in groups.items():
        folder = None if key is None else folders[members[0]]
        name = policy.name if folder is None else f"{policy.name}: {members[0]}"
        together = clients.select(members)
        scores = _score_group(policy, folder, name, together, reference=reference, seed=seed, **options)
        made |= {client_id: _of_client(scores, client_id) for client_id in members}
        if progress is not None:
            progress("personal adapters", len(made), len(chosen))
    parts = [made[client_id] for client_id in chosen]
    table = pa.concat_tables([part.table for part in parts])
    notes = []
    if others == "leave out" and len(own) < num_sampled:
        notes.append(
            words(
                "{num} of {total} clients have no adapter of their own: left out",
                num=num_sampled - len(own),
                total=num_sampled,
            )
        )
    elif len(own) < len(chosen):
        without = len(chosen) - len(own)
        notes.append(
            words(
                "{num} of {total} clients have no adapter of their own: scored with the global one",
                num=without,
                total=len(chosen),
            )
        )
    start = adapter_content(policy.location.start_adapter if policy.location else None)
    never_trained = tuple(client_id for client_id in own if contents[client_id] == start)
    if policy.location is not None and is_private_run(policy.location.folder):
        never_trained = ()  # who took part is not covered by the guarantee
    if never_trained:
        notes.append(
            words(
                "{num} of {total} clients never trained, their own adapter is still what the run started from",
                num=len(never_trained),
                total=len(chosen),
            )
        )
    if num_sampled < len(all_ids):
        notes.append(
            words(
                "{num} of {total} clients were sampled (seed {number})",
                num=num_sampled,
                total=len(all_ids),
                number=seed,
            )
        )
    rows = [part.rows for part in parts if part.rows is not None]
    first = next(part for part, client_id in zip(parts, chosen, strict=True) if client_id in folders)
    return replace(
        first,
        table=table,
        rows=pa.concat_tables(rows) if len(rows) == len(parts) else None,
        policy={**policy.describe(), "personal": len(own)},
        dataset={**first.dataset, "num_clients": len(all_ids), "num_rows": clients.rows.num_rows},
        settings={**first.settings, "max_clients": max_clients},
        notes=(*notes, *warnings_about(table)),
        never_trained=never_trained,
    )


def policy_content(policy: Policy) -> str | None:
    """Return a digest of what a policy is on its base: `adapter_content` of its adapter, or of its whole model."""
    location = policy.location
    whole = location.model if location is not None and location.kind == "run" else None
    return adapter_content(policy.adapter if whole is None else whole)


def _score_group(
    policy: Policy, folder: Path | None, name: str, clients: ClientDataset, **options: Any
) -> ClientScores:
    """Score clients that share one adapter (or, without a folder, have none), and forget the adapter again."""
    if folder is None:
        return evaluate_policy(policy, clients, **options)
    if not (folder / "adapter_config.json").is_file():
        # Full fine-tuning: a model of its own, which is gone after its turn.
        return evaluate_policy(replace(load_policy(folder), name=name), clients, **options)
    policy.backbone.load_adapter(folder)
    scores = evaluate_policy(replace(policy, name=name, adapter=folder), clients, **options)
    policy.backbone.unload_adapter(folder)
    return scores


def _of_client(scores: ClientScores, client_id: str) -> ClientScores:
    """One client's part of what was scored before."""

    def own(table: pa.Table) -> pa.Table:
        return table.filter(pc.equal(table["client_id"], client_id))

    return replace(scores, table=own(scores.table), rows=None if scores.rows is None else own(scores.rows))
