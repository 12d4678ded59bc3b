"""The noise of a round where it is related to the noise of other rounds, from the run's secret alone.

Every independent Z is drawn by name (`secret.py`), so a run that was stopped works out the buffers from round 0 again
and goes on to the same bits; nothing of them is in a checkpoint, where it would have to be kept as secret as the
secret. Working them out draws d values for each round that is done. Of the tree no buffer is kept at all.

Imports no torch.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedllm_train.privacy.noise_forms import NoiseForm, Recurrence, Tree, nodes_of_sum
from fedllm_train.privacy.secret import secret_normals

__all__ = ["CorrelatedNoise"]

Array = npt.NDArray[np.float64]


@dataclass
class _Stream:
    """One tensor's noise, as far as it was worked out."""

    buffers: list[Array] = field(default_factory=list)
    next_step: int = 0
    last: Array | None = None


class CorrelatedNoise:
    """Noise by one form of C, tensor by tensor."""

    def __init__(self, form: NoiseForm, secret: bytes) -> None:
        """Take what it is drawn from.

        Args:
            form: how rounds are related.
            secret: from `run_secret`.
        """
        self._form, self._secret = form, secret
        self._streams: dict[str, _Stream] = {}

    def of_round(self, step: int, name: str, shape: tuple[int, ...]) -> Array:
        """Return w_t of one tensor, in units of z times the clip.

        Args:
            step: the round, from 0.
            name: the tensor's name.
            shape: its shape.

        >>> noise = CorrelatedNoise(Tree(), b"x" * 32)
        >>> sums = np.cumsum([noise.of_round(step, "w", (2,)) for step in range(3)], axis=0)
        >>> again = CorrelatedNoise(Tree(), b"x" * 32).of_round(2, "w", (2,))
        >>> bool(np.allclose(sums[2] - sums[1], again))
        True
        """
        if isinstance(self._form, Tree):
            return self._of_tree(step, name, shape)
        stream = self._streams.setdefault(name, _Stream())
        if stream.next_step > step + 1:
            stream = self._streams[name] = _Stream()
        while stream.next_step <= step:
            fresh = self._drawn("matrix noise", stream.next_step, name, shape)
            form: Recurrence = self._form  # type: ignore[assignment]
            stream.last = form.next_noise(stream.next_step, fresh, stream.buffers)
            stream.next_step += 1
        assert stream.last is not None
        return stream.last

    def _of_tree(self, step: int, name: str, shape: tuple[int, ...]) -> Array:
        before, after = [*nodes_of_sum(step)], [*nodes_of_sum(step + 1)]
        noise = np.zeros(shape)
        for level, position in after:
            if (level, position) not in before:
                noise += self._drawn(f"tree noise {level}", position, name, shape)
        for level, position in before:
            if (level, position) not in after:
                noise -= self._drawn(f"tree noise {level}", position, name, shape)
        return noise

    def _drawn(self, purpose: str, index: int, name: str, shape: tuple[int, ...]) -> Array:
        return secret_normals(self._secret, purpose, round_index=index, name=name, shape=shape)
