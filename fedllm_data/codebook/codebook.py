"""The codebook: all that clients must share so that their profiles merge and their reports compare.

A small JSON file. It names the tokenizer, the encoder, the parsers and the scorers with their revisions, and holds
what is drawn or fitted: the seeds of two projections, the centres of the clusters, the bandwidth of the kernel and
the salt of the keyed hashes. Its digest stands in every profile and report; profiles of two codebooks do not merge.

It holds no text (how it is made: see `make.py`). Who has the salt can test whether a text that they know is among
those hashed in a profile.

Symbols: N rows, E dimensions of the encoder, D of the projection, F Fourier features, C clusters. Vectors and centres
are multiplied as integers, whose sums are exact in any order: given the same codebook and encoder, projections and
clusters are the same to the last bit on every machine and in every batch (the shipped encoder is, too; a model's
vectors depend on its library).
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.errors import ConfigError, ReportError
from fedllm_data.heterogeneity.mmd import random_fourier_features
from fedllm_data.heterogeneity.quality import SHIPPED, ScorerInfo
from fedllm_data.in_place import write_file

__all__ = ["CENTRE_UNITS", "CODEBOOK_VERSION", "Codebook", "read_codebook", "unit_rows", "write_codebook"]

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]

CODEBOOK_VERSION = 1
_VECTOR_UNITS = 1 << 14
CENTRE_UNITS = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """What turns rows into features, the same for all clients."""

    tokenizer: str
    """Name of what counts tokens."""
    encoder: str
    """Name of what turns a text into a vector: see `model_encoders.load_encoder`."""
    encoder_revision: str
    dimensions: int = 32
    """D, of the projection of the encoder's vectors."""
    projection_seed: int = 0
    centres: tuple[tuple[int, ...], ...]
    """(C, E) cluster centres in units of 1/4096, the largest cluster of the sample first."""
    fourier_size: int = 128
    """F, the random Fourier features of the Gaussian kernel (Rahimi & Recht 2007)."""
    fourier_bandwidth: float = 1.0
    """Standard deviation of the kernel: the median distance of two vectors of the sample, projected, at length one."""
    fourier_seed: int = 1
    prompt_salt: str
    """Key of the hashes of prompts and answers, hexadecimal."""
    min_rows: int = 1
    """Clients with fewer rows are merged into one profile."""
    scorers: tuple[ScorerInfo, ...] = SHIPPED
    """What judges answers; the first gives the headline of axis `quality`."""
    parsers: dict[str, str] = field(default_factory=dict)
    """Language -> name and version of what finds verb and object."""
    made_from: dict[str, Any] = field(default_factory=dict)
    """Split, number of rows, seed."""

    @cached_property
    def digest(self) -> str:
        """What identifies the content: 16 hexadecimal digits."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True)
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the codebook as plain JSON values."""
        return {"format": "fedllm-codebook", "version": CODEBOOK_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Codebook":
        """Return the codebook that `to_json` wrote.

        Raises:
            ReportError: if the document is no codebook, of another version, or lacks a part.

        >>> Codebook.from_json({"format": "fedllm-codebook", "version": 99})
        Traceback (most recent call last):
        ...
        fedllm_data.errors.ReportError: codebook has version 99, this release reads version 1: make it again
        """
        content = dict(document)
        kind, version = content.pop("format", None), content.pop("version", None)
        if kind != "fedllm-codebook":
            raise ReportError("this is no codebook: `fedllm-data codebook` makes one")
        if version != CODEBOOK_VERSION:
            raise ReportError(
                f"codebook has version {version}, this release reads version {CODEBOOK_VERSION}: make it again"
            )
        try:
            content["centres"] = tuple(tuple(int(value) for value in centre) for centre in content["centres"])
            content["scorers"] = tuple(ScorerInfo(**scorer) for scorer in content["scorers"])
            codebook = cls(**content)
            widths = {len(centre) for centre in codebook.centres}
            bytes.fromhex(codebook.prompt_salt)
        except (KeyError, TypeError, ValueError) as error:
            raise ReportError(f"codebook is broken ({error}): make it again") from error
        if len(widths) != 1 or codebook.dimensions < 1 or not codebook.fourier_bandwidth > 0:
            raise ReportError("codebook is broken (centres, dimensions or bandwidth): make it again")
        return codebook

    def project(self, vectors_NE: Float32Array) -> Float32Array:
        """Return (N, D) projections that keep distances in expectation: random signs over sqrt(D) (Achlioptas 2003).

        Args:
            vectors_NE: (N, E) the encoder's vectors, of length one or zero.

        Raises:
            ConfigError: if the vectors have another width than the centres.
        """
        units_ND = self._integers(vectors_NE) @ self._signs_ED
        return np.asarray(units_ND / (_VECTOR_UNITS * np.sqrt(self.dimensions)), np.float32)

    def clusters(self, vectors_NE: Float32Array) -> NDArray[np.int64]:
        """Return the number of the nearest centre of each vector, the first among equals.

        Args:
            vectors_NE: (N, E) the encoder's vectors.

        Raises:
            ConfigError: if the vectors have another width than the centres.
        """
        # |x - c|^2 without |x|^2, in integer units; multiplied out, all are whole numbers below 2^53.
        squares_C = (self._centres_EC**2).sum(axis=0) * (_VECTOR_UNITS // CENTRE_UNITS)
        return np.asarray((squares_C - 2 * (self._integers(vectors_NE) @ self._centres_EC)).argmin(axis=1))

    def fourier(self, embedding_ND: Float32Array) -> FloatArray:
        """Return (N, F) features whose inner products estimate the Gaussian kernel exp(-|x - y|^2 / (2 b^2)).

        Args:
            embedding_ND: (N, D) projections as `project` returns them; they are brought to length one first.
        """
        return random_fourier_features(
            unit_rows(embedding_ND), seed=self.fourier_seed, size=self.fourier_size, bandwidth=self.fourier_bandwidth
        )

    def key(self, text: str) -> str:
        """Return the keyed hash of a text, 64 bits in hexadecimal; case and spacing are levelled."""
        levelled = " ".join(text.casefold().split())
        return blake2b(levelled.encode(errors="surrogatepass"), digest_size=8, key=self._salt).hexdigest()

    @cached_property
    def _salt(self) -> bytes:
        return bytes.fromhex(self.prompt_salt)

    @cached_property
    def _centres_EC(self) -> FloatArray:
        return np.ascontiguousarray(np.array(self.centres, np.float64).T)

    @cached_property
    def _signs_ED(self) -> FloatArray:
        shape = (len(self.centres[0]), self.dimensions)
        return 1.0 - 2.0 * (_raw(self.projection_seed, shape) >> np.uint64(63)).astype(np.float64)

    def _integers(self, vectors_NE: Float32Array) -> FloatArray:
        if vectors_NE.shape[1] != len(self.centres[0]):
            raise ConfigError(
                f"encoder {self.encoder!r} gives vectors of {vectors_NE.shape[1]} numbers, the codebook's are of "
                f"{len(self.centres[0])}: use the encoder that it was made with"
            )
        return np.rint(np.asarray(vectors_NE, np.float64) * _VECTOR_UNITS)


def write_codebook(codebook: Codebook, path: Path) -> None:
    """Write a codebook as JSON, one line a centre.

    Args:
        codebook: what to write.
        path: the file.

    >>> from tempfile import TemporaryDirectory
    >>> book = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1, 2),), prompt_salt="00")
    >>> with TemporaryDirectory() as place:
    ...     write_codebook(book, Path(place, "codebook.json"))
    ...     read_codebook(Path(place, "codebook.json")) == book
    True
    """
    content = codebook.to_json()
    centres = ",\n    ".join(json.dumps(list(centre)) for centre in content.pop("centres"))
    head = json.dumps(content, indent=2, ensure_ascii=False)[:-2]
    write_file(path, f'{head},\n  "centres": [\n    {centres}\n  ]\n}}\n')


def read_codebook(path: Path) -> Codebook:
    """Read a codebook.

    Raises:
        ReportError: if there is no such file, or it holds no codebook of this version.

    >>> read_codebook(Path("no/such/codebook.json"))
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ReportError: codebook no/such/codebook.json cannot be read: No such file or directory; ...
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not JSON"
        raise ReportError(
            f"codebook {path} cannot be read: {reason}; a report writes codebook.json, name that"
        ) from error
    if not isinstance(document, dict):
        raise ReportError(f"codebook {path} holds no codebook: a report writes codebook.json, name that")
    return Codebook.from_json(document)


def unit_rows(vectors_ND: Float32Array) -> FloatArray:
    """Return the vectors at length one; zeros stay zeros.

    >>> unit_rows(np.array([[3, 4], [0, 0]], np.float32)).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    lengths_N = np.sqrt((np.asarray(vectors_ND, np.float64) ** 2).sum(axis=1, keepdims=True))
    return np.asarray(vectors_ND / np.maximum(lengths_N, 1e-9))


def _raw(seed: int, shape: tuple[int, int]) -> NDArray[np.uint64]:
    """Random words whose values no release of NumPy changes: those of the bit generator itself."""
    words = np.random.PCG64(seed).random_raw(shape[0] * shape[1])
    return np.asarray(words, np.uint64).reshape(shape)
