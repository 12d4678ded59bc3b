"""What is measured of a trained policy beside its scores: distance from the base, general text, what it gives away.

Each is one part (`running/finished_parts.py`), JSON-ready, with intervals; the measures are those of
`running/change.py` and `audit/`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.audit.audit_run import audit_run
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.per_client import sample_positions
from fedllm_eval.running.finished_parts import FinishedPart, FinishedParts, file_digest
from fedllm_eval.running.policy_scores import identity

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["AgainstBase", "audit_part", "first_turns", "general_text_part", "kl_part"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class AgainstBase:
    """A trained policy, what it started from, and how both are read."""

    policy: "Policy"
    base: "Policy | None"
    parts: FinishedParts
    """Where what is found is kept."""
    batch_size: int = 8
    """Conversations side by side."""
    max_length: int | None = None
    """Tokens that a conversation keeps."""
    seed: int = 0
    """Seeds samples and answers."""
    progress: Progress | None = None
    """Called with (what, answers done, answers in all)."""


def kl_part(
    pair: AgainstBase, clients: ClientDataset, num_prompts: int, *, max_new_tokens: int = 128
) -> dict[str, Any]:
    """Return KL(policy || base) on answers to prompts of the clients.

    Args:
        pair: the policy and its base.
        clients: whose first turns are the prompts.
        num_prompts: size of a sample that depends on the seed and the row ids.
        max_new_tokens: of each answer, at most this many tokens count.

    Raises:
        ConfigError: if there is nothing to sample or the vocabularies differ.
    """
    from fedllm_eval.running.change import kl_to_reference

    assert pair.base is not None
    base, seed, progress = pair.base, pair.seed, pair.progress
    settings = {"num_prompts": num_prompts, "max_new_tokens": max_new_tokens, "seed": seed, "split": clients.split}

    def make() -> FinishedPart:
        found = kl_to_reference(
            pair.policy,
            base,
            first_turns(clients, num_prompts, seed),
            max_new_tokens=max_new_tokens,
            seed=seed,
            batch_size=pair.batch_size,
            progress=None if progress is None else lambda done, total: progress("KL, answers", done, total),
        )
        return FinishedPart({**asdict(found), "settings": settings})

    return pair.parts.get("kl", _key(pair, clients, settings), make).record


def first_turns(clients: ClientDataset, limit: int, seed: int) -> list[list[dict[str, str]]]:
    """Return a sample of the rows' conversations, each up to its first answer.

    Raises:
        ConfigError: if the sample holds nothing.
    """
    ids = [str(row_id) for row_id in clients.rows["row_id"][:]]
    found = []
    for row in clients.rows.select(sample_positions(ids, limit, seed, "prompts")):
        messages = row["prompt"] if clients.task == "preference" else row["messages"]
        turns = [{"role": message["role"], "content": message["content"]} for message in messages]
        if clients.task == "sft":
            first = next((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), len(turns))
            turns = turns[:first]
        if turns:
            found.append(turns)
    if not found:
        raise ConfigError(f"no row of split {clients.split!r} begins with a question; leave the KL out")
    return found


def general_text_part(pair: AgainstBase, clients: ClientDataset, *, max_rows: int | None = None) -> dict[str, Any]:
    """Return how much worse the policy is than the base on conversations that neither is meant for, in nats per token.

    Args:
        pair: the policy and its base.
        clients: the conversations.
        max_rows: read at most this many.

    Raises:
        ConfigError: if the rows are preference pairs.
    """
    from fedllm_eval.running.change import text_loss_increase

    if clients.task != "sft":
        raise ConfigError(f"general text is conversations, {clients.name} holds {clients.task} rows; name sft rows")
    assert pair.base is not None
    base, seed, max_length = pair.base, pair.seed, pair.max_length
    settings = {"max_rows": max_rows, "max_length": max_length, "seed": seed}

    def make() -> FinishedPart:
        ids = [str(row_id) for row_id in clients.rows["row_id"][:]]
        rows = clients.rows.select(sample_positions(ids, max_rows, seed, "general text"))
        increase = text_loss_increase(pair.policy, base, rows, batch_size=pair.batch_size, max_length=max_length)
        # What `mean_interval` calls clients are rows here.
        return FinishedPart(
            {
                "loss_increase": increase.mean,
                "ci_low": increase.low,
                "ci_high": increase.high,
                "num_rows": increase.num_clients,
                "dataset": {"name": clients.name, "revision": clients.revision, "split": clients.split},
                "settings": settings,
            }
        )

    return pair.parts.get("general text", _key(pair, clients, settings), make).record


def audit_part(
    pair: AgainstBase, repo_or_dir: str | Path, clients: ClientDataset, settings: AuditSettings
) -> dict[str, Any]:
    """Return the privacy audit of a policy on the client repo it was trained on.

    Args:
        pair: the policy, and its start policy for the calibrated attack.
        repo_or_dir: the client repo.
        clients: any split of it, which says its revision.
        settings: how it is audited.

    Raises:
        ConfigError: if a setting or the secrets cannot be used.
        SchemaError: if the repo lacks a split that the audit needs.
    """
    key = {name: value for name, value in asdict(settings).items() if name not in ("batch_size", "secrets")}
    if settings.secrets is not None:
        key["secrets"] = file_digest(Path(settings.secrets))

    def told(what: str, done: int, total: int) -> None:
        if pair.progress is not None:
            pair.progress(f"audit, {what}", done, total)

    def make() -> FinishedPart:
        return FinishedPart(audit_run(pair.policy, repo_or_dir, reference=pair.base, settings=settings, progress=told))

    return pair.parts.get("audit", _key(pair, clients, key), make).record


def _key(pair: AgainstBase, clients: ClientDataset, settings: dict[str, Any]) -> dict[str, Any] | None:
    own, other = identity(pair.policy), None if pair.base is None else identity(pair.base)
    if own is None or (pair.base is not None and other is None) or clients.revision is None:
        return None
    return {"policy": own, "base": other, "data": [clients.name, clients.revision], **settings}
