"""Membership inference on a policy: can rows it was trained on be told from rows it was not?

Three scores a row, higher where the row looks trained on: `loss`, minus the mean loss per answer token (Yeom et al.
2018); `calibrated`, the start policy's mean loss minus the policy's, which takes out how hard a row is by itself
(Carlini et al. 2022; the strongest cheap attack on fine-tuned models); `min_k`, the mean log-probability of the 20 %
least likely tokens (Shi et al. 2024). Members are training rows of clients of the run, non-members rows of the same
repo that the run never saw.

Two things besides training set the two apart and are said in the notes: `unseen` rows come from other people, `test`
rows from the same people but under a split that keeps conversations (and so prompts) on one side. The start policy,
scored the same way, shows how much of an AUC is due to that: its own AUC should be 0.5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError, MetricError
from fedllm_data.wording.catalogue import words
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.audit.token_logps import token_logps
from fedllm_eval.per_client import sample_positions
from fedllm_eval.policy.chat import encode_messages, encode_pair
from fedllm_eval.scoring.epsilon_bound import MIN_UNITS, audit_epsilon
from fedllm_eval.scoring.membership import membership, min_k_score

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["audit_membership", "row_scores"]

Array = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
MIN_K_FRACTION = 0.2


def audit_membership(
    policy: "Policy",
    members: ClientDataset,
    nonmembers: ClientDataset,
    *,
    reference: "Policy | None" = None,
    settings: AuditSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Attack a policy with every score and say what the attacks prove.

    Args:
        policy: what was trained.
        members: the training rows, of clients of the run.
        nonmembers: rows that the run never saw.
        reference: the policy that the run started from; without one `calibrated` is left out.
        settings: delta, sample and batches; the defaults where None.
        progress: called after every batch.

    Returns:
        `attacks`: name -> AUC with interval (clients as the unit), true positives at 1 % and 0.1 % false positives,
        and `epsilon`: unit -> lower bound with its confidence, or None with a reason; `reference_auc`: what the start
        policy's loss gives; numbers of rows and clients; `notes`.

    Raises:
        ConfigError: if the two sides share rows or differ in task.
        MetricError: if no row of a side keeps a token within `max_length`.
    """
    settings = settings or AuditSettings()
    if members.task != nonmembers.task:
        raise ConfigError(f"members are {members.task} rows, non-members {nonmembers.task} rows; audit one task")
    sides = (("members", members), ("non-members", nonmembers))
    rows = {side: _rows(clients, settings.max_rows, settings.seed) for side, clients in sides}
    shared = {row["row_id"] for row in rows["members"] if row.get("row_id")} & {
        row["row_id"] for row in rows["non-members"] if row.get("row_id")
    }
    if shared:
        raise ConfigError(f"{len(shared)} rows are members and non-members at once; name two splits without overlap")
    found: dict[str, dict[str, Array]] = {}
    clients: dict[str, list[str]] = {}
    for side, side_rows in rows.items():
        scores = row_scores(
            policy,
            side_rows,
            members.task,
            reference=reference,
            batch_size=settings.batch_size,
            max_length=settings.max_length,
            progress=None if progress is None else _told(progress, side),
        )
        kept = np.flatnonzero(np.isfinite(scores["loss"]))
        if kept.size == 0:
            raise MetricError(f"no row of the {side} keeps an answer token within max_length; raise it")
        found[side] = {name: values[kept] for name, values in scores.items()}
        clients[side] = [side_rows[position]["client_id"] for position in kept]
    attacks = {
        name: _attack(found, clients, name, delta=settings.delta or 0.0, seed=settings.seed)
        for name in found["members"]
        if name != "reference_loss"
    }
    notes = _notes(members, nonmembers)
    reference_auc = None
    if reference is None:
        notes.append(words("no start policy was given: the calibrated attack, the strongest, is left out"))
    else:
        reference_auc = _plain(_membership(found, clients, "reference_loss"))
    return {
        "attacks": attacks,
        "reference_auc": reference_auc,
        "num_members": len(clients["members"]),
        "num_nonmembers": len(clients["non-members"]),
        "num_member_clients": len(set(clients["members"])),
        "num_nonmember_clients": len(set(clients["non-members"])),
        "notes": notes,
    }


