"""Axis `language`: how different the clients' mixes of languages are.

The headline is I(client; language) / H(language): the share of what there is to know about a row's language that its
client tells (the uncertainty coefficient). Rows whose language nobody determined (`und`) are counted apart and take no
part. Symbols: K clients, L languages; `counts_KL` row counts. numpy only.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axis import Axis, Columns, Facts, Measure, Reading, Tile, Values
from fedllm_data.heterogeneity.divergence import (
    entropy_bits,
    hellinger_to_pool,
    jensen_shannon_bits,
    pairwise_total_variation,
    total_variation_to_pool,
)
from fedllm_data.heterogeneity.null import deal_sampler
from fedllm_data.heterogeneity.profile import ClientProfile, Counts, Stack
from fedllm_data.wording.catalogue import words

__all__ = ["LANGUAGE", "language_values"]

IntArray = NDArray[np.int64]

UNDETERMINED = "und"
MIN_ROWS = 2
"""A client of one row has one language whatever it is like."""
ONE_LANGUAGE = "all rows are in one language, so there is nothing in which clients could differ"


def language_values(counts_KL: IntArray, origin_K: IntArray) -> Values:
    """Return all measures of the axis.

    Args:
        counts_KL: row counts; every client holds at least one row.
        origin_K: which client each entry is (a bootstrap resample holds some several times).

    Returns:
        Name of each measure -> value; all are NaN where all rows are in one language.

    >>> language_values(np.array([[10, 0], [0, 30]]), np.arange(2))["divergence_fraction"]
    1.0
    """
    rows_L = counts_KL.sum(axis=0)
    if np.count_nonzero(rows_L) < 2:
        return dict.fromkeys(LANGUAGE.measures, float("nan"))
    divergence_bits = jensen_shannon_bits(counts_KL)
    return {
        "divergence_fraction": min(1.0, divergence_bits / float(entropy_bits(rows_L / rows_L.sum()))),
        "divergence_bits": divergence_bits,
        "total_variation_to_pool": float(total_variation_to_pool(counts_KL).mean()),
        "hellinger_to_pool": float(hellinger_to_pool(counts_KL).mean()),
        "total_variation_pairwise": pairwise_total_variation(counts_KL, origin_K),
        "languages_per_client": float((counts_KL > 0).sum(axis=1).mean()),
    }


def _count(columns: Columns) -> dict[str, Counts]:
    languages, rows = np.unique(np.asarray(columns["language"], dtype=str), return_counts=True)
    table = dict(zip(languages.tolist(), rows.tolist(), strict=True))
    unknown = table.pop(UNDETERMINED, 0)
    counts = {"language": table} if table else {}
    return counts | ({"language_undetermined": {"all": unknown}} if unknown else {})


def _describe(stack: Stack, pool: ClientProfile) -> Facts:
    table = pool.counts.get("language", {})
    ordered = sorted(table.items(), key=lambda item: (-item[1], item[0]))
    unknown = pool.counts.get("language_undetermined", {}).get("all", 0)
    counts_KL = stack.tables["language"].counts_KL
    return {
        "num_languages": len(table),
        "rows_per_language": dict(ordered),
        "undetermined_fraction": unknown / pool.num_rows,
        "one_language_client_fraction": float(((counts_KL > 0).sum(axis=1) == 1).mean()) if len(counts_KL) else 0.0,
    }


def _sentence(values: Values, facts: Facts) -> str:
    return words(
        "Who wrote a row tells {told} of what there is to know about its language; of the {num} languages, a client"
        " uses {used} on average, and {single} of the clients write in one alone.",
        told=f"{values['divergence_fraction']:.0%}",
        num=facts["num_languages"],
        used=f"{values['languages_per_client']:.1f}",
        single=f"{facts['one_language_client_fraction']:.0%}",
    )


def _per_client(stack: Stack) -> dict[str, list[Any]]:
    table = stack.tables["language"]
    if not table.labels or not stack.num_clients:
        return {"main_language": [], "num_languages": [], "language_total_variation": []}
    return {
        "main_language": [table.labels[column] for column in table.counts_KL.argmax(axis=1)],
        "num_languages": (table.counts_KL > 0).sum(axis=1).tolist(),
        "language_total_variation": total_variation_to_pool(table.counts_KL).tolist(),
    }


LANGUAGE = Axis(
    name="language",
    question="Do clients write in different languages?",
    headline="divergence_fraction",
    null="clients of these sizes to whom the languages of all rows are dealt at random",
    tables=("language",),
    min_rows=MIN_ROWS,
    measures={
        "divergence_fraction": Measure(
            title="Jensen-Shannon divergence, normalised",
            unit="fraction of H(language)",
            meaning="Mutual information of client and language over the entropy of language; 0: all clients have one"
            " mix, 1: every client keeps to one language.",
            undefined=ONE_LANGUAGE,
        ),
        "divergence_bits": Measure(
            title="Jensen-Shannon divergence",
            unit="bits",
            meaning="The same, generalised to K clients weighted by their rows (Lin 1991); from 0 to H(language).",
            undefined=ONE_LANGUAGE,
        ),
        "total_variation_to_pool": Measure(
            title="Total variation to the pool",
            unit="fraction",
            meaning="Mean over clients of 1/2 sum |p - q|: the share of a client's rows that would have to change"
            " language to match the pool.",
            undefined=ONE_LANGUAGE,
        ),
        "hellinger_to_pool": Measure(
            title="Hellinger distance to the pool",
            unit="fraction",
            meaning="Mean over clients of sqrt(1 - sum sqrt(p q)); 0: same mix, 1: no language in common.",
            undefined=ONE_LANGUAGE,
        ),
        "total_variation_pairwise": Measure(
            title="Total variation between two clients",
            unit="fraction",
            meaning="Mean over pairs of clients; 0: all have the same mix, 1: no two share a language.",
            undefined=ONE_LANGUAGE,
        ),
        "languages_per_client": Measure(
            title="Languages per client",
            unit="languages",
            meaning="Mean over clients of the number of languages in their rows; 1: every client keeps to one.",
            undefined=ONE_LANGUAGE,
            unequal="low",
        ),
    },
    count=_count,
    measure=lambda stack: language_values(stack.tables["language"].counts_KL, stack.origin_K),
    null_sampler=deal_sampler,
    describe=_describe,
    per_client=_per_client,
    sentence=_sentence,
    reading=Reading(
        means="One global adapter averages updates that come from different languages. Compare it with one"
        " adapter per language or cluster of clients and with personalised ones, report scores per language, and"
        " split cohorts so that no language is absent from a round.",
        alike="Every client speaks the common mix of languages: adapters or clusters per language would cut"
        " across clients instead of between them, so one global adapter loses nothing here.",
        unknown="The rows do not tell in which languages clients differ: if all are in one language, methods per"
        " language have no use, and if they have no language yet, tag them",
        rests_on=(),
        plot="mix",
        tiles=(Tile("num_languages", "language"),),
    ),
)
