"""From rows to features: every column that an axis may count, one entry a row.

| column | what it is |
| --- | --- |
| `language`, `detected_language` | of the row, as upstream says and as the detector does (None if it does not) |
| `instruction_tokens`, `response_tokens` | lengths of the two sides; of preference rows, prompt and chosen answer |
| `half` | 0 or 1, a hash bit of the row's id: two halves of every client |
| `embedding` | (N, D) float32, the instruction through encoder and projection of the codebook |
| `rff` | (N, F), random Fourier features of the embedding |
| `cluster` | "c07": the nearest centre of the codebook |
| `verb`, `object`, `has_parser` | see `verbs.py` |
| `score:<name>` | float64, NaN where the scorer has nothing to say; see `fedllm_data.scorers` |
| `answer_key` | keyed hash of what the assistant says (of preference rows, in the chosen answer) |
| `chosen_tokens`, `pair_key`, ... | preference rows alone; see `pairs.py` |

Without a codebook there are the first two lines alone, and `half`; an axis counts nothing if its columns are not.
"""

from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from fedllm_data.codebook import Codebook
from fedllm_data.errors import ConfigError
from fedllm_data.features.cache import FeatureCache, content_digest
from fedllm_data.features.judges import NO_JUDGES, Judges
from fedllm_data.features.pairs import pair_columns
from fedllm_data.features.row_texts import turns_of
from fedllm_data.features.token_counts import UNICODE_WORDS, Tokenizer
from fedllm_data.features.verbs import verb_columns
from fedllm_data.model_encoders import load_encoder
from fedllm_data.schema import Task

__all__ = ["FEATURES_VERSION", "row_features"]

FEATURES_VERSION = 3
"""Goes up with any change of what a column holds: cached features of another version are not read."""


def row_features(
    rows: pa.Table,
    task: Task,
    tokenizer: Tokenizer = UNICODE_WORDS,
    *,
    codebook: Codebook | None = None,
    judges: Judges = NO_JUDGES,
    cache: FeatureCache | None = None,
) -> dict[str, Any]:
    """Return the features of some rows, one entry a row.

    Args:
        rows: rows in the format of `fedllm_data.schema`.
        task: which of the two formats.
        tokenizer: what a token is.
        codebook: what clients share; without it there are no embeddings and nothing that follows from them.
        judges: what gives scores; see `find_judges`.
        cache: where the columns of the same rows may lie already.

    Raises:
        ConfigError: if tokenizer or encoder are not the codebook's.

    >>> turns = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "你好!"}]
    >>> rows = pa.Table.from_pylist([{"client_id": "a", "language": "en", "messages": turns}])
    >>> features = row_features(rows, "sft")
    >>> features["instruction_tokens"].tolist(), features["response_tokens"].tolist()
    ([2], [2])
    """
    if codebook is not None and codebook.tokenizer != tokenizer.name:
        raise ConfigError(
            f"the codebook counts tokens with {codebook.tokenizer!r}, not {tokenizer.name!r}: give its tokenizer"
        )
    columns: dict[str, Any] = {name: rows[name].to_pylist() for name in _PLAIN if name in rows.column_names}
    if cache is None or codebook is None:
        columns |= _derived(rows, task, tokenizer, codebook, judges)
    else:
        names = [[scorer.info.name, scorer.info.revision] for scorer in judges.scorers]
        key = content_digest(rows, FEATURES_VERSION, task, codebook.digest, names)
        kept = cache.read(key)
        if kept is None:
            kept = _derived(rows, task, tokenizer, codebook, judges)
            cache.write(key, kept)
        columns |= kept
    columns |= judges.from_files(rows)
    # Four times the size of the embedding, from which it follows to the bit: not kept.
    return columns if codebook is None else columns | {"rff": codebook.fourier(columns["embedding"])}


_PLAIN = ("client_id", "language", "detected_language")


def _derived(
    rows: pa.Table, task: Task, tokenizer: Tokenizer, codebook: Codebook | None, judges: Judges
) -> dict[str, Any]:
    """What has to be computed from the rows' texts and ids."""
    asked, answered = ("messages", "messages") if task == "sft" else ("prompt", "chosen")
    instruction, response = turns_of(rows[asked], "user"), turns_of(rows[answered], "assistant")
    columns: dict[str, Any] = {
        "instruction_tokens": instruction.tokens(tokenizer),
        "response_tokens": response.tokens(tokenizer),
        **judges.from_functions(rows, task),
    }
    if "row_id" in rows.column_names:
        columns["half"] = np.array([_bit(row_id) for row_id in rows["row_id"].to_pylist()], np.int8)
    if codebook is None:
        return columns
    texts = instruction.joined()
    columns["answer_key"] = [codebook.key(text) for text in response.joined()]
    columns |= _embedded(texts, codebook) | verb_columns(texts, rows["language"].to_pylist(), codebook)
    return columns if task == "sft" else columns | pair_columns(rows, tokenizer, codebook)


def _embedded(texts: list[str], codebook: Codebook) -> dict[str, Any]:
    encoder = load_encoder(codebook.encoder)
    if encoder.revision != codebook.encoder_revision:
        raise ConfigError(
            f"the codebook's encoder is {codebook.encoder} at {codebook.encoder_revision}, here it is at "
            f"{encoder.revision}: install that revision, or make a codebook with this one"
        )
    vectors_NE = np.asarray(encoder.encode(texts), np.float32)
    names = np.array([f"c{number:02d}" for number in range(len(codebook.centres))])
    return {
        "embedding": codebook.project(vectors_NE),
        "cluster": names[codebook.clusters(vectors_NE)].tolist(),
    }


def _bit(row_id: str) -> int:
    return blake2b(row_id.encode(), digest_size=1, person=b"fedllm-half").digest()[0] & 1
