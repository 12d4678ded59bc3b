"""Epsilon by three accountants of one mechanism: privacy loss distributions, Renyi and zero-concentrated privacy.

Symbols: z the standard deviation of the noise over the most that one client can change the sum, q the probability of
taking part, T rounds, rho of zero-concentrated privacy (Bun and Steinke 2016, arXiv 1605.02635).

pld    composes the distribution of the privacy loss itself (Koskela et al. 2020, arXiv 1906.03049; Doroshenko et al.
       2022, arXiv 2207.04380), rounded up to a grid of 1e-3; the tightest, where it knows the mechanism. Of a single
       Gaussian it is known in closed form (Balle and Wang 2018, arXiv 1805.06530, theorem 8), and no grid is needed
rdp    composes Renyi divergences (Mironov 2017, arXiv 1702.07476): for Poisson sampling Mironov et al. 2019 (arXiv
       1908.10530), for cohorts of one size Wang, Balle and Kasiviswanathan 2019 (arXiv 1808.00087, theorem 27)
zcdp   T Gaussian rounds are rho = T / (2 z^2). It knows no gain from sampling: a sampled round costs what it would
       cost if everybody took part, which is right (Renyi divergence is quasi-convex) and a loose bound

Both of the latter become (epsilon, delta) by Canonne, Kamath and Steinke 2020 (arXiv 2004.00010, proposition 12). All
numbers are Google's dp-accounting's, from the extra `privacy`. Imports no torch.
"""

import importlib.util
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = [
    "check_accountant",
    "gaussian_epsilons",
    "poisson_epsilon",
    "poisson_epsilons",
    "without_replacement_epsilons",
    "zcdp_epsilon",
]

_GRID = 1e-3


def check_accountant() -> None:
    """Refuse a private run if the accountant is not installed.

    Raises:
        ConfigError: with what to install.
    """
    if importlib.util.find_spec("dp_accounting") is None:
        raise ConfigError(
            "differential privacy needs dp-accounting, which is not installed; pip install 'fedllm-commons[privacy]'"
        )


def poisson_epsilon(z: float, q: float, num_rounds: int, delta: float) -> float:
    """Return epsilon of Poisson-subsampled Gaussian rounds by privacy loss distributions alone.

    Args:
        z: noise over the clipping norm; positive.
        q: in (0, 1].
        num_rounds: T, at least 1.
        delta: in (0, 1).

    >>> round(poisson_epsilon(1.0, 0.01, 1000, 1e-6), 3)
    2.125
    """
    return float(_one_round(z, q).self_compose(num_rounds).get_epsilon_for_delta(delta))


def poisson_epsilons(z: float, q: float, num_rounds: int, delta: float) -> dict[str, float | None]:
    """Return epsilon of Poisson-subsampled Gaussian rounds, one client added or removed, by accountant.

    Args:
        z: noise over the clipping norm; positive.
        q: in (0, 1].
        num_rounds: T, at least 1.
        delta: in (0, 1).

    Returns:
        `pld`, `rdp` and `zcdp`; the last is that of rounds without sampling.

    >>> {name: round(value, 3) for name, value in poisson_epsilons(1.0, 0.1, 100, 1e-5).items()}
    {'pld': 7.047, 'rdp': 7.904, 'zcdp': 96.116}
    """
    event = _dp_event()
    rounds = event.SelfComposedDpEvent(event.PoissonSampledDpEvent(q, event.GaussianDpEvent(z)), num_rounds)
    return {
        "pld": poisson_epsilon(z, q, num_rounds, delta),
        "rdp": _rdp(rounds, "ADD_OR_REMOVE_ONE", delta),
        "zcdp": zcdp_epsilon(num_rounds / (2 * z**2), delta),
    }


def without_replacement_epsilons(
    z: float, num_clients: int, cohort_size: int, num_rounds: int, delta: float
) -> dict[str, float | None]:
    """Return epsilon of Gaussian rounds on cohorts of one size, one client replaced by another, by accountant.

    Args:
        z: noise over the most that replacing a client can change the sum; with clipping that is twice the clip.
        num_clients: N.
        cohort_size: m, at most N; every cohort of m clients is equally likely.
        num_rounds: T, at least 1.
        delta: in (0, 1).

    Returns:
        `pld` None, since it does not know this sampling; `rdp`; `zcdp` of rounds without sampling.

    >>> spent = without_replacement_epsilons(1, 100, 10, 100, 1e-5)
    >>> {name: value and round(value, 2) for name, value in spent.items()}
    {'pld': None, 'rdp': 14.05, 'zcdp': 96.12}
    """
    event = _dp_event()
    one = event.SampledWithoutReplacementDpEvent(num_clients, cohort_size, event.GaussianDpEvent(float(z)))
    return {
        "pld": None,
        "rdp": _rdp(event.SelfComposedDpEvent(one, num_rounds), "REPLACE_ONE", delta),
        "zcdp": zcdp_epsilon(num_rounds / (2 * z**2), delta),
    }


def gaussian_epsilons(z: float, delta: float) -> dict[str, float | None]:
    """Return epsilon of one Gaussian mechanism, by accountant; what rounds without sampling add up to is one, too.

    Args:
        z: noise over sensitivity; positive.
        delta: in (0, 1).

    Returns:
        `pld`, by its closed form; `rdp` and `zcdp`.

    >>> {name: round(value, 3) for name, value in gaussian_epsilons(1.0, 1e-5).items()}
    {'pld': 4.377, 'rdp': 4.729, 'zcdp': 4.729}
    """
    event = _dp_event()
    from dp_accounting.gaussian_mechanism import get_epsilon_gaussian

    return {
        "pld": float(get_epsilon_gaussian(z, delta)),
        "rdp": _rdp(event.GaussianDpEvent(float(z)), "REPLACE_SPECIAL", delta),
        "zcdp": zcdp_epsilon(1 / (2 * z**2), delta),
    }


def zcdp_epsilon(rho: float, delta: float) -> float:
    """Return epsilon of a rho-zero-concentrated mechanism.

    Args:
        rho: not negative.
        delta: in (0, 1).

    >>> round(zcdp_epsilon(0.81, 1e-10), 2), round(zcdp_epsilon(0.5, 1e-10), 2)
    (8.92, 6.84)
    """
    return _rdp(_dp_event().ZCDpEvent(float(rho)), "REPLACE_SPECIAL", delta)


def _dp_event() -> Any:
    check_accountant()
    from dp_accounting import dp_event

    return dp_event


@lru_cache(maxsize=8)
def _one_round(z: float, q: float) -> Any:
    check_accountant()
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(z, sampling_prob=q, value_discretization_interval=_GRID, pessimistic_estimate=True)


@lru_cache(maxsize=256)
def _rdp(event: Any, relation: str, delta: float) -> float:
    from dp_accounting.privacy_accountant import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    with _without_remarks():
        accountant = RdpAccountant(neighboring_relation=getattr(NeighboringRelation, relation))
        spent = float(accountant.compose(event).get_epsilon(delta))
    return spent if math.isfinite(spent) else math.inf


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep to itself which orders an accountant leaves out; leaving some out only makes epsilon larger."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl.setLevel(level)
