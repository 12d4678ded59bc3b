"""Axis `quality`: how different the clients' answers are in what scorers give them.

Scores are compared in bins 1/128 wide, so that the null, which deals out the bins of all rows, sees just what the
figures see. For each scorer: ICC(1), the between-client share of the variance by one-way analysis of variance with
unequal sizes (Donner 1986, eq. 2.1); the Wasserstein-1 distance to the pool; and the share of clients whose mean lies
further from the pool's than chance puts one client in twenty. Higher scores are better unless the scorer says
otherwise. The headline is the ICC of the shipped heuristics. Means and spreads that are described, without a test,
come from sums of scores rounded to 1/1024, which are exact integers.

How often a client gives one answer twice is described, without a test: answers to like questions are alike, so it
follows the languages and topics of a client as much as its care.

Symbols: K clients, L bins; `counts_KL` row counts. numpy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axis import Axis, Columns, Facts, Measure, Reading, Values
from fedllm_data.heterogeneity.length import wasserstein_to_pool
from fedllm_data.heterogeneity.null import deal_sampler
from fedllm_data.heterogeneity.profile import SCALE, ClientProfile, Counts, Stack, Vectors
from fedllm_data.heterogeneity.repeats import equal_pairs, sign_sums
from fedllm_data.wording.catalogue import words

__all__ = ["QUALITY", "SHIPPED", "ScorerInfo", "anova_icc", "mean_differs", "quality_axis", "score_bin"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

STEPS = 1024
"""Scores are rounded to 1 / STEPS; a square then is a whole number of 1 / SCALE = 1 / STEPS^2."""
BINS_PER_UNIT = 128
"""With 64, the ICC of scores that lie close together, such as shares of repeated words, moved by up to 8 %."""
MAX_SCORE = 64
"""Scores beyond are counted as this: the largest any profile holds."""
MIN_ROWS = 2
ANSWERS = "answer_signs"
"""The vector from which repeated answers are estimated; see `repeats.py`."""
CRITICAL_Z = 1.959963984540054
"""Two-sided 5 % point of the normal distribution."""


@dataclass(frozen=True)
class ScorerInfo:
    """What must be printed with every number that comes from a scorer."""

    name: str
    revision: str
    """What pins its numbers: a version, or model and commit."""
    unit: str
    higher_is_better: bool = True
    meaning: str = ""
    """One clause on what the score is."""


SHIPPED = (
    ScorerInfo(
        name="heuristics",
        revision="1",
        unit="fraction of checks passed",
        meaning="mean of the four checks, one that has nothing to say counted as passed",
    ),
    ScorerInfo(name="repetition", revision="1", unit="fraction", meaning="1 - share of repeated word n-grams"),
    ScorerInfo(name="refusal", revision="1", unit="0 or 1", meaning="0 if the answer refuses or evades"),
    ScorerInfo(name="truncation", revision="1", unit="0 or 1", meaning="0 if the answer stops in mid-sentence"),
    ScorerInfo(
        name="language_match", revision="1", unit="0 or 1", meaning="0 if prompt and answer are in two languages"
    ),
)
"""The scorers of `fedllm_data.scorers.heuristics`, the headline first."""


def score_bin(scores_N: FloatArray) -> IntArray:
    """Return the bin of each score, 1/128 wide and centred on a multiple of it.

    >>> score_bin(np.array([0.0, 0.5, 1.0, -1000.0])).tolist()
    [0, 64, 128, -8192]
    """
    return np.floor(np.clip(scores_N, -MAX_SCORE, MAX_SCORE) * BINS_PER_UNIT + 0.5).astype(np.int64)


def anova_icc(rows_K: IntArray, sum_K: FloatArray, squares_K: FloatArray) -> float:
    """Return ICC(1), the share of the variance that lies between clients, with what chance adds taken out.

    Args:
        rows_K: rows of each client, at least one.
        sum_K: sums of the scores.
        squares_K: sums of their squares.

    Returns:
        At most 1, where rows of one client do not differ; 0 where clients are as different as chance makes them, and
        below where less; NaN without two clients, a client of two rows, or any variance.

    >>> anova_icc(np.array([2, 2]), np.array([0.0, 2.0]), np.array([0.0, 2.0]))
    1.0
    """
    num_clients, num_rows = len(rows_K), int(rows_K.sum())
    if num_clients < 2 or num_rows <= num_clients:
        return float("nan")
    mean = sum_K.sum() / num_rows
    # Sums about the pooled mean: the difference of two large numbers is taken once, per client.
    centred_K = sum_K - rows_K * mean
    total = float((squares_K - 2 * mean * sum_K + rows_K * mean**2).sum())
    between = float((centred_K**2 / rows_K).sum())
    if total <= 1e-9 * num_rows * max(1.0, mean**2):
        return float("nan")
    within = max(0.0, total - between)
    typical_rows = (num_rows - float((rows_K**2).sum()) / num_rows) / (num_clients - 1)
    mean_between, mean_within = between / (num_clients - 1), within / (num_rows - num_clients)
    return (mean_between - mean_within) / (mean_between + (typical_rows - 1) * mean_within)


def mean_differs(rows_K: IntArray, sum_K: FloatArray, squares_K: FloatArray) -> NDArray[np.bool_]:
    """Return which clients' means lie further from the pool's than chance puts one client in twenty.

    A z-test at 0.05, two-sided, with the pool's spread: the difference of a client's mean and the pool's, the client
    being part of it, has variance s^2 (1 / n_k - 1 / N).

    >>> mean_differs(np.array([50, 50]), np.array([0.0, 50.0]), np.array([0.0, 50.0])).tolist()
    [True, True]
    """
    num_rows = rows_K.sum()
    mean = sum_K.sum() / num_rows
    variance = max(0.0, float(squares_K.sum() / num_rows - mean**2))
    error_K = np.sqrt(variance * (1 / rows_K - 1 / num_rows))
    return np.asarray(np.abs(sum_K / rows_K - mean) > CRITICAL_Z * error_K + 1e-12)


def quality_axis(scorers: Sequence[ScorerInfo] = SHIPPED) -> Axis:
    """Return the axis over these scorers; the first gives the headline.

    Every scorer whose column `score:<name>` is there is counted in any case: what is named here is what is measured.

    Args:
        scorers: at least one; the codebook names those of a corpus.

    >>> ifd = ScorerInfo(name="ifd", revision="org/model@1a2b3c", unit="ratio of losses")
    >>> list(quality_axis([*SHIPPED, ifd]).measures)[-1]
    'ifd_differing_fraction'
    """
    infos = tuple(scorers)
    measures: dict[str, Measure] = {}
    for info in infos:
        measures |= _measures(info)
    tables = tuple(f"score:{info.name}" for info in infos)
    return Axis(
        name="quality",
        question="Do clients' answers differ in quality, as far as scorers see it?",
        headline=f"{infos[0].name}_icc",
        null="clients of these sizes to whom the scores of all rows are dealt at random",
        tables=tables,
        min_rows=MIN_ROWS,
        measures=measures,
        count=_count,
        measure=lambda stack: _values(stack, infos),
        null_sampler=deal_sampler,
        describe=lambda stack, pool: _describe(stack, pool, infos),
        per_client=lambda stack: _per_client(stack, infos),
        sentence=lambda values, facts: _sentence(values, facts, infos),
        vectors=(*tables, ANSWERS),
        sum_up=_sum_up,
        reading=Reading(
            means="Where answers differ in quality, weighting clients by their rows weighs poor answers as much"
            " as good ones: look at the clients with the lowest means before they train, weight or filter by score,"
            " or use an aggregation that bounds what one client can do (median, trimmed mean). Personalised models"
            " fit poor answers too, so a low held-out loss on such a client is no praise. Where they do not differ,"
            " filtering by score removes rows, not clients.",
            alike="No client's answers are shown to be better or worse: filtering single rows may help, and"
            " weighting or leaving out whole clients has no ground here.",
            unknown="No scorer has judged enough answers: give a scores file or a scorer",
            rests_on=("scorers",),
            absent="no row has a score",
        ),
    )


def _rounded(columns: Columns, name: str) -> FloatArray:
    """The defined scores of a column, as multiples of 1 / STEPS."""
    scores_N = np.asarray(columns[name], np.float64)
    defined_N = np.clip(scores_N[~np.isnan(scores_N)], -MAX_SCORE, MAX_SCORE)
    return np.asarray(np.rint(defined_N * STEPS) / STEPS)


def _count(columns: Columns) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    for name in columns:
        if name.startswith("score:"):
            bins, rows = np.unique(score_bin(_rounded(columns, name)), return_counts=True)
            if len(bins):
                counts[name] = {str(b): n for b, n in zip(bins.tolist(), rows.tolist(), strict=True)}
    return counts


def _sum_up(columns: Columns) -> Vectors:
    vectors: Vectors = {}
    for name in columns:
        if name.startswith("score:"):
            scores_N = _rounded(columns, name)
            if len(scores_N):
                moments_N2 = np.stack([scores_N, scores_N**2], axis=1)
                vectors[name] = np.rint(moments_N2 * SCALE).astype(np.int64).sum(axis=0)
    if len(columns.get("answer_key", ())):
        vectors[ANSWERS] = sign_sums(columns["answer_key"])
    return vectors


def _scored(stack: Stack, name: str) -> tuple[IntArray, FloatArray]:
    """The histograms of the clients that a scorer has scored, (K, L), and the scores of the bins, in rising order."""
    table = stack.tables[name]
    scores_L = _bin_scores(table.labels)
    # Labels are whole numbers as text, which sort as text.
    order = np.argsort(scores_L)
    return table.counts_KL[table.sizes_K > 0][:, order], scores_L[order]


def _bin_scores(labels: tuple[str, ...]) -> FloatArray:
    return np.array([int(label) for label in labels], np.float64) / BINS_PER_UNIT


def _values(stack: Stack, infos: Sequence[ScorerInfo]) -> Values:
    values: Values = {}
    for info in infos:
        counts_KL, scores_L = _scored(stack, f"score:{info.name}")
        if not len(counts_KL):
            values |= dict.fromkeys(_measures(info), float("nan"))
            continue
        moments = counts_KL.sum(axis=1), counts_KL @ scores_L, counts_KL @ scores_L**2
        values |= {
            f"{info.name}_icc": anova_icc(*moments),
            f"{info.name}_wasserstein_to_pool": float(wasserstein_to_pool(counts_KL, scores_L).mean()),
            f"{info.name}_differing_fraction": float(mean_differs(*moments).mean()),
        }
    return values


def _describe(stack: Stack, pool: ClientProfile, infos: Sequence[ScorerInfo]) -> Facts:
    facts: Facts = {"scorers": {}}
    if ANSWERS in pool.vectors:
        facts["repeated_answer_fraction"] = _repeated_answers(stack.vectors[ANSWERS])
    for info in infos:
        num_scored = sum(pool.counts.get(f"score:{info.name}", {}).values())
        better = "higher is better" if info.higher_is_better else "lower is better"
        facts["scorers"][info.name] = f"revision {info.revision}; {info.unit}; {better}"
        facts[f"{info.name}_scored_fraction"] = num_scored / pool.num_rows
        if not num_scored:
            continue
        # Exact integers: the difference of two large numbers is taken before anything is rounded.
        total, squares = (int(entry) for entry in pool.vectors[f"score:{info.name}"])
        variance = (num_scored * squares * SCALE - total**2) / (num_scored * SCALE) ** 2
        facts |= {f"{info.name}_mean": total / (num_scored * SCALE), f"{info.name}_std": variance**0.5}
        rows_K = stack.tables[f"score:{info.name}"].sizes_K
        if rows_K.any():
            mean_K = stack.vectors[f"score:{info.name}"][rows_K > 0, 0] / SCALE / rows_K[rows_K > 0]
            low, high = np.quantile(mean_K, [0.1, 0.9], method="inverted_cdf")
            facts |= {f"{info.name}_low_client_mean": float(low), f"{info.name}_high_client_mean": float(high)}
    return facts


def _repeated_answers(sums_KD: IntArray) -> float | None:
    """How likely another row of its client has the answer of a row, over the rows of all clients with two or more."""
    used_KD = sums_KD[sums_KD[:, 0] > 1] if sums_KD.shape[1] else sums_KD[:0]
    if not len(used_KD):
        return None
    return max(0.0, float(equal_pairs(used_KD) @ used_KD[:, 0] / used_KD[:, 0].sum()))


def _sentence(values: Values, facts: Facts, infos: Sequence[ScorerInfo]) -> str:
    info = infos[0]
    icc = values[f"{info.name}_icc"]
    parts = [
        words(
            "Who wrote a row explains {share} of the variation in {scorer} (revision {revision}, {unit}), whose mean"
            " over all rows is {value}; clients' means run from {low} to {high} (10th to 90th percentile).",
            share=f"{max(0.0, icc):.0%}",
            scorer=info.name,
            revision=info.revision,
            unit=info.unit,
            value=f"{facts[f'{info.name}_mean']:.3g}",
            low=f"{facts[f'{info.name}_low_client_mean']:.3g}",
            high=f"{facts[f'{info.name}_high_client_mean']:.3g}",
        )
    ]
    known = {name.name for name in SHIPPED}
    for other in infos[1:]:
        share = values[f"{other.name}_icc"]
        if other.name not in known and not np.isnan(share):
            parts.append(
                words(
                    "Of {scorer} (revision {revision}), {share}; its mean is {value} {unit}.",
                    scorer=other.name,
                    revision=other.revision,
                    share=f"{max(0.0, share):.0%}",
                    value=f"{facts[f'{other.name}_mean']:.3g}",
                    unit=other.unit,
                )
            )
    return " ".join(parts)


def _per_client(stack: Stack, infos: Sequence[ScorerInfo]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for info in infos:
        name = f"score:{info.name}"
        if not stack.tables[name].labels or stack.vectors[name].shape[1] == 0:
            continue
        pairs = zip(stack.vectors[name][:, 0].tolist(), stack.tables[name].sizes_K.tolist(), strict=True)
        columns[f"{info.name}_mean"] = [total / (rows * SCALE) if rows else None for total, rows in pairs]
    if stack.vectors[ANSWERS].shape[1]:
        shares = np.clip(equal_pairs(stack.vectors[ANSWERS]), 0.0, 1.0).tolist()
        columns["repeated_answers"] = [None if np.isnan(share) else share for share in shares]
    return columns


def _measures(info: ScorerInfo) -> dict[str, Measure]:
    title = info.name.replace("_", " ").capitalize()
    undefined = "all scores are equal, or no client has two scored rows"
    about = f"{info.name}, revision {info.revision}" + (f": {info.meaning}" if info.meaning else "")
    return {
        f"{info.name}_icc": Measure(
            title=f"{title}: intraclass correlation",
            unit="fraction",
            meaning=f"ICC(1), the between-client share of the variance with chance taken out ({about}); 0: clients"
            " do not differ, 1: every client has one score. It may be slightly negative.",
            undefined=undefined,
        ),
        f"{info.name}_wasserstein_to_pool": Measure(
            title=f"{title}: Wasserstein-1 to the pool",
            unit=info.unit,
            meaning="Mean over clients of how far, on average, a client's scores would have to move to be spread as"
            " the pool's; 0: as the pool.",
            undefined="no row has a score",
        ),
        f"{info.name}_differing_fraction": Measure(
            title=f"{title}: clients whose mean differs",
            unit="fraction of clients",
            meaning="Clients whose mean lies further from the pool's than a z-test at 0.05 allows; 0.05: chance alone,"
            " for large clients; 1: all differ.",
            undefined="no row has a score",
        ),
    }


QUALITY = quality_axis()
