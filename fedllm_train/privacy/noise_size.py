"""How large the noise of a private run is beside what its clients can teach it, said before it begins.

Symbols: C the clipping norm, z the noise multiplier, S the expected cohort, d the trained values that travel. The
noise on the clients' mean has norm z C sqrt(d) / S, the mean itself at most C, one client's share of it at most C / S.
Imports no torch.
"""

import math
from dataclasses import replace

from fedllm_data.errors import ConfigError
from fedllm_train.privacy.accounting import Guarantee

__all__ = ["noise_in_clips", "noise_note"]


def noise_in_clips(guarantee: Guarantee, num_values: int) -> float:
    """Return the norm of a round's noise on the clients' mean, in multiples of the clipping norm.

    >>> from fedllm_train.privacy.accounting import Guarantee
    >>> mechanism = {"clip": 0.3, "noise_multiplier": 0.5, "sampling_rate": 0.1, "expected_cohort": 200}
    >>> noise_in_clips(Guarantee(**mechanism, delta=1e-5, num_rounds=10), 160_000)
    1.0
    """
    return guarantee.noise_multiplier * math.sqrt(num_values) / guarantee.expected_cohort


def noise_note(guarantee: Guarantee, *, num_values: int, num_clients: int) -> str | None:
    """Return a note about a run whose noise is larger than the clipping norm; None for other runs.

    Args:
        guarantee: the run's guarantee.
        num_values: d, the number of values that a client sends in a round.
        num_clients: clients that may take part.
    """
    ratio = noise_in_clips(guarantee, num_values)
    if ratio <= 1:
        return None
    z, cohort = guarantee.noise_multiplier, guarantee.expected_cohort
    needed = math.ceil(z * math.sqrt(num_values))
    enough = f"cohort_size {needed:,}" + ("" if needed <= num_clients else f" (and there are {num_clients:,} clients)")
    values = int((cohort / z) ** 2)
    return (
        f"the noise of a round is {_times(ratio)} dp_clip: on the mean of the clients' updates its norm is "
        f"{ratio * guarantee.clip:.3g} over {num_values:,} trained values, that of the mean at most dp_clip "
        f"{guarantee.clip:g}, and one client's share of it is {_times(ratio * cohort)} smaller than the noise. What "
        f"would bring it down to dp_clip: {enough} at this dp_noise_multiplier; {values:,} trained values (ffa_lora, "
        "fed_sb with core_frame random, a lower lora_r, fewer lora_target_modules); "
        f"{_less_noise(guarantee, cohort, num_values)}. More rounds at less noise help too: noise adds up as the root "
        "of their number, what clients agree on as their number"
    )


def _less_noise(guarantee: Guarantee, cohort: int, num_values: int) -> str:
    z = cohort / math.sqrt(num_values)
    try:
        spent = replace(guarantee, noise_multiplier=z).epsilon(guarantee.num_rounds)
        cost = f"epsilon {spent:.3g}"
    except ConfigError:
        cost = "too little for any guarantee"
    return f"dp_noise_multiplier {z:.3g} ({cost})"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"
