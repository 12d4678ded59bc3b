"""Random streams that depend on what they are for, never on what was drawn before.

A stream is named by (run seed, purpose, round, client). Adding a client, leaving one out or resuming a run therefore
changes no other stream (design rule 4). Imports numpy only.
"""

from hashlib import blake2b

import numpy as np

__all__ = ["stream_rng", "stream_seed"]


def stream_rng(
    run_seed: int, purpose: str, *, round_index: int | None = None, client_id: str | None = None
) -> np.random.Generator:
    """Return the generator of one stream.

    >>> a, b = (stream_rng(0, "cohort", round_index=3).integers(1000, size=4) for _ in range(2))
    >>> bool((a == b).all())
    True
    """
    return np.random.default_rng(_sequence(run_seed, purpose, round_index, client_id))


def stream_seed(run_seed: int, purpose: str, *, round_index: int | None = None, client_id: str | None = None) -> int:
    """Return a seed in [0, 2**32) for libraries that take an integer, such as `transformers.set_seed`.

    >>> stream_seed(0, "client", client_id="a") == stream_seed(0, "client", client_id="b")
    False
    """
    return int(_sequence(run_seed, purpose, round_index, client_id).generate_state(1)[0])


def _sequence(run_seed: int, purpose: str, round_index: int | None, client_id: str | None) -> np.random.SeedSequence:
    # The flags keep "no round" apart from round 0 and "no client" from the client named "".
    key = [int(round_index is not None), round_index or 0, int(client_id is not None), _digest(client_id or "")]
    return np.random.SeedSequence([run_seed, _digest(purpose), *key])


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
