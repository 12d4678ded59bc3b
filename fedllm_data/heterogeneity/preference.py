"""Axis `preference`: whether clients want different things of an answer.

The headline is tau squared of the log odds with which a client chooses the longer answer, given what it was offered:
the two models and which of them was longer, or how much longer where models are unknown. Length is known for every
pair in every language, needs no model and no second judge, and given the offers its null is a binomial draw with one
rate a stratum, so that neither client sizes nor what a client happened to be shown can look like taste.

Pairs made from one ranking (all pairs of some systems' answers to one prompt) are not independent draws, which this
null takes them for: where clients ranked different prompts, it finds the prompts' differences too.

Where several clients judged the same pair, their verdicts are compared, with two nulls (`shared_votes.py`): votes that
fall on pairs at random, as often opposite as coins; and contradictions that fall on those who judged at random, beside
which some clients are found to stand against the others. On a single pair, two clients of different taste look like
two who cannot decide: only a client that is contradicted on many pairs shows a taste.

A profile reveals how often the client chose the longer answer, which models it preferred, how it met refusals and
answers in another language; and, unless keys are left out, a keyed hash of each of up to 512 pairs it judged with its
verdict: whoever holds the key and the same texts can look these verdicts up. Which of its pairs these are follows from
their hashes alone (`sketch.py`), so that two clients keep the same ones of those they share; what share of all
verdicts is kept is stated. A row whose `pair_key` is None, or a batch without that column, leaves no hash; the
figures on opposite verdicts then rest on fewer pairs, and all others stay the same.
Symbols: K clients, L labels, S strata, M models, P pairs of models. numpy and SciPy only.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axis import Axis, Columns, Facts, Measure, Reading, Values
from fedllm_data.heterogeneity.bradley_terry import client_strengths, kendall_tau, win_rate_distance
from fedllm_data.heterogeneity.choices import choice_labels, choice_sampler, length_labels, read_labels
from fedllm_data.heterogeneity.length_preference import (
    client_coefficients,
    coefficient_dispersion,
    length_coefficient,
)
from fedllm_data.heterogeneity.meta_analysis import beta_binomial_shares, stratified_dispersion
from fedllm_data.heterogeneity.profile import ClientProfile, Counts, CountTable, Stack
from fedllm_data.heterogeneity.shared_verdicts import (
    VERDICT_MEASURES,
    gather_shared,
    vote_facts,
    vote_values,
    votes_sampler,
    votes_sentence,
)
from fedllm_data.heterogeneity.sketch import MOST_KEYS, first_keys
from fedllm_data.wording.catalogue import words
from fedllm_data.wording.forms import sentences

__all__ = ["PREFERENCE"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NAN = float("nan")
MIN_ROWS = 2
"""A client of one pair shows no preference of its own."""
POOL_PRIOR_STD = 3.0
"""Spread of the prior of the pool's strengths around 0: with it strengths exist also if models are not connected or
one never lost."""
CLIENT_PRIOR_STD = 1.0
"""Spread of the prior of a client's strengths around the pool's: two models with even odds in the pool have 4 to 1
with a client at one standard deviation."""
MIN_JUDGED = 20
"""Pairs of which exactly one answer refuses, or is in the prompt's language, below which no spread is given."""
YES_NO = ("same_language", "refusal")


def _count(columns: Columns) -> dict[str, Counts]:
    if "chosen_tokens" not in columns:
        return {}
    lengths = length_labels(columns["chosen_tokens"], columns["rejected_tokens"])
    nobody: list[None] = [None] * len(lengths)
    chosen, rejected = columns.get("chosen_model", nobody), columns.get("rejected_model", nobody)
    tables: dict[str, list[str]] = {
        "preference_choice": choice_labels(lengths, chosen, rejected),
        "preference_length": lengths,
        "preference_same_language": _one_of_two(columns, "chosen_in_language", "rejected_in_language"),
        "preference_refusal": _one_of_two(columns, "chosen_refusal", "rejected_refusal"),
        "preference_votes": _votes(columns),
    }
    counts = {name: dict(Counter(labels)) for name, labels in tables.items() if labels}
    return {name: first_keys(table, MOST_KEYS.get(name, len(table))) for name, table in counts.items()}


