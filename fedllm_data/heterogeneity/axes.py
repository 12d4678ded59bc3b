"""All axes, and what profiles say about them: the second step of a heterogeneity report.

To add an axis: one file like `language.py` that defines an `Axis`, with all that reports say of it, and one line in
`AXES`. numpy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray

from fedllm_data.errors import ReportError
from fedllm_data.heterogeneity.axis import Axis, Columns, Facts
from fedllm_data.heterogeneity.embedding import EMBEDDING
from fedllm_data.heterogeneity.instruction import INSTRUCTION
from fedllm_data.heterogeneity.language import LANGUAGE
from fedllm_data.heterogeneity.length import LENGTH
from fedllm_data.heterogeneity.null import holm, one_sided_p, percentile_interval
from fedllm_data.heterogeneity.preference import PREFERENCE
from fedllm_data.heterogeneity.profile import MERGED_CLIENTS, ClientProfile, Stack, merge_profiles, stack_profiles
from fedllm_data.heterogeneity.quality import QUALITY, SHIPPED, ScorerInfo, quality_axis
from fedllm_data.heterogeneity.quantity import QUANTITY
from fedllm_data.wording.catalogue import plural_words, words

__all__ = ["AXES", "AxisResult", "Estimate", "axes_of", "measure_axes", "profile_rows"]

AXES: dict[str, Axis] = {
    "quantity": QUANTITY,
    "language": LANGUAGE,
    "length": LENGTH,
    "quality": QUALITY,
    "instruction": INSTRUCTION,
    "embedding": EMBEDDING,
    "preference": PREFERENCE,
}

MIN_CLIENTS = 2
FEW_DRAWS = 199
"""Draws of an axis with very many clients: the smallest p is 0.005, and 0.035 after correction over seven axes."""
MIN_CLIENTS_FOR_INTERVAL = 5
"""Resampling fewer clients says more about the few than about the many they stand for."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number of the report with its null; every number is None if there is not enough data."""

    value: float | None
    null_mean: float | None
    null_std: float | None
    """None also if profiles do not tell how much chance varies; then there is no z and no p."""
    z: float | None
    """(value - null mean) / null std; None if the null has no spread."""
    p: float | None
    """One-sided: how often chance makes clients differ at least as much."""
    low: float | None
    high: float | None
    num_clients: int
    reason: str | None
    """Why there is not enough data."""


@dataclass(frozen=True, kw_only=True)
class AxisResult:
    """Everything the report says about one axis."""

    estimates: dict[str, Estimate]
    facts: Facts
    sentence: str
    verdict: str
    """"more than chance", "no more than chance" or "not enough data", at 0.05 after Holm's correction."""
    p_holm: float | None
    """The headline's p, corrected for the number of axes that have one."""
    num_null: int
    """Draws of the null; 0 where there is not enough data."""
    num_bootstrap: int
    """Resamples of the clients behind each interval; 0 where they are too few."""
    client_ids: tuple[str, ...]
    """The clients that take part."""
    per_client: dict[str, list[Any]]
    """Columns with one entry for each of them."""


def axes_of(task: str, scorers: Sequence[ScorerInfo] = SHIPPED) -> dict[str, Axis]:
    """Return the axes of a report on rows of a format.

    Args:
        task: "sft" or "preference".
        scorers: what axis `quality` measures, the headline first.

    >>> list(axes_of("sft"))[:3]
    ['quantity', 'language', 'length']
    """
    axes = {name: axis for name, axis in AXES.items() if task in axis.tasks}
    return axes | ({"quality": quality_axis(scorers)} if "quality" in axes else {})


def profile_rows(client_id: str, columns: Columns, *, codebook: str) -> ClientProfile:
    """Return the profile of one client's rows: the first step, which a client does on its own.

    Args:
        client_id: whose rows they are.
        columns: features of the rows, as `fedllm_data.features.row_features` computes them.
        codebook: digest of the codebook that made the features.

    >>> columns = {"language": ["en", "en"], "instruction_tokens": [3, 4], "response_tokens": [9, 1]}
    >>> profile_rows("ada", columns, codebook="digest").counts["language"]
    {'en': 2}
    """
    counts, vectors = {}, {}
    for axis in AXES.values():
        counts.update(axis.count(columns))
        vectors.update(axis.sum_up(columns))
    return ClientProfile(client_id, codebook, len(columns["language"]), counts, vectors)


