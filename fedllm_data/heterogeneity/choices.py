"""From pairs of answers to tables of choices, and from tables to arrays of choices with two outcomes each.

What a client met is a *stratum*; its pairs have two outcomes. Labels of `preference_choice`, one a pair of answers:

- models known and different: `A>B:+`, A was preferred to B and was the longer answer (`-` the shorter, `=` neither).
  The stratum is the two models and which of them is the longer; the outcomes are the longer and the shorter.
- otherwise `>:+07`: the longer answer was chosen, and its length is in the 7th bin above that of the other; `>:-07`:
  the shorter, `>:=`: equally long. The stratum is the bin.

Labels of `preference_length`: `+07`, `-07` and `=`, for all pairs, whatever the models. Bins of the length ratio are a
quarter of a doubling wide; the last holds all ratios above 2^6. A text of 0 tokens counts as 1.
Symbols: R draws, K clients, L labels, S strata, M models, P pairs of models. numpy and SciPy only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fedllm_data.heterogeneity.profile import CountTable

__all__ = ["ModelPairs", "Strata", "choice_labels", "choice_sampler", "length_labels", "read_labels"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BINS_PER_DOUBLING = 4
NUM_BINS = 25
EDGES: FloatArray = 2.0 ** (np.arange(NUM_BINS) / BINS_PER_DOUBLING)
"""Bin m holds ratios above EDGES[m], up to and with EDGES[m + 1]."""
LOG_RATIO_B: FloatArray = (np.arange(NUM_BINS) + 0.5) / BINS_PER_DOUBLING * np.log(2)
"""Natural logs that stand for the bins: their middles."""
SHUFFLED_PAIRS = 4096
"""Strata with at most this many pairs are shuffled pair by pair in a draw of the null."""


def length_labels(chosen_tokens: Sequence[int] | IntArray, rejected_tokens: Sequence[int] | IntArray) -> list[str]:
    """Return the label of each pair's lengths.

    >>> length_labels([5, 40, 10], [5, 10, 11])
    ['=', '+07', '-00']
    """
    chosen_N = np.maximum(np.asarray(chosen_tokens, np.int64), 1)
    rejected_N = np.maximum(np.asarray(rejected_tokens, np.int64), 1)
    ratio_N = np.maximum(chosen_N, rejected_N) / np.minimum(chosen_N, rejected_N)
    bin_N = np.searchsorted(EDGES, ratio_N, side="left") - 1
    sign_N = np.sign(chosen_N - rejected_N)
    signed = zip(sign_N.tolist(), bin_N.tolist(), strict=True)
    return ["=" if sign == 0 else f"{'+' if sign > 0 else '-'}{b:02d}" for sign, b in signed]


def choice_labels(
    lengths: Sequence[str], chosen_models: Sequence[str | None], rejected_models: Sequence[str | None]
) -> list[str]:
    """Return the label of each choice; `>` in a model's name becomes `_`.

    >>> choice_labels(["+07", "=", "-02"], ["gpt", "gpt", None], ["llama", "gpt", "gpt"])
    ['gpt>llama:+', '>:=', '>:-02']
    """
    labels = []
    for length, chosen, rejected in zip(lengths, chosen_models, rejected_models, strict=True):
        if chosen and rejected and chosen != rejected:
            labels.append(f"{chosen.replace('>', '_')}>{rejected.replace('>', '_')}:{length[0]}")
        else:
            labels.append(f">:{length}")
    return labels


@dataclass(frozen=True)
class ModelPairs:
    """Which strata are about which pair of models."""

    models: tuple[str, ...]
    """Names, sorted."""
    first_P: IntArray
    second_P: IntArray
    _won: "csr_array"
    """(S, P): 1 where success is a win of the pair's first model, -1 where one of its second."""
    _lost: "csr_array"
    """(S, P): 1 where success is a win of the second: wins of the first are `trials @ this` more."""

    def count(self, successes_RKS: IntArray, trials_RKS: IntArray) -> tuple[IntArray, IntArray]:
        """Return how often the first model of every pair won, and how often the pair was judged, both (R, K, P)."""
        *leading, num_strata = trials_RKS.shape
        successes_NS, trials_NS = (part.reshape(prod(leading), num_strata) for part in (successes_RKS, trials_RKS))
        shape = (*leading, len(self.first_P))
        wins_NP = successes_NS @ self._won + trials_NS @ self._lost
        return np.asarray(wins_NP).reshape(shape), np.asarray(trials_NS @ abs(self._won)).reshape(shape)