def _one_of_two(columns: Columns, chosen: str, rejected: str) -> list[str]:
    if chosen not in columns or rejected not in columns:
        return []
    pairs = zip(np.asarray(columns[chosen]).tolist(), np.asarray(columns[rejected]).tolist(), strict=True)
    return ["yes" if one == 1 else "no" for one, two in pairs if {one, two} == {0, 1}]


def _votes(columns: Columns) -> list[str]:
    if "pair_key" not in columns or "pair_side" not in columns:
        return []
    pairs = zip(columns["pair_key"], columns["pair_side"], strict=True)
    return [f"{key}/{int(side)}" for key, side in pairs if key]


def _table(stack: Stack, name: str) -> CountTable:
    return stack.tables[f"preference_{name}"]


def _length_choices(stack: Stack) -> tuple[IntArray, IntArray, FloatArray]:
    """Return (K, S) times the longer was chosen and could be, and the log ratio of every stratum, over all pairs."""
    table = _table(stack, "length")
    strata = read_labels(table.labels)
    return *strata.count(table.counts_KL), strata.log_ratio_S


def _values(stack: Stack) -> Values:
    table = _table(stack, "choice")
    strata = read_labels(table.labels)
    successes_KS, trials_KS = strata.count(table.counts_KL)
    is_length_S = strata.is_length_S
    length = stratified_dispersion(successes_KS[:, is_length_S], trials_KS[:, is_length_S])
    values: Values = {
        "length_tau_squared": length.tau_squared,
        "length_i_squared": length.i_squared,
        "length_coefficient_tau_squared": coefficient_dispersion(*_length_choices(stack)).tau_squared,
    }
    for name in YES_NO:
        two_way = _table(stack, name)
        is_enough = two_way.counts_KL.sum() >= MIN_JUDGED
        counted = read_labels(two_way.labels).count(two_way.counts_KL)
        values[f"{name}_tau_squared"] = stratified_dispersion(*counted).tau_squared if is_enough else NAN
    values |= vote_values(stack)
    wins_KP, judged_KP = strata.pairs.count(successes_KS, trials_KS)
    return values | _model_values(strata.pairs.first_P, strata.pairs.second_P, wins_KP, judged_KP)


def _model_values(first_P: IntArray, second_P: IntArray, wins_KP: IntArray, judged_KP: IntArray) -> Values:
    judges_K = judged_KP.any(axis=1)
    if np.count_nonzero(judges_K) < 2:
        return {"win_rate_distance": NAN, "ranking_correlation": NAN}
    wins_KP, judged_KP = wins_KP[judges_K], judged_KP[judges_K]
    tau_K = kendall_tau(*_strengths(first_P, second_P, wins_KP, judged_KP))
    return {
        "win_rate_distance": float(win_rate_distance(wins_KP, judged_KP).mean()),
        "ranking_correlation": float(tau_K.mean()),
    }


