"""Axis `embedding`: whether clients ask about different things, by where an encoder puts their instructions.

Vectors are taken at length one after the codebook's projection to D dimensions; an instruction without any letter has
none. The headline is the between-client share of their variance, from pairs of different rows
(`mmd.between_fraction`): under the null its mean is 0 and its spread follows from the pool's covariance, whatever the
distribution of the rows and however small the clients, so it has the cleanest null of all. The share of clients that
can be told apart comes next: its null is 1 / K, but a client counts only where both its halves have a row, and only as
yes or no.
Figures from second moments are of the `MAX_MOMENT_CLIENTS` clients with the most rows, and those of halves of
`MAX_HALF_CLIENTS` clients, evenly spread, where there are more.
Symbols: N rows, K clients, D dimensions, R Fourier features, M = D (D + 1) / 2. numpy only.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axis import Axis, Columns, Facts, Measure, Reading, Values
from fedllm_data.heterogeneity.centroids import (
    cosine_to_pool,
    directions,
    nearest_clients,
    own_half_hits,
    own_half_ranks,
    pairwise_cosine_distance,
)
from fedllm_data.heterogeneity.embedding_null import embedding_sampler
from fedllm_data.heterogeneity.embedding_sums import (
    FRECHET_AXES,
    FRECHET_MIN_ROWS,
    HALVES,
    MAX_HALF_CLIENTS,
    MAX_MOMENT_CLIENTS,
    Observed,
    Sample,
    half_sizes,
    observed,
)
from fedllm_data.heterogeneity.frechet import clients_to_pool
from fedllm_data.heterogeneity.mmd import random_fourier_features, sketch_second_moments
from fedllm_data.heterogeneity.profile import SCALE, ClientProfile, Counts, Stack, Vectors, fixed_point_sum
from fedllm_data.heterogeneity.vendi import moment_matrices, upper_triangle, vendi_entropy, vendi_score, vendi_split
from fedllm_data.wording.catalogue import words

__all__ = ["EMBEDDING", "unit_rows"]

FloatArray = NDArray[np.float64]

MIN_ROWS = 2
"""What two rows of one client have in common is what the axis measures."""
RFF_SEED, RFF_SIZE, RFF_BANDWIDTH = 0, 128, 1.0
"""Used where the columns bring no Fourier features of their own."""
LARGEST = f"the {MAX_MOMENT_CLIENTS} clients with the most rows, where there are more"
ONE_PLACE = "all instructions have one embedding"
NO_SPREAD = "No p-value: how much chance varies depends on more than the second moments that profiles hold."
"""Measured on IID partitions: the mean that the null gives was right to 0.3 %, its spread up to 30 % too small."""


def unit_rows(embedding_ND: NDArray[np.floating]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the vectors at length one, rounded to multiples of 1 / SCALE, and which rows have one.

    >>> unit_ND, has_vector = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    >>> unit_ND.round(3).tolist(), has_vector.tolist()
    ([[0.6, 0.8]], [True, False])
    """
    vectors_ND = np.asarray(embedding_ND, np.float64)
    length_N = np.sqrt((vectors_ND**2).sum(axis=1))
    has_vector = length_N > 1e-9
    return np.rint(vectors_ND[has_vector] / length_N[has_vector, None] * SCALE) / SCALE, has_vector


def _count(columns: Columns) -> dict[str, Counts]:
    if "embedding" not in columns or "half" not in columns:
        return {}
    has_vector = np.asarray(columns["embedding"], np.float64).any(axis=1)
    halves, rows = np.unique(np.asarray(columns["half"], np.int64)[has_vector], return_counts=True)
    table = {HALVES[half]: count for half, count in zip(halves.tolist(), rows.tolist(), strict=True)}
    return {"embedded": table} if table else {}


