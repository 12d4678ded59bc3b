"""IFD and IRA: how much an instruction helps a language model to say the response, from one pass of the model.

For a response y to the conversation x before it, L is the mean negative log-likelihood of y's tokens in nats:

    IFD = L(y | x) / L(y)        the instruction-following difficulty (Li et al. 2023, arXiv 2308.12032, eq. 4)
    IRA = L(y) - L(y | x)        what knowing the instruction is worth, in nats a token; equals L(y) (1 - IFD)

IFD is a ratio of losses, not of perplexities. Below 1 the instruction helps, near 0 it all but gives the answer away,
near 1 it is of no use, above 1 it misleads. Its authors select the rows with the highest IFD below 1, so it counts as
higher-is-better here: harder, not nicer. IRA counts as higher-is-better as well: the response follows more from the
instruction. The two often point in opposite directions.

Where we differ from the paper, which frames x in the Alpaca template and y alone by "### Response:": x is rendered by
the model's own chat template with all turns before the response, and y alone follows the template's generation prompt
(and its beginning-of-sequence token, where it writes one). Both losses are over the same tokens, the end-of-turn token
included, as in training. `sft` rows are judged by their last assistant message, `preference` rows by the chosen
answer. A row longer than `max_length` is not cut: it has no score. Needs torch when something is scored.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError, MetricError, ResumeError
from fedllm_data.heterogeneity.quality import ScorerInfo
from fedllm_data.in_place import write_file
from fedllm_data.repo import FolderRepo, open_repo, split_of_file
from fedllm_data.scorers.files import write_scores
from fedllm_eval.per_client import sample_positions
from fedllm_eval.policy.chat import encode_messages
from fedllm_eval.policy.early_checks import check_policies
from fedllm_eval.policy.rendering import render_text
from fedllm_eval.policy.training_template import training_template

if TYPE_CHECKING:
    from fedllm_eval.policy.models import Policy

__all__ = ["IfdScores", "difficulty", "score_rows"]

FloatArray = npt.NDArray[np.float64]
Message = Mapping[str, str]
Tokens = tuple[list[int], list[int]]
"""Token ids, and 1 where a token is to be scored."""

DEFAULT_SPLITS = ("train", "test", "unseen")
CHUNK_ROWS = 256
"""Rows that are scored, and saved, together: a run that was broken off loses no more than these."""


class IfdScores(NamedTuple):
    """Scores of N rows; NaN where a row is too long or its answer has no token."""

    ifd_N: FloatArray
    ira_N: FloatArray
    """In nats a token."""
    num_tokens_N: npt.NDArray[np.int64]


def difficulty(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    batch_size: int = 8,
    max_length: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> IfdScores:
    """Return IFD and IRA of the last message of each conversation.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        conversations: N conversations that end with an assistant message; what stands before it is x.
        batch_size: sequences a batch holds at most; each row is two.
        max_length: tokens a conversation may have.
        progress: told (sequences done, sequences in all) after every batch.

    Raises:
        ConfigError: if the chat template does not let the response's tokens be found.
        MetricError: if the model gives values that are not finite.
    """
    from fedllm_eval.policy.models import sequence_logps

    sequences: list[Tokens] = []
    for messages in conversations:
        sequences += _two_sequences(tokenizer, messages, max_length)
    logp_2N, num_tokens_2N = sequence_logps(model, sequences, batch_size, progress)
    loss_2N = -logp_2N / np.maximum(num_tokens_2N, 1)
    given_N, alone_N = loss_2N[::2], loss_2N[1::2]
    # A model that is certain of the response alone leaves nothing to be a ratio of.
    ifd_N = np.divide(given_N, alone_N, out=np.full_like(given_N, np.nan), where=alone_N > 0)
    return IfdScores(ifd_N, alone_N - given_N, num_tokens_2N[::2])


def score_rows(
    repo_or_dir: str | Path,
    model: "str | Path | Policy",
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    max_rows_per_client: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    data_revision: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write IFD and IRA of a client repo's rows into a scores file, for `fedllm-data report --scores`.

    The file (see `fedllm_data.scorers.files`) has the columns `row_id`, `ifd`, `ira` and `num_tokens`. Rows are scored
    256 at a time, and every such chunk is kept beside the file until the last is done: called again after a break,
    the same command goes on where it was.

    Args:
        repo_or_dir: client repo: folder or Hub id.
        model: what scores: run folder, adapter or model; folder or Hub id.
        out: the file to write; one that is there is replaced in the end.
        splits: by default train, test and unseen, as far as the repo has them.
        max_rows_per_client: score at most so many rows of each client of each split.
        batch_size: sequences a batch holds at most; each row is two.
        max_length: tokens a conversation may have; by default 1,024 or as many as the model holds.
        seed: of the sample of rows.
        revision: of `model` on the Hub.
        data_revision: of `repo_or_dir` on the Hub.
        progress: told (what, rows done, rows in all) after every chunk.

    Returns:
        `num_rows`, `num_scored`, the means of both scores, and the scorers' revision.

    Raises:
        ConfigError: if the model or a setting cannot be used.
        SchemaError: if the repo is no client repo or has no such split.
        ResumeError: if chunks beside the file were scored with other settings.
        HubError: if something cannot be fetched.
        MetricError: if no row can be scored.

    >>> score_rows("no/such/folder", "no/such/model", Path("scores.parquet"))
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name the scores file, for instance {out / 'scores.parquet'}")
    splits, pinned = _splits(repo_or_dir, splits, data_revision)
    check_policies([model])
    # All splits come from the commit that the revision stood for when the repo was opened.
    datasets = [load_clients(repo_or_dir, split, pinned) for split in splits]

    from fedllm_eval.policy.models import Policy, load_policy, usable_length

    policy = model if isinstance(model, Policy) else load_policy(model, revision)
    length = usable_length(policy.model, max_length)
    positions = [_sample(dataset, max_rows_per_client, seed) for dataset in datasets]
    infos = _infos(policy, length)
    chunks = list(_chunks(positions))
    num_rows = sum(len(at) for at in positions)
    row_ids = [dataset.rows["row_id"][:] for dataset in datasets]
    ids = [row_ids[which][row] for which, at in enumerate(positions) for row in at]
    settings = {
        "scorers": [info.revision for info in infos],
        "batch_size": batch_size,
        "chunk_rows": CHUNK_ROWS,
        "rows": blake2b("\n".join(ids).encode(), digest_size=16).hexdigest(),
    }
    parts = _parts_folder(out, settings)
    num_done = 0
    for number, (which, at) in enumerate(chunks):
        part = parts / f"{number:06d}.parquet"
        if not part.is_file():
            rows = datasets[which].rows.select(at)
            conversations = [_conversation(row) for row in rows]
            with policy.active() as active:
                scores = difficulty(active, policy.tokenizer, conversations, batch_size=batch_size, max_length=length)
            columns = {"ifd": scores.ifd_N, "ira": scores.ira_N, "num_tokens": scores.num_tokens_N}
            write_file(part, partial(pq.write_table, pa.table(columns)))
        num_done += len(at)
        if progress is not None:
            progress("rows", num_done, num_rows)
    table = pa.concat_tables([pq.read_table(parts / f"{number:06d}.parquet") for number in range(len(chunks))])
    ifd_N, ira_N = table["ifd"].to_numpy(), table["ira"].to_numpy()
    num_scored = int(np.isfinite(ifd_N).sum())
    if not num_scored:
        raise MetricError(
            f"none of {num_rows} rows could be scored: all are longer than {length} tokens or have an empty answer; "
            "raise --max-length"
        )
    write_scores(out, ids, {"ifd": ifd_N, "ira": ira_N}, infos, {"num_tokens": table["num_tokens"].to_numpy()})
    shutil.rmtree(parts)
    return {
        "num_rows": num_rows,
        "num_scored": num_scored,
        "ifd_mean": float(np.nanmean(ifd_N)),
        "ira_mean": float(np.nanmean(ira_N)),
        "ifd_above_one_fraction": float((ifd_N > 1).sum() / num_scored),
        "revision": infos[0].revision,
    }


def _two_sequences(tokenizer: Any, messages: Sequence[Message], max_length: int) -> list[Tokens]:
    """The whole conversation and the response alone, both with the response's tokens marked."""
    history, whole = [dict(message) for message in messages[:-1]], [dict(message) for message in messages]
    encoded = encode_messages(tokenizer, whole)
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    at = [position for position, marked in enumerate(mask) if marked]
    if any(message["role"] == "assistant" for message in history):
        earlier = encode_messages(tokenizer, history)
        if earlier["input_ids"] == ids[: len(earlier["input_ids"])]:
            at = at[sum(earlier["assistant_masks"]) :]
        else:
            # The template writes a turn otherwise once the conversation goes on: the response is the last run.
            first = next((i for i in range(len(at) - 1, 0, -1) if at[i - 1] != at[i] - 1), 0)
            at = at[first:]
    if not at or len(ids) > max_length:
        return [([], []), ([], [])]
    begin, end = at[0], at[-1] + 1
    prefix = _generation_prompt(tokenizer, history)
    if training_template(tokenizer).marks:
        begin += _overlap(prefix, ids[begin:end])
    if ids[0] == tokenizer.bos_token_id:
        prefix = [ids[0], *prefix]
    answer_mask = mask[begin:end]
    if not prefix:
        # Nothing stands before the response's first token, so nothing predicts it: it is left out on both sides.
        answer_mask = [0, *answer_mask[1:]]
    return [
        (ids[:end], [0] * begin + answer_mask),
        (prefix + ids[begin:end], [0] * len(prefix) + answer_mask),
    ]


