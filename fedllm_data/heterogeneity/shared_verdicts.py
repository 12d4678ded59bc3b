"""Figures of axis `preference` on pairs that several clients judged: how often two verdicts are opposite, and whose.

Measures, null, facts and words; what they compute is in `shared_votes.py`, as are the symbols. Votes lie in
`Stack.shared`, one entry a vote, with two arrays of sides, since the two figures have two nulls: in a draw,
`side_anyhow` is dealt out to all pairs and `side` to pairs that as many clients judged. numpy only.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axis import Facts, Measure, Values
from fedllm_data.heterogeneity.profile import ClientProfile, Stack
from fedllm_data.heterogeneity.shared_votes import (
    SharedVotes,
    gather_votes,
    krippendorff_alpha,
    opposite_by_chance,
    opposite_spread,
    opposite_weighted,
    vote_samplers,
)
from fedllm_data.wording.catalogue import words

__all__ = ["VERDICT_MEASURES", "gather_shared", "vote_facts", "vote_values", "votes_sampler", "votes_sentence"]

IntArray = NDArray[np.int64]

NAN = float("nan")
MIN_SHARED = 20
"""Pairs that two clients judged, below which nothing is said of their verdicts."""
NO_SHARED = f"fewer than {MIN_SHARED} pairs were judged by two clients, or their hashes were left out"

VERDICT_MEASURES = {
    "opposite_fraction": Measure(
        title="Opposite verdicts on the same pair",
        unit="fraction",
        meaning="Share of two clients' verdicts on one pair of answers that are opposite; 0: all agree. By chance:"
        " the verdicts are dealt out to the pairs anew, so that far below chance means that clients agree, and at"
        " chance that they agree no more than coins do.",
        undefined=NO_SHARED,
    ),
    "opposite_spread": Measure(
        title="Opposite verdicts: spread over clients",
        unit="fraction",
        meaning="Standard deviation over clients of how often the others contradict them. By chance: as many pairs"
        " stay as divided, whoever judged them; above it, some clients stand against the others, or judged more"
        " divided pairs.",
        undefined=NO_SHARED,
    ),
}


def gather_shared(profiles: Sequence[ClientProfile]) -> dict[str, IntArray]:
    """Return the votes on shared pairs as arrays, and how many verdicts the profiles kept.

    >>> one, two = (ClientProfile(name, "t", 1, {"preference_votes": {"k/0": 1}}) for name in "ab")
    >>> gather_shared([one, two])["client"].tolist()
    [0, 1]
    """
    tables = [profile.counts.get("preference_votes", {}) for profile in profiles]
    votes = gather_votes(tables)
    arrays = {"item": votes.item_V, "client": votes.client_V, "side": votes.side_V, "side_anyhow": votes.side_V}
    return arrays | {"num_kept": np.array([sum(sum(table.values()) for table in tables)])}


def vote_values(stack: Stack) -> Values:
    """Return `VERDICT_MEASURES` of observed, drawn or resampled clients.

    >>> vote_values(Stack((), {}))["opposite_spread"]
    nan
    """
    votes = _shared(stack)
    if votes.item_V.max(initial=-1) + 1 < MIN_SHARED:
        return dict.fromkeys(VERDICT_MEASURES, NAN)
    weight_K = np.bincount(stack.origin_K, minlength=int(votes.client_V.max()) + 1)
    return {
        "opposite_fraction": opposite_weighted(_shared(stack, "side_anyhow"), weight_K),
        "opposite_spread": opposite_spread(votes, weight_K),
    }


def votes_sampler(stack: Stack) -> Callable[[Stack, Generator], Stack]:
    """Return a function that puts a draw of both nulls into another stack of the same clients.

    Its stream is spawned: whether clients share pairs changes no other draw.

    >>> stack = Stack((), {})
    >>> votes_sampler(stack)(stack, np.random.default_rng(0)) is stack
    True
    """
    votes = _shared(stack)
    if not len(votes.item_V):
        return lambda drawn, rng: drawn
    anyhow, divided = vote_samplers(votes)

    def draw(drawn: Stack, rng: Generator) -> Stack:
        own = rng.spawn(1)[0]
        sides = {"side_anyhow": anyhow(own).side_V, "side": divided(own).side_V}
        return replace(drawn, shared=stack.shared | sides)

    return draw


def vote_facts(stack: Stack) -> Facts:
    """Return the number of pairs that the figures rest on, and what chance would make of them.

    >>> vote_facts(Stack((), {}))["num_shared_pairs"]
    0
    """
    votes_IC = _shared(stack).votes_IC
    num_kept = int(stack.shared["num_kept"][0]) if stack.shared else 0
    num_pairs = int(stack.tables["preference_choice"].counts_KL.sum()) if stack.tables else 0
    return {
        "num_shared_pairs": len(votes_IC),
        "verdicts_kept_fraction": num_kept / num_pairs if num_pairs else None,
        "opposite_by_chance_fraction": _none_if_nan(opposite_by_chance(votes_IC)),
        "krippendorff_alpha": _none_if_nan(krippendorff_alpha(votes_IC)),
    }


def votes_sentence(values: Values, facts: Facts) -> str:
    """Return the finding in words, nothing if there is not enough data.

    >>> votes_sentence({"opposite_fraction": NAN}, {})
    ''
    """
    if np.isnan(values["opposite_fraction"]):
        return ""
    alpha = facts["krippendorff_alpha"]
    counted = {
        "num": f"{facts['num_shared_pairs']:,}",
        "share": f"{values['opposite_fraction']:.0%}",
        "chance": f"{facts['opposite_by_chance_fraction']:.0%}",
    }
    if alpha is None:
        return words(
            "On the {num} pairs that several clients judged, {share} of two verdicts are opposite; verdicts at random"
            " would be in {chance}.",
            **counted,
        )
    return words(
        "On the {num} pairs that several clients judged, {share} of two verdicts are opposite; verdicts at random"
        " would be in {chance}: Krippendorff's alpha is {alpha} (1: always alike, 0: at random).",
        **counted,
        alpha=f"{alpha:.2f}",
    )


def _shared(stack: Stack, sides: str = "side") -> SharedVotes:
    none = np.zeros(0, np.int64)
    return SharedVotes(*(stack.shared.get(name, none) for name in ("item", "client", sides)))


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value