def row_scores(
    policy: "Policy",
    rows: Sequence[Mapping[str, Any]],
    task: str,
    *,
    reference: "Policy | None" = None,
    batch_size: int = 8,
    max_length: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Array]:
    """Return the membership scores of rows, higher for what looks trained on; NaN for a row without an answer token.

    Of a preference pair the chosen answer counts.
    """
    from fedllm_eval.policy.models import usable_length

    length = usable_length(policy.model, max_length)
    sequences = []
    for row in rows:
        if task == "sft":
            encoded = encode_messages(policy.tokenizer, row["messages"])
            ids, mask = encoded["input_ids"], encoded["assistant_masks"]
        else:
            pair = encode_pair(policy.tokenizer, row["prompt"], row["chosen"], row["rejected"])
            ids = pair["prompt_ids"] + pair["chosen_ids"]
            mask = [0] * len(pair["prompt_ids"]) + [1] * len(pair["chosen_ids"])
        sequences.append((ids[:length], mask[:length]))
    with policy.active() as model:
        own = token_logps(model, sequences, batch_size, progress)
    scores = {
        "loss": _means(own),
        "min_k": np.array([min_k_score(logps, MIN_K_FRACTION) if logps.size else np.nan for logps in own]),
    }
    if reference is not None:
        with reference.active() as model:
            before = _means(token_logps(model, sequences, batch_size, progress))
        scores |= {"calibrated": scores["loss"] - before, "reference_loss": before}
    return scores


def _attack(
    found: Mapping[str, Mapping[str, Array]],
    clients: Mapping[str, list[str]],
    name: str,
    *,
    delta: float,
    seed: int,
) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    bounds["example"] = _bound(found["members"][name], found["non-members"][name], "example", delta, seed)
    both = set(clients["members"]) & set(clients["non-members"])
    if both:
        reason = words(
            "{num} clients have rows on both sides; a client is a member or not: audit against unseen ones",
            num=len(both),
        )
        bounds["client"] = {"epsilon": None, "reason": reason}
    else:
        means = {side: _client_means(found[side][name], clients[side]) for side in found}
        bounds["client"] = _bound(means["members"], means["non-members"], "client", delta, seed)
    return _plain(_membership(found, clients, name)) | {"epsilon": bounds}


def _bound(members: Array, nonmembers: Array, unit: Any, delta: float, seed: int) -> dict[str, Any]:
    if min(members.size, nonmembers.size) < MIN_UNITS:
        return {
            "epsilon": None,
            "reason": words("a bound needs {num} or more of each side, unit {unit}", num=MIN_UNITS, unit=unit),
        }
    return asdict(audit_epsilon(members, nonmembers, delta=delta, unit=unit, seed=seed))


def _membership(found: Mapping[str, Mapping[str, Array]], clients: Mapping[str, list[str]], name: str) -> Any:
    return membership(
        found["members"][name],
        found["non-members"][name],
        member_clients_M=clients["members"],
        nonmember_clients_N=clients["non-members"],
    )


def _plain(found: Any) -> dict[str, Any]:
    return dict(asdict(found))


def _client_means(values: Array, clients: Sequence[str]) -> Array:
    _, index = np.unique(np.array(clients), return_inverse=True)
    return np.asarray(np.bincount(index, values) / np.bincount(index), dtype=np.float64)


def _means(logps: Sequence[Array]) -> Array:
    return np.array([row.mean() if row.size else np.nan for row in logps])


def _rows(clients: ClientDataset, limit: int | None, seed: int) -> list[dict[str, Any]]:
    if limit is None:
        return list(clients.rows)
    ids = [str(row_id) for row_id in clients.rows["row_id"][:]]
    return list(clients.rows.select(sample_positions(ids, limit, seed, "audit rows")))


def _notes(members: ClientDataset, nonmembers: ClientDataset) -> list[str]:
    notes = []
    if nonmembers.split == "unseen":
        notes.append(
            words("non-members come from other people than members: part of an AUC may be who writes, not training")
        )
    if nonmembers.split == "test":
        notes.append(
            words("non-members come from the members' own clients: a bound for the unit client cannot be had")
        )
    notes.append(
        words("prompts of members and non-members are not matched: the start policy's AUC shows how far that goes")
    )
    notes.append(
        words(
            "a bound on epsilon takes its units for independent and dealt out at random: rows of one client are alike,"
            " so the bound for one example is surer of itself than it should be where clients have many rows"
        )
    )
    if members.split != "train":
        notes.append(
            words("members are rows of split {split}: are those what the run was trained on?", split=members.split)
        )
    return notes


def _told(progress: Progress, side: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(side, done, total)
