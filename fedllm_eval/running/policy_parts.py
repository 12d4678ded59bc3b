"""What is measured of a trained policy beside its scores: distance from the base, general text, what it gives away.

Each is one part (`running/parts.py`), JSON-ready, with intervals; the measures are those of `running/change.py` and
`audit/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.per_client import sample_positions
from fedllm_eval.running.parts import Part, Parts, file_digest
from fedllm_eval.running.policy_scores import identity

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["audit_part", "first_turns", "general_text_part", "kl_part"]

Progress = Callable[[str, int, int], None]


def kl_part(
    policy: "Policy",
    base: "Policy",
    clients: ClientDataset,
    num_prompts: int,
    parts: Parts,
    *,
    max_new_tokens: int = 128,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return KL(policy || base) on answers to prompts of the clients.

    Args:
        policy: who writes.
        base: who it is measured from.
        clients: whose first turns are the prompts.
        num_prompts: of a sample that hangs on seed and row ids.
        parts: where it is kept.
        max_new_tokens: the answers' first so many tokens count.
        batch_size: conversations side by side.
        seed: of sample and answers.
        progress: told (what, answers done, answers in all).

    Raises:
        ConfigError: if there is nothing to sample or the vocabularies differ.
    """
    from fedllm_eval.running.change import kl_to_reference

    settings = {"num_prompts": num_prompts, "max_new_tokens": max_new_tokens, "seed": seed, "split": clients.split}

    def make() -> Part:
        found = kl_to_reference(
            policy,
            base,
            first_turns(clients, num_prompts, seed),
            max_new_tokens=max_new_tokens,
            seed=seed,
            batch_size=batch_size,
            progress=None if progress is None else lambda done, total: progress("KL, answers", done, total),
        )
        return Part({**asdict(found), "settings": settings})

    return parts.get("kl", _key(policy, base, clients, settings), make).record


def first_turns(clients: ClientDataset, limit: int, seed: int) -> list[list[dict[str, str]]]:
    """Return the conversations up to the first answer of a sample of rows.

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


def general_text_part(
    policy: "Policy",
    base: "Policy",
    clients: ClientDataset,
    parts: Parts,
    *,
    max_rows: int | None = None,
    max_length: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how much worse the policy is than the base on conversations that neither is meant for, in nats per token.

    Raises:
        ConfigError: if the rows are preference pairs.
    """
    from fedllm_eval.running.change import text_loss_increase

    if clients.task != "sft":
        raise ConfigError(f"general text is conversations, {clients.name} holds {clients.task} rows; name sft rows")
    settings = {"max_rows": max_rows, "max_length": max_length, "seed": seed}

    def make() -> Part:
        ids = [str(row_id) for row_id in clients.rows["row_id"][:]]
        rows = clients.rows.select(sample_positions(ids, max_rows, seed, "general text"))
        increase = text_loss_increase(policy, base, rows, batch_size=batch_size, max_length=max_length)
        # What `mean_interval` calls clients are rows here.
        return Part(
            {
                "loss_increase": increase.mean,
                "ci_low": increase.low,
                "ci_high": increase.high,
                "num_rows": increase.num_clients,
                "dataset": {"name": clients.name, "revision": clients.revision, "split": clients.split},
                "settings": settings,
            }
        )

    return parts.get("general text", _key(policy, base, clients, settings), make).record


def audit_part(
    policy: "Policy",
    base: "Policy | None",
    repo_or_dir: str | Path,
    clients: Sequence[ClientDataset],
    parts: Parts,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the privacy audit of a policy on the client repo it was trained on.

    Args:
        policy: what was trained.
        base: the start policy, for the calibrated attack.
        repo_or_dir: the client repo.
        clients: any split of it, which says its revision.
        parts: where it is kept.
        progress: told after every batch.
        options: of `audit_command.audit_run`, such as `secrets` and `nonmembers`.

    Raises:
        ConfigError: if a setting or the secrets cannot be used.
        SchemaError: if the repo lacks a split that the audit needs.
    """
    from fedllm_eval.audit_command import audit_run

    settings = {name: value for name, value in options.items() if name not in ("batch_size", "secrets")}
    if options.get("secrets") is not None:
        settings["secrets"] = file_digest(Path(options["secrets"]))

    def told(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"audit, {what}", done, total)

    def make() -> Part:
        return Part(audit_run(policy, repo_or_dir, reference=base, progress=told, **options))

    return parts.get("audit", _key(policy, base, clients[0], settings), make).record


def _key(
    policy: "Policy", base: "Policy | None", clients: ClientDataset, settings: dict[str, Any]
) -> dict[str, Any] | None:
    own, other = identity(policy), None if base is None else identity(base)
    if own is None or (base is not None and other is None) or clients.revision is None:
        return None
    return {"policy": own, "base": other, "data": [clients.name, clients.revision], **settings}
