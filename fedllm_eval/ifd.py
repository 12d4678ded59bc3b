"""IFD and IRA: how much an instruction helps a language model to say the response, from one pass of the model.

For a response y to the conversation x before it, L is the mean negative log-likelihood of y's tokens in nats:

    IFD = L(y | x) / L(y)        the instruction-following difficulty (Li et al. 2023, arXiv 2308.12032, eq. 4)
    IRA = L(y) - L(y | x)        what knowing the instruction is worth, in nats per token; equals L(y) (1 - IFD)

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

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.chat import encode_messages
from fedllm_eval.policy.rendering import render_text
from fedllm_eval.policy.training_template import training_template

__all__ = ["IfdScores", "difficulty"]

FloatArray = npt.NDArray[np.float64]
Message = Mapping[str, str]
Tokens = tuple[list[int], list[int]]
"""Token ids, and 1 where a token is to be scored."""


class IfdScores(NamedTuple):
    """Scores of N rows; NaN where a row is too long or its answer has no token."""

    ifd_N: FloatArray
    ira_N: FloatArray
    """In nats per token."""
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
        progress: called with (sequences done, sequences in all) after every batch.

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
