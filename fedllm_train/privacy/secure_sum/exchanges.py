"""What the two ends of a secure sum say to one another: small JSON texts, every field checked, nothing else read.

A round has four exchanges, each a question to every client that is left and its answer:

    keys      -> `KeysRequest`     <- `SignedKeys`       fresh public keys, signed
    shares    -> `SharesRequest`   <- `SealedShares`     shares of two secrets, sealed for each peer
    train     -> `TrainHeader` before the broadcast      <- the masked vector, raw
    unmask    -> `UnmaskRequest`   <- `OpenShares`       for each client one kind of share, never both

Bytes are written in hexadecimal. A text that is no message raises `ValueError`. Imports no torch.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, get_type_hints

from fedllm_train.privacy.secure_sum.masks import Context

__all__ = [
    "KeysRequest",
    "OpenShares",
    "PublicKeys",
    "SealedShares",
    "SharesRequest",
    "SignedKeys",
    "TrainHeader",
    "UnmaskRequest",
    "joined",
    "parted",
]

_ATTEMPT = re.compile("[0-9a-f]{32}")
_LENGTH = struct.Struct(">I")
_MOST_BYTES = 1 << 26
"""Longest text: shares for some hundred thousand peers."""


class _Message:
    """A dataclass of texts, lists and mappings of texts, and of other messages."""

    def to_bytes(self) -> bytes:
        """Return the message as it is sent."""
        return json.dumps(_plain(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes | memoryview) -> Self:
        """Return the message that some bytes are.

        Raises:
            ValueError: saying which field is wrong.
        """
        if len(content) > _MOST_BYTES:
            raise ValueError(f"a message of {len(content):,} bytes is too long")
        try:
            text = json.loads(bytes(content), object_pairs_hook=_without_twins, parse_float=_no_number)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"no JSON ({str(error)[:80]})") from None
        return _made(cls, text, cls.__name__)  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class KeysRequest(_Message):
    """Asks for fresh keys."""

    attempt: str


@dataclass(frozen=True, kw_only=True)
class PublicKeys(_Message):
    """What a client shows of its keys of a round."""

    mask_key: bytes
    """X25519; pairs of clients agree on their masks with it."""
    share_key: bytes
    """X25519; shares are sealed with it."""
    seed_digest: bytes
    """SHA-256 of the seed of the client's own mask, so that a false share of it is found out."""
    identity: bytes
    """Ed25519; the same in all rounds."""

    def signed_text(self, context: Context, client_id: str) -> bytes:
        """Return what the client signs."""
        parts = [each.hex() for each in (self.mask_key, self.share_key, self.seed_digest)]
        return context.bound_to("keys", client_id, *parts)


@dataclass(frozen=True, kw_only=True)
class SignedKeys(_Message):
    """A client's keys of a round, signed by its identity."""

    keys: PublicKeys
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class SharesRequest(_Message):
    """Tells every client the keys of all, and asks for shares of its secrets."""

    attempt: str
    keys: dict[str, SignedKeys]
    """Client id -> its keys."""


@dataclass(frozen=True, kw_only=True)
class SealedShares(_Message):
    """A client's shares, each sealed for one peer."""

    boxes: dict[str, bytes]
    """Client id -> box."""


@dataclass(frozen=True, kw_only=True)
class TrainHeader(_Message):
    """Stands before a broadcast: with whom the client's vector is masked."""

    attempt: str
    summed: list[str]
    """Clients that have sent shares, sorted."""


@dataclass(frozen=True, kw_only=True)
class UnmaskRequest(_Message):
    """Says whose vectors came and whose were lost, and hands out the boxes for this client."""

    attempt: str
    arrived: list[str]
    lost: list[str]
    boxes: dict[str, bytes]
    """From whom -> box."""


@dataclass(frozen=True, kw_only=True)
class OpenShares(_Message):
    """A client's shares of each peer's seed, or of its key; never both of one peer."""

    seeds: dict[str, bytes]
    keys: dict[str, bytes]


def joined(header: TrainHeader, broadcast: bytes) -> bytes:
    """Return a header and the broadcast behind it."""
    text = header.to_bytes()
    return _LENGTH.pack(len(text)) + text + broadcast


def parted(message: bytes) -> tuple[TrainHeader, bytes]:
    """Undo `joined`.

    Raises:
        ValueError: if there is no header.

    >>> header = TrainHeader(attempt="0" * 32, summed=["ann", "bob", "cyd"])
    >>> parted(joined(header, b"adapter")) == (header, b"adapter")
    True
    """
    if len(message) < _LENGTH.size:
        raise ValueError("it has no header")
    (length,) = _LENGTH.unpack_from(message)
    if length > len(message) - _LENGTH.size:
        raise ValueError("its header is cut short")
    end = _LENGTH.size + length
    return TrainHeader.from_bytes(message[_LENGTH.size : end]), message[end:]


_SIZES = {"mask_key": 32, "share_key": 32, "seed_digest": 32, "identity": 32, "signature": 64}
"""Field of bytes -> its length, where it is fixed."""


def _plain(value: Any) -> Any:
    if isinstance(value, _Message):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}  # type: ignore[arg-type]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _made(kind: Any, value: Any, place: str) -> Any:
    """A value of a kind that the fields above have, or a refusal that says where it is none."""
    if isinstance(kind, type) and issubclass(kind, _Message):
        hints = {name: hint for name, hint in get_type_hints(kind).items() if not name.startswith("_")}
        if not isinstance(value, dict) or set(value) != set(hints):
            raise ValueError(f"{place} should have the fields {', '.join(hints)}")
        made = {name: _made(hint, value[name], name) for name, hint in hints.items()}
        for name, size in _SIZES.items():
            if name in made and len(made[name]) != size:
                raise ValueError(f"{name} should have {size} bytes")
        if "attempt" in made and not _ATTEMPT.fullmatch(made["attempt"]):
            raise ValueError("attempt should be 32 hexadecimal digits")
        return kind(**made)
    if kind is str:
        return _text(value, place)
    if kind is bytes:
        try:
            return bytes.fromhex(_text(value, place))
        except ValueError:
            raise ValueError(f"{place} should be hexadecimal") from None
    if kind == list[str]:
        if not isinstance(value, list):
            raise ValueError(f"{place} should be a list")
        names = [_text(each, place) for each in value]
        if len(set(names)) < len(names):
            raise ValueError(f"{place} names a client twice")
        return names
    if not isinstance(value, dict):
        raise ValueError(f"{place} should be an object")
    of = bytes if kind == dict[str, bytes] else SignedKeys
    return {key: _made(of, each, place) for key, each in value.items()}


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place} should be a text")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names a key twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"it holds the number {text[:20]}, and no message holds one")
