"""Rows as token ids, made once for every model that scores them.

Truncation follows TRL's trainers: the first `max_length` tokens stay. A row that keeps no answer token (for a pair:
whose prompt alone fills `max_length`, or one of whose answers has no token) is one that TRL would drop from training;
it has no token to score here. So has a row that the chat template cannot render. Needs a transformers tokenizer, no
torch.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ChatTemplateError
from fedllm_eval.policy.chat import encode_messages, encode_pair, encode_pairs

__all__ = ["EncodedMessages", "EncodedPairs", "Sequence", "encode_message_rows", "encode_pair_rows", "sequence_key"]

Sequence = tuple[list[int], list[int]]
"""Token ids, and 1 where a token is to be scored."""
BoolArray = npt.NDArray[np.bool_]


class EncodedMessages(NamedTuple):
    """N conversations as tokens."""

    sequences: list[Sequence]
    truncated_N: BoolArray
    unrendered_N: BoolArray


class EncodedPairs(NamedTuple):
    """N preference pairs as tokens; prompt and answer together keep at most `max_length` of them."""

    prompts: list[list[int]]
    answers: list[tuple[list[int], list[int]]]
    """Chosen and rejected."""
    dropped_N: BoolArray
    """Pairs that keep no answer token on one side or both."""
    truncated_N: BoolArray
    unrendered_N: BoolArray

    def sequence(self, at: int, side: int) -> Sequence:
        """Return prompt and answer (0 the chosen, 1 the rejected one) of a pair as one sequence."""
        prompt, answer = self.prompts[at], self.answers[at][side]
        return prompt + answer, [0] * len(prompt) + [1] * len(answer)


def encode_message_rows(
    tokenizer: Any, rows: Iterable[Mapping[str, Any]], max_length: int | None = None
) -> EncodedMessages:
    """Return the conversations of rows of the `sft` format as tokens.

    Raises:
        ConfigError: if the tokenizer has no chat template.
    """
    sequences, truncated, unrendered = [], [], []
    for row in rows:
        encoded = _or_nothing(encode_messages, tokenizer, row["messages"])
        unrendered.append(encoded is None)
        encoded = encoded or {"input_ids": [], "assistant_masks": []}
        ids, mask = encoded["input_ids"], encoded["assistant_masks"]
        truncated.append(max_length is not None and len(ids) > max_length)
        sequences.append((ids[:max_length], mask[:max_length]))
    return EncodedMessages(sequences, np.array(truncated, dtype=bool), np.array(unrendered, dtype=bool))


def encode_pair_rows(tokenizer: Any, rows: Iterable[Mapping[str, Any]], max_length: int | None = None) -> EncodedPairs:
    """Return rows of the `preference` format as tokens; a pair is truncated if one of its answers is.

    Raises:
        ConfigError: if the tokenizer has no chat template.
    """
    prompts: list[list[int]] = []
    answers: list[tuple[list[int], list[int]]] = []
    dropped, truncated, unrendered = [], [], []
    for encoded in _pairs(tokenizer, [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]):
        unrendered.append(encoded is None)
        encoded = encoded or {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
        prompt, both = encoded["prompt_ids"], (encoded["chosen_ids"], encoded["rejected_ids"])
        room = None if max_length is None else max(0, max_length - len(prompt))
        chosen, rejected = (answer[:room] for answer in both)
        prompts.append(prompt[:max_length])
        answers.append((chosen, rejected))
        truncated.append(room is not None and max(map(len, both)) > room)
        # The first token of a sequence has nothing before it to be predicted from.
        dropped.append(min(len(chosen), len(rejected)) <= (0 if prompt else 1))
    return EncodedPairs(prompts, answers, *(np.array(each, dtype=bool) for each in (dropped, truncated, unrendered)))


def _pairs(tokenizer: Any, pairs: list[tuple[Any, Any, Any]]) -> list[dict[str, list[int]] | None]:
    """All pairs at once or, if the chat template cannot render one of them, each by itself."""
    try:
        return list(encode_pairs(tokenizer, pairs))
    except ChatTemplateError:
        return [_or_nothing(encode_pair, tokenizer, *pair) for pair in pairs]


def sequence_key(sequence: Sequence) -> bytes:
    """Return 16 bytes that tell a sequence, and which of its tokens are scored, from every other.

    >>> sequence_key(([1, 2], [0, 1])) == sequence_key(([1, 2], [1, 1]))
    False
    """
    ids, mask = sequence
    digest = hashlib.blake2b(np.asarray(ids, dtype="<i4").tobytes(), digest_size=16)
    digest.update(np.asarray(mask, dtype=np.uint8).tobytes())
    return digest.digest()


def _or_nothing(encode: Callable[..., dict[str, list[int]]], *given: Any) -> dict[str, list[int]] | None:
    """What an encoder makes of a row, None where the chat template cannot render it."""
    try:
        return encode(*given)
    except ChatTemplateError:
        return None
