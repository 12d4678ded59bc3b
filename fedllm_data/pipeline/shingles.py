"""The parts of a row and their shingles: what two rows must have in common to say almost the same.

A row has parts: the messages before the last user message, that message, and the answer, or the two answers of a
pair. A part's shingles are five characters running, case and spacing levelled; a shorter text is one shingle.
Characters, not words: Chinese and Thai have no spaces.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedllm_data.schema import Task

__all__ = [
    "MIX",
    "NUM_CHARS",
    "PARTS_IN_SQL",
    "SEED",
    "jaccard",
    "mixed",
    "parts_of",
    "running_shingles",
    "shingles",
    "similarity",
]

NUM_CHARS = 5
SEED = 20_240_607
"""Seeds the constants that hash shingles, here and in `banding.py`."""
MIX = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = np.random.default_rng(SEED).integers(1 << 63, size=NUM_CHARS, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)

PARTS_IN_SQL: dict[Task, str] = {
    "sft": "texts(messages[:-3]), messages[-2].content, messages[-1].content",
    "preference": "texts(prompt[:-2]), prompt[-1].content, chosen[-1].content, rejected[-1].content",
}
"""`parts_of` in SQL, with a macro `texts` that joins the texts of messages."""


def parts_of(row: Mapping[str, Any], task: Task) -> tuple[str, ...]:
    """Return what must be alike for two rows to be near-duplicates, part by part.

    >>> turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    >>> parts_of({"messages": turns}, "sft")[1:]
    ('user', 'assistant')
    """
    asked = row["messages"][:-1] if task == "sft" else row["prompt"]
    answers = row["messages"][-1:] if task == "sft" else [row["chosen"][-1], row["rejected"][-1]]
    history = "\n".join(message["content"] for message in asked[:-1])
    return (history, asked[-1]["content"], *(message["content"] for message in answers))


def similarity(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """Return the least Jaccard similarity among the parts of two rows, in [0, 1].

    >>> similarity(("abcdefg", "Yes."), ("abcdefh", "yes."))  # abcde, bcdef in common, cdefg and cdefh not
    0.5
    """
    return min(jaccard(shingles(one), shingles(other)) for one, other in zip(first, second, strict=True))


def shingles(text: str) -> np.ndarray:
    """Return the distinct shingles of a text as 64-bit hashes, sorted.

    >>> len(shingles("abcdefg")), len(shingles("Yes."))
    (3, 1)
    """
    return np.unique(running_shingles(text))


def running_shingles(text: str) -> np.ndarray:
    """Return the shingles of a text in order, as 64-bit hashes: one that occurs twice is there twice.

    >>> len(running_shingles("aaaaaaa")), len(shingles("aaaaaaa"))
    (3, 1)
    """
    levelled = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    codes = np.frombuffer(levelled.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32).astype(np.uint64) + 1
    if len(codes) < NUM_CHARS:
        codes = np.concatenate([codes, np.zeros(NUM_CHARS - len(codes), dtype=np.uint64)])
    num_shingles = len(codes) - NUM_CHARS + 1
    total = np.zeros(num_shingles, dtype=np.uint64)
    for index, multiplier in enumerate(_MULTIPLIERS):
        total += codes[index : index + num_shingles] * multiplier
    return mixed(total)


def mixed(values: np.ndarray) -> np.ndarray:
    """Return 64 bits of which each depends on all; a bijection.

    >>> mixed(np.zeros(1, np.uint64)).tolist()
    [0]
    """
    values = (values ^ (values >> np.uint64(31))) * MIX
    return np.asarray(values ^ (values >> np.uint64(32)))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jaccard similarity of two sets of shingles, in [0, 1].

    >>> jaccard(shingles("abcdefg"), shingles("abcdefh"))
    0.5
    """
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)
