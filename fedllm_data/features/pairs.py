"""Columns of preference rows: what the chosen and the rejected answer are like, and which pair it is.

`prompt_key` and `pair_key` are keyed hashes of levelled texts, 64 bits: two clients who judged the same prompt, or
the same two answers to it, can be seen to have done so, and the text cannot be read from them.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedllm_data.codebook import Codebook
from fedllm_data.features.row_texts import turns_of
from fedllm_data.features.token_counts import Tokenizer
from fedllm_data.pipeline.language_detection import detect_languages, languages_agree
from fedllm_data.schema import UNDETERMINED
from fedllm_data.scorers.refusals import is_refusal

__all__ = ["pair_columns"]

SIDES = ("chosen", "rejected")


def pair_columns(rows: pa.Table, tokenizer: Tokenizer, codebook: Codebook) -> dict[str, Any]:
    """Return the columns that preference rows have beside those of all rows.

    Args:
        rows: preference rows in the format of `fedllm_data.schema`.
        tokenizer: what a token is.
        codebook: holds the key of the hashes.

    Returns:
        For each side s: `s_tokens`, `s_model` (None if unknown), `s_in_language` (1: the answer is in the row's
        language by the shipped detector, 0: it is not, -1: nobody knows) and `s_refusal` (1 or 0); and `prompt_key`,
        `pair_key` (of prompt and answers, whichever was chosen) and `pair_side` (1: the chosen answer sorts first).

    >>> def said(role, text): return [{"role": role, "content": text}]
    >>> row = {"language": "en", "prompt": said("user", "Hi"), "chosen": said("assistant", "Hello, how are you?")}
    >>> rows = pa.Table.from_pylist([row | {"rejected": said("assistant", "I cannot help with that.")}])
    >>> book = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")
    >>> from fedllm_data.features.token_counts import UNICODE_WORDS
    >>> columns = pair_columns(rows, UNICODE_WORDS, book)
    >>> columns["chosen_tokens"].tolist(), columns["rejected_refusal"].tolist(), columns["chosen_model"]
    ([4], [1], [None])
    """
    languages = rows["language"].to_pylist()
    answers: dict[str, list[str]] = {}
    columns: dict[str, Any] = {}
    for side in SIDES:
        turns = turns_of(rows[side], "assistant")
        answers[side] = turns.joined()
        columns[f"{side}_tokens"] = turns.tokens(tokenizer)
        model = f"{side}_model"
        columns[model] = rows[model].to_pylist() if model in rows.column_names else [None] * rows.num_rows
        columns[f"{side}_in_language"] = _in_language(languages, answers[side])
        columns[f"{side}_refusal"] = np.array([is_refusal(text) for text in answers[side]], np.int8)
    prompts = ["\n".join(turn["content"] for turn in turns) for turns in rows["prompt"].to_pylist()]
    keys = [_pair_key(codebook, *texts) for texts in zip(prompts, *answers.values(), strict=True)]
    columns["prompt_key"] = [codebook.key(prompt) for prompt in prompts]
    columns["pair_key"] = [key for key, _ in keys]
    columns["pair_side"] = np.array([side for _, side in keys], np.int8)
    return columns


def _in_language(languages: list[str], answers: list[str]) -> NDArray[np.int8]:
    found = detect_languages(answers)
    return np.array(
        [
            -1 if code is None or language == UNDETERMINED else int(languages_agree(language, code))
            for language, code in zip(languages, found, strict=True)
        ],
        np.int8,
    )


def _pair_key(codebook: Codebook, prompt: str, chosen: str, rejected: str) -> tuple[str, int]:
    keys = codebook.key(chosen), codebook.key(rejected)
    return codebook.key("\n".join([prompt, *sorted(keys)])), int(keys[0] <= keys[1])
