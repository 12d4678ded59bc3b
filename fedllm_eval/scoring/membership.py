"""Whether scores tell rows that were trained on from rows that were not: AUC and true positives at few false ones.

Symbols: M members (trained on), N non-members; a score is higher the more a row looks like a member: minus its loss
(Yeom et al. 2018), the loss of the start policy minus its loss (reference-calibrated, Carlini et al. 2022), or the
mean of its k % least likely tokens (min-k %, Shi et al. 2024). 0.5 is what guessing gives. Averages hide the few rows
that leak, so the share of members found at 1 % and 0.1 % false positives stands beside the AUC (Carlini et al. 2022).

The AUC's interval is DeLong's (1988); where clients are given it is Obuchowski's (1997), which counts the rows of one
client as the one witness they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from fedllm_data.errors import MetricError
from fedllm_data.wording.catalogue import words
from fedllm_eval.scoring.proportion import clopper_pearson

__all__ = ["Membership", "TruePositives", "membership", "min_k_score", "true_positives_at"]

Array = npt.NDArray[np.float64]
FALSE_POSITIVE_FRACTIONS = (0.01, 0.001)


@dataclass(frozen=True)
class TruePositives:
    """Share of members above the threshold that at most a stated share of the non-members exceed."""

    max_false_positive_fraction: float
    fraction: float
    """NaN where there are too few non-members for such a threshold."""
    low: float
    high: float
    """Clopper-Pearson; the threshold itself is taken as given."""
    threshold: float
    reason: str | None
    """Why there is no number."""


@dataclass(frozen=True)
class Membership:
    """How well a score tells members from non-members."""

    auc: float
    """Chance that a member scores above a non-member, a tie counting half: 0.5 tells nothing, 1 everything."""
    auc_low: float
    auc_high: float
    """NaN where members or non-members are all of one client, or one row."""
    true_positives: tuple[TruePositives, ...]
    num_members: int
    num_nonmembers: int
    num_clients: int | None
    """None where no clients were given."""


def membership(
    members_M: npt.ArrayLike,
    nonmembers_N: npt.ArrayLike,
    *,
    member_clients_M: Sequence[str] | None = None,
    nonmember_clients_N: Sequence[str] | None = None,
    confidence: float = 0.95,
    false_positive_fractions: Sequence[float] = FALSE_POSITIVE_FRACTIONS,
) -> Membership:
    """Return AUC and true-positive shares of a membership score.

    Args:
        members_M: (M,) finite scores of rows that were trained on; higher means more member-like.
        nonmembers_N: (N,) scores of rows that were not.
        member_clients_M: (M,) client ids of the members; a client may have rows on both sides.
        nonmember_clients_N: (N,) client ids of the non-members; both or neither.
        confidence: level of the two-sided intervals.
        false_positive_fractions: where true positives are read off.

    Raises:
        MetricError: if a side is empty, a score is not finite, or client ids are missing or too few.

    >>> found = membership([3.0, 2.0], [1.0, 2.0])
    >>> found.auc, found.true_positives[0].reason
    (0.875, '1 % false positives need 100 non-members, there are 2')
    """
    members, nonmembers = _scores(members_M, "members"), _scores(nonmembers_N, "non-members")
    clients = _clients(member_clients_M, nonmember_clients_N, members.size, nonmembers.size)
    ranks = stats.rankdata(np.concatenate([members, nonmembers]))
    # Placement of a member: the share of non-members below it; of a non-member: the share of members above it.
    placement_M = (ranks[: members.size] - stats.rankdata(members)) / nonmembers.size
    placement_N = 1 - (ranks[members.size :] - stats.rankdata(nonmembers)) / members.size
    auc = float(placement_M.mean())
    half = _std_error(placement_M - auc, placement_N - auc, clients) * stats.norm.ppf((1 + confidence) / 2)
    return Membership(
        auc=auc,
        auc_low=float(np.maximum(0.0, auc - half)),
        auc_high=float(np.minimum(1.0, auc + half)),
        true_positives=tuple(
            true_positives_at(members, nonmembers, fraction, confidence=confidence)
            for fraction in false_positive_fractions
        ),
        num_members=members.size,
        num_nonmembers=nonmembers.size,
        num_clients=None if clients is None else len({*clients[0], *clients[1]}),
    )


def true_positives_at(
    members_M: npt.ArrayLike, nonmembers_N: npt.ArrayLike, max_fraction: float, *, confidence: float = 0.95
) -> TruePositives:
    """Return the share of members above the lowest threshold that at most `max_fraction` of the non-members exceed.

    Args:
        members_M: (M,) finite scores.
        nonmembers_N: (N,) finite scores.
        max_fraction: largest share of false positives, in (0, 1).
        confidence: level of the interval.

    Raises:
        MetricError: if a side is empty, a score is not finite, or `max_fraction` is outside (0, 1).

    >>> true_positives_at([5.0, 0.5], [1.0, 2.0, 3.0, 4.0], 0.25).fraction  # one non-member of four may exceed 3
    0.5
    """
    members, nonmembers = _scores(members_M, "members"), _scores(nonmembers_N, "non-members")
    if not 0 < max_fraction < 1:
        raise MetricError(f"a share of false positives of {max_fraction} is none; give one between 0 and 1")
    # 0.01 * 100 is 1.0000000000000002 on some days and 0.9999 on others; one non-member must not hang on that.
    num_allowed = int(np.floor(max_fraction * nonmembers.size * (1 + 1e-9)))
    if num_allowed < 1:
        reason = words(
            "{share} % false positives need {least} non-members, there are {num}",
            share=f"{100 * max_fraction:g}",
            least=f"{int(np.ceil(1 / max_fraction - 1e-9)):,}",
            num=f"{nonmembers.size:,}",
        )
        nan = float("nan")
        return TruePositives(max_fraction, nan, nan, nan, nan, reason)
    threshold = float(np.sort(nonmembers)[-num_allowed - 1]) if num_allowed < nonmembers.size else -np.inf
    num_found = int((members > threshold).sum())
    low, high = clopper_pearson(num_found, members.size, confidence=confidence)
    return TruePositives(max_fraction, num_found / members.size, low, high, threshold, None)


def min_k_score(logps_T: npt.ArrayLike, fraction: float = 0.2) -> float:
    """Return the mean log-probability of the least likely tokens of one row (Shi et al. 2024, min-k % prob).

    Args:
        logps_T: (T,) log-probabilities of the row's scored tokens, in nats.
        fraction: share of tokens to average, at least one token; the paper's best is 0.2.

    Raises:
        MetricError: if there are no tokens, a value is not finite, or the fraction is outside (0, 1].

    >>> min_k_score([-1.0, -2.0, -6.0, -0.5], fraction=0.5)
    -4.0
    """
    logps = np.sort(_scores(logps_T, "tokens"))
    if not 0 < fraction <= 1:
        raise MetricError(f"min-k of {fraction} of the tokens is none; give a share above 0 and up to 1")
    return float(logps[: max(1, int(fraction * logps.size))].mean())


def _std_error(v_M: Array, v_N: Array, clients: tuple[Sequence[str], Sequence[str]] | None) -> float:
    if clients is None:
        if min(v_M.size, v_N.size) < 2:
            return float("nan")
        return float(np.sqrt(v_M.var(ddof=1) / v_M.size + v_N.var(ddof=1) / v_N.size))
    _, index = np.unique(np.array([*clients[0], *clients[1]]), return_inverse=True)
    num_clients = int(index.max()) + 1
    index_M, index_N = index[: v_M.size], index[v_M.size :]
    counts = len(set(index_M.tolist())), len(set(index_N.tolist()))
    if min(counts) < 2:
        return float("nan")
    sum_M, sum_N = np.bincount(index_M, v_M, num_clients), np.bincount(index_N, v_N, num_clients)
    scale = counts[0] / (counts[0] - 1), counts[1] / (counts[1] - 1), num_clients / (num_clients - 1)
    variance = scale[0] * (sum_M**2).sum() / v_M.size**2 + scale[1] * (sum_N**2).sum() / v_N.size**2
    # A client with rows on both sides moves both means at once.
    variance += 2 * scale[2] * (sum_M * sum_N).sum() / (v_M.size * v_N.size)
    return float(np.sqrt(max(0.0, variance)))


def _clients(
    members: Sequence[str] | None, nonmembers: Sequence[str] | None, num_members: int, num_nonmembers: int
) -> tuple[Sequence[str], Sequence[str]] | None:
    if members is None and nonmembers is None:
        return None
    if members is None or nonmembers is None or (len(members), len(nonmembers)) != (num_members, num_nonmembers):
        raise MetricError("client ids must be given for every member and every non-member, or for none")
    return members, nonmembers


def _scores(values: npt.ArrayLike, what: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise MetricError(f"{what} must be a list of at least one score, got shape {array.shape}")
    if not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array))[0])
        raise MetricError(f"{what}: score {at} is {array[at]}; drop rows without a score first")
    return array
