"""Both ends of a secure sum in one process, without an engine or a model."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedllm_train.privacy.secure_sum.client_side import SumClient
from fedllm_train.privacy.secure_sum.client_state import ClientState
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec
from fedllm_train.privacy.secure_sum.server_side import SumServer

RUN = "ab" * 8
SIZE = 50


def spec_of(**changes) -> SumSpec:
    plain = {"bits": 32, "fraction_bits": 10, "clip": 1.0, "max_clients": 12, "max_weight": 10, "threshold": 0.67}
    return SumSpec(**{**plain, "num_rounds": 3} | changes)


@dataclass
class Parties:
    """Some clients, each with a folder of its own, and the vectors that they hold."""

    folder: Path
    spec: SumSpec
    names: list[str]
    identities: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, name in enumerate(self.names):
            drawn = np.random.default_rng(number).integers(0, 2**self.spec.bits, SIZE, dtype=self.spec.dtype)
            self.vectors.setdefault(name, drawn)

    def client(self, name: str) -> SumClient:
        """A client as a fresh process would make it, which reads all it knows from the disk."""
        return SumClient(ClientState(self.folder / name), self.spec, run=RUN, client_id=name)

    def server(self, step: int = 0) -> SumServer:
        return SumServer(self.spec, RUN, step, self.identities)

    def with_keys(self, server: SumServer, names: list[str]) -> None:
        for name in names:
            answer = self.client(name).keys(server.step, server.keys_request())
            assert server.take_keys(name, answer) is None

    def with_shares(self, server: SumServer, names: list[str]) -> None:
        for name in names:
            answer = self.client(name).shares(server.step, server.shares_request())
            assert server.take_shares(name, answer) is None

    def with_vectors(self, server: SumServer, names: list[str]) -> None:
        for name in names:
            masked = self.client(name).masked(server.step, server.train_header(), self.vectors[name].copy())
            assert server.take_vector(name, masked.tobytes(), SIZE) is None

    def opened_by(self, server: SumServer, names: list[str]) -> None:
        for name in names:
            answer = self.client(name).unmask(server.step, server.unmask_request(name))
            assert server.take_open(name, answer) is None

    def until_vectors(self, server: SumServer, arrived: list[str] | None = None) -> SumServer:
        """Go through the first three exchanges with everybody, but for vectors of some."""
        self.with_keys(server, self.names)
        self.with_shares(server, self.names)
        self.with_vectors(server, self.names if arrived is None else arrived)
        return server

    def sum_of(self, names: list[str]) -> list[int]:
        """The sum by Python's own whole numbers."""
        return [sum(int(self.vectors[name][i]) for name in names) % 2**self.spec.bits for i in range(SIZE)]
