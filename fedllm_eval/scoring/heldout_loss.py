"""Cross-entropy of held-out answers, over all tokens and over clients.

Symbols: N rows, K clients. `nll_sum_N` is the negative log-likelihood of each row's answer in nats, summed over its
tokens; `num_tokens_N` is how many tokens that were. The token-weighted loss is what one pooled test set would give and
is ruled by clients who write much; the client-weighted loss gives every client the same say.
"""

from dataclasses import dataclass
from math import exp

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError

__all__ = ["HeldoutLoss", "heldout_loss", "perplexity"]

MAX_EXPONENT = 709.0
"""exp(710) overflows a float64."""


@dataclass(frozen=True)
class HeldoutLoss:
    """Losses in nats per token."""

    token_weighted: float
    client_weighted: float | None
    """None where no client ids were given."""
    num_rows: int
    num_tokens: int
    num_clients: int | None


def heldout_loss(
    nll_sum_N: npt.ArrayLike, num_tokens_N: npt.ArrayLike, client_ids_N: npt.ArrayLike | None = None
) -> HeldoutLoss:
    """Return the mean loss per answer token, over all tokens and, where clients are given, over clients.

    Args:
        nll_sum_N: (N,) finite, non-negative sums of negative log-likelihoods, in nats.
        num_tokens_N: (N,) positive token counts.
        client_ids_N: (N,) client ids; rows of one client need not be contiguous.

    Returns:
        `token_weighted` = sum of losses / number of tokens; `client_weighted` = mean over clients of each client's own
        such ratio. 0 means that every answer was certain; log(vocabulary size) is a guess at random.

    Raises:
        MetricError: if there are no rows, lengths differ, a loss is negative or not finite, or a row has no tokens.

    >>> heldout_loss([2.0, 6.0], [2, 2], ["a", "b"]).token_weighted
    2.0
    >>> heldout_loss([2.0, 6.0, 6.0], [2, 2, 2], ["a", "b", "b"]).client_weighted
    2.0
    """
    nll, tokens = np.asarray(nll_sum_N, dtype=np.float64), np.asarray(num_tokens_N, dtype=np.float64)
    if nll.ndim != 1 or nll.shape != tokens.shape:
        raise MetricError(f"losses and token counts must be two lists of one length, got {nll.shape}, {tokens.shape}")
    if nll.size == 0:
        raise MetricError("no rows to score: the held-out loss of nothing is undefined; give at least one row")
    if not np.isfinite(nll).all() or (nll < 0).any():
        row = int(np.flatnonzero(~np.isfinite(nll) | (nll < 0))[0])
        raise MetricError(f"row {row} has loss {nll[row]}; losses are finite and >= 0, drop or repair the row")
    if not (tokens > 0).all():
        row = int(np.flatnonzero(~(tokens > 0))[0])
        raise MetricError(f"row {row} has {tokens[row]:g} answer tokens; drop rows without any before scoring")
    client_weighted, num_clients = None, None
    if client_ids_N is not None:
        clients = np.asarray(client_ids_N)
        if clients.shape != nll.shape:
            raise MetricError(f"{nll.size} rows but client ids of shape {clients.shape}; give one client id a row")
        _, client_N = np.unique(clients, return_inverse=True)
        loss_K = np.bincount(client_N, nll) / np.bincount(client_N, tokens)
        client_weighted, num_clients = float(loss_K.mean()), int(loss_K.size)
    return HeldoutLoss(
        token_weighted=float(nll.sum() / tokens.sum()),
        client_weighted=client_weighted,
        num_rows=int(nll.size),
        num_tokens=int(tokens.sum()),
        num_clients=num_clients,
    )


def perplexity(loss: float) -> float:
    """Return exp(loss): 1 when every answer was certain, infinite where a float cannot hold it.

    >>> perplexity(0.0)
    1.0
    """
    return exp(loss) if loss <= MAX_EXPONENT else float("inf")
