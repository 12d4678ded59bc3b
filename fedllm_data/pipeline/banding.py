"""MinHash signatures in bands: similar rows share one, so that few pairs of rows need be compared.

Signatures (Broder 1997) are taken over the shingles of all parts of a row, each marked with its part: where every part
reaches the threshold, so does their union. Banding (Indyk and Motwani 1998) is set to find 99 % of pairs 0.05 above
the threshold.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from fedllm_data.pipeline.shingles import MIX, NUM_CHARS, SEED, mixed, shingles_of_texts

__all__ = ["signatures"]

_NUM_HASHES = 96
_MAX_BANDS = 32
_CHUNK = 1 << 17
"""Characters hashed at once: what the processor's cache holds."""
_rng = np.random.default_rng(SEED)
_rng.integers(1 << 63, size=NUM_CHARS, dtype=np.uint64)  # those of `shingles.py` are the first of the same stream
_FACTORS = _rng.integers(1 << 31, size=_NUM_HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_MASKS = _rng.integers(1 << 32, size=_NUM_HASHES, dtype=np.uint32)


def signatures(parts: Sequence[tuple[str, ...]], threshold: float) -> pa.Table:
    """Return a column `bands` (list of uint64) for rows given by their parts; similar rows share a band.

    Args:
        parts: those of each row, as `parts_of` gives them.
        threshold: similarity in (0, 1] from which rows are to be found.

    >>> table = signatures([("Hi there!", "Hello"), ("hi  THERE!", "hello"), ("Bye now", "So long")], 0.8)
    >>> first, second, third = table["bands"].to_pylist()
    >>> first == second, bool(set(first) & set(third))
    (True, False)
    """
    num_bands, num_rows_of_band = _banding(threshold)
    bands = np.empty((len(parts), num_bands), dtype=np.uint64)
    start = 0
    while start < len(parts):
        stop, size = start, 0
        while stop < len(parts) and (stop == start or size < _CHUNK):
            size += sum([len(text) for text in parts[stop]])
            stop += 1
        bands[start:stop] = _bands_of(parts[start:stop], num_bands, num_rows_of_band)
        start = stop
    offsets = np.arange(0, bands.size + 1, num_bands, dtype=np.int32)
    return pa.table({"bands": pa.ListArray.from_arrays(offsets, bands.ravel())})


def _banding(threshold: float) -> tuple[int, int]:
    """Numbers of bands and of hashes in each: the most hashes that still find 99 % of pairs 0.05 above."""
    above = min(1.0, threshold + 0.05)
    fits = [
        (min(_MAX_BANDS, _NUM_HASHES // rows), rows)
        for rows in range(1, 13)
        if 1 - (1 - above**rows) ** min(_MAX_BANDS, _NUM_HASHES // rows) >= 0.99
    ]
    return fits[-1] if fits else (_MAX_BANDS, 1)


def _bands_of(parts: Sequence[tuple[str, ...]], num_bands: int, num_rows_of_band: int) -> np.ndarray:
    narrow, starts = _marked(parts)
    bands = np.empty((len(parts), num_bands), dtype=np.uint64)
    hashed = np.empty_like(narrow)
    for band in range(num_bands):
        value = np.full(len(parts), band + 1, dtype=np.uint64)
        for index in range(band * num_rows_of_band, (band + 1) * num_rows_of_band):
            np.bitwise_xor(narrow, _MASKS[index], out=hashed)
            hashed *= _FACTORS[index]
            value = mixed(value * MIX + np.minimum.reduceat(hashed, starts))
        bands[:, band] = value
    return bands


def _marked(parts: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """The shingles of rows, 32 bits of each, and where those of each row begin; a part's are marked with its position.

    One that occurs twice stays twice: the least of the hashes is the same, and sorting costs more than hashing.
    """
    hashes, sizes = shingles_of_texts([text for row in parts for text in row])
    hashes += np.repeat(np.tile(np.arange(len(parts[0]), dtype=np.uint64), len(parts)), sizes)
    of_row = sizes.reshape(len(parts), -1).sum(axis=1)
    return (mixed(hashes) >> np.uint64(32)).astype(np.uint32), np.cumsum(of_row) - of_row