def _sum_up(columns: Columns) -> Vectors:
    if "embedding" not in columns or "half" not in columns:
        return {}
    unit_ND, has_vector = unit_rows(columns["embedding"])
    if not len(unit_ND):
        return {}
    half_N = np.asarray(columns["half"], np.int64)[has_vector]
    if "rff" in columns:
        features_NR = np.asarray(columns["rff"], np.float64)[has_vector]
    else:
        features_NR = random_fourier_features(unit_ND, seed=RFF_SEED, size=RFF_SIZE, bandwidth=RFF_BANDWIDTH)
    upper, lower = upper_triangle(unit_ND.shape[1])
    sums = {f"embedding_half_{label}": fixed_point_sum(unit_ND[half_N == int(label)]) for label in HALVES}
    return sums | {
        "embedding_square": fixed_point_sum((unit_ND**2).sum(axis=1, keepdims=True)),
        "embedding_moments": fixed_point_sum(unit_ND[:, upper] * unit_ND[:, lower]),
        "rff": fixed_point_sum(features_NR),
        "rff_square": fixed_point_sum((features_NR**2).sum(axis=1, keepdims=True)),
        "rff_sketch": fixed_point_sum(sketch_second_moments(features_NR)),
    }


def _prepare(stack: Stack) -> Stack:
    return replace(stack, derived=observed(stack)) if stack.num_clients else stack


def _observed(stack: Stack) -> Observed:
    """What was prepared of the stack's clients: its own, or for a stack that was not, what it holds now."""
    found = observed(stack) if stack.derived is None else stack.derived
    assert isinstance(found, Observed)
    return found


def _sample(stack: Stack) -> Sample:
    if isinstance(stack.derived, Sample):
        return stack.derived
    if stack.derived is not None:
        return _observed(stack).sample(stack.origin_K)
    _, first, index = np.unique(stack.origin_K, return_index=True, return_inverse=True)
    return _observed(stack.take(first)).sample(index)


def _values(stack: Stack) -> Values:
    sample = _sample(stack)
    copies_K, moments = sample.copies_K, sample.moments
    fraction = sample.rows.between_fraction(copies_K)
    if np.isnan(fraction):
        return dict.fromkeys(EMBEDDING.measures, float("nan"))
    share_K = copies_K / copies_K.sum()
    weight_K = copies_K * sample.sizes_K / (copies_K @ sample.sizes_K)
    # A client that is not there weighs nothing, which NaN does not respect.
    mmd2_K = np.where(copies_K > 0, sample.features.mmd2_to_rest(copies_K), 0.0)
    unit_KD = directions(sample.sums_KD)
    to_pool_K = 1 - unit_KD @ directions((copies_K @ sample.sums_KD)[None])[0]
    frechet_L = clients_to_pool(
        moments.sums_UD, moments.sizes_U, moments.total_DD, moments.large, moments.large_LDD, num_axes=FRECHET_AXES
    )
    vendi = vendi_split(float(vendi_entropy(moments.total_DD)), moments.entropy_U, moments.weight_U)
    return {
        "between_fraction": fraction,
        "identified_fraction": _identified(sample),
        "mmd2_to_rest": float(share_K @ mmd2_K),
        "mmd2_to_rest_by_rows": float(weight_K @ mmd2_K),
        "cosine_to_pool": float(share_K @ to_pool_K),
        "cosine_to_pool_by_rows": float(weight_K @ to_pool_K),
        "cosine_pairwise": pairwise_cosine_distance(unit_KD, copies_K),
        "frechet_to_pool": float(frechet_L.mean()) if len(frechet_L) > 1 else float("nan"),
        "vendi_between": vendi.between,
        "vendi_within": vendi.within,
    }


def _identified(sample: Sample) -> float:
    if len(sample.copies_H) < 2:
        return float("nan")
    mean_D = (sample.copies_K @ sample.sums_KD) / (sample.copies_K @ sample.sizes_K)
    hits_H = own_half_hits(sample.one_HD - mean_D, sample.two_HD - mean_D)
    return float(sample.copies_H @ hits_H / sample.copies_H.sum())


