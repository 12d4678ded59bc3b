"""Keys and streams of a secure sum, all from `cryptography`: nothing here is an invention.

A pair of clients agrees on a secret by X25519 (RFC 7748); HKDF-SHA256 (RFC 5869) makes a key of it that belongs to one
run, round, attempt, purpose and pair. A mask is the key stream of ChaCha20 (RFC 8439) under the whole key of 256 bits,
read as whole numbers of 32 or 64 bits, which is uniform on a ring of as many elements: a power of two needs no
rejection. Shares of secrets travel under ChaCha20Poly1305. Round keys are signed with Ed25519 (RFC 8032). The package
comes with the extras `secure` and `sites`. Imports no torch.
"""

import importlib.util
import json
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ConfigError

__all__ = [
    "KEY_BYTES",
    "Context",
    "KeyPair",
    "KeyStream",
    "add_stream",
    "agreed_key",
    "check_cryptography",
    "derived_key",
    "new_secret",
    "open_box",
    "public_identity",
    "seal_box",
    "seed_digest",
    "sign",
    "verify",
]

KEY_BYTES = 32
_PIECE = 1 << 20
"""Values of a stream made at a time, which bounds the memory beside a vector."""

Vector = npt.NDArray[Any]
"""Whole numbers modulo 2^32 (uint32) or 2^64 (uint64)."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a key, a box or a signature belongs to, so that none of another round can stand for it."""

    run: str
    step: int
    attempt: str
    """Drawn by the server for each time that the round is tried."""

    def bound_to(self, purpose: str, *parts: str) -> bytes:
        """Return the bytes that name a purpose in this round; JSON keeps the parts apart.

        >>> Context(run="ab", step=3, attempt="0f").bound_to("mask", "ann", "bob")
        b'["fedllm secure sum 1", "ab", 3, "0f", "mask", "ann", "bob"]'
        """
        return json.dumps(["fedllm secure sum 1", self.run, self.step, self.attempt, purpose, *parts]).encode()


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A pair of X25519 keys, 32 bytes each."""

    private: bytes
    public: bytes

    @classmethod
    def fresh(cls) -> "KeyPair":
        """Return a pair drawn by the system's generator."""
        return cls.of(new_secret())

    @classmethod
    def of(cls, private: bytes) -> "KeyPair":
        """Return the pair of a private key.

        >>> pair = KeyPair.fresh()
        >>> KeyPair.of(pair.private) == pair
        True
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        key = X25519PrivateKey.from_private_bytes(private)
        return cls(private=private, public=key.public_key().public_bytes_raw())


def check_cryptography() -> None:
    """Refuse a secure sum where `cryptography` is not installed.

    Raises:
        ConfigError: with what to install.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise ConfigError(
            "secure_sum needs cryptography, which is not installed; pip install 'fedllm-commons[secure]'"
        )


def new_secret() -> bytes:
    """Return 256 bits from the system's generator."""
    return secrets.token_bytes(KEY_BYTES)


def agreed_key(private: bytes, public: bytes, bound_to: bytes) -> bytes:
    """Return the key that two clients share for one purpose.

    Args:
        private: one's own X25519 key.
        public: the other's.
        bound_to: from `Context.bound_to`.

    Raises:
        ValueError: if the other's key is no key, or one with which everybody agrees on the same secret.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    key = X25519PrivateKey.from_private_bytes(private)
    return derived_key(key.exchange(X25519PublicKey.from_public_bytes(public)), bound_to)


def derived_key(secret: bytes, bound_to: bytes) -> bytes:
    """Return a key of 256 bits that belongs to one purpose, by HKDF-SHA256 without a salt.

    Args:
        secret: uniform, or agreed on.
        bound_to: what the key is for.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), KEY_BYTES, None, bound_to).derive(secret)


class KeyStream:
    """The key stream of ChaCha20 under one key, from its beginning; each key is used for one stream."""

    def __init__(self, key: bytes) -> None:
        """Begin at block 0 with a nonce of zeros: the key belongs to this stream alone."""
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

        self._encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int, dtype: Any) -> Vector:
        """Return the next whole numbers of the stream, little-endian.

        >>> KeyStream(bytes(32)).words(2, np.uint32).tolist()
        [2917185654, 2419978656]
        """
        kind = np.dtype(dtype).newbyteorder("<")
        content = self._encryptor.update(bytes(count * kind.itemsize))
        return np.frombuffer(content, dtype=kind)


def add_stream(vector: Vector, key: bytes, sign: int) -> None:
    """Add a key's stream to a vector in place, or take it away; modulo 2^32 or 2^64 by the vector's own type.

    Args:
        vector: uint32 or uint64.
        key: 32 bytes.
        sign: 1 or -1.

    >>> ring = np.array([1, 2], dtype=np.uint32)
    >>> add_stream(ring, bytes(32), 1)
    >>> add_stream(ring, bytes(32), -1)
    >>> ring.tolist()
    [1, 2]
    """
    stream = KeyStream(key)
    for start in range(0, len(vector), _PIECE):
        piece = vector[start : start + _PIECE]
        words = stream.words(len(piece), vector.dtype)
        if sign > 0:
            piece += words
        else:
            piece -= words


def seal_box(key: bytes, content: bytes, bound_to: bytes) -> bytes:
    """Encrypt with ChaCha20Poly1305; each key seals one box, so the nonce is zeros.

    Args:
        key: from `agreed_key`, of one direction of one round.
        content: what is sealed.
        bound_to: authenticated with it.
    """
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305(key).encrypt(bytes(12), content, bound_to)


def open_box(key: bytes, box: bytes, bound_to: bytes) -> bytes:
    """Undo `seal_box`.

    Raises:
        ValueError: if the box was not sealed with this key, for this.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), box, bound_to)
    except InvalidTag:
        raise ValueError("it was sealed with another key, or for another round") from None


def seed_digest(seed: bytes) -> bytes:
    """Return what is shown of a seed, by which a false one is found out; 256 bits cannot be guessed from it."""
    return sha256(b"seed" + seed).digest()


def public_identity(private: bytes) -> bytes:
    """Return the public half of an Ed25519 key, 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def sign(private: bytes, content: bytes) -> bytes:
    """Return the Ed25519 signature of some content, 64 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private).sign(content)


def verify(public: bytes, signature: bytes, content: bytes) -> bool:
    """Return whether a signature is that of a key under some content.

    >>> key = new_secret()
    >>> verify(public_identity(key), sign(key, b"x"), b"x"), verify(public_identity(key), sign(key, b"x"), b"y")
    (True, False)
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True
