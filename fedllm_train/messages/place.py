"""Where a message stands in a run: what both ends derive its random numbers from, so that none is ever sent."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedllm_train.seeds import stream_rng

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """One message of a run.

    >>> up, again = Place(0, 3, "ann"), Place(0, 3, "ann")
    >>> int(up.rng("codec").integers(1000)) == int(again.rng("codec").integers(1000))
    True
    >>> Place(0, 3, None, "down").rng("codec").random() == Place(0, 3, None).rng("codec").random()
    False
    """

    seed: int
    """The run's seed."""
    round_index: int
    """The round, from 0."""
    client_id: str | None
    """The client; None for what is sent to all."""
    direction: Literal["up", "down"] = "up"
    """From a client to the server, or from the server to clients."""

    def rng(self, purpose: str) -> np.random.Generator:
        """Return the generator of one purpose in this message.

        Args:
            purpose: such as "codec", from which drawn levels come.
        """
        stream = purpose if self.direction == "up" else f"{purpose}, {self.direction}"
        return stream_rng(self.seed, stream, round_index=self.round_index, client_id=self.client_id)
