"""From texts to vectors, without a hub, a model file or anything fitted to a corpus.

An encoder is a function from N texts to an (N, D) float32 array. Its name pins what it computes: whoever changes a
digit of the result gives it a new name. Each text is encoded by itself, so batches change nothing.

`hashed-ngrams-v1` takes a text as the set of its character n-grams (two to four characters, inside words, as
scikit-learn's `char_wb`), hashed into 32,768 buckets, and multiplies the set by a matrix of random signs (Achlioptas
2003, "Database-friendly random projections"). The cosine of two vectors estimates that of the two sets, the number of
common n-grams over the geometric mean of their numbers, with a standard error of about 1 / sqrt(512) = 0.04. What is
summed are integers, so every platform gives the same digits. It tells languages apart well and topics somewhat; it
knows nothing of meaning ("car" and "automobile" are strangers).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

__all__ = ["DEFAULT_ENCODER", "ENCODERS", "Encoder", "hashed_ngrams"]

Encoder = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> (N, D) vectors of length one; a text without any letter is a vector of zeros."""

DIMENSIONS = 512
MAX_CHARS = 4_000
"""What lies beyond is not looked at: long texts would cost time and tell little more."""
_SIZES = (2, 3, 4)
_BATCH_CHARS = 20_000
_SPACE = 32
_NUM_BUCKETS = 1 << 15
_STEP = 0x9E3779B97F4A7C15


def hashed_ngrams(texts: Sequence[str], *, seed: int = 0) -> NDArray[np.float32]:
    """Encode texts by their character n-grams, as the head of this file says.

    Args:
        texts: any texts; case and spacing are levelled, and `MAX_CHARS` characters looked at.
        seed: seeds the projection; vectors of different seeds cannot be compared.

    Returns:
        (N, 512) vectors of length one; zeros for a text of spaces.

    >>> near, far = "How do I bake bread?", "¿Dónde está la estación?"
    >>> one, two, three = hashed_ngrams(["How do I bake a cake?", near, far])
    >>> bool(one @ two > 0.4 > one @ three)
    True
    """
    vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
    levelled = (" ".join(text[:MAX_CHARS].casefold().split()) for text in texts)
    for start, batch in _batches(f" {text} " if text else "" for text in levelled):
        vectors[start : start + len(batch)] = _project(batch, seed)
    return vectors


DEFAULT_ENCODER = "hashed-ngrams-v1"
ENCODERS: dict[str, Encoder] = {DEFAULT_ENCODER: hashed_ngrams}
"""By name: for a report or a partition to ask for, and to record."""


def _batches(texts: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (position of the first, texts) so that a batch has few characters: it bounds the memory, no more."""
    batch: list[str] = []
    start = num_chars = 0
    for text in texts:
        batch.append(text)
        num_chars += len(text)
        if num_chars >= _BATCH_CHARS:
            yield start, batch
            start, num_chars, batch = start + len(batch), 0, []
    if batch:
        yield start, batch


def _project(texts: list[str], seed: int) -> NDArray[np.float32]:
    """Sum the signs of every text's n-grams, and bring the sums to length one."""
    text_M, bucket_M = _ngrams(texts)
    counts_N = np.bincount(text_M, minlength=len(texts))
    starts = np.concatenate([[0], np.cumsum(counts_N)])
    # At most 3 * MAX_CHARS signs are summed, which 16 bits hold; sparse times dense goes row by row.
    sets = csr_matrix((np.ones(len(bucket_M), np.int16), bucket_M, starts), shape=(len(texts), _NUM_BUCKETS))
    sums_ND = (sets @ _signs(seed)).astype(np.int64)
    # Squares of integers are summed without rounding, so the only roundings are those of one root and one division.
    length_N = np.sqrt((sums_ND * sums_ND).sum(axis=1).astype(np.float64))
    vectors: NDArray[np.float32] = (sums_ND / np.maximum(length_N, 1.0)[:, None]).astype(np.float32)
    return vectors


def _ngrams(texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the n-grams of the texts, each once a text: the number of the text, ascending, and a bucket."""
    code_C = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    text_C = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    found = []
    for size in _SIZES:
        num_windows = max(0, len(code_C) - size + 1)
        key = np.full(num_windows, _mix_one(size), np.uint64)
        is_ngram = text_C[:num_windows] == text_C[len(text_C) - num_windows :]
        for offset in range(size):
            codes = code_C[offset : offset + num_windows]
            key += codes * np.uint64(_mix_one(100 + offset) | 1)
            if 0 < offset < size - 1:
                is_ngram &= codes != _SPACE
        buckets = (_mixed(key[is_ngram]) % np.uint64(_NUM_BUCKETS)).astype(np.int64)
        found.append(text_C[:num_windows][is_ngram] * _NUM_BUCKETS + buckets)
    # Sorting here is faster than np.unique, which hashes first.
    pairs = np.sort(np.concatenate(found))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return pairs // _NUM_BUCKETS, pairs % _NUM_BUCKETS


@lru_cache(maxsize=2)
def _signs(seed: int) -> NDArray[np.int16]:
    """The random projection: a sign for each bucket and dimension, 32 MB."""
    numbers = np.arange(_NUM_BUCKETS * DIMENSIONS // 64, dtype=np.uint64) * np.uint64(_STEP)
    words = _mixed(numbers + np.uint64(_mix_one(1_000 + seed)))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little").view(np.int8)
    # In place, and widened last: each further array of 32 MB takes longer than its arithmetic.
    bits *= 2
    bits -= 1
    return bits.reshape(_NUM_BUCKETS, DIMENSIONS).astype(np.int16)


def _mixed(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every bit of a key moves every bit of the result."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _mix_one(number: int) -> int:
    """The same for the number-th step of the sequence, as a Python integer."""
    return int(_mixed(np.array([((number + 1) * _STEP) % 2**64], np.uint64))[0])
