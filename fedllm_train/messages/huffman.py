"""Symbols as Huffman codes: levels, one a byte, and the bytes of numbers in planes.

The coder is zlib's, told to look for no repetitions (`Z_HUFFMAN_ONLY`): a table for every 32,768 symbols, no package
to install, and a decoder that is safe on damaged bytes. On levels of a Gaussian it comes within 1 % (int8), 2 % (int4)
and 6 % (int3) of the entropy, where deflate with repetitions is 19 % off at int4; a range coder (constriction 0.5)
reaches the entropy, and was not worth a dependency (`benchmarks/codec_throughput.py` has the figures of today).
Levels are coded before they are packed into half bytes, which would hide their distribution. Numbers are split into
planes first: all highest bytes (sign and exponent, which take three bits instead of eight), then all next ones.
"""

import zlib

import numpy as np

__all__ = ["read_symbols", "write_symbols"]

_MOST_MEMORY = 9
"""zlib's memLevel: 32,768 symbols share a table."""


def write_symbols(planes: np.ndarray) -> np.ndarray:
    """Return the codes of symbols, as bytes.

    Args:
        planes: (m, n) bytes, each plane with a distribution of its own.

    >>> len(write_symbols(np.zeros((1, 1000), dtype=np.uint8))) < 200
    True
    """
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, _MOST_MEMORY, zlib.Z_HUFFMAN_ONLY)
    parts = []
    for plane in planes:
        parts += [coder.compress(plane.tobytes()), coder.flush(zlib.Z_BLOCK)]  # the next plane has tables of its own
    return np.frombuffer(b"".join([*parts, coder.flush()]), dtype=np.uint8)


def read_symbols(codes: np.ndarray, num_planes: int, num_symbols: int) -> np.ndarray:
    """Return the (m, n) symbols that `write_symbols` wrote.

    Args:
        codes: the bytes.
        num_planes: m.
        num_symbols: n, of each plane. No more memory is taken, whatever the codes say.

    Raises:
        ValueError: if the bytes are no codes of that many symbols.
    """
    expected = num_planes * num_symbols
    coder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        text = coder.decompress(codes.tobytes(), expected + 1)
    except zlib.error as error:
        raise ValueError(f"the codes of levels are damaged ({error})") from error
    if len(text) != expected or not coder.eof or coder.unused_data:
        raise ValueError("there are not as many codes as values")
    return np.frombuffer(text, dtype=np.uint8).reshape(num_planes, num_symbols)
