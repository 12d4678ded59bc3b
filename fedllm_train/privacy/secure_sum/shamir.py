"""Shamir's secret sharing (1979) over the field of 2^521 - 1: any t shares give the secret, fewer say nothing of it.

Symbols: n shares, threshold t, f a polynomial of degree t - 1 whose constant term is the secret; share i is f(i), i
from 1. Every coefficient is drawn by the system's generator. The prime is Mersenne's thirteenth, so that a secret of
512 bits fits; shares are written in 66 bytes. Imports no torch.
"""

import secrets
from collections.abc import Mapping

__all__ = ["PRIME", "SHARE_BYTES", "combine", "split"]

PRIME = 2**521 - 1
SHARE_BYTES = 66
"""Length of a share, which is a number below the prime."""


def split(secret: bytes, num_shares: int, threshold: int) -> list[bytes]:
    """Return the shares of a secret; the first has index 1.

    Args:
        secret: at most 64 bytes.
        num_shares: n, at least the threshold.
        threshold: t, at least 1.

    Raises:
        ValueError: for a secret that is too long, or a threshold that the shares cannot reach.

    >>> shares = split(b"secret", 5, 3)
    >>> combine({2: shares[1], 5: shares[4], 3: shares[2]}, threshold=3, length=6)
    b'secret'
    """
    if len(secret) > 64:
        raise ValueError(f"a secret of {len(secret)} bytes is longer than 64")
    if not 1 <= threshold <= num_shares:
        raise ValueError(f"a threshold of {threshold} cannot be reached by {num_shares} shares")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    shares = []
    for index in range(1, num_shares + 1):
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * index + coefficient) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes], *, threshold: int, length: int) -> bytes:
    """Return the secret of some shares, by Lagrange's interpolation at 0.

    Args:
        shares: index, from 1, -> share; of more than the threshold those with the lowest indices are used.
        threshold: t.
        length: of the secret in bytes.

    Raises:
        ValueError: if there are too few shares, or they belong to no secret of this length.
    """
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares are fewer than the {threshold} that give a secret")
    points = {index: int.from_bytes(shares[index], "big") for index in sorted(shares)[:threshold]}
    if any(index < 1 or value >= PRIME for index, value in points.items()):
        raise ValueError("a share is none of this field")
    secret = 0
    for index, value in points.items():
        above = below = 1
        for other in points:
            if other != index:
                above = above * other % PRIME
                below = below * (other - index) % PRIME
        secret = (secret + value * above * pow(below, -1, PRIME)) % PRIME
    try:
        return secret.to_bytes(length, "big")
    except OverflowError:
        raise ValueError(f"the shares belong to no secret of {length} bytes") from None
