"""Score a policy on every client of a split: a table with one row per client.

A client's loss is the mean over its answer tokens, its accuracy the mean over its pairs. Clients and rows may be
sampled to save time; which ones depends on the seed and their ids alone, so two policies scored with the same settings
are scored on the same rows. Rows are tokenised and scored `CHUNK_ROWS` at a time, so memory does not grow with their
number; policy and reference read the same tokens. `SCORES` in `scores.py` lists what is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from heapq import nsmallest
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import words
from fedllm_eval.policy.chat import encode_messages, encode_pair
from fedllm_eval.scores import ClientScores, warnings_about
from fedllm_eval.scoring.implicit_reward import margins, reward_loss
from fedllm_eval.scoring.rounding import difference_beyond_rounding

if TYPE_CHECKING:
    from fedllm_eval.policy.known_logps import Kept
    from fedllm_eval.policy.models import Policy

__all__ = ["evaluate_policy", "sample_positions"]

CHUNK_ROWS = 2048
"""Long enough that sorting by length within a chunk leaves hardly any padding, short enough to hold as token lists."""
Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Sums = dict[str, tuple[npt.ArrayLike, npt.ArrayLike]]
"""Score -> (numerator, denominator) of every row, NaN where a row was not scored."""
Progress = Callable[[str, int, int], None]
"""Called with (what is being scored, sequences done, sequences in all)."""


def evaluate_policy(
    policy: "Policy",
    clients: ClientDataset,
    *,
    reference: "Policy | None" = None,
    beta: float = 0.1,
    batch_size: int = 8,
    max_length: int | None = None,
    max_clients: int | None = None,
    max_rows_per_client: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    kept: "Kept | None" = None,
) -> ClientScores:
    """Score a policy on each client of a split.

    Args:
        policy: what is scored.
        clients: the clients of one split; their task settles the scores.
        reference: the policy that implicit rewards are measured against; without one they are left out, and a note
            says so. Rows of the `sft` format take none.
        beta: DPO's beta; scales margins and losses, not accuracies.
        batch_size: sequences a batch holds at most.
        max_length: tokens a sequence keeps; by default 1,024 or as many as the model holds.
        max_clients: score at most this many clients.
        max_rows_per_client: score at most this many rows of each client.
        seed: seeds both samples.
        progress: called after every batch.
        kept: log-probabilities of earlier passes: what a policy was found to say of a row is not calculated again.

    Returns:
        The per-client table with everything needed to say what it means.

    Raises:
        ConfigError: if a limit, beta or batch size is not positive, or policy and reference read with different
            tokenizers.
        MetricError: if the model gives values that are not finite.
        ChatTemplateError: if the chat template can render no row.
    """
    from fedllm_eval.policy.models import usable_length

    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    if not (isfinite(beta) and beta > 0):
        raise ConfigError(f"beta is {beta}; DPO's beta is a positive number, 0.1 unless the run says otherwise")
    notes: list[str] = []
    if clients.task == "sft":
        reference = None
    elif reference is None:
        notes.append(words("no reference was given: implicit rewards are left out"))
    elif reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            f"reference {reference.name!r} has another vocabulary than policy {policy.name!r}; implicit rewards need "
            "one tokenizer, name a reference on the same base model"
        )
    length = usable_length(policy.model, max_length)
    if reference is not None:
        length = usable_length(reference.model, max_length or min(length, usable_length(reference.model)))

    known_ids = clients.ids
    client_ids = [known_ids[position] for position in sample_positions(known_ids, max_clients, seed, "clients")]
    if len(client_ids) < len(clients):
        notes.append(
            words(
                "{num} of {total} clients were sampled (seed {number})",
                num=len(client_ids),
                total=len(clients),
                number=seed,
            )
        )
    sampled = clients.select(client_ids) if len(client_ids) < len(clients) else clients
    rows, client_N = _sample_rows(sampled, max_rows_per_client, seed)
    if rows.num_rows < sampled.rows.num_rows:
        notes.append(
            words(
                "{num} of {total} rows were sampled, at most {value} a client (seed {number})",
                num=rows.num_rows,
                total=sampled.rows.num_rows,
                value=max_rows_per_client,
                number=seed,
            )
        )
    readers = [_Reader(policy, "policy", batch_size, progress, kept)]
    if reference is not None:
        readers.append(_Reader(reference, "reference", batch_size, progress, kept))
    own, *others = _read_rows(policy.tokenizer, clients.task, rows, length, readers)
    truncated_N, unrendered_N = own.truncated_N, own.unrendered_N
    if clients.task == "sft":
        tokens_N = own.num_tokens_N
        sums: Sums = {"heldout_loss": (own.nll_sum_N, tokens_N)}
    else:
        tokens_N = own.chosen_tokens_N
        sums = _ranking_sums(own.chosen_N, own.rejected_N, own.chosen_tokens_N, own.rejected_tokens_N)
        for ref in others:
            sums = _reward_sums(own.chosen_N, own.rejected_N, ref.chosen_N, ref.rejected_N, beta) | sums
    if unrendered_N.any():
        notes.append(_unrendered_note(policy, rows, unrendered_N))
    table = _client_table(client_ids, clients.split, client_N, tokens_N, truncated_N, sums)
    settings: dict[str, Any] = {
        "max_length": length,
        "max_clients": max_clients,
        "max_rows_per_client": max_rows_per_client,
        "seed": seed,
    }
    if reference is not None:
        settings["beta"] = beta
    return ClientScores(
        task=clients.task,
        split=clients.split,
        table=table,
        policy=policy.describe(),
        reference=None if reference is None else reference.describe(),
        dataset={
            "name": clients.name,
            "revision": clients.revision,
            "num_clients": len(clients),
            "num_rows": clients.rows.num_rows,
        },
        settings=settings,
        notes=(*notes, *warnings_about(table)),
        rows=_row_table(rows, clients.split, tokens_N, sums),
    )


def sample_positions(ids: Sequence[str], limit: int | None, seed: int, purpose: str) -> list[int]:
    """Return the positions of at most `limit` ids, in order, chosen by a hash of seed, purpose and id.

    One more id in the list changes the sample by at most one member.

    Raises:
        ConfigError: if the limit is not positive.

    >>> sample_positions(["ann", "bob"], None, 0, "clients")
    [0, 1]
    >>> len(sample_positions(["ann", "bob", "eve"], 2, 0, "clients"))
    2
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"a sample of {limit} {purpose} holds nothing; ask for at least 1 or leave the limit out")
    if limit is None:
        return list(range(len(ids)))

    def place_in_line(position: int) -> tuple[bytes, int]:
        return blake2b(f"{seed}|{purpose}|{ids[position]}".encode()).digest(), position

    # Of many ids no more than the limit are held.
    return sorted(nsmallest(limit, range(len(ids)), key=place_in_line))


