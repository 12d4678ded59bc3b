"""What a run guarantees whose clients share Skellam noise, and how its noise and its ring are sized before it begins.

Symbols as in `skellam.py`. The server is who the guarantee is against, so who takes part hides nobody: every client is
taken to be in every round. The bounds are counted for 2^32 values, more than any adapter has, so that the guarantee is
known before a model is loaded: at the steps used that costs nothing that four digits would show. Imports no torch.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.privacy.accounting import Guarantee, check_delta, check_noise, least_noise
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec, most_fraction_bits
from fedllm_train.privacy.secure_sum.skellam import skellam_epsilon

__all__ = ["MOST_VALUES", "SkellamGuarantee", "sized", "skellam_guarantee"]

MOST_VALUES = 2**32
"""Values of an update that the bounds are counted for."""
_MOST_NOISE = 2.0**48
"""Largest variance of one client's noise, in squared steps: the sampler is checked below it."""

_OF_OTHERS = ("num_clients", "adaptive", "related", "rows_are_public")
"""Fields of mechanisms that clients cannot share noise for."""

_ASSUMPTIONS = (
    "The unit is the client: epsilon bounds what the sums of all rounds, and so all global adapters, tell about one "
    "client's updates, to the server as to everybody else; neighbouring federations differ by one client's updates "
    "replaced by zero. Who takes part, and with how many rows, is known.",
    "The server follows the protocol: it learns the sums and no single update. One that plays peers, or works "
    "together with so many clients that the rest is fewer than those the noise is sized for, sees less noise.",
    "Every client clips its own update and adds its share of the noise. Those who open a sum are at least as many as "
    "the noise is sized for, or it is not opened; each client of a sum knows its own share of the noise.",
    "Noise is drawn by ChaCha20 from a secret of 256 bits that each client has from its system and shows nobody. A "
    "round that is made again has the same noise on the same update, and no noise on another. Probabilities of the "
    "sampler are exact to float64.",
    "Every client is taken to be in every round; sampling hides nobody from a server that draws the cohorts.",
    "Only sums and what is calculated from them are covered: scores on the clients' rows and adapters that clients "
    "keep for themselves are not.",
)


@dataclass(frozen=True, kw_only=True)
class SkellamGuarantee(Guarantee):
    """The privacy of such a run."""

    fraction_bits: int = 0
    """f."""
    least_clients: int = 3
    """m: the noise is whole where as many are left."""

    def epsilon(self, num_rounds: int) -> float | None:
        """Return the epsilon spent after some rounds; None if there is no noise."""
        spent = skellam_epsilon(
            self.noise_multiplier,
            clip=self.clip,
            fraction_bits=self.fraction_bits,
            num_values=MOST_VALUES,
            num_rounds=num_rounds,
            delta=self.delta,
        )
        return spent if math.isfinite(spent) else None

    def by_accountant(self, num_rounds: int) -> dict[str, float | None]:
        """Return epsilon after some rounds: the Renyi bound is the only one."""
        return {"rdp": self.epsilon(num_rounds)}

    def claim(self, num_rounds: int) -> str:
        """Return the name of that accountant."""
        return "rdp"

    def as_record(self) -> dict[str, Any]:
        """Return the guarantee after all rounds with what it rests on, JSON-ready."""
        made = {name: value for name, value in asdict(self).items() if name not in _OF_OTHERS}
        return {
            "unit": "client",
            "epsilon": self.epsilon(self.num_rounds),
            **made,
            "accountant": "Renyi bound of the Skellam mechanism (Agarwal et al. 2021), composed over all rounds",
            "claim": self.claim(self.num_rounds),
            "by_accountant": self.by_accountant(self.num_rounds),
            "neighbours": "one client's updates replaced by zero",
            "randomness": "a secret of each client, drawn from its system",
            "assumptions": list(_ASSUMPTIONS),
        }


def skellam_guarantee(settings: Any, *, num_rounds: int, num_clients: int, spec: SumSpec) -> SkellamGuarantee:
    """Return the guarantee of a run, with the noise that a wanted epsilon needs.

    Args:
        settings: `dp_clip`, `dp_delta`, and `dp_noise_multiplier` or `dp_epsilon`.
        num_rounds: number of rounds in the run.
        num_clients: clients that may take part.
        spec: the run's sums, without noise yet.

    Raises:
        ConfigError: if delta is too large, or epsilon cannot be reached.
    """
    check_delta(settings.dp_delta, num_clients)
    made = SkellamGuarantee(
        clip=settings.dp_clip,
        noise_multiplier=0.0,
        sampling_rate=1.0,
        expected_cohort=spec.max_clients,
        delta=settings.dp_delta,
        num_rounds=num_rounds,
        is_sampled=False,
        fraction_bits=spec.fraction_bits,
        least_clients=spec.threshold_of(spec.max_clients),
    )
    if settings.dp_noise_multiplier is not None:
        return _with_noise(made, spec, settings.dp_noise_multiplier)

    def spent(z: float) -> float:
        epsilon = _with_noise(made, spec, z).epsilon(num_rounds)
        return math.inf if epsilon is None else epsilon

    return _with_noise(made, spec, least_noise(spent, settings.dp_epsilon, settings.dp_delta))


def sized(spec: SumSpec, guarantee: SkellamGuarantee) -> SumSpec:
    """Return the run's sums with the noise of a guarantee.

    Args:
        spec: without noise.
        guarantee: the run's.
    """
    return replace(
        spec,
        clip=guarantee.clip,
        max_weight=1,
        min_clients=guarantee.least_clients,
        fraction_bits=guarantee.fraction_bits,
        noise=_variance(guarantee.noise_multiplier, guarantee, guarantee.fraction_bits),
    )


def _with_noise(made: SkellamGuarantee, spec: SumSpec, noise_multiplier: float) -> SkellamGuarantee:
    """The guarantee with some noise, in the finest steps in which it fits the ring."""
    if noise_multiplier > 0:
        check_noise(noise_multiplier)
    finest = most_fraction_bits(bits=spec.bits, clip=made.clip, max_clients=spec.max_clients, max_weight=1)
    for bits in range(finest, -1, -1):
        found = replace(made, noise_multiplier=noise_multiplier, fraction_bits=bits)
        if _variance(noise_multiplier, found, bits) <= _MOST_NOISE and _fits(spec, found):
            return found
    raise ConfigError(
        f"noise of {noise_multiplier:g} times dp_clip {made.clip:g} over {spec.max_clients} clients does not fit a "
        f"ring of {spec.bits} bits; use secure_sum_bits 64, or smaller dp_clip or noise"
    )


def _fits(spec: SumSpec, guarantee: SkellamGuarantee) -> bool:
    try:
        sized(spec, guarantee)
    except ConfigError:
        return False
    return True


def _variance(noise_multiplier: float, guarantee: SkellamGuarantee, bits: int) -> float:
    return float((noise_multiplier * guarantee.clip * 2.0**bits) ** 2 / guarantee.least_clients)
