"""Make a codebook from a sample of the `public` split, or of the pool where there is none.

The sample is the rows whose ids have the smallest hashes, so that neither order nor batches matter. A cluster's centre
is the mean embedding of the sampled rows nearest to it; one with a single row is that row's embedding, so make the
codebook from public rows where the clients' rows are private. K-means runs in floating point, whose last digits may
differ between machines: make a codebook once and share the file.

Symbols: N rows, E dimensions of the encoder, D of the projection, C clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedllm_data.codebook.codebook import CENTRE_UNITS, Codebook, unit_rows
from fedllm_data.encoders import DEFAULT_ENCODER
from fedllm_data.errors import ReportError
from fedllm_data.features.cache import FeatureCache, content_digest
from fedllm_data.features.row_texts import instructions
from fedllm_data.features.verbs import parser_version
from fedllm_data.heterogeneity.quality import SHIPPED, ScorerInfo
from fedllm_data.model_encoders import NamedEncoder, check_encoder, load_encoder
from fedllm_data.partition.clusters import find_centres, nearest_centres

if TYPE_CHECKING:
    from fedllm_data.clients import ClientDataset

__all__ = ["CodebookSettings", "make_codebook"]

Float32Array = NDArray[np.float32]

ROWS_PER_CLUSTER = 16
"""Fewer clusters where the sample is small."""


@dataclass(frozen=True, kw_only=True)
class CodebookSettings:
    """What a codebook is made of, beside the rows.

    Raises:
        ReportError: if a setting is out of range, or scorers share a name.
        ConfigError: if the encoder or a parser is unknown or not installed.
    """

    tokenizer: str = "unicode-words"
    """Name of what counts tokens."""
    encoder: str = DEFAULT_ENCODER
    """Name of what turns a text into a vector: see `model_encoders.load_encoder`."""
    dimensions: int = 32
    """Width of the projected vectors."""
    max_clusters: int = 64
    """How many clusters, if the sample has 16 rows for each."""
    sample_rows: int = 4_096
    """How many rows to look at."""
    min_rows: int = 1
    """Clients with fewer rows are merged into one profile; 1 merges none."""
    scorers: Sequence[ScorerInfo] = SHIPPED
    """What judges answers; the first gives the headline of axis `quality`."""
    parsers: Mapping[str, str] = field(default_factory=dict)
    """Language to name of a spaCy pipeline."""
    salt: bytes | None = None
    """Key of the hashes; by default it follows from the sample and the seed."""
    seed: int = 0
    """Seeds both projections and k-means."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        names = [info.name for info in self.scorers]
        if not names or len(set(names)) < len(names):
            raise ReportError(
                f"the scorers are named {', '.join(names) or 'nothing'}: give at least one, each name once"
            )
        if not (self.dimensions >= 1 and self.max_clusters >= 1 and self.sample_rows >= 2 and self.min_rows >= 1):
            raise ReportError(
                f"dimensions={self.dimensions}, max_clusters={self.max_clusters}, sample_rows={self.sample_rows}, "
                f"min_rows={self.min_rows}: give at least 1, 1, 2 and 1"
            )
        check_encoder(self.encoder)
        for parser in self.parsers.values():
            parser_version(parser)