def _unrendered_note(policy: "Policy", rows: Any, unrendered_N: npt.NDArray[np.bool_]) -> str:
    """How many rows the chat template cannot render; an error with its reason if it is all of them."""
    if unrendered_N.all():
        row = rows[0]
        if "messages" in row:
            encode_messages(policy.tokenizer, row["messages"])
        else:
            encode_pair(policy.tokenizer, row["prompt"], row["chosen"], row["rejected"])
    return words(
        "{num} of {total} rows cannot be rendered by the chat template: skipped",
        num=int(unrendered_N.sum()),
        total=len(unrendered_N),
    )


@dataclass(frozen=True)
class _Reader:
    """A policy that reads rows."""

    policy: "Policy"
    what: str
    """Its name to whoever watches."""
    batch_size: int
    progress: Progress | None
    kept: "Kept | None"

    def __call__(self, score: Callable[..., Any], encoded: Any, before: int, total: int) -> Any:
        """Return what the policy says of a chunk that comes after `before` of `total` sequences."""
        from fedllm_eval.policy.merged_adapter import active_for_scoring

        told = None if self.progress is None else partial(_tell, self.progress, self.what, before, total)
        known = None if self.kept is None else self.kept.of(self.policy)
        with active_for_scoring(self.policy) as model:
            return score(model, encoded, batch_size=self.batch_size, progress=told, known=known)


def _read_rows(tokenizer: Any, task: str, rows: Any, max_length: int, readers: Sequence[_Reader]) -> list[Any]:
    """What each reader says of all rows: named tuples of `models.py`. A chunk becomes tokens once for all readers."""
    from fedllm_eval.policy.encoded_rows import encode_message_rows, encode_pair_rows
    from fedllm_eval.policy.models import score_messages, score_pairs

    is_pairs = task == "preference"
    encode: Callable[..., Any] = encode_pair_rows if is_pairs else encode_message_rows
    score: Callable[..., Any] = score_pairs if is_pairs else score_messages
    a_row = 2 if is_pairs else 1
    found: list[list[Any]] = [[] for _ in readers]
    for begin in range(0, rows.num_rows, CHUNK_ROWS):
        part = rows.select(range(begin, min(begin + CHUNK_ROWS, rows.num_rows)))
        encoded = encode(tokenizer, part, max_length)
        for parts, reader in zip(found, readers, strict=True):
            parts.append(reader(score, encoded, begin * a_row, rows.num_rows * a_row))
    return [type(parts[0])(*map(np.concatenate, zip(*parts, strict=True))) for parts in found]


