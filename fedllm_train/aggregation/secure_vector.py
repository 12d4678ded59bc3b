"""An update as one vector of whole numbers, and a sum of such vectors as what the server rule folds.

Symbols: w_kp the weight of client k's part p (`Strategy.weigh`), x_k what the part has beyond its base: the part
"adapter" is sent as its change from the client's anchor, every other part as it is. The vector holds, in the order of
parts and tensors by name,

    round(w_kp x_k 2^f),   then each w_kp,   then 1 where a value was clipped,   then w_k times the mean loss,

so that means can be taken and the record has a loss, without a number of any single client. With noise (Skellam) it
holds the clipped change alone, rounded at random: every client counts alike, and what else was summed would not be
covered by the guarantee.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes
from fedllm_train.lazy_torch import torch
from fedllm_train.privacy.secure_sum.client_side import SumClient
from fedllm_train.privacy.secure_sum.fixed_point import MAX_LOSS, SumSpec, decoded, encoded
from fedllm_train.privacy.secure_sum.skellam import norm_bounds, rounded_at_random

__all__ = ["SummedUpdate", "noisy_vector_of", "summed_update", "vector_of", "vector_size"]

Vector = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SummedUpdate:
    """What a sum of vectors stands for."""

    update: Parts
    """The mean of the updates, part by part."""
    weights: Mapping[str, int]
    """Sum of the clients' weights of each part."""
    num_clipped: int | None
    """Clients with a value that was clipped; None with noise, which covers no such number."""
    train_loss: float | None
    """Mean over the clients by the weight of the first part; None with noise."""


def vector_size(shapes: Shapes, spec: SumSpec) -> int:
    """Return how many numbers the vector of an update has.

    Args:
        shapes: names and shapes of what clients send.
        spec: the run's sums.
    """
    size = sum(math.prod(shape) for part in shapes.values() for shape in part.values())
    return size if spec.noise else size + len(shapes) + 2


def vector_of(update: Parts, anchor: Adapter, weights: Mapping[str, float], loss: float, spec: SumSpec) -> Vector:
    """Return a client's update as elements of the ring, without noise.

    Args:
        update: what the client rule returned.
        anchor: what the client's training started from.
        weights: part -> weight, a whole number.
        loss: mean training loss of the visit.
        spec: the run's sums.

    Raises:
        ValueError: for a value that is not finite, or a weight beyond the largest.
    """
    pieces, clipped = [], False
    for part in sorted(update):
        values = _flat(update[part], anchor if part == "adapter" else None)
        piece, was_clipped = encoded(values, _whole(weights[part]), spec)
        pieces.append(piece)
        clipped = clipped or was_clipped
    first = _whole(weights[min(update)])
    rounded_loss = round(first * min(max(loss, 0.0), MAX_LOSS) * 2.0**spec.loss_bits)
    extras = [*(_whole(weights[part]) for part in sorted(update)), int(clipped), rounded_loss]
    return np.concatenate([*pieces, np.array(extras, dtype=np.int64).astype(spec.dtype)])


def noisy_vector_of(update: Parts, anchor: Adapter, client: SumClient, step: int, spec: SumSpec) -> Vector:
    """Return a client's change, clipped and rounded at random; its share of the noise is added with the masks.

    Args:
        update: what the client rule returned; an adapter alone.
        anchor: what the client's training started from.
        client: draws.
        step: the round's index.
        spec: the run's sums.

    Raises:
        ValueError: for a value that is not finite.
    """
    values = _flat(update["adapter"], anchor)
    norm = float(np.sqrt(values @ values))
    if not math.isfinite(norm):
        raise ValueError("a value is not finite")
    scale = 2.0**spec.fraction_bits * (spec.clip / norm if norm > spec.clip else 1.0)
    norm_2, _ = norm_bounds(spec.clip, spec.fraction_bits, len(values))
    stream = client.stream_for("rounding", step, sha256(values.tobytes()).hexdigest())
    return rounded_at_random(values * scale, norm_2=norm_2, stream=stream).astype(spec.dtype)


def summed_update(total: Vector, shapes: Shapes, anchor: Adapter, num_clients: int, spec: SumSpec) -> SummedUpdate:
    """Return what a sum stands for.

    Args:
        total: the sum of the vectors of some clients.
        shapes: names and shapes of what clients send.
        anchor: what clients' training starts from, in the server's own values.
        num_clients: whose vectors were added.
        spec: the run's sums.
    """
    parts = sorted(shapes)
    size = vector_size(shapes, spec)
    extras = [] if spec.noise else decoded(total[size - len(parts) - 2 :], 0).tolist()
    weights = dict.fromkeys(parts, num_clients) if spec.noise else dict(zip(parts, map(int, extras), strict=False))
    values, place = decoded(total, spec.fraction_bits), 0
    update: Parts = {}
    for part in parts:
        update[part] = {}
        for name in sorted(shapes[part]):
            shape = shapes[part][name]
            count = math.prod(shape)
            mean = torch.from_numpy(values[place : place + count].reshape(shape) / weights[part])
            if part == "adapter":  # rounded once to the adapter's precision, as a plain mean is
                mean = (anchor[name].double().cpu() + mean).to(anchor[name].dtype)
            update[part][name] = mean
            place += count
    if spec.noise:
        return SummedUpdate(update=update, weights=weights, num_clipped=None, train_loss=None)
    loss = extras[-1] * 2.0**-spec.loss_bits / weights[parts[0]]
    return SummedUpdate(update=update, weights=weights, num_clipped=int(extras[-2]), train_loss=loss)


def _flat(part: Adapter, base: Adapter | None) -> npt.NDArray[np.float64]:
    """All values of a part in one vector, as a change from a base where there is one."""
    found = []
    for name in sorted(part):
        values = part[name].detach().cpu().double()
        if base is not None:
            values = values - base[name].detach().cpu().double()
        found.append(values.reshape(-1).numpy())
    return np.concatenate(found)


def _whole(weight: float) -> int:
    if weight != int(weight):
        raise ValueError(f"a weight of {weight} is no whole number, and a secure sum needs one")
    return int(weight)
