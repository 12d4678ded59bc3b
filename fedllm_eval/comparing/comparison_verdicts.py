"""What a comparison may claim: an outcome and one sentence per difference, after correction over the whole comparison.

The family is everything that one comparison tests: methods times scores times splits. Twelve tests at 0.05 each show
something in every fourth comparison of equal methods; Holm's correction over all of them keeps that at one in twenty.
A claim about a method ("is better") is made where its interval covers other seeds. Otherwise the claim is about the
runs at hand, and says so.
"""

import math
from dataclasses import dataclass

from fedllm_eval.reporting.table_section import signed
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.comparisons import MethodDifference

__all__ = ["ALPHA", "CLAIMS", "MIN_CLIENTS", "OF_RUNS", "Family", "verdict"]

ALPHA = 0.05
MIN_CLIENTS = 6
"""2^(1-5) = 0.0625: five clients cannot reach p < 0.05 by a two-sided sign-flip test."""
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
        counts = (("method", self.num_methods), ("score", self.num_scores), ("split", self.num_splits))
        listed = ", ".join(f"{num} {name}{'s' * (num != 1)}" for name, num in counts)
        return f"{self.num_tests} tests: {listed}"


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
    where = f"in {score} on {split} clients"
    corrected = f" (corrected for {family.words()})" if family.words() else ""
    numbers = f"{signed(found.difference)} [{signed(found.low)}, {signed(found.high)}], p = {p_holm:.2g}{corrected}"
    if found.higher_fraction == found.lower_fraction == 0:
        clients = f"all {found.num_clients} {split} clients" if found.num_clients > 1 else f"the one {split} client"
        return "undecided", f"{other} and {baseline} score the same in {score} for {clients}."
    needed = family.min_clients if found.by_sign_flips else MIN_CLIENTS
    if found.num_clients < needed:
        tests = f" over {family.num_tests} tests" if needed > MIN_CLIENTS else ""
        return "undecided", (
            f"The data cannot tell {other} from {baseline} {where}: {signed(found.difference)} over "
            f"{found.num_clients} clients, and fewer than {needed} cannot show any difference at p < {ALPHA}{tests}."
        )
    if found.low <= 0 <= found.high or p_holm >= ALPHA:
        return "undecided", (
            f"The data cannot tell {other} from {baseline} {where}: {numbers}, {found.num_clients} clients; a true "
            f"difference would have to be about {found.detectable(family.confidence):.2g} to be seen four times in "
            "five."
        )
    outcome = "better" if (found.difference > 0) == about.higher_is_better else "worse"
    clients = f"{numbers}, {found.num_clients} clients, {100 * better_fraction:.0f} % of them better off"
    if found.covers_seeds:
        return outcome, f"{other} is {outcome} than {baseline} {where}: {clients}."
    return f"{outcome} run", (
        f"The runs of {other} at hand scored {outcome} than {baseline} {where}: {clients}; other seeds are not "
        "covered."
    )
