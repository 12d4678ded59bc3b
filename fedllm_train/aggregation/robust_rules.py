"""Rules in place of a mean that a few bad clients cannot move far; on plain numbers, without adapters or rounds.

Symbols: x_1 .. x_n the clients' changes, taken as vectors; f of them may be bad; G the n x n matrix of their inner
products, which is all that a rule needs whose result is a weighted sum of the changes:

    Krum (Blanchard et al. 2017): the change with the least sum of squared distances to its n - f - 2 nearest others;
    multi-Krum: the mean of the m best.
    Geometric median (Pillutla et al. 2022, RFA, arXiv 1912.13445, Algorithm 2): Weiszfeld's steps from the mean, with
    weights 1 / max(nu, ||v - x_i||).
    Norm bounding (Sun et al. 2019): the mean of x_i min(1, c / ||x_i||).
    Centred clipping (Karimireddy et al. 2021, arXiv 2012.10333): v <- v + mean (x_i - v) min(1, tau / ||x_i - v||),
    from the v of the round before.
    FLTrust (Cao et al. 2021, arXiv 2012.13995): sum TS_i (||g|| / ||x_i||) x_i / sum TS_i, TS_i = max(0, cos(g, x_i))
    for the change g of a trusted root.

Two go by coordinates: the median and the trimmed mean (Yin et al. 2018), and in its second half Bulyan (El Mhamdi et
al. 2018): 2 f of n are left out by repeated Krum, then each coordinate is the mean of the values nearest its median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedllm_train.lazy_torch import torch

__all__ = [
    "bulyan_coordinates",
    "bulyan_selection",
    "centred_clip_weights",
    "fltrust_weights",
    "geometric_median_weights",
    "krum_scores",
    "krum_selection",
    "median_coordinates",
    "norm_bound_weights",
    "trimmed_coordinates",
]

Matrix = NDArray[np.float64]
_NU = 1e-6
"""RFA's smoothing: no weight is more than 1 / nu."""
_MOST_STEPS = 1000
_STILL = 1e-12
"""Weiszfeld's weights that change by less stand still."""


@dataclass(frozen=True)
class Coordinates:
    """What a rule by coordinates made of one tensor, and whose values it took."""

    values: torch.Tensor
    """Of the shape of one client's tensor, in float64."""
    shares: torch.Tensor
    """(n,): how much of each client's values is in it, summed over the coordinates; all together one a coordinate."""


def krum_scores(gram: Matrix, num_bad: int) -> Matrix:
    """Return Krum's score of each change: the sum of the squared distances to its n - f - 2 nearest others.

    Args:
        gram: (n, n) inner products of the changes.
        num_bad: f; where n - f - 2 is less than one, the nearest other alone counts.
    """
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
    np.fill_diagonal(distances, np.inf)
    count = max(1, len(gram) - num_bad - 2)
    return np.asarray(np.sort(distances, axis=1)[:, :count].sum(axis=1))


def krum_selection(gram: Matrix, num_bad: int, keep: int = 1) -> list[int]:
    """Return the positions of the `keep` changes with the least scores, in order of position; ties go to the first.

    >>> krum_selection(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 9.0]]), 0)
    [0]
    """
    return sorted(int(each) for each in np.argsort(krum_scores(gram, num_bad), kind="stable")[:keep])


def bulyan_selection(gram: Matrix, num_bad: int) -> list[int]:
    """Return the positions of the n - 2 f changes that Krum chooses one after another from those that are left."""
    left, chosen = list(range(len(gram))), []
    while len(chosen) < len(gram) - 2 * num_bad:
        rest = gram[np.ix_(left, left)]
        chosen.append(left.pop(0 if len(left) == 1 else krum_selection(rest, num_bad)[0]))
    return sorted(chosen)


def geometric_median_weights(gram: Matrix, steps: int | None = None) -> Matrix:
    """Return the weights of the changes in their geometric median, which sum to one.

    Args:
        gram: (n, n) inner products of the changes.
        steps: of Weiszfeld's algorithm from the mean; None goes on until the weights stand still.
    """
    weights = np.full(len(gram), 1.0 / len(gram))
    for _ in range(_MOST_STEPS if steps is None else steps):
        near = 1.0 / np.maximum(_NU, np.sqrt(_squares_from(gram, weights)))
        before, weights = weights, near / near.sum()
        if steps is None and float(np.abs(weights - before).max()) < _STILL:
            break
    return weights


