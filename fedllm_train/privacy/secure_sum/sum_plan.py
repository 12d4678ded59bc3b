"""From a run's settings to its secure sums, and which methods they can stand around; refused before a model loads.

A sum stands for updates where the server's rule needs one weighted sum of each part, in places that all clients share,
with weights that a client knows by itself. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.client_index import values_of
from fedllm_data.errors import ConfigError
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec, most_fraction_bits
from fedllm_train.privacy.secure_sum.masks import check_cryptography
from fedllm_train.strategy import Federation, Strategy

__all__ = ["check_summed_method", "sum_spec"]

_SEES = {
    "nothing": "exchanges nothing between clients, so there is nothing to hide",
    "each": "needs every client's own factors, not their sum",
}


def sum_spec(
    config: Any,
    strategy: Strategy,
    federation: Federation,
    participants: Sequence[str],
    cohort_size: int,
    sizes: Mapping[str, int],
) -> SumSpec:
    """Return what both ends of a run agree on about its sums, without noise.

    Args:
        config: the settings of the federation, with `secure_sum` on.
        strategy: the method.
        federation: what it knows of the clients.
        participants: clients that may be asked.
        cohort_size: how many are asked in a round, or with Poisson sampling are on average.
        sizes: rows of each client.

    Raises:
        ConfigError: for a method that needs more than sums, too few clients, or sums that could wrap.
    """
    check_cryptography()
    check_summed_method(config.strategy, strategy, federation)
    most = cohort_size
    if config.cohort_rule == "poisson":  # the chance of a larger cohort is below 1e-12
        most = min(len(participants), cohort_size + math.ceil(10 * math.sqrt(cohort_size)) + 10)
    if most < 3:
        raise ConfigError(
            f"a round has {most} clients and secure_sum is on: a sum of fewer than three would tell too much of each; "
            "choose a cohort_size of at least 3"
        )
    rows = max(values_of(sizes, participants))
    weight = 1 if config.dp_clip is not None else int(getattr(strategy, "weight_of", _rows)(rows))
    clip = config.secure_sum_clip if config.dp_clip is None else config.dp_clip
    bits = config.secure_sum_fraction_bits
    if bits is None:
        bits = most_fraction_bits(bits=config.secure_sum_bits, clip=clip, max_clients=most, max_weight=weight)
        if bits < 0:
            raise ConfigError(
                f"sums of {most} clients of up to {weight:,} rows, clipped to {clip:g}, do not fit a ring of "
                f"{config.secure_sum_bits} bits; use secure_sum_bits 64, or a smaller clip"
            )
    return SumSpec(
        bits=config.secure_sum_bits,
        fraction_bits=bits,
        clip=clip,
        max_clients=most,
        max_weight=weight,
        threshold=config.secure_sum_threshold,
        num_rounds=config.num_rounds,
    )


def check_summed_method(name: str, strategy: Strategy, federation: Federation) -> None:
    """Refuse a method whose server needs more of updates than sums that clients can send their terms of.

    Args:
        name: of the method.
        strategy: the method.
        federation: what it knows of the clients.

    Raises:
        ConfigError: with the reason.
    """
    reason = _SEES.get(strategy.traits.sees) or strategy.why_not_summed()
    if reason is not None:
        raise ConfigError(
            f"secure_sum is on, but strategy {name!r} {reason}; use fedavg, ffa_lora, scaffold or another method "
            "whose updates add up (docs/secure_sums.md)"
        )
    for setting, dealt in (("client_ranks", federation.ranks), ("client_layers", federation.layers)):
        if dealt:
            raise ConfigError(
                f"{setting} is given and secure_sum is on: what a client leaves out would show which it is, and "
                "vectors of different lengths do not add up; leave one of the two out"
            )


def _rows(num_rows: int) -> int:
    return num_rows
