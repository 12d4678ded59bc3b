"""The secret of a private run, and what is drawn from it: the noise on sums and, with Poisson sampling, the cohorts.

Noise that a run seed decides is no noise to whoever can guess the seed: two runs with one seed, one of them without a
client, would differ by exactly that client's update. So a run with a guarantee draws 256 bits from the system when it
begins and keeps them in its folder (`privacy_secret`, readable by its owner alone), which lets a run that was stopped
go on with the noise it would have had. No config, checkpoint or record holds them, and they are never published; once
the run is finished, the file may be destroyed. A run whose rounds were lost and that begins again draws others: the
same noise on other updates, beside adapters that were perhaps released, would show the difference of the updates.

Draws are named by (purpose, round, tensor), as all random streams are, and are cryptographic: SHAKE-256 (FIPS 202) of
the secret and the name gives uniform bits, the inverse of the normal distribution makes them Gaussian. From what is
released, nobody can work back to the bits of another round or tensor. Imports no torch.
"""

import secrets
import stat
from collections.abc import Iterator, Sequence
from hashlib import blake2b, sha256, shake_256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from fedllm_data.errors import ResumeError
from fedllm_data.in_place import write_file
from fedllm_eval.policy.run_folder import SECRET_FILE

__all__ = [
    "CHUNK",
    "ROW_SECRET",
    "client_secret",
    "draw_secret",
    "run_secret",
    "secret_normals",
    "secret_seed",
    "secret_uniforms",
]

_NUM_BYTES = 32
ROW_SECRET = "row_secret"
"""File of a client's own secret."""
CHUNK = 2**20
"""Values drawn at a time, which bounds the memory of a large tensor's bits."""


def draw_secret() -> bytes:
    """Return 256 bits from the system's generator.

    >>> len(draw_secret()), draw_secret() == draw_secret()
    (32, False)
    """
    return secrets.token_bytes(_NUM_BYTES)


def run_secret(run: Path, *, next_round: int, lost_rounds: bool) -> bytes:
    """Return the secret of a run: the one in its folder, or a new one, written there.

    Args:
        run: the run folder.
        next_round: where the run begins or goes on; from 0.
        lost_rounds: whether the run made rounds that it cannot go on from; then the secret is always a new one.

    Raises:
        ResumeError: if a run that goes on has lost its secret.
    """
    path = run / SECRET_FILE
    secret = None if lost_rounds else _read(path)
    if secret is not None:
        return secret
    if next_round > 0:
        raise ResumeError(
            f"{path} is missing or damaged, and the noise of the rounds that are left is drawn from it; put it back, "
            "or start afresh in another output_dir"
        )
    secret = draw_secret()
    _write(path, secret)
    return secret


def client_secret(folder: Path, *, is_begun: bool) -> bytes:
    """Return the secret of a client's own noise: the one in its folder, or a new one, written there.

    Args:
        folder: the client's own, for one run.
        is_begun: whether something was drawn from it already.

    Raises:
        ResumeError: if it was drawn from and is lost.
    """
    path = folder / ROW_SECRET
    if (secret := _read(path)) is not None:
        return secret
    if is_begun or path.exists():
        raise ResumeError(
            f"{path} is missing or damaged, and the noise of a client's steps is drawn from it; put it back, or start "
            "afresh in another output_dir"
        )
    secret = draw_secret()
    _write(path, secret)
    return secret


def secret_seed(secret: bytes, purpose: str) -> int:
    """Return a run seed of 256 bits for `seeds.stream_rng`, of one purpose.

    >>> secret_seed(b"x" * 32, "cohort") == secret_seed(b"x" * 32, "other")
    False
    """
    return int.from_bytes(blake2b(purpose.encode(), key=secret, digest_size=32).digest(), "big")


def secret_normals(
    secret: bytes, purpose: str, *, round_index: int, name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Return independent standard normal numbers from one stream.

    Args:
        secret: from `run_secret`.
        purpose: what the numbers are for; part of the stream's name.
        round_index: from 0.
        name: the tensor's name.
        shape: the shape of the result.

    >>> a, b = (secret_normals(b"x" * 32, "noise", round_index=t, name="w", shape=(2, 3)) for t in (0, 1))
    >>> a.shape, bool((a == b).any())
    ((2, 3), False)
    """
    size = int(np.prod(shape))
    parts = []
    for words in _words(secret, [purpose, str(round_index), name], size):
        # 52 bits and a half are below 0.5, exact in float64 and never 0; the highest bit is the sign.
        below = ((words & np.uint64(2**52 - 1)).astype(np.float64) + 0.5) * 2.0**-53
        parts.append(np.where(words >> np.uint64(63), -ndtri(below), ndtri(below)))
    return np.concatenate(parts).reshape(shape) if parts else np.zeros(shape)


def secret_uniforms(secret: bytes, purpose: str, *, round_index: int, size: int) -> npt.NDArray[np.float64]:
    """Return independent uniform numbers in [0, 1) of 53 bits, from one stream.

    Args:
        secret: from `run_secret`.
        purpose: what the numbers are for; part of the stream's name.
        round_index: from 0.
        size: how many.

    >>> drawn = secret_uniforms(b"x" * 32, "coins", round_index=0, size=1000)
    >>> bool(((drawn >= 0) & (drawn < 1)).all()), 0.4 < float(drawn.mean()) < 0.6
    (True, True)
    """
    parts = [
        (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        for words in _words(secret, [purpose, str(round_index), "uniform"], size)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _words(secret: bytes, label: Sequence[str], size: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Uniform words of 64 bits, a chunk at a time."""
    for start in range(0, size, CHUNK):
        name = "\0".join([*label, str(start)])
        count = min(CHUNK, size - start)
        yield np.frombuffer(shake_256(secret + name.encode()).digest(8 * count), dtype="<u8")


def _write(path: Path, secret: bytes) -> None:
    """Write a secret in hexadecimal, and below it its SHA-256, by which damage is known."""
    write_file(path, f"{secret.hex()}\n{sha256(secret).hexdigest()}\n", mode=0o600)


def _read(path: Path) -> bytes | None:
    """Return what is there; None where that is no secret."""
    try:
        secret, digest = (bytes.fromhex(line) for line in path.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)  # a copy of the folder may have opened it to others
    return secret if len(secret) == _NUM_BYTES and digest == sha256(secret).digest() else None