def _strengths(
    first_P: IntArray, second_P: IntArray, wins_KP: IntArray, judged_KP: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the (K, M) strengths of the clients and the (M,) strengths of the pool."""
    num_models = int(max(first_P.max(initial=-1), second_P.max(initial=-1))) + 1
    pool = wins_KP.sum(axis=0, keepdims=True), judged_KP.sum(axis=0, keepdims=True)
    pool_M = client_strengths(*pool, first_P, second_P, np.zeros(num_models), prior_std=POOL_PRIOR_STD)[0]
    return client_strengths(wins_KP, judged_KP, first_P, second_P, pool_M, prior_std=CLIENT_PRIOR_STD), pool_M


def _null_sampler(stack: Stack) -> Callable[[Generator], Stack]:
    samplers = {name: choice_sampler(table) for name, table in stack.tables.items()}
    draw_votes = votes_sampler(stack)

    def draw(rng: Generator) -> Stack:
        drawn = replace(stack, tables={name: sampler(rng) for name, sampler in samplers.items()})
        return draw_votes(drawn, rng)

    return draw


def _describe(stack: Stack, pool: ClientProfile) -> Facts:
    longer_KB, trials_KB, log_ratio_B = _length_choices(stack)
    choices = _table(stack, "choice")
    facts: Facts = {
        "num_pairs": int(choices.counts_KL.sum()),
        "longer_fraction": _share(longer_KB, trials_KB),
        "length_coefficient": _none_if_nan(
            length_coefficient(longer_KB.sum(axis=0), trials_KB.sum(axis=0), log_ratio_B)
        ),
    }
    for name in YES_NO:
        table = _table(stack, name)
        successes_KS, trials_KS = read_labels(table.labels).count(table.counts_KL)
        facts |= {f"num_{name}_pairs": int(trials_KS.sum()), f"{name}_fraction": _share(successes_KS, trials_KS)}
    strata = read_labels(choices.labels)
    wins_KP, judged_KP = strata.pairs.count(*strata.count(choices.counts_KL))
    _, pool_M = _strengths(strata.pairs.first_P, strata.pairs.second_P, wins_KP, judged_KP)
    order = np.argsort(-pool_M, kind="stable")
    facts["model_strengths"] = {strata.pairs.models[m]: float(pool_M[m]) for m in order}
    return facts | vote_facts(stack)


def _share(successes_KS: IntArray, trials_KS: IntArray) -> float | None:
    trials = int(trials_KS.sum())
    return int(successes_KS.sum()) / trials if trials else None


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value


def _per_client(stack: Stack) -> dict[str, list[Any]]:
    longer_KB, trials_KB, log_ratio_B = _length_choices(stack)
    longer_K, trials_K = longer_KB.sum(axis=1), trials_KB.sum(axis=1)
    shrunk_K, _ = beta_binomial_shares(longer_K, trials_K)
    coefficient_K, error_K = client_coefficients(longer_KB, trials_KB, log_ratio_B)
    table = _table(stack, "choice")
    strata = read_labels(table.labels)
    wins_KP, judged_KP = strata.pairs.count(*strata.count(table.counts_KL))
    tau_K = kendall_tau(*_strengths(strata.pairs.first_P, strata.pairs.second_P, wins_KP, judged_KP))
    raw_K = np.where(trials_K > 0, longer_K / np.maximum(trials_K, 1), NAN)
    return {
        "num_pairs": table.sizes_K.tolist(),
        "longer_fraction": _listed(raw_K),
        "longer_fraction_shrunk": _listed(shrunk_K),
        "length_coefficient": _listed(coefficient_K),
        "length_coefficient_error": _listed(error_K),
        "ranking_kendall_tau": _listed(np.where(judged_KP.any(axis=1), tau_K, NAN)),
    }


def _listed(values_K: FloatArray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values_K]


def _sentence(values: Values, facts: Facts) -> str:
    share, tau_squared = f"{facts['longer_fraction']:.0%}", values["length_tau_squared"]
    if tau_squared > 0:
        length = words(
            "The longer answer is chosen in {share} of the pairs that differ in length; beyond sampling, clients' odds"
            " of choosing it differ by a factor of {factor} (one standard deviation).",
            share=share,
            factor=f"{np.exp(tau_squared**0.5):.1f}",
        )
    else:
        length = words(
            "The longer answer is chosen in {share} of the pairs that differ in length; clients' odds of choosing it"
            " differ no more than sampling explains.",
            share=share,
        )
    return sentences([length, votes_sentence(values, facts)])


NO_LENGTHS = "in all pairs of one kind the longer answer won, or the shorter, or all answers are equally long"
NO_MODELS = "fewer than two clients chose between two named models"


def _bias_measure(title: str, what: str, undefined: str) -> Measure:
    return Measure(
        title=title,
        unit="squared log odds",
        meaning=f"Variance, beyond sampling, of the clients' log odds of choosing {what} (DerSimonian-Laird, not cut"
        " off at 0); 0: all choose alike, 1: one standard deviation multiplies the odds by 2.7.",
        undefined=undefined,
    )


def _measures() -> dict[str, Measure]:
    return {
        "length_tau_squared": _bias_measure(
            "Length preference: tau squared",
            "the longer answer, given the two models and which was longer, or the ratio of lengths where models are"
            " unknown",
            NO_LENGTHS,
        ),
        "length_i_squared": Measure(
            title="Length preference: I squared",
            unit="fraction",
            meaning="Share of the spread of the same log odds that sampling does not explain; 0: none, 1: all. It"
            " grows with the rows a client has, and may be negative.",
            undefined=NO_LENGTHS,
        ),
        "length_coefficient_tau_squared": Measure(
            title="Length coefficient: tau squared",
            unit="squared log odds per ln ratio",
            meaning="Variance, beyond sampling, of the clients' logistic coefficients of ln(longer / shorter),"
            " whatever the models (DerSimonian-Laird, not cut off at 0); 0: all weigh length alike.",
            undefined=NO_LENGTHS,
        ),
        "same_language_tau_squared": _bias_measure(
            "Preference for the prompt's language: tau squared",
            "the answer in the language of the prompt where the other is not",
            f"fewer than {MIN_JUDGED} pairs have exactly one answer in the language of the prompt, or all chose alike",
        ),
        "refusal_tau_squared": _bias_measure(
            "Preference for refusals: tau squared",
            "the answer that refuses where the other does not",
            f"fewer than {MIN_JUDGED} pairs have exactly one answer that refuses, or all chose alike",
        ),
        **VERDICT_MEASURES,
        "win_rate_distance": Measure(
            title="Model win rates: distance to the pool",
            unit="fraction",
            meaning="Mean over clients of |win rate - win rate in the pool| on the pairs of models they judged, each"
            " with two votes of the pool added; 0: as the pool, near 1: the opposite.",
            undefined=NO_MODELS,
        ),
        "ranking_correlation": Measure(
            title="Model rankings: Kendall's tau to the pool",
            unit="tau",
            meaning="Mean over clients of Kendall's tau-b between the pool's ranking of models and their own, by"
            " Bradley-Terry strengths shrunk to the pool; 1: the same ranking, -1: the reverse.",
            undefined=NO_MODELS,
            unequal="low",
        ),
    }


PREFERENCE = Axis(
    name="preference",
    question="Do clients prefer different answers?",
    headline="length_tau_squared",
    null="clients who were offered the same pairs and choose the longer answer, the model, the language and the"
    " refusal with the rates of the pool: outcomes are shuffled among those who met the same; verdicts on shared pairs"
    " are dealt out anew, to all shared pairs or, for their spread, to those judged by as many",
    tables=("preference_choice", "preference_length", *(f"preference_{name}" for name in YES_NO)),
    min_rows=MIN_ROWS,
    measures=_measures(),
    count=_count,
    measure=_values,
    null_sampler=_null_sampler,
    describe=_describe,
    per_client=_per_client,
    sentence=_sentence,
    tasks=("preference",),
    slow_above=1_000,
    gather=gather_shared,
    reading=Reading(
        means="Where clients want different things, one reward model or one policy fits an average that may suit"
        " nobody: compare a global DPO with personalised or clustered adapters, and report every client's held-out"
        " accuracy beside the mean. Where the spread is in length alone, say so before calling a policy better: a"
        " longer answer wins with some clients and loses with others; length-normalised or length-controlled"
        " objectives are the first to try. Where clients do not differ, averaging loses nothing, and what is left of"
        " their disagreement is noise that more votes a pair reduce.",
        alike="Clients show no taste of their own in this: one reward model or one policy may serve all, and"
        " what they disagree in is noise that more votes a pair reduce.",
        unknown="The rows hold no preferences, or too few of one kind: pairs, votes and the names of models would"
        " tell",
        rests_on=("tokenizer",),
        absent="these rows hold no preferences",
    ),
)