def measure_axes(
    profiles: Sequence[ClientProfile],
    *,
    seed: int = 0,
    num_null: int = 999,
    num_bootstrap: int = 999,
    confidence: float = 0.95,
    min_client_rows: int = 1,
    axes: Mapping[str, Axis] = AXES,
) -> dict[str, AxisResult]:
    """Return what the profiles say about every axis; the order in which they come changes nothing.

    Args:
        profiles: one per client, with at least one row among them. One with the id `MERGED_CLIENTS` counts in
            descriptions of all rows and is no client.
        seed: seeds the null and the bootstrap; every axis has streams of its own.
        num_null: draws of the null; the smallest possible p is 1 / (num_null + 1). An axis with more clients than its
            `slow_above` takes at most `FEW_DRAWS`.
        num_bootstrap: resamples of the clients behind each interval; the same holds.
        confidence: coverage of the intervals, in (0, 1).
        min_client_rows: clients with fewer rows were left out when the dataset was made; the null of `quantity` knows.
        axes: the axes to measure.

    Raises:
        ReportError: if there is no row, two profiles share a client id, or codebooks differ.

    >>> columns = {"language": ["en"] * 9, "instruction_tokens": [3] * 9, "response_tokens": [9] * 9}
    >>> result = measure_axes([profile_rows("ada", columns, codebook="t")])
    >>> result["quantity"].estimates["gini"].reason
    'not enough data: 1 client, at least 2 are needed'
    """
    present = [profile for profile in profiles if profile.num_rows > 0]
    if not present:
        raise ReportError(
            f"no rows to report on: {len(profiles)} client(s) with 0 rows in all; choose another split or folder"
        )
    pool = merge_profiles(present, client_id="pool")
    clients = [profile for profile in present if profile.client_id != MERGED_CLIENTS]
    if not clients:
        raise ReportError(
            f"all {pool.num_rows} rows are of clients too small to be reported on: lower the codebook's min_rows"
        )
    results = {
        name: _measure_axis(axis, clients, pool, seed, num_null, num_bootstrap, confidence, min_client_rows)
        for name, axis in axes.items()
    }
    return _correct(results, axes)


def _measure_axis(
    axis: Axis,
    profiles: Sequence[ClientProfile],
    pool: ClientProfile,
    seed: int,
    num_null: int,
    num_bootstrap: int,
    confidence: float,
    min_client_rows: int,
) -> AxisResult:
    stack = replace(
        stack_profiles(profiles, axis.tables, axis.min_rows, axis.vectors), min_client_rows=min_client_rows
    )
    stack = axis.prepare(stack)
    of_client = {profile.client_id: profile for profile in profiles}
    stack = replace(stack, shared=axis.gather([of_client[client_id] for client_id in stack.client_ids]))
    facts = axis.describe(stack, pool)
    too_few = _too_few(axis, stack, pool)
    most_draws = FEW_DRAWS if stack.num_clients > axis.slow_above else max(num_null, num_bootstrap)
    num_null = 0 if too_few else min(num_null, most_draws)
    num_bootstrap = 0 if stack.num_clients < MIN_CLIENTS_FOR_INTERVAL else min(num_bootstrap, most_draws)
    if too_few:
        estimates = {name: _no_estimate(stack, too_few) for name in axis.measures}
        sentence = f"{too_few}."
    else:
        values = {name: float(value) for name, value in axis.measure(stack).items()}
        null_sampler = axis.null_sampler(stack)
        null_rng = _stream(seed, "null", axis.name)
        null = _collect(axis, [axis.measure(null_sampler(null_rng)) for _ in range(num_null)])
        resample_rng = _stream(seed, "bootstrap", axis.name)
        resamples = _collect(axis, [axis.measure(_resample(stack, resample_rng)) for _ in range(num_bootstrap)])
        estimates = {
            name: _estimate(axis, name, values[name], null[name], resamples[name], stack, confidence)
            for name in axis.measures
        }
        headline_reason = estimates[axis.headline].reason
        sentence = f"{headline_reason}." if headline_reason else axis.sentence(values, facts)
    return AxisResult(
        estimates=estimates,
        facts=facts,
        sentence=sentence[0].upper() + sentence[1:],
        verdict="not enough data",
        p_holm=None,
        num_null=num_null,
        num_bootstrap=num_bootstrap,
        client_ids=stack.client_ids,
        per_client=axis.per_client(stack),
    )