def _tell(progress: Progress, what: str, before: int, total: int, done: int, _: int) -> None:
    progress(what, before + done, total)


def _sample_rows(clients: ClientDataset, limit: int | None, seed: int) -> tuple[Any, Counts]:
    """Rows of all clients in order, and the position of each row's client."""
    sizes = list(clients.sizes.values())
    if limit is None or 0 < max(sizes) <= limit:
        return clients.rows, np.repeat(np.arange(len(sizes)), sizes)
    row_ids = clients.rows["row_id"][:]
    kept: list[int] = []
    counts = []
    begin = 0
    for size in sizes:
        positions = sample_positions(row_ids[begin : begin + size], limit, seed, "rows")
        kept.extend(begin + position for position in positions)
        counts.append(len(positions))
        begin += size
    return clients.rows.select(kept), np.repeat(np.arange(len(sizes)), counts)


def _ranking_sums(chosen: Array, rejected: Array, chosen_tokens: Counts, rejected_tokens: Counts) -> Sums:
    scored = np.isfinite(chosen)
    one = scored.astype(np.float64)
    per_token = difference_beyond_rounding(
        rejected / np.maximum(rejected_tokens, 1), chosen / np.maximum(chosen_tokens, 1)
    )
    likelier = difference_beyond_rounding(rejected, chosen)
    return {
        "ranking_accuracy": (np.where(scored, likelier > 0, np.nan), one),
        "ranking_accuracy_per_token": (np.where(scored, per_token > 0, np.nan), one),
        "chosen_loss": (-chosen, chosen_tokens),
    }


def _reward_sums(chosen: Array, rejected: Array, ref_chosen: Array, ref_rejected: Array, beta: float) -> Sums:
    scored = np.isfinite(chosen)
    margin_N, loss_N = np.full((2, *chosen.shape), np.nan)
    if scored.any():
        margin_N[scored] = margins(chosen[scored], rejected[scored], ref_chosen[scored], ref_rejected[scored], beta)
        loss_N[scored] = reward_loss(margin_N[scored])
    one = scored.astype(np.float64)
    return {
        "implicit_reward_accuracy": (np.where(scored, margin_N > 0, np.nan), one),
        "implicit_reward_margin": (margin_N, one),
        "implicit_reward_loss": (loss_N, one),
    }


def _client_table(
    client_ids: list[str],
    split: str,
    client_N: Counts,
    tokens_N: Counts,
    truncated_N: npt.NDArray[np.bool_],
    sums: Sums,
) -> pa.Table:
    """Fold rows into clients: each score is a client's numerators over its denominators."""
    num_clients = len(client_ids)
    scored_N = tokens_N > 0

    def per_client(values_N: npt.ArrayLike) -> Array:
        weights = np.asarray(values_N, dtype=np.float64)[scored_N]
        return np.bincount(client_N[scored_N], weights, num_clients).astype(np.float64)

    num_rows_K = per_client(np.ones_like(tokens_N)).astype(np.int64)
    columns: dict[str, Any] = {
        "client_id": pa.array(client_ids, pa.string()),
        "split": pa.array([split] * num_clients, pa.string()),
        "num_rows": num_rows_K,
        "num_tokens": per_client(tokens_N).astype(np.int64),
        "num_skipped": np.bincount(client_N[~scored_N], minlength=num_clients),
        "num_truncated": np.bincount(client_N[truncated_N & scored_N], minlength=num_clients),
    }
    for name, (numerator_N, denominator_N) in sums.items():
        score_K = per_client(numerator_N) / np.maximum(per_client(denominator_N), 1)
        columns[name] = pa.array(score_K, pa.float64(), mask=num_rows_K == 0)
    return pa.table(columns)


def _row_table(rows: Any, split: str, tokens_N: Counts, sums: Sums) -> pa.Table:
    """The scores of each row, null where a row was not scored."""
    scored_N = tokens_N > 0
    names = rows.select_columns(["client_id", "row_id", "language"]).with_format("arrow")[:]
    columns: dict[str, Any] = {
        "split": pa.array([split] * rows.num_rows, pa.string()),
        **{name: names[name].cast(pa.string()) for name in names.column_names},
        "num_tokens": pa.array(tokens_N, pa.int64()),
    }
    for name, (numerator_N, denominator_N) in sums.items():
        score_N = np.asarray(numerator_N, dtype=np.float64) / np.maximum(np.asarray(denominator_N), 1)
        columns[name] = pa.array(score_N, pa.float64(), mask=~scored_N)
    return pa.table(columns)