def make_codebook(
    clients: "ClientDataset | Sequence[ClientDataset]",
    settings: CodebookSettings | None = None,
    *,
    cache: FeatureCache | None = None,
    **single: Any,
) -> Codebook:
    """Make a codebook from a sample of rows: of the public split, or of all splits of the clients.

    Args:
        clients: one split, or several splits of one repo.
        settings: what it is made of; None takes the presets.
        cache: where the vectors of the same sample may lie already.
        single: fields of `CodebookSettings` by name, which replace those of `settings`.

    Raises:
        ReportError: if there is no row, or a setting is out of range.
        ConfigError: if the encoder or a parser is unknown or not installed.

    >>> from datasets import Dataset
    >>> from fedllm_data.clients import ClientDataset
    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = Dataset.from_list([{"client_id": "a", "language": "en", "messages": turns}] * 3)
    >>> codebook = make_codebook(ClientDataset.from_dataset(rows))
    >>> len(codebook.centres), Codebook.from_json(codebook.to_json()) == codebook
    (1, True)
    """
    settings = replace(settings or CodebookSettings(), **single)
    datasets = list(clients) if isinstance(clients, Sequence) else [clients]
    found = load_encoder(settings.encoder)
    picked = _sample(datasets, settings.sample_rows)
    if not picked:
        raise ReportError("no rows to make a codebook from: choose another split or folder")
    texts = [
        text
        for dataset, positions in zip(datasets, picked, strict=True)
        if positions
        for text in instructions(dataset.rows.with_format("arrow")[positions], dataset.task)
    ]
    vectors_NE = _encoded(texts, found, cache)
    # In a fixed order: what follows sums in it.
    vectors_NE = vectors_NE[np.lexsort(vectors_NE.T[:8][::-1])]
    seed = settings.seed
    centres = _centres(vectors_NE, settings.max_clusters, seed)
    salt = settings.salt or blake2b(vectors_NE.tobytes() + str(seed).encode(), digest_size=32).digest()
    plain = Codebook(
        tokenizer=settings.tokenizer,
        encoder=found.name,
        encoder_revision=found.revision,
        dimensions=settings.dimensions,
        projection_seed=2 * seed,
        centres=centres,
        fourier_seed=2 * seed + 1,
        prompt_salt=salt.hex(),
        min_rows=settings.min_rows,
        scorers=tuple(settings.scorers),
        parsers={language: parser_version(parser) for language, parser in sorted(settings.parsers.items())},
        made_from={"splits": sorted(dataset.split for dataset in datasets), "num_rows": len(texts), "seed": seed},
    )
    return replace(plain, fourier_bandwidth=_median_distance(plain.project(vectors_NE)))


def _encoded(texts: list[str], encoder: NamedEncoder, cache: FeatureCache | None) -> Float32Array:
    if cache is None:
        return np.asarray(encoder.encode(texts), np.float32)
    key = content_digest(pa.table({"text": texts}), "codebook", encoder.name, encoder.revision)
    kept = cache.read(key)
    if kept is None:
        kept = {"vector": np.asarray(encoder.encode(texts), np.float32)}
        cache.write(key, kept)
    return np.asarray(kept["vector"])


def _sample(datasets: "Sequence[ClientDataset]", sample_rows: int) -> list[list[int]]:
    """Return the positions of the sampled rows in every dataset: those whose ids have the smallest hashes."""
    best = np.zeros(0, [("hash", "u8"), ("dataset", "i4"), ("position", "i8")])
    for number, dataset in enumerate(datasets):
        start = 0
        for chunk in dataset.rows.select_columns(["row_id"]).with_format("arrow").iter(batch_size=65_536):
            ids = chunk["row_id"].to_pylist()
            hashes = [int.from_bytes(blake2b(row_id.encode(), digest_size=8).digest(), "big") for row_id in ids]
            more = np.zeros(len(ids), best.dtype)
            more["hash"], more["dataset"], more["position"] = hashes, number, np.arange(start, start + len(ids))
            best = np.sort(np.concatenate([best, more]))[:sample_rows]
            start += len(ids)
    if not len(best):
        return []
    return [sorted(best["position"][best["dataset"] == number].tolist()) for number in range(len(datasets))]


def _centres(vectors_NE: Float32Array, max_clusters: int, seed: int) -> tuple[tuple[int, ...], ...]:
    distinct = np.unique(np.round(vectors_NE, 6), axis=0).shape[0]
    num_clusters = max(1, min(max_clusters, distinct // ROWS_PER_CLUSTER))
    centres_CE = find_centres(vectors_NE, num_clusters, np.random.Generator(np.random.PCG64(seed)))
    rows_C = np.bincount(nearest_centres(vectors_NE, centres_CE), minlength=num_clusters)
    units_CE = np.rint(centres_CE.astype(np.float64) * CENTRE_UNITS).astype(int)[np.argsort(-rows_C, kind="stable")]
    return tuple(tuple(centre) for centre in units_CE.tolist())


def _median_distance(embedding_ND: Float32Array, num_rows: int = 512) -> float:
    """Return the median distance between two different vectors of a part of the sample; 1 where all are alike."""
    points_ND = unit_rows(embedding_ND[:: max(1, len(embedding_ND) // num_rows)][:num_rows])
    squares_N = (points_ND**2).sum(axis=1)
    squared_NN = squares_N[:, None] + squares_N - 2 * points_ND @ points_ND.T
    distances = np.sqrt(np.maximum(squared_NN[np.triu_indices(len(points_ND), 1)], 0.0))
    distances = distances[distances > 1e-6]
    return round(float(np.median(distances)), 6) if len(distances) else 1.0