def _overlap(prompt: list[int], response: list[int]) -> int:
    """How many tokens of a generation prompt a training template marks as the response's own, at its beginning."""
    for length in range(min(len(prompt), len(response) - 1), 0, -1):
        if response[:length] in (prompt[-length:], prompt[:length]):
            return length
    return 0


def _generation_prompt(tokenizer: Any, history: list[dict[str, str]]) -> list[int]:
    """Tokens of what the chat template writes before an answer."""
    before = render_text(tokenizer, history)
    through = render_text(tokenizer, history, add_generation_prompt=True)
    if not through.startswith(before):
        raise ConfigError(
            f"the chat template of {tokenizer.name_or_path!r} renders a conversation differently before an answer, so "
            "its generation prompt cannot be found; use a model whose template appends it"
        )
    return list(tokenizer(through[len(before) :], add_special_tokens=False)["input_ids"])


def _conversation(row: Mapping[str, Any]) -> list[Message]:
    return list(row["messages"]) if "messages" in row else [*row["prompt"], *row["chosen"]]


def _infos(policy: "Policy", max_length: int) -> tuple[ScorerInfo, ...]:
    facts = policy.describe()
    name = Path(policy.name).name if Path(policy.name).exists() else policy.name
    # A folder has no commit: the digest of the weights says which they are.
    pins = [facts["revision"] or (facts["base_digest"] or "in memory")[:12], (facts["adapter_sha256"] or "")[:12]]
    revision = f"{name}@{'+'.join(pin for pin in pins if pin)}, max_length {max_length}"
    return (
        ScorerInfo("ifd", revision, "ratio of losses", meaning="L(y|x) / L(y): harder, not nicer"),
        ScorerInfo("ira", revision, "nats a token", meaning="L(y) - L(y|x): what the instruction is worth"),
    )