def _too_few(axis: Axis, stack: Stack, pool: ClientProfile) -> str | None:
    if stack.num_clients >= MIN_CLIENTS:
        return None
    if axis.reading.absent and not pool.counts.get(axis.tables[0]):
        return words("not enough data: {reason}", reason=axis.reading.absent)
    if axis.min_rows > 1:
        return plural_words(
            "not enough data: {num} client with {rows} rows or more, at least {least} are needed",
            "not enough data: {num} clients with {rows} rows or more, at least {least} are needed",
            stack.num_clients,
            rows=axis.min_rows,
            least=MIN_CLIENTS,
        )
    return plural_words(
        "not enough data: {num} client, at least {least} are needed",
        "not enough data: {num} clients, at least {least} are needed",
        stack.num_clients,
        least=MIN_CLIENTS,
    )


def _stream(seed: int, purpose: str, axis: str) -> Generator:
    words = blake2b(f"{purpose}/{axis}".encode(), digest_size=8).digest()
    return default_rng(SeedSequence([seed, int.from_bytes(words, "big")]))


def _resample(stack: Stack, rng: Generator) -> Stack:
    return stack.take(rng.integers(stack.num_clients, size=stack.num_clients))


def _collect(axis: Axis, draws: list[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([draw[name] for draw in draws], np.float64) for name in axis.measures}


def _no_estimate(stack: Stack, reason: str) -> Estimate:
    return Estimate(
        value=None,
        null_mean=None,
        null_std=None,
        z=None,
        p=None,
        low=None,
        high=None,
        num_clients=stack.num_clients,
        reason=reason,
    )


def _estimate(
    axis: Axis,
    name: str,
    value: float,
    null_R: NDArray[np.float64],
    resample_R: NDArray[np.float64],
    stack: Stack,
    confidence: float,
) -> Estimate:
    measure = axis.measures[name]
    if np.isnan(value):
        return _no_estimate(stack, words("not enough data: {reason}", reason=measure.undefined))
    # A draw that leaves the measure undefined (all rows in one language) is a client set in which nothing differs;
    # it is left out of mean and spread, and a measure that is often undefined has neither null nor interval.
    null_R = _defined(null_R)
    resample_R = _defined(resample_R)
    null_mean = float(null_R.mean()) if len(null_R) else None
    null_std = float(null_R.std()) if len(null_R) and measure.spread_known else None
    has_spread = null_mean is not None and null_std is not None and null_std > 1e-12 * max(1.0, abs(null_mean))
    low, high = percentile_interval(resample_R, confidence) if len(resample_R) else (None, None)
    return Estimate(
        value=value,
        null_mean=null_mean,
        null_std=null_std,
        z=(value - null_mean) / null_std if has_spread and null_mean is not None and null_std else None,
        p=one_sided_p(value, null_R, unequal=measure.unequal) if len(null_R) and measure.spread_known else None,
        low=low,
        high=high,
        num_clients=stack.num_clients,
        reason=None,
    )


def _defined(values_R: NDArray[np.float64]) -> NDArray[np.float64]:
    defined_R = values_R[~np.isnan(values_R)]
    return defined_R if 2 * len(defined_R) >= len(values_R) else defined_R[:0]


def _correct(results: dict[str, AxisResult], axes: Mapping[str, Axis]) -> dict[str, AxisResult]:
    p_values = {name: result.estimates[axes[name].headline].p for name, result in results.items()}
    tested = {name: p for name, p in p_values.items() if p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    verdicts = {name: "more than chance" if p <= 0.05 else "no more than chance" for name, p in corrected.items()}
    return {
        name: AxisResult(
            **vars(result) | {"p_holm": corrected.get(name), "verdict": verdicts.get(name, result.verdict)}
        )
        for name, result in results.items()
    }
