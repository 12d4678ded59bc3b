"""How large the noise of a private run is beside what its clients can teach it, said before it begins.

Symbols: C the clipping norm, z the noise multiplier on the sum of updates, S the expected cohort, d the trained values
that travel. The noise on the clients' mean has norm z C sqrt(d) / S, the mean itself at most C, one client's share of
it at most C / S. Where the noise of rounds is related, z stands for z times the root mean square of the rounds' noise,
and later rounds take part of it back: what is left after T rounds is said beside it. Imports no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from fedllm_data.errors import ConfigError
from fedllm_data.wording.forms import bytes_text
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.related_noise import RelatedNoise

__all__ = ["accountants_in_words", "first_line", "needed_cohort", "noise_in_clips", "noise_note", "noise_of_methods"]

_NAMES = {"pld": "PLD", "rdp": "RDP", "zcdp": "zCDP"}


def noise_in_clips(guarantee: Guarantee, num_values: int) -> float:
    """Return the norm of a round's noise on the clients' mean, in multiples of the clipping norm.

    >>> from fedllm_train.privacy.accounting import Guarantee
    >>> mechanism = {"clip": 0.3, "noise_multiplier": 0.5, "sampling_rate": 0.1, "expected_cohort": 200}
    >>> noise_in_clips(Guarantee(**mechanism, delta=1e-5, num_rounds=10), 160_000)
    1.0
    """
    return _noise_of_a_round(guarantee) * math.sqrt(num_values) / guarantee.expected_cohort


def needed_cohort(guarantee: Guarantee, num_values: int) -> int:
    """Return the cohort with which a round's noise on the mean would be as long as the clip; 0 without noise.

    >>> from fedllm_train.privacy.accounting import Guarantee
    >>> mechanism = {"clip": 0.3, "noise_multiplier": 0.5, "sampling_rate": 0.01, "expected_cohort": 10}
    >>> needed_cohort(Guarantee(**mechanism, delta=1e-5, num_rounds=10), 160_000)
    200
    """
    return math.ceil(_noise_of_a_round(guarantee) * math.sqrt(num_values))


def noise_of_methods(guarantee: Guarantee, by_method: Mapping[str, int]) -> dict[str, float]:
    """Return the noise of a round in clips for the values that each method trains.

    Args:
        guarantee: the run's guarantee.
        by_method: method -> values (`few_values.py`).
    """
    return {name: noise_in_clips(guarantee, num_values) for name, num_values in by_method.items()}


def accountants_in_words(guarantee: Guarantee, num_rounds: int) -> str:
    """Return epsilon by each accountant that knows the mechanism, the claimed one first and named so.

    >>> from fedllm_train.privacy.accounting import Guarantee
    >>> mechanism = {"clip": 0.3, "noise_multiplier": 1.0, "sampling_rate": 0.1, "expected_cohort": 10}
    >>> accountants_in_words(Guarantee(**mechanism, delta=1e-5, num_rounds=100), 100)
    'claimed by PLD; RDP 7.904, zCDP 96.12'
    """
    claim = guarantee.claim(num_rounds)
    others = {name: value for name, value in guarantee.by_accountant(num_rounds).items() if name != claim}
    known = [f"{_NAMES[name]} {value:.4g}" for name, value in others.items() if value is not None]
    return f"claimed by {_NAMES[claim]}" + (f"; {', '.join(known)}" if known else "")


def first_line(guarantee: Guarantee, *, num_values: int, num_clients: int, by_method: Mapping[str, int]) -> str:
    """Return what is said before the first round of a private run.

    Args:
        guarantee: the run's guarantee.
        num_values: d, the number of values that a client sends in a round.
        num_clients: clients that may take part.
        by_method: method -> values that it would train (`few_values.py`).
    """
    spent = guarantee.spent_in_words(guarantee.num_rounds)
    if not guarantee.has_noise:
        return f"private run: {spent}"
    ratio, needed = noise_in_clips(guarantee, num_values), needed_cohort(guarantee, num_values)
    there = "" if needed <= num_clients else f", and there are {num_clients:,} clients"
    return (
        f"private run: {spent} ({accountants_in_words(guarantee, guarantee.num_rounds)}). A round's noise on the mean "
        f"is {_times(ratio)} as long as an update can be (dp_clip) and {_times(ratio * guarantee.expected_cohort)} "
        f"one client's share of it, over {num_values:,} trained values; a cohort_size of {needed:,} would make it as "
        f"long as an update{there}{_of_methods(guarantee, by_method)}"
        f"{_taken_back(guarantee, num_values)}"
    )


def noise_note(
    guarantee: Guarantee, *, num_values: int, num_clients: int, by_method: Mapping[str, int] | None = None
) -> str | None:
    """Return a note about a run whose noise is larger than the clipping norm; None for other runs.

    Args:
        guarantee: the run's guarantee.
        num_values: d, the number of values that a client sends in a round.
        num_clients: clients that may take part.
        by_method: method -> values that it would train (`few_values.py`).
    """
    ratio = noise_in_clips(guarantee, num_values)
    if ratio <= 1:
        return None
    cohort, needed = guarantee.expected_cohort, needed_cohort(guarantee, num_values)
    enough = f"cohort_size {needed:,}" + ("" if needed <= num_clients else f" (and there are {num_clients:,} clients)")
    values = int((cohort / _noise_of_a_round(guarantee)) ** 2)
    return (
        f"the noise of a round is {_times(ratio)} dp_clip: on the mean of the clients' updates its norm is "
        f"{ratio * guarantee.clip:.3g} over {num_values:,} trained values, that of the mean at most dp_clip "
        f"{guarantee.clip:g}, and one client's share of it is {_times(ratio * cohort)} smaller than the noise. What "
        f"would bring it down to dp_clip: {enough} at this dp_noise_multiplier; {values:,} trained values (ffa_lora, "
        f"fed_sb with core_frame random, a lower lora_r, fewer lora_target_modules)"
        f"{_of_methods(guarantee, by_method or {})}; {_less_noise(guarantee, cohort, num_values)}. More rounds at "
        "less noise help too: noise adds up as the root of their number, what clients agree on as their number"
        f"{_taken_back(guarantee, num_values)}"
    )


def _noise_of_a_round(guarantee: Guarantee) -> float:
    """The deviation of a value's noise on the sum, in clips."""
    related = guarantee.related
    spread = 1.0 if related is None else related.noise_on_rounds(guarantee.num_rounds)
    return guarantee.update_noise_multiplier * spread