def _splits(
    repo_or_dir: str | Path, splits: Sequence[str] | None, revision: str | None
) -> tuple[list[str], str | None]:
    """The splits to score, and the commit that they are read from; None for a folder."""
    repo = open_repo(repo_or_dir, revision)
    if splits is None:
        present = {split_of_file(path) for path in repo.files()}
        splits = [split for split in DEFAULT_SPLITS if split in present] or ["train"]
    return list(dict.fromkeys(splits)), None if isinstance(repo, FolderRepo) else repo.revision


def _sample(dataset: ClientDataset, limit: int | None, seed: int) -> list[int]:
    if limit is None:
        return list(range(dataset.rows.num_rows))
    row_ids = dataset.rows["row_id"][:]
    kept: list[int] = []
    begin = 0
    for size in dataset.sizes.values():
        kept += [begin + at for at in sample_positions(row_ids[begin : begin + size], limit, seed, "rows")]
        begin += size
    return kept


def _chunks(positions: Sequence[list[int]]) -> Iterator[tuple[int, list[int]]]:
    for which, at in enumerate(positions):
        for start in range(0, len(at), CHUNK_ROWS):
            yield which, at[start : start + CHUNK_ROWS]


def _parts_folder(out: Path, settings: Mapping[str, Any]) -> Path:
    parts = out.with_name(f".{out.name}.parts")
    note = parts / "settings.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != settings:
        raise ResumeError(
            f"{parts} holds rows scored with another model, other rows or other settings; remove it to begin anew, "
            "or name another --out"
        )
    parts.mkdir(parents=True, exist_ok=True)
    write_file(note, json.dumps(dict(settings)))
    return parts
