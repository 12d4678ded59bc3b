"""Client ids as keyed hashes: a person keeps one id over all releases, and only the salt's keeper can tell whose.

Keyed BLAKE2b (RFC 7693), 96 bits: two of a million clients share an id with probability below 1e-16. The salt is 256
random bits in a file of its own; whoever has it can find out who a client is, so it is never written into a repo.

Which split a client is in follows from its upstream id without the salt (`split.py`), so that releases under several
salts hold out the same people. Whoever knows somebody's upstream id can so tell on which side the person would be:
of ten candidates for an unseen client about nine fall away, of ten for another about one.
"""

import os
import re
import secrets
from hashlib import blake2b
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import is_rehearsed

__all__ = ["hash_client_id", "read_salt", "salt_fingerprint"]


def read_salt(path: Path) -> bytes:
    """Return the salt of a file; where the file is missing, make it, readable for its owner alone.

    Raises:
        ConfigError: if the file holds no salt, or cannot be read or made.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     read_salt(Path(place, "salt")) == read_salt(Path(place, "salt"))
    True
    """
    if is_rehearsed() and not path.exists():
        return bytes(32)  # stands for the one that would be made; nothing is hashed
    try:
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32) + "\n")
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"the salt file {path} cannot be used: {reason}; name a file that can be written") from error
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigError(
            f"the salt file {path} does not hold 64 hexadecimal digits; name the file of the last release, "
            "or one that does not exist yet: it is then made"
        )
    return bytes.fromhex(text)


def hash_client_id(client_id: str, salt: bytes) -> str:
    """Return the published id of a client: 24 hexadecimal digits.

    >>> hash_client_id("10.0.0.1", b"a" * 32) == hash_client_id("10.0.0.1", b"a" * 32)
    True
    >>> hash_client_id("10.0.0.1", b"a" * 32) == hash_client_id("10.0.0.1", b"b" * 32)
    False
    """
    return blake2b(client_id.encode(), key=salt, digest_size=12, person=b"fedllm-client").hexdigest()


def salt_fingerprint(salt: bytes) -> str:
    """Return what tells whether two releases used one salt, and nothing else about it.

    >>> len(salt_fingerprint(b"a" * 32))
    16
    """
    return blake2b(b"fingerprint", key=salt, digest_size=8, person=b"fedllm-salt").hexdigest()
