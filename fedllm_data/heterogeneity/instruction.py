"""Axis `instruction`: whether clients ask for different kinds of things, by clusters and by verbs.

For all languages: the mix of clusters of instruction embeddings (the nearest centre in the codebook), measured as
`language.py` measures languages; the headline is I(client; cluster) / H(cluster). Where a parser is at hand: the root
verbs of the instructions (`VERBS`, all others as one) and their pairs with a direct object, as in Self-Instruct (Wang
et al. 2023, figure 3). A profile holds verbs of this public list and hashes of pairs, no other word of a text; the
hashes have no key, so whoever guesses a pair can test it. Verbs of two languages are not comparable and the list is
English, so verbs are those of English rows; parsers of other languages add to coverage and to pairs. What share of the
rows was parsed is stated.
Symbols: K clients, L labels; `counts_KL` row counts. numpy only.
"""

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axis import Axis, Columns, Facts, Measure, Reading, Values
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

__all__ = ["INSTRUCTION", "VERBS", "divergence_values", "pair_diversity"]

IntArray = NDArray[np.int64]

MIN_ROWS = 2
OTHER_VERB = "(other)"
VERBS = frozenset(
    "add advise analyse analyze answer append apply argue arrange ask assess assume be brainstorm build calculate"
    " call categorize change check choose cite classify clean combine come compare compile complete compose"
    " compute concatenate consider construct continue convert cook correct count create criticize debug decide"
    " define delete demonstrate derive describe design detect determine develop discuss do draft draw drop edit"
    " elaborate estimate evaluate expand explain extract feel figure fill filter find fix format generate get give"
    " go group guess happen have help highlight identify illustrate imagine implement improve include infer insert"
    " interpret introduce invent iterate justify know label learn let like list locate look make match mean"
    " mention modify multiply name need obtain offer optimise optimize order organise organize outline paraphrase"
    " parse perform plan play predict prepare present pretend print produce prove provide put rank rate read"
    " recommend reduce refactor remind remove rename reorder repeat rephrase replace reply report research respond"
    " return rewrite run say search see select send set shorten show simplify simulate solve sort speak split"
    " start state stop study suggest summarise summarize suppose swap take talk teach tell test thank think"
    " transcribe transform translate try turn understand update use verify visualize want work write".split()
)
"""English verbs that a profile names; part of what profiles mean, so it changes with their version only. Three of
five instructions of fed-oasst and fed-realhumaneval have one of them at the root; the others count as one."""
ONE_CLUSTER = "all instructions are in one cluster, so there is nothing in which clients could differ"
NO_VERBS = "fewer than two clients have two parsed instructions (no parser for their languages?), or all have one verb"


def divergence_values(counts_KL: IntArray, origin_K: IntArray) -> Values:
    """Return how different the clients' mixes of labels are.

    Args:
        counts_KL: row counts; every client holds at least one row.
        origin_K: which client each entry is (a bootstrap resample holds some several times).

    Returns:
        The generalised Jensen-Shannon divergence in bits and as a fraction of the labels' entropy, the mean total
        variation and Hellinger distance to the pool, and the mean total variation between two clients; all are 0
        for equal mixes, and all are NaN where all rows have one label or there are not two clients.

    >>> divergence_values(np.array([[10, 0], [0, 30]]), np.arange(2))["fraction"]
    1.0
    """
    rows_L = counts_KL.sum(axis=0)
    if np.count_nonzero(rows_L) < 2 or len(counts_KL) < 2:
        names = ("fraction", "bits", "total_variation_to_pool", "hellinger_to_pool", "total_variation_pairwise")
        return dict.fromkeys(names, float("nan"))
    bits = jensen_shannon_bits(counts_KL)
    return {
        "fraction": min(1.0, bits / float(entropy_bits(rows_L / rows_L.sum()))),
        "bits": bits,
        "total_variation_to_pool": float(total_variation_to_pool(counts_KL).mean()),
        "hellinger_to_pool": float(hellinger_to_pool(counts_KL).mean()),
        "total_variation_pairwise": pairwise_total_variation(counts_KL, origin_K),
    }


