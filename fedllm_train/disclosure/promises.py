"""What bounds or shows what a run gives away, in sentences: its promises, its defences, and what an audit found.

With differential privacy nobody who sees what it covers can change the odds that somebody took part by more than a
factor e^epsilon, but for a chance of delta (Kasiviswanathan & Smith 2014); whoever begins at even odds is right with a
chance of at most e^epsilon / (1 + e^epsilon).
"""

import math
from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import words
from fedllm_data.wording.forms import percent
from fedllm_data.wording.recorded import again
from fedllm_eval.policy.run_folder import ROUNDS_FILE
from fedllm_eval.reporting.audit_lines import coin_line, shouts
from fedllm_train.disclosure.run_facts import RunFacts

__all__ = ["against_bad_partners", "measured", "promise", "promises_to_outsiders"]

MEANINGLESS_EPSILON = 10.0
"""Beyond it a promise of differential privacy proves little (docs/decide.md says the same)."""


def promises_to_outsiders(facts: RunFacts) -> list[str]:
    """Return what bounds what the released adapters tell, for whoever sees nothing else."""
    if not facts.claims:
        said = [words("No promise: an adapter can keep sentences of its rows, and nothing here bounds how much.")]
        if facts.clip is not None:
            said.append(words("Updates were clipped to norm {norm}, without noise.", norm=f"{facts.clip:g}"))
        return said
    said = [promise(facts, unit) for unit in facts.claims]
    if facts.is_sampled:
        said.append(
            words(
                "It holds against those who do not know who took part in which round: {file} stays with the server.",
                file=ROUNDS_FILE,
            )
        )
    return said


def promise(facts: RunFacts, unit: str) -> str:
    """Return the promise for a unit, with the odds and the share of right guesses that it allows."""
    claim = facts.claims[unit]
    epsilon = claim.epsilon
    # Beyond 700 e^epsilon is no float; beyond 10 no factor means anything to a reader.
    if epsilon > MEANINGLESS_EPSILON:
        return words(
            "Epsilon {epsilon} at delta {delta} for one {unit}: so large that it promises next to nothing.",
            epsilon=f"{epsilon:.2f}",
            delta=f"{claim.delta:g}",
            unit=again(unit),
        )
    return words(
        "Epsilon {epsilon} at delta {delta} for one {unit}: but for a chance of {delta}, nobody who sees the adapters "
        "of all rounds can raise the odds that it was there more than {times}-fold; whoever begins at even odds is "
        "right at most {share} of the time.",
        epsilon=f"{epsilon:.2f}",
        delta=f"{claim.delta:g}",
        unit=again(unit),
        times=f"{math.exp(epsilon):,.3g}" if epsilon < 5 else f"{math.exp(epsilon):,.0f}",
        # So many digits that a share below 1 never looks like 100 %.
        share=percent(1 / (1 + math.exp(-epsilon)), 1 if epsilon < 5 else 2 if epsilon < 8 else 3),
    )


def against_bad_partners(facts: RunFacts) -> str:
    """Return what keeps one partner from spoiling the model."""
    if facts.robust_sum is not None:
        return words(
            "From one bad partner the model is protected by the robust sum {name}; it hides nothing of anybody.",
            name=facts.robust_sum,
        )
    if facts.secure_sum:
        return words(
            "Nothing keeps one bad partner from moving the model as far as it likes: in a secure sum nobody can look "
            "at a single update, and clients bound their own."
        )
    if facts.clip_adapts:
        return words(
            "One bad partner can move the sum by the clip at most: {norm} in the first round, and what it adapted to "
            "later. No more is done against it.",
            norm=f"{facts.clip:g}",
        )
    # With noise in visits the clip is that of rows, which the server cannot check.
    bound = facts.max_update_norm if facts.noise_in_visits or facts.clip is None else facts.clip
    if bound is not None:
        return words(
            "One bad partner can move the sum by norm {norm} at most in a round; no more is done against it.",
            norm=f"{bound:g}",
        )
    return words("Nothing keeps one bad partner from moving the model as far as it likes.")


def measured(audit: Mapping[str, Any] | None) -> list[str]:
    """Return what attacks on the finished adapter found."""
    if audit is None:
        return [words("Nothing was measured: no audit was given (fedllm-eval audit).")]
    attacks = audit["membership"]["attacks"]
    attack = attacks.get("calibrated", next(iter(attacks.values())))
    said = [
        words(
            "Training rows are told from others with AUC {value} (0.5 is guessing, 1 gives every row away).",
            value=f"{attack['auc']:.2f}",
        )
    ]
    trained = (audit.get("canaries") or {}).get("trained")
    if trained is not None:
        said.append(
            words(
                "Planted secrets stand out by {bits} bits, {chance} by chance; {share} of them came out in full.",
                bits=f"{trained['exposure']['mean_bits']:.1f}",
                chance=f"{trained['exposure']['chance_bits']:.1f}",
                share=percent(trained["extraction"]["fraction"]),
            )
        )
    if audit.get("one_run") is not None:
        said.append(coin_line(audit["one_run"]))
    return said + shouts(audit)