@dataclass(frozen=True)
class Strata:
    """How the columns of a table pair up: one stratum has the column of a success and that of a failure."""

    success_S: IntArray
    """Column of the label in which the longer answer was chosen; the number of labels where there is none."""
    failure_S: IntArray
    is_length_S: NDArray[np.bool_]
    """Whether one answer was longer: elsewhere success is the choice of the model that sorts first."""
    log_ratio_S: FloatArray
    """Natural log of longer over shorter, at the middle of the bin; 0 where the label gives no bin."""
    pairs: ModelPairs

    def count(self, counts_RKL: IntArray) -> tuple[IntArray, IntArray]:
        """Return successes and trials, both (R, K, S)."""
        padded_RKL = np.concatenate([counts_RKL, np.zeros((*counts_RKL.shape[:-1], 1), np.int64)], axis=-1)
        successes_RKS = padded_RKL[..., self.success_S]
        return successes_RKS, successes_RKS + padded_RKL[..., self.failure_S]


@lru_cache(maxsize=16)
def read_labels(labels: tuple[str, ...]) -> Strata:
    """Return how the columns with these labels pair up.

    Args:
        labels: the labels of `preference_choice` or `preference_length`, or the two outcomes `yes` and `no`.

    >>> strata = read_labels(("A>B:+", "B>A:-", "B>A:+"))
    >>> strata.success_S.tolist(), strata.failure_S.tolist(), strata.pairs.models
    ([0, 2], [1, 3], ('A', 'B'))
    """
    columns: dict[tuple[str, str, str], list[int]] = {}
    for column, label in enumerate(labels):
        key, is_success = _stratum(label)
        if key is not None:
            columns.setdefault(key, [len(labels), len(labels)])[0 if is_success else 1] = column
    keys = sorted(columns)
    success_S, failure_S = (np.array([columns[key][side] for key in keys], np.int64) for side in (0, 1))
    bins = [int(key[0]) if key[0].isdigit() else -1 for key in keys]
    log_ratio_S = np.array([LOG_RATIO_B[b] if b >= 0 else 0.0 for b in bins])
    is_length_S = np.array([key[0] != "=" for key in keys], bool)
    return Strata(success_S, failure_S, is_length_S, log_ratio_S, _model_pairs(keys))


def _stratum(label: str) -> tuple[tuple[str, str, str] | None, bool]:
    """Return ((bin or sign, winner if success, winner if failure), whether the label is the success)."""
    if label in ("yes", "no"):
        return ("", "", ""), label == "yes"
    names, _, length = label.rpartition(":")
    chosen, _, rejected = names.partition(">")
    sign, bin_ = length[0], length[1:]
    if sign == "=":
        first, second = sorted((chosen, rejected))
        return (("=", first, second), chosen == first) if chosen else (None, False)
    return (bin_, *((chosen, rejected) if sign == "+" else (rejected, chosen))), sign == "+"


def _model_pairs(keys: Sequence[tuple[str, str, str]]) -> ModelPairs:
    models = tuple(sorted({name for key in keys for name in key[1:] if name}))
    pairs = sorted({tuple(sorted(key[1:])) for key in keys if key[1]})
    position = {pair: index for index, pair in enumerate(pairs)}
    of_model = {model: index for index, model in enumerate(models)}
    won, lost = (np.zeros((len(keys), len(pairs)), np.int64) for _ in range(2))
    for stratum, (_, winner, other) in enumerate(keys):
        if winner:
            pair = position[tuple(sorted((winner, other)))]
            won[stratum, pair] = 1 if winner < other else -1
            lost[stratum, pair] = int(winner > other)
    first_P, second_P = (np.array([of_model[pair[side]] for pair in pairs], np.int64) for side in (0, 1))
    return ModelPairs(models, first_P, second_P, csr_array(won), csr_array(lost))


