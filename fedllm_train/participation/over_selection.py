"""How many clients to ask so that enough of them report, where each is lost with some probability.

Symbols: K reports are wanted, each client is lost with probability p on its own, n are asked. The number that report
is Binomial(n, 1 - p); with

    n = ceil(K / (1 - p) + 2 sqrt(K p) / (1 - p))

its mean lies about two standard deviations above K, so K report in about 98 of 100 rounds. Bonawitz et al. 2019
(arXiv 1902.01046) ask 130 % of what they want where 6 to 10 % drop out. Imports no torch.
"""

import math

from fedllm_data.errors import ConfigError

__all__ = ["clients_to_ask", "probability_of_enough"]


def clients_to_ask(wanted: int, drop_out: float) -> int:
    """Return how many clients to ask so that most rounds have as many reports as wanted.

    Args:
        wanted: K, at least 1.
        drop_out: p, in [0, 1).

    Raises:
        ConfigError: if everybody is lost.

    >>> [clients_to_ask(10, p) for p in (0.0, 0.06, 0.1, 0.3)]
    [10, 13, 14, 20]
    """
    if not 0 <= drop_out < 1:
        raise ConfigError(f"a drop-out of {drop_out} leaves nobody to wait for; give 0 or more, below 1")
    # Rounded before the ceiling: 10 / (1 - 0.2) must not become 12.500000000000002 and the like.
    return math.ceil(round((wanted + 2 * math.sqrt(wanted * drop_out)) / (1 - drop_out), 9))


def probability_of_enough(asked: int, wanted: int, drop_out: float) -> float:
    """Return the probability that at least `wanted` of `asked` clients report.

    Args:
        asked: n.
        wanted: K.
        drop_out: p, in [0, 1).

    >>> round(probability_of_enough(13, 10, 0.1), 3)
    0.966
    """
    from scipy.stats import binom  # slow to import, and only looked at by people

    return float(binom.sf(wanted - 1, asked, 1 - drop_out))