def pair_diversity(counts: Counts) -> tuple[int, float, float]:
    """Return how many distinct things were counted, and how varied they are.

    Returns:
        Number of distinct labels; Shannon entropy in bits, from 0 to log2 of that number; and Simpson's diversity,
        the chance that two rows drawn with replacement differ, from 0 to 1 - 1 / number.

    >>> pair_diversity({"write poem": 2, "explain joke": 2})
    (2, 1.0, 0.5)
    """
    rows_L = np.array(sorted(counts.values()), np.float64)
    if not len(rows_L):
        return 0, 0.0, 0.0
    p_L = rows_L / rows_L.sum()
    return len(rows_L), float(entropy_bits(p_L)), float(1 - (p_L**2).sum())


def _count(columns: Columns) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    if "cluster" in columns:
        clusters, rows = np.unique(np.asarray(columns["cluster"], dtype=str), return_counts=True)
        counts["cluster"] = dict(zip(clusters.tolist(), rows.tolist(), strict=True))
    if "has_parser" in columns:
        languages = columns.get("language", ["en"] * len(columns["verb"]))
        parts = (languages, columns["has_parser"], columns["verb"], columns["object"])
        found = [_parsed(*row) for row in zip(*parts, strict=True)]
        for name in ("instruction_parser", "instruction_verb", "instruction_pair"):
            table: Counts = {}
            for labels in found:
                if name in labels:
                    table[labels[name]] = table.get(labels[name], 0) + 1
            counts |= {name: table} if table else {}
    return counts


def _parsed(language: str, has_parser: bool, verb: str | None, noun: str | None) -> dict[str, str]:
    if not has_parser:
        return {"instruction_parser": "no parser"}
    if not verb:
        return {"instruction_parser": "no verb"}
    label = verb.casefold()
    labels = {"instruction_parser": "verb"}
    if language == "en":
        labels["instruction_verb"] = label if label in VERBS else OTHER_VERB
    if noun:
        pair = f"{label}\n{noun.casefold()}".encode(errors="surrogatepass")
        labels |= {"instruction_pair": blake2b(pair, digest_size=8).hexdigest(), "instruction_parser": "pair"}
    return labels


def _values(stack: Stack) -> Values:
    clusters = divergence_values(stack.tables["cluster"].counts_KL, stack.origin_K)
    verbs_KL = stack.tables["instruction_verb"].counts_KL
    parsed_K = verbs_KL.sum(axis=1) >= MIN_ROWS
    verbs = divergence_values(verbs_KL[parsed_K], stack.origin_K[parsed_K])
    return {f"cluster_{name}": value for name, value in clusters.items()} | {
        "verb_fraction": verbs["fraction"],
        "verb_bits": verbs["bits"],
        "verb_total_variation_to_pool": verbs["total_variation_to_pool"],
    }


def _describe(stack: Stack, pool: ClientProfile) -> Facts:
    clusters = pool.counts.get("cluster", {})
    parsed = pool.counts.get("instruction_parser", {})
    with_verb = parsed.get("verb", 0) + parsed.get("pair", 0)
    num_pairs, shannon_bits, simpson = pair_diversity(pool.counts.get("instruction_pair", {}))
    verbs = pool.counts.get("instruction_verb", {})
    return {
        "num_clusters": len(clusters),
        "rows_per_cluster": dict(sorted(clusters.items(), key=lambda item: (-item[1], item[0]))),
        "parser_fraction": 1 - parsed["no parser"] / pool.num_rows if "no parser" in parsed else float(bool(parsed)),
        "verb_row_fraction": with_verb / pool.num_rows,
        "pair_row_fraction": parsed.get("pair", 0) / pool.num_rows,
        "rows_per_verb": dict(sorted(verbs.items(), key=lambda item: (-item[1], item[0]))),
        "num_verb_object_pairs": num_pairs if num_pairs else None,
        "verb_object_shannon_bits": shannon_bits if num_pairs else None,
        "verb_object_simpson": simpson if num_pairs else None,
    }


def _sentence(values: Values, facts: Facts) -> str:
    verbs = values["verb_fraction"]
    told = {"share": f"{values['cluster_fraction']:.0%}", "num": facts["num_clusters"]}
    if np.isnan(verbs):
        return words(
            "Who wrote an instruction tells {share} of what there is to know about which of {num} clusters it lies"
            " in; there is no parser at hand to compare verbs.",
            **told,
        )
    return words(
        "Who wrote an instruction tells {share} of what there is to know about which of {num} clusters it lies in; of"
        " the root verb it tells {verbs} ({parsed} of the rows have one).",
        **told,
        verbs=f"{verbs:.0%}",
        parsed=f"{facts['verb_row_fraction']:.0%}",
    )