def norm_bound_weights(gram: Matrix, clip: float | None = None) -> Matrix:
    """Return min(1, c / ||x_i||) / n.

    Args:
        gram: (n, n) inner products of the changes.
        clip: c; None takes the median of the norms.
    """
    norms = np.sqrt(np.diag(gram))
    bound = float(np.median(norms)) if clip is None else clip
    return np.asarray(_shortened(norms, bound) / len(gram))


def centred_clip_weights(gram: Matrix, clip: float | None = None, steps: int = 1) -> Matrix:
    """Return the weights of the centre of the round before, which comes first, and of the changes.

    Args:
        gram: (n + 1, n + 1) inner products of that centre and the changes.
        clip: tau; None takes the median of the distances from the centre, in every step.
        steps: L.
    """
    weights = np.zeros(len(gram))
    weights[0] = 1.0
    for _ in range(steps):
        distances = np.sqrt(_squares_from(gram, weights))[1:]
        pull = _shortened(distances, float(np.median(distances)) if clip is None else clip) / len(distances)
        weights *= 1.0 - pull.sum()
        weights[1:] += pull
    return weights


def fltrust_weights(gram: Matrix) -> Matrix:
    """Return the weights of the changes; all zero where none points the root's way.

    Args:
        gram: (n + 1, n + 1) inner products of the root's change, which comes first, and the others.
    """
    norms = np.sqrt(np.diag(gram))
    others, root = norms[1:], norms[0]
    moves = (others > 0) & (root > 0)
    scale = np.where(moves, root / np.where(moves, others, 1.0), 0.0)
    trust = np.where(moves, np.maximum(0.0, gram[0, 1:] / np.where(moves, root * others, 1.0)), 0.0)
    return np.asarray(trust * scale / trust.sum() if trust.sum() > 0 else np.zeros(len(others)))


def median_coordinates(stacked: torch.Tensor) -> Coordinates:
    """Return the median of each coordinate; of an even number the mean of the two in the middle.

    Args:
        stacked: (n, ...) the clients' changes of one tensor, in float64.
    """
    return trimmed_coordinates(stacked, (len(stacked) - 1) // 2)


def trimmed_coordinates(stacked: torch.Tensor, num_bad: int) -> Coordinates:
    """Return the mean of each coordinate without its f largest and f smallest values.

    Args:
        stacked: (n, ...) the clients' changes of one tensor, in float64.
        num_bad: f, less than n / 2.
    """
    ordered, places = stacked.sort(dim=0, stable=True)
    end = len(stacked) - num_bad
    return _mean_of(ordered[num_bad:end], places[num_bad:end], len(stacked))


def bulyan_coordinates(stacked: torch.Tensor, num_bad: int) -> Coordinates:
    """Return for each coordinate the mean of the t - 2 f values nearest to its median.

    Args:
        stacked: (t, ...) the chosen clients' changes of one tensor, in float64.
        num_bad: f.
    """
    middle = median_coordinates(stacked).values
    places = (stacked - middle).abs().sort(dim=0, stable=True).indices[: len(stacked) - 2 * num_bad]
    return _mean_of(stacked.gather(0, places), places, len(stacked))


def _mean_of(kept: torch.Tensor, places: torch.Tensor, count: int) -> Coordinates:
    taken = torch.bincount(places.flatten(), minlength=count).double()
    return Coordinates(kept.mean(dim=0), taken / len(kept))


def _squares_from(gram: Matrix, weights: Matrix) -> Matrix:
    """Squared distance of each vector from the weighted sum of all."""
    middle = gram @ weights
    return np.asarray(np.maximum(weights @ middle - 2 * middle + np.diag(gram), 0.0))


def _shortened(lengths: Matrix, bound: float) -> Matrix:
    """By how much each length is to be multiplied so that none is longer than a bound."""
    return np.asarray(np.where(lengths > bound, bound / np.where(lengths > 0, lengths, 1.0), 1.0))