def _describe(stack: Stack, pool: ClientProfile) -> Facts:
    num_embedded = sum(pool.counts.get("embedded", {}).values())
    with_both = int((half_sizes(stack).min(axis=1) > 0).sum())
    compared = min(with_both, MAX_HALF_CLIENTS)
    facts: Facts = {
        "embedded_fraction": num_embedded / pool.num_rows,
        "num_half_clients": compared,
        "identified_by_chance": 1 / compared if compared else None,
        "num_moment_clients": min(stack.num_clients, MAX_MOMENT_CLIENTS),
        "frechet_axes": FRECHET_AXES,
        "frechet_min_rows": FRECHET_MIN_ROWS,
    }
    if num_embedded:
        num_dimensions = len(pool.vectors["embedding_half_0"])
        matrix_1DD = moment_matrices(pool.vectors["embedding_moments"][None] / SCALE, num_dimensions)
        facts |= {"num_dimensions": num_dimensions, "vendi_of_all_rows": float(vendi_score(matrix_1DD)[0])}
    return facts


def _sentence(values: Values, facts: Facts) -> str:
    told = values["identified_fraction"]
    share = f"{max(0.0, values['between_fraction']):.0%}"
    if np.isnan(told):
        return words(
            "Who wrote an instruction explains {share} of the variation of the embeddings; hardly any client has rows"
            " in both halves.",
            share=share,
        )
    return words(
        "Who wrote an instruction explains {share} of the variation of the embeddings; half of a client's rows lies"
        " nearest to its other half for {told} of {num} clients, where chance gives {chance}.",
        share=share,
        told=f"{told:.0%}",
        num=f"{facts['num_half_clients']:,}",
        chance=f"{facts['identified_by_chance']:.1%}",
    )


def _per_client(stack: Stack) -> dict[str, list[Any]]:
    names = ("embedding_cosine_to_pool", "own_half_rank", "nearest_client", "nearest_client_cosine", "vendi")
    if not stack.num_clients:
        return {name: [] for name in names}
    found = _observed(stack)
    sums_KD, sizes_K2 = found.sums_KD, found.sizes_K2
    ranks: list[float | None] = [None] * stack.num_clients
    with_both = np.flatnonzero(sizes_K2.min(axis=1) > 0)
    if len(with_both) > 1:
        mean_D = sums_KD.sum(axis=0) / sizes_K2.sum()
        one_HD, two_HD = (
            sums[with_both] / sizes_K2[with_both, half, None] - mean_D for half, sums in enumerate(found.halves)
        )
        for position, rank in zip(with_both.tolist(), own_half_ranks(one_HD, two_HD).tolist(), strict=True):
            ranks[position] = rank
    several = stack.num_clients > 1
    nearest_K, distance_K = nearest_clients(sums_KD) if several else (np.zeros(1, np.int64), np.zeros(1))
    return {
        "embedding_cosine_to_pool": cosine_to_pool(sums_KD).tolist(),
        "own_half_rank": ranks,
        "nearest_client": [stack.client_ids[position] if several else None for position in nearest_K.tolist()],
        "nearest_client_cosine": distance_K.tolist() if several else [None],
        "vendi": np.exp(found.entropy_K).tolist(),
    }