def _taken_back(guarantee: Guarantee, num_values: int) -> str:
    """How much noise is left on the sum of all rounds, where later rounds take some back."""
    if guarantee.related is None:
        return ""
    left = guarantee.related.noise_on_sum(guarantee.num_rounds)
    alone = guarantee.related.noise_on_rounds(guarantee.num_rounds) * math.sqrt(guarantee.num_rounds)
    return (
        f". Later rounds take noise back: on the sum of all {guarantee.num_rounds:,} rounds it is {left / alone:.3g} "
        f"times what independent noise of this size would leave{_kept(guarantee.related, num_values)}"
    )


def _kept(related: RelatedNoise, num_values: int) -> str:
    """What the server keeps between rounds for it."""
    count = related.form.num_buffers
    size = bytes_text(8 * count * num_values)
    return f"; the server keeps {count} noises of the adapter's size for it, {size}" if count else ""


def _of_methods(guarantee: Guarantee, by_method: Mapping[str, int]) -> str:
    """How large it would be with other methods on the same modules."""
    noise = noise_of_methods(guarantee, by_method)
    said = [f"{name} {by_method[name]:,} values (noise of {ratio:,.3g} clips)" for name, ratio in noise.items()]
    return f"; on the same modules {', '.join(said)}" if said else ""


def _less_noise(guarantee: Guarantee, cohort: int, num_values: int) -> str:
    z = cohort / math.sqrt(num_values) * guarantee.noise_multiplier / _noise_of_a_round(guarantee)
    try:
        spent = replace(guarantee, noise_multiplier=z).epsilon(guarantee.num_rounds) or math.inf
        cost = f"epsilon {spent:.3g}"
    except ConfigError:
        cost = "too little for any guarantee"
    return f"dp_noise_multiplier {z:.3g} ({cost})"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"
