"""What a comparison may claim: an outcome and one sentence per difference, after correction over the whole comparison.

The family is everything that one comparison tests: methods times scores times splits. Twelve tests at 0.05 each show
something in every fourth comparison of equal methods; Holm's correction over all of them keeps that at one in twenty.
A claim about a method ("is better") is made where its interval covers other seeds. Otherwise the claim is about the
runs at hand, and says so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import sentences as join_sentences
from fedllm_eval.reporting.table_section import signed
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.comparisons import MethodDifference

__all__ = ["ALPHA", "CLAIMS", "MIN_CLIENTS", "OF_RUNS", "Family", "summary_of", "verdict"]

ALPHA = 0.05
MIN_CLIENTS = 6
"""2^(1-5) = 0.0625: five clients cannot reach p < 0.05 by a two-sided sign-flip test."""
_VERDICTS = {
    "better": marked(
        "{other} is better than {baseline} in {score} on {split} clients: {numbers}, {num} clients, {share} of them"
        " better off."
    ),
    "worse": marked(
        "{other} is worse than {baseline} in {score} on {split} clients: {numbers}, {num} clients, {share} of them"
        " better off."
    ),
    "better run": marked(
        "The runs of {other} at hand scored better than {baseline} in {score} on {split} clients: {numbers}, {num}"
        " clients, {share} of them better off; other seeds are not covered."
    ),
    "worse run": marked(
        "The runs of {other} at hand scored worse than {baseline} in {score} on {split} clients: {numbers}, {num}"
        " clients, {share} of them better off; other seeds are not covered."
    ),
}
_SHOWN = {
    "better": marked("Shown to be better than {baseline}: {shown}."),
    "worse": marked("Shown to be worse than {baseline}: {shown}."),
    "better run": marked("Runs that scored better than {baseline} (other seeds are not covered): {shown}."),
    "worse run": marked("Runs that scored worse than {baseline} (other seeds are not covered): {shown}."),
}
OF_RUNS = {"better run": "better", "worse run": "worse"}
"""Outcomes that are shown for the runs at hand alone -> what they are to a reader who asks about these runs."""
CLAIMS = ("better", "worse", *OF_RUNS)
"""Outcomes that are shown for a method, or for the runs at hand where other seeds are not covered."""


@dataclass(frozen=True)
class Family:
    """The tests of one comparison, which are corrected together."""

    num_tests: int
    num_methods: int
    num_scores: int
    num_splits: int

    @property
    def confidence(self) -> float:
        """The confidence at which all intervals hold together: what the smallest p-value has to pass (Bonferroni)."""
        return 1 - ALPHA / max(1, self.num_tests)

    @property
    def min_clients(self) -> int:
        """Fewest clients whose sign flips can pass Holm's first step: the smallest K with 2^(1-K) num_tests < ALPHA.

        >>> Family(1, 1, 1, 1).min_clients, Family(12, 2, 3, 2).min_clients
        (6, 9)
        """
        return math.floor(1 + math.log2(max(1, self.num_tests) / ALPHA)) + 1

    def words(self) -> str:
        """Return what is corrected for, or nothing where there is one test.

        >>> Family(12, 2, 3, 2).words(), Family(1, 1, 1, 1).words()
        ('12 tests: 2 methods, 3 scores, 2 splits', '')
        """
        if self.num_tests == 1:
            return ""
        return words(
            "{num} tests: {methods}, {scores}, {splits}",
            num=self.num_tests,
            methods=plural_words("{num} method", "{num} methods", self.num_methods),
            scores=plural_words("{num} score", "{num} scores", self.num_scores),
            splits=plural_words("{num} split", "{num} splits", self.num_splits),
        )


def verdict(
    other: str, baseline: str, score: str, split: str, found: MethodDifference, p_holm: float, family: Family
) -> tuple[str, str]:
    """Return the outcome (one of `CLAIMS`, or undecided) and one sentence: what the data can and cannot tell.

    >>> from fedllm_eval.scoring.comparisons import method_difference
    >>> accuracy = [0.5 + 0.01 * client for client in range(20)]
    >>> gained = [[value + 0.1 + 0.001 * (-1) ** client for client, value in enumerate(accuracy)]]
    >>> found = method_difference([accuracy], gained)
    >>> outcome, sentence = verdict("dpo", "sft", "ranking_accuracy", "test", found, 0.001, Family(1, 1, 1, 1))
    >>> outcome, sentence[:49], sentence[-29:]
    ('better run', 'The runs of dpo at hand scored better than sft in', ' other seeds are not covered.')
    >>> verdict("dpo", "sft", "ranking_accuracy", "test", found, 0.6, Family(1, 1, 1, 1))[0]
    'undecided'
    """
    about = SCORES[score]
    better_fraction = found.higher_fraction if about.higher_is_better else found.lower_fraction
    clients = found.num_clients
    what = {"other": other, "baseline": baseline, "score": score, "split": split, "num": clients}
    if found.higher_fraction == found.lower_fraction == 0:
        message = marked("{other} and {baseline} score the same in {score} for all {num} {split} clients.")
        alone = marked("{other} and {baseline} score the same in {score} for the one {split} client.")
        return "undecided", words(message if clients > 1 else alone, **what)
    needed = family.min_clients if found.by_sign_flips else MIN_CLIENTS
    if clients < needed:
        few = {"value": signed(found.difference), "least": needed, "p": ALPHA}
        if needed > MIN_CLIENTS:
            return "undecided", words(
                "The data cannot tell {other} from {baseline} in {score} on {split} clients: {value} over {num}"
                " clients,"
                " and fewer than {least} cannot show any difference at p < {p} over {total} tests.",
                **what,
                **few,
                total=family.num_tests,
            )
        return "undecided", words(
            "The data cannot tell {other} from {baseline} in {score} on {split} clients: {value} over {num} clients,"
            " and"
            " fewer than {least} cannot show any difference at p < {p}.",
            **what,
            **few,
        )
    change = {"value": signed(found.difference), "low": signed(found.low), "high": signed(found.high)}
    corrected = words(" (corrected for {tests})", tests=family.words()) if family.words() else ""
    numbers = words("{value} [{low}, {high}], p = {p}{corrected}", **change, p=f"{p_holm:.2g}", corrected=corrected)
    what |= {"numbers": numbers}
    if found.low <= 0 <= found.high or p_holm >= ALPHA:
        return "undecided", words(
            "The data cannot tell {other} from {baseline} in {score} on {split} clients: {numbers}, {num} clients; a"
            " true difference would have to be about {value} to be seen four times in five.",
            **what,
            value=f"{found.detectable(family.confidence):.2g}",
        )
    outcome = "better" if (found.difference > 0) == about.higher_is_better else "worse"
    outcome += "" if found.covers_seeds else " run"
    return outcome, words(_VERDICTS[outcome], **what, share=f"{100 * better_fraction:.0f} %")


def summary_of(comparisons: Sequence[Mapping[str, Any]], baseline: str, corrected: str) -> str:
    """Return what the whole comparison shows, in one sentence per kind of outcome, and what it is corrected for."""
    counts = {
        outcome: [item for item in comparisons if item["outcome"] == outcome] for outcome in (*CLAIMS, "undecided")
    }
    sentences = []
    for outcome in CLAIMS:
        if counts[outcome]:
            places = [
                words("{other} in {score} ({split})", other=item["other"], score=item["score"], split=item["split"])
                for item in counts[outcome]
            ]
            shown = ", ".join(places[:6])
            if len(places) > 6:
                shown = words("{listed} and {num} more", listed=shown, num=len(places) - 6)
            sentences.append(words(_SHOWN[outcome], baseline=baseline, shown=shown))
    if counts["undecided"]:
        sentences.append(
            words(
                "{num} of {total} comparisons are undecided: these clients cannot tell the methods apart.",
                num=len(counts["undecided"]),
                total=len(comparisons),
            )
        )
    if corrected:
        sentences.append(words("P-values are corrected (Holm) for {tests}.", tests=corrected))
    return join_sentences(sentences)