EMBEDDING = Axis(
    name="embedding",
    question="Do clients ask about different things?",
    headline="between_fraction",
    null="clients of these sizes, in both halves, whose instructions come from one pool with the observed mean and"
    " covariance of embeddings",
    tables=("embedded",),
    min_rows=MIN_ROWS,
    slow_above=100,
    measures={
        "between_fraction": Measure(
            title="Between-client variance",
            unit="fraction",
            meaning="Share of the embeddings' variance that lies between clients, each counting by its rows, with"
            " chance taken out (pairs of different rows); 0: clients do not differ, 1: rows of a client are all"
            " alike. It may be slightly negative.",
            undefined=ONE_PLACE,
        ),
        "identified_fraction": Measure(
            title="Clients told apart by halves",
            unit="fraction",
            meaning="Share of clients for whom the mean of one half of their rows, seen from the pool's mean, has the"
            " direction nearest to that of their own other half; 1 / K: chance, 1: every client is recognised.",
            undefined=f"{ONE_PLACE}, or fewer than two clients have rows in both halves",
        ),
        "mmd2_to_rest": Measure(
            title="Squared MMD to the other clients",
            unit="kernel units",
            meaning="Mean over clients of the unbiased squared maximum mean discrepancy to all other rows, by random"
            " Fourier features of a Gaussian kernel; 0: no difference in distribution (it may be negative), at most"
            " 2.",
            undefined=f"{ONE_PLACE}, or a client has all the rows but one",
        ),
        "mmd2_to_rest_by_rows": Measure(
            title="Squared MMD to the other clients, by rows",
            unit="kernel units",
            meaning="The same where every client counts by its rows; small clients, of which little is known, weigh"
            " less.",
            undefined=f"{ONE_PLACE}, or a client has all the rows but one",
        ),
        "cosine_to_pool": Measure(
            title="Cosine distance to the pool",
            unit="1 - cosine",
            meaning="Mean over clients of the distance of their mean embedding to that of all rows; 0: same direction,"
            " 1: orthogonal. Small clients are far by chance.",
            undefined=ONE_PLACE,
        ),
        "cosine_to_pool_by_rows": Measure(
            title="Cosine distance to the pool, by rows",
            unit="1 - cosine",
            meaning="The same where every client counts by its rows.",
            undefined=ONE_PLACE,
        ),
        "cosine_pairwise": Measure(
            title="Cosine distance between two clients",
            unit="1 - cosine",
            meaning="Mean over pairs of clients of the distance of their mean embeddings; 0: all have one direction,"
            " 1: they are orthogonal.",
            undefined=ONE_PLACE,
        ),
        "frechet_to_pool": Measure(
            title="Fréchet distance to the pool",
            unit="embedding units",
            meaning=f"Mean over clients of {FRECHET_MIN_ROWS} rows or more, of mean and covariance on the pool's"
            f" {FRECHET_AXES} leading principal axes, covariances drawn towards the pool's; 0: as the pool. Of"
            f" {LARGEST}.",
            undefined=f"{ONE_PLACE}, or fewer than two clients have {FRECHET_MIN_ROWS} rows",
        ),
        "vendi_between": Measure(
            title="Vendi score between clients",
            unit="kinds of client",
            meaning="Vendi score of all rows over that within clients; 1: every client is as varied as all together,"
            f" K at most: every client keeps to a place of its own. Of {LARGEST}. {NO_SPREAD}",
            undefined=ONE_PLACE,
            spread_known=False,
        ),
        "vendi_within": Measure(
            title="Vendi score within clients",
            unit="kinds of row",
            meaning="Effective number of different instructions of a client: the exponential of the mean entropy,"
            " clients counting by their rows; 1: a client's rows are all alike, at most the number of dimensions."
            f" Of {LARGEST}. {NO_SPREAD}",
            undefined=ONE_PLACE,
            unequal="low",
            spread_known=False,
        ),
    },
    count=_count,
    measure=_values,
    null_sampler=embedding_sampler,
    describe=_describe,
    per_client=_per_client,
    sentence=_sentence,
    vectors=(
        *(f"embedding_half_{label}" for label in HALVES),
        "embedding_square",
        "embedding_moments",
        "rff",
        "rff_square",
        "rff_sketch",
    ),
    sum_up=_sum_up,
    prepare=_prepare,
    reading=Reading(
        means="Where clients' instructions lie far from one another, one model has several jobs: averaging"
        " updates (FedAvg) pulls them in different directions, so few local steps or a drift-correcting method help,"
        " and personalised adapters have something to gain. Where clients lie in groups (the similarity map shows"
        " blocks), clustered methods can serve each group; where each lies alone but holds many rows, local"
        " fine-tuning is a baseline to beat. Where clients do not differ here, more clients mean more of the same"
        " data, and plain FedAvg should come close to central training.",
        alike="Clients' texts lie in the same region: what local updates drift apart by is sampling, which"
        " larger cohorts or fewer local steps reduce; corrections of drift and clusters of clients have nothing to"
        " find.",
        unknown="Too few clients have enough rows for their texts to be told apart",
    ),
)