def _per_client(stack: Stack) -> dict[str, list[Any]]:
    names = ("main_cluster", "num_clusters", "cluster_total_variation", "main_verb", "num_verbs")
    clusters, verbs = stack.tables["cluster"], stack.tables["instruction_verb"]
    if not clusters.labels or not stack.num_clients:
        return {name: [] for name in names}
    main_K: list[str | None] = [None] * stack.num_clients
    for position in np.flatnonzero(verbs.sizes_K).tolist():
        main_K[position] = verbs.labels[int(verbs.counts_KL[position].argmax())]
    return {
        "main_cluster": [clusters.labels[column] for column in clusters.counts_KL.argmax(axis=1)],
        "num_clusters": (clusters.counts_KL > 0).sum(axis=1).tolist(),
        "cluster_total_variation": total_variation_to_pool(clusters.counts_KL).tolist(),
        "main_verb": main_K,
        "num_verbs": (verbs.counts_KL > 0).sum(axis=1).tolist(),
    }


INSTRUCTION = Axis(
    name="instruction",
    question="Do clients ask for different kinds of things?",
    headline="cluster_fraction",
    null="clients of these sizes to whom the clusters and the verbs of all rows are dealt at random",
    tables=("cluster", "instruction_verb"),
    min_rows=MIN_ROWS,
    measures={
        "cluster_fraction": Measure(
            title="Clusters: Jensen-Shannon divergence, normalised",
            unit="fraction of H(cluster)",
            meaning="Mutual information of client and cluster over the entropy of clusters; 0: all clients have one"
            " mix, 1: every client keeps to one cluster.",
            undefined=ONE_CLUSTER,
        ),
        "cluster_bits": Measure(
            title="Clusters: Jensen-Shannon divergence",
            unit="bits",
            meaning="The same, generalised to K clients weighted by their rows (Lin 1991); from 0 to H(cluster).",
            undefined=ONE_CLUSTER,
        ),
        "cluster_total_variation_to_pool": Measure(
            title="Clusters: total variation to the pool",
            unit="fraction",
            meaning="Mean over clients of the share of rows that would have to change cluster to match the pool.",
            undefined=ONE_CLUSTER,
        ),
        "cluster_hellinger_to_pool": Measure(
            title="Clusters: Hellinger distance to the pool",
            unit="fraction",
            meaning="Mean over clients of sqrt(1 - sum sqrt(p q)); 0: same mix, 1: no cluster in common.",
            undefined=ONE_CLUSTER,
        ),
        "cluster_total_variation_pairwise": Measure(
            title="Clusters: total variation between two clients",
            unit="fraction",
            meaning="Mean over pairs of clients; 0: all have the same mix, 1: no two share a cluster.",
            undefined=ONE_CLUSTER,
        ),
        "verb_fraction": Measure(
            title="Verbs: Jensen-Shannon divergence, normalised",
            unit="fraction of H(verb)",
            meaning="The same of root verbs, over rows that were parsed and clients with two of them; 0: all clients"
            " have one mix of verbs, 1: every client keeps to one verb.",
            undefined=NO_VERBS,
        ),
        "verb_bits": Measure(
            title="Verbs: Jensen-Shannon divergence",
            unit="bits",
            meaning="The same in bits; from 0 to H(verb).",
            undefined=NO_VERBS,
        ),
        "verb_total_variation_to_pool": Measure(
            title="Verbs: total variation to the pool",
            unit="fraction",
            meaning="Mean over clients of the share of parsed rows that would have to change verb to match the pool.",
            undefined=NO_VERBS,
        ),
    },
    count=_count,
    measure=_values,
    null_sampler=deal_sampler,
    describe=_describe,
    per_client=_per_client,
    sentence=_sentence,
    reading=Reading(
        means="Where each client keeps to a few kinds of instruction, a global model trained by FedAvg must"
        " learn all of them from clients that each know some: sample enough clients a round, and expect the rare"
        " kinds to be forgotten first. If groups of clients share kinds, clustered or mixture-of-adapter methods"
        " fit; if every client is a specialist, evaluate per client, since a mean over clients hides who loses, and"
        " compare with local and personalised adapters. Where the mixes agree, methods need not tell clients apart.",
        alike="Clients ask for the same mix of things: clustered or personalised methods have nothing to win by"
        " topic, and any cohort stands for all.",
        unknown="Too few instructions were compared: give more rows, or an encoder that tells them apart",
        plot="mix",
    ),
)