def choice_sampler(table: CountTable) -> Callable[[Generator], CountTable]:
    """Return a function that draws clients who met what they met and choose as the pool does.

    In every stratum the outcomes are shuffled among the clients, so that each keeps its number of trials and the pool
    its successes: the exact null, also where a stratum holds few pairs. Strata of more than `SHUFFLED_PAIRS` are drawn
    from the binomial distribution with the rate of the pool, which then differs little and costs less.

    >>> draw = choice_sampler(CountTable(("+03", "-03", "="), np.array([[4, 0, 1], [0, 2, 0]])))
    >>> drawn = draw(np.random.default_rng(0)).counts_KL
    >>> drawn[:, :2].sum(axis=1).tolist(), drawn.sum(axis=0).tolist()
    ([4, 2], [4, 2, 1])
    """
    strata = read_labels(table.labels)
    successes_KS, trials_KS = strata.count(table.counts_KL)
    success_total_S, total_S = successes_KS.sum(axis=0), trials_KS.sum(axis=0)
    stratum_C, client_C = np.nonzero(trials_KS.T)
    trials_C = trials_KS[client_C, stratum_C]
    success_C, failure_C = strata.success_S[stratum_C], strata.failure_S[stratum_C]
    is_shuffled_C = total_S[stratum_C] <= SHUFFLED_PAIRS
    shuffled_C, drawn_C = np.flatnonzero(is_shuffled_C), np.flatnonzero(~is_shuffled_C)
    rate_C = (success_total_S / np.maximum(total_S, 1))[stratum_C[drawn_C]]
    # One entry a pair, by stratum: in a random order within the stratum, the first ones are the successes.
    cell_N = np.repeat(shuffled_C, trials_C[shuffled_C])
    stratum_N = stratum_C[cell_N]
    first_S = np.searchsorted(stratum_N, np.arange(len(total_S)))
    is_success_N = np.arange(len(cell_N)) - first_S[stratum_N] < success_total_S[stratum_N]
    has_success_S = (success_total_S > 0) & (total_S <= SHUFFLED_PAIRS)
    last_S = (first_S + success_total_S - 1)[has_success_S]
    num_clients, num_labels = table.counts_KL.shape
    untouched_L = np.ones(num_labels + 1, bool)
    untouched_L[strata.success_S] = untouched_L[strata.failure_S] = False
    template_KL = np.zeros((num_clients, num_labels + 1), np.int64)
    template_KL[:, :-1] = table.counts_KL * untouched_L[:-1]

    def draw(rng: Generator) -> CountTable:
        place_N = stratum_N + rng.random(len(stratum_N))
        # Where the last success of each stratum lies: sorting places takes a third of the time of sorting pairs.
        highest_S = np.full(len(total_S), -1.0)
        highest_S[has_success_S] = np.sort(place_N)[last_S]
        is_chosen_N = place_N <= highest_S[stratum_N]
        if np.count_nonzero(is_chosen_N) > np.count_nonzero(is_success_N):  # two pairs at one place: about never
            is_chosen_N[np.argsort(place_N, kind="stable")] = is_success_N
        successes_C = np.bincount(cell_N[is_chosen_N], minlength=len(trials_C))
        successes_C[drawn_C] = rng.binomial(trials_C[drawn_C], rate_C)
        # The column after the last takes the outcome that nobody chose: its draws are 0.
        drawn_KL = template_KL.copy()
        drawn_KL[client_C, success_C] = successes_C
        drawn_KL[client_C, failure_C] = trials_C - successes_C
        return CountTable(table.labels, drawn_KL[:, :-1])

    return draw
