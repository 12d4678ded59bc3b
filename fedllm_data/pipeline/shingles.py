"""The parts of a row and their shingles: what two rows must have in common to say almost the same.

A row has parts: the messages before the last user message, that message, and the answer, or the two answers of a
pair. A part's shingles are five characters running, case and spacing levelled; a shorter text is one shingle.
Characters, not words: Chinese and Thai have no spaces.
"""

import unicodedata
from collections.abc import Mapping, Sequence
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
    "shingles_of_texts",
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
    return shingles_of_texts([text])[0]


def shingles_of_texts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the shingles of texts, one text after another, and how many each text has.

    All texts are hashed as one long one; what would run over the end of a text is left out. A text too short for a
    shingle is filled up with the code 0, which no character has.

    Args:
        texts: at least one.

    Returns:
        64-bit hashes as `running_shingles` gives them, and their number for each text, at least 1.

    >>> hashes, sizes = shingles_of_texts(["abcdefg", "Yes."])
    >>> sizes.tolist(), bool((hashes[3:] == running_shingles("yes.")).all())
    ([3, 1], True)
    """
    levelled = [_levelled(text) for text in texts]
    length_N = np.array([len(text) for text in levelled])
    joint = "".join([text if len(text) >= NUM_CHARS else text.ljust(NUM_CHARS) for text in levelled])
    codes = np.frombuffer(joint.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32).astype(np.uint64)
    codes += np.uint64(1)
    stop_N = np.cumsum(np.maximum(length_N, NUM_CHARS))
    for index in np.flatnonzero(length_N < NUM_CHARS).tolist():
        codes[stop_N[index] - NUM_CHARS + length_N[index] : stop_N[index]] = 0
    num_places = len(codes) - NUM_CHARS + 1
    total = codes[:num_places] * _MULTIPLIERS[0]
    term = np.empty_like(total)
    for index in range(1, NUM_CHARS):
        total += np.multiply(codes[index : index + num_places], _MULTIPLIERS[index], out=term)
    is_within = np.ones(len(codes), dtype=bool)
    is_within[stop_N[:, None] - np.arange(1, NUM_CHARS)] = False
    return mixed(total[is_within[:num_places]]), np.maximum(length_N, NUM_CHARS) - NUM_CHARS + 1


def _levelled(text: str) -> str:
    # Plain ASCII is its own NFKC form, and its lower case is its folded case.
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())


def mixed(values: np.ndarray) -> np.ndarray:
    """Return 64 bits of which each depends on all; a bijection.

    >>> mixed(np.zeros(1, np.uint64)).tolist()
    [0]
    """
    found = values >> np.uint64(31)
    found ^= values
    found *= MIX
    found ^= found >> np.uint64(32)
    return np.asarray(found)


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Jaccard similarity of two sets of shingles, in [0, 1].

    >>> jaccard(shingles("abcdefg"), shingles("abcdefh"))
    0.5
    """
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)
