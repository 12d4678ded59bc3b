"""How many threads a model computes with on a CPU, where nobody said so: by its size, within a command.

torch takes a thread a core. For a model of a few million parameters that is slower than one thread, and each of the
others burns its core while it waits; 16 of them make a step many times as expensive. A command therefore takes one
thread for every 10 million parameters, at most torch's own number. `OMP_NUM_THREADS` or `MKL_NUM_THREADS` decides
where it is set, and Python code that loads models itself keeps whatever it set.

Sums of floating-point numbers depend on how they are split among threads, so the last digits of a larger model's
adapter are those of its number of threads. Imports torch only when there is a model.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["fit_threads", "fitting_threads", "threads_by_size"]

PARAMETERS_PER_THREAD = 10_000_000
_SAID_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class _Command:
    """What a command that runs in this process has seen so far."""

    runs = False
    most: int | None = None
    """torch's own number of threads; None until a model is there."""
    num_parameters = 0
    """Of the largest model."""


@contextmanager
def threads_by_size() -> Iterator[None]:
    """Let the size of the models that are loaded meanwhile decide, unless the environment does."""
    if _Command.runs or any(os.environ.get(name) for name in _SAID_BY):
        yield
        return
    _Command.runs, _Command.most, _Command.num_parameters = True, None, 0
    try:
        yield
    finally:
        _Command.runs = False
        if _Command.most is not None:
            import torch

            torch.set_num_threads(_Command.most)


def fit_threads(num_parameters: int) -> None:
    """Set torch's threads for a model that was loaded; does nothing outside `threads_by_size`, or beside a GPU.

    Args:
        num_parameters: parameters of the model. Where there are several, the largest counts.
    """
    import torch

    if not _Command.runs or torch.cuda.is_available():
        return
    if _Command.most is None:
        _Command.most = torch.get_num_threads()
    _Command.num_parameters = max(_Command.num_parameters, num_parameters)
    torch.set_num_threads(fitting_threads(_Command.num_parameters, _Command.most))


def fitting_threads(num_parameters: int, most: int) -> int:
    """Return how many threads a model of some size is worth, at most `most`.

    >>> fitting_threads(1_000_000, 16), fitting_threads(135_000_000, 16), fitting_threads(7_000_000_000, 16)
    (1, 13, 16)
    """
    return max(1, min(most, num_parameters // PARAMETERS_PER_THREAD))
