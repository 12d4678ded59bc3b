"""The policies of one evaluation, scored split by split: base, global, personal, and those that they are set against.

All are scored on the same clients and rows with the same settings and, for preference pairs, against the same
reference. Policies on one base share its weights in memory; each policy and split is one part
(`running/finished_parts.py`).
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.per_client import evaluate_policy, sample_positions
from fedllm_eval.policy.run_folder import personal_folders
from fedllm_eval.running.finished_parts import FinishedPart, FinishedParts
from fedllm_eval.running.personal_scores import Others, evaluate_personal
from fedllm_eval.scores import ClientScores
from fedllm_eval.texts import text_bytes

if TYPE_CHECKING:
    from fedllm_eval.policy.known_logps import KeptLogps
    from fedllm_eval.policy.policies import Policy

__all__ = ["Earlier", "ScoredPolicy", "identity", "of_run", "score_on_splits"]

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ScoredPolicy:
    """One policy (or the personal ones of a run) that is put on every split."""

    label: str
    """`policy`, `base`, `personal`, `alone`, `centralised` or `language: CODE`."""
    policy: "Policy"
    personal: Mapping[str, Path] = field(default_factory=dict)
    """Client id -> adapter folder; every client is then scored with its own."""
    own_only: bool = False
    """Whether clients without an adapter of their own are left out; else the global policy stands in."""


@dataclass(frozen=True)
class Earlier:
    """Scores of a policy that others of the same evaluation may turn out to equal."""

    content: str | None
    """Digest of the policy, as `personal_scores.policy_content` gives it."""
    scores: Sequence[ClientScores]
    """One item per split."""


def score_on_splits(
    scored: ScoredPolicy,
    all_clients: Sequence[ClientDataset],
    parts: FinishedParts,
    *,
    reference: "Policy | None",
    earlier: Sequence[Earlier] = (),
    kept: "KeptLogps | None" = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[ClientScores]:
    """Score a policy on every split, as far as it can be scored there.

    Args:
        scored: what is scored.
        all_clients: the splits.
        parts: where finished splits are kept.
        reference: as in `evaluate_policy`.
        earlier: what was scored before with the same settings, the global policy first: it stands in for clients
            without an adapter of their own, and an adapter that equals one of these takes its scores.
        kept: log-probabilities of earlier passes, as in `evaluate_policy`; saved after every split.
        progress: called with (policy and split, sequences done, sequences in all).
        options: further ones of `evaluate_policy`.

    Returns:
        One item per split; personal adapters leave splits out whose clients have none, and all of them with a warning.

    Raises:
        ConfigError: if a setting cannot be used, or nobody trained alone is among the clients.
    """
    found = []
    for clients in all_clients:
        if scored.personal and not _anybody(scored.personal, clients, options):
            continue
        key = {
            "policy": identity(scored.policy),
            "personal": _adapters_digest(scored.personal),
            **({"own_only": scored.own_only} if scored.personal else {}),
            "reference": None if reference is None else identity(reference),
            "data": [clients.name, clients.revision, clients.split],
            **{name: value for name, value in options.items() if name != "batch_size"},
        }
        known = None not in (key["policy"], clients.revision) and (reference is None or key["reference"] is not None)
        told = _told(progress, scored.label, clients.split)
        of_split = [(one.content, scores) for one in earlier for scores in one.scores if scores.split == clients.split]
        also: dict[str, Any] = {"reference": reference, "progress": told, "kept": kept}
        make = partial(_score, scored, clients, of_split, {**options, **also})
        found.append(_from_part(parts.get(f"scores {scored.label} {clients.split}", key if known else None, make)))
    if not found and scored.label == "personal":
        # Nobody asked for these in particular, and a small sample of clients may have none.
        logger.warning(
            "none of the clients that are scored has an adapter of its own in %r: personal adapters are left out",
            scored.policy.name,
        )
    elif not found:
        raise ConfigError(
            f"no client of {', '.join(clients.split for clients in all_clients)} has an adapter of its own in "
            f"{scored.policy.name!r}; score split test"
        )
    return found


def identity(policy: "Policy") -> dict[str, Any] | None:
    """Return what settles a policy's scores: weights and chat template; None for a model made in memory."""
    about = policy.describe()
    if about["base_digest"] is None:
        return None
    template = policy.tokenizer.chat_template
    digest = hashlib.sha256(text_bytes(str(template))).hexdigest()
    return {
        "name": about["name"],
        "base": about["base_digest"],
        "adapter": about["adapter_sha256"],
        "chat_template": digest,
    }


def of_run(label: str, policy: "Policy", *, alone: bool = False) -> ScoredPolicy | None:
    """Return the personal adapters of a run's policy, None where it made none.

    Raises:
        ConfigError: if `alone` is asked for and the run made none, or the list of clients is broken.
    """
    folder = policy.location.folder if policy.location is not None else None
    folders = {} if folder is None else personal_folders(folder)
    if not folders and alone:
        raise ConfigError(
            f"{policy.name!r} holds no personal/clients.json, so nobody trained alone there; name a run of "
            "--strategy local"
        )
    return ScoredPolicy(label=label, policy=policy, personal=folders, own_only=alone) if folders else None


def _score(
    scored: ScoredPolicy,
    clients: ClientDataset,
    earlier: Sequence[tuple[str | None, ClientScores]],
    settings: Mapping[str, Any],
) -> FinishedPart:
    if scored.personal:
        others: Others = "leave out" if scored.own_only else earlier[0][1] if earlier else "score"
        known = {content: scores for content, scores in reversed(earlier) if content is not None}
        found = evaluate_personal(scored.policy, scored.personal, clients, others=others, known=known, **settings)
    else:
        found = evaluate_policy(scored.policy, clients, **settings)
    if settings["kept"] is not None:
        settings["kept"].save()
    return _to_part(found)


def _anybody(folders: Mapping[str, Path], clients: ClientDataset, options: Mapping[str, Any]) -> bool:
    known = clients.ids
    chosen = sample_positions(known, options.get("max_clients"), options.get("seed", 0), "clients")
    return any(known[position] in folders for position in chosen)


def _adapters_digest(folders: Mapping[str, Path]) -> str | None:
    if not folders:
        return None
    digest = hashlib.sha256()
    own = {folder: _file_digest(folder / "adapter_model.safetensors") for folder in set(folders.values())}
    for client_id, folder in sorted(folders.items()):
        digest.update(f"{client_id}\0{own[folder]}\n".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(progress: Progress | None, label: str, split: str) -> Progress | None:
    if progress is None:
        return None
    where = split if label == "policy" else f"{label}, {split}"
    return lambda what, done, total: progress(f"{where}, {what}", done, total)


_LISTS = ("notes", "never_trained", "took_no_part")
_FIELDS = ("task", "split", "policy", "reference", "dataset", "settings")


def _to_part(scores: ClientScores) -> FinishedPart:
    record = {name: getattr(scores, name) for name in _FIELDS}
    record |= {name: list(getattr(scores, name)) for name in _LISTS}
    tables: dict[str, pa.Table] = {"clients": scores.table}
    if scores.rows is not None:
        tables["rows"] = scores.rows
    return FinishedPart(record, tables)


def _from_part(part: FinishedPart) -> ClientScores:
    return ClientScores(
        **{name: part.record[name] for name in _FIELDS},
        notes=tuple(part.record["notes"]),
        never_trained=tuple(part.record["never_trained"]),
        took_no_part=tuple(part.record["took_no_part"]),
        table=part.tables["clients"],
        rows=part.tables.get("rows"),
    )
