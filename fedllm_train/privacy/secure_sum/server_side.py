"""The server's end of a secure sum: it adds masked vectors, and takes the masks off their sum.

Follows Bonawitz et al. 2017 (Figure 4). Symbols: U1 the clients that sent keys, U2 those of them that sent shares, U3
those of them whose vectors arrived, U4 those of them that answered last; t the threshold. The server holds the running
sum of what came, and a single vector no longer than it takes to add it. After the last exchange it learns the seeds of
U3 and the mask keys of U2 without U3, and takes away

    sum over U3 of  stream(seed_u),
    sum over u in U3, v in U2 without U3, of  +-stream(agreement of u and v).

Who sends what is no message is left out, and the round goes on with the others; with fewer than t it ends without a
sum, and no seed or key is known. Imports no torch.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import FedLLMError
from fedllm_train.privacy.secure_sum.exchanges import (
    KeysRequest,
    OpenShares,
    PublicKeys,
    SealedShares,
    SharesRequest,
    SignedKeys,
    TrainHeader,
    UnmaskRequest,
)
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec
from fedllm_train.privacy.secure_sum.masks import (
    KEY_BYTES,
    Context,
    KeyPair,
    add_stream,
    agreed_key,
    derived_key,
    seed_digest,
    verify,
)
from fedllm_train.privacy.secure_sum.shamir import SHARE_BYTES, combine

__all__ = ["SumFailed", "SumServer"]

Vector = npt.NDArray[Any]


class SumFailed(FedLLMError):
    """A round has no sum: too few clients are left, or their shares belong to no secret."""


@dataclass
class SumServer:
    """One attempt of one round."""

    spec: SumSpec
    run: str
    step: int
    identities: dict[str, str]
    """Client id -> the identity that it had first, in hexadecimal; those that are new are added."""
    attempt: str = field(default_factory=lambda: secrets.token_hex(16))
    """Drawn for this attempt alone, so that nothing said in another one fits."""
    _keys: dict[str, SignedKeys] = field(default_factory=dict, init=False)
    _boxes: dict[str, dict[str, bytes]] = field(default_factory=dict, init=False)
    _arrived: set[str] = field(default_factory=set, init=False)
    _total: Vector | None = field(default=None, init=False)
    _open: dict[str, OpenShares] = field(default_factory=dict, init=False)

    @property
    def threshold(self) -> int:
        """How many of those that sent keys must be left."""
        return self.spec.threshold_of(len(self._keys))

    @property
    def with_keys(self) -> list[str]:
        """U1, sorted."""
        return sorted(self._keys)

    @property
    def with_shares(self) -> list[str]:
        """U2, sorted."""
        return sorted(self._boxes)

    @property
    def arrived(self) -> list[str]:
        """U3, sorted."""
        return sorted(self._arrived)

    def problem(self, left: Sequence[str]) -> str | None:
        """Return why the round cannot go on with the clients that are left; None where it can."""
        needed = self.threshold if self._keys else self.spec.min_clients
        if len(left) >= needed:
            return None
        return f"{len(left)} of its clients were left, and a secure sum of this round needs {needed}"

    def keys_request(self) -> bytes:
        """Return the first question."""
        return KeysRequest(attempt=self.attempt).to_bytes()

    def take_keys(self, client_id: str, content: bytes) -> str | None:
        """Take a client's keys; return why they cannot be used, or None."""
        try:
            signed = SignedKeys.from_bytes(content)
        except ValueError as error:
            return f"its keys cannot be read: {error}"
        if not verify(signed.keys.identity, signed.signature, signed.keys.signed_text(self._context, client_id)):
            return "its keys are not signed for this round"
        identity = signed.keys.identity.hex()
        if self.identities.get(client_id, identity) != identity:
            return "it has another identity than before"
        shown = ("mask_key", "share_key", "identity", "seed_digest")
        for other in self._keys.values():
            if any(getattr(other.keys, name) == getattr(signed.keys, name) for name in shown):
                return "its keys are those of another client"
        self.identities[client_id] = identity
        self._keys[client_id] = signed
        return None

    def shares_request(self) -> bytes:
        """Return the second question, the same for all."""
        return SharesRequest(attempt=self.attempt, keys=dict(sorted(self._keys.items()))).to_bytes()

    def take_shares(self, client_id: str, content: bytes) -> str | None:
        """Take a client's sealed shares; return why they cannot be used, or None."""
        try:
            boxes = SealedShares.from_bytes(content).boxes
        except ValueError as error:
            return f"its shares cannot be read: {error}"
        if set(boxes) != set(self._keys) - {client_id}:
            return "its shares are not one for each of its peers"
        self._boxes[client_id] = boxes
        return None

    def train_header(self) -> TrainHeader:
        """Return what stands before the broadcast, the same for all."""
        return TrainHeader(attempt=self.attempt, summed=self.with_shares)

    def take_vector(self, client_id: str, content: bytes, size: int) -> str | None:
        """Add a masked vector; return why it cannot be used, or None.

        Args:
            client_id: of U2, and not taken before.
            content: the vector, little-endian.
            size: the numbers that a vector has.
        """
        if client_id not in self._boxes or client_id in self._arrived:
            return "no vector of it is awaited"
        if len(content) != size * self.spec.dtype.itemsize:
            return f"its vector has {len(content):,} bytes, not {size * self.spec.dtype.itemsize:,}"
        vector = np.frombuffer(content, dtype=self.spec.dtype)
        if self._total is None:
            self._total = np.zeros(size, dtype=self.spec.dtype)
        self._total += vector
        self._arrived.add(client_id)
        return None

    def unmask_request(self, client_id: str) -> bytes:
        """Return the last question to one of those who arrived."""
        lost = sorted(set(self._boxes) - self._arrived)
        boxes = {name: self._boxes[name][client_id] for name in self.with_shares if name != client_id}
        return UnmaskRequest(attempt=self.attempt, arrived=self.arrived, lost=lost, boxes=boxes).to_bytes()

    def take_open(self, client_id: str, content: bytes) -> str | None:
        """Take a client's opened shares; return why they cannot be used, or None."""
        try:
            opened = OpenShares.from_bytes(content)
        except ValueError as error:
            return f"its opened shares cannot be read: {error}"
        if set(opened.seeds) != self._arrived or set(opened.keys) != set(self._boxes) - self._arrived:
            return "its opened shares are not those that were asked for"
        if any(len(share) != SHARE_BYTES for share in (*opened.seeds.values(), *opened.keys.values())):
            return "an opened share of it has another length"
        self._open[client_id] = opened
        return None

    def total(self) -> Vector:
        """Return the sum of the vectors that arrived, and forget all secrets.

        Raises:
            SumFailed: if too few clients opened their shares, or those belong to no secret that was announced.
        """
        if self._total is None or (reason := self.problem(sorted(self._open))) is not None:
            raise SumFailed(reason if self._total is not None else "no vector arrived")
        total, lost = self._total, sorted(set(self._boxes) - self._arrived)
        index = {name: position for position, name in enumerate(self.with_keys, start=1)}
        for name in self.arrived:
            shares = {index[giver]: opened.seeds[name] for giver, opened in self._open.items()}
            seed = self._combined(shares, name, "seed")
            if seed_digest(seed) != self._keys[name].keys.seed_digest:
                raise SumFailed(f"the shares of client {name!r}'s seed give another than it announced")
            add_stream(total, derived_key(seed, self._context.bound_to("self", name)), -1)
        for name in lost:
            shares = {index[giver]: opened.keys[name] for giver, opened in self._open.items()}
            pair = KeyPair.of(self._combined(shares, name, "key"))
            if pair.public != self._keys[name].keys.mask_key:
                raise SumFailed(f"the shares of client {name!r}'s key give another than it announced")
            for peer in self.arrived:
                bound = self._context.bound_to("mask", *sorted((peer, name)))
                key = agreed_key(pair.private, self._public(peer).mask_key, bound)
                add_stream(total, key, -1 if peer < name else 1)  # what the peer added, taken away
        self._total, self._open, self._boxes = None, {}, {}
        return total

    @property
    def _context(self) -> Context:
        return Context(run=self.run, step=self.step, attempt=self.attempt)

    def _public(self, client_id: str) -> PublicKeys:
        return self._keys[client_id].keys

    def _combined(self, shares: dict[int, bytes], name: str, what: str) -> bytes:
        try:
            return combine(shares, threshold=self.threshold, length=KEY_BYTES)
        except ValueError as error:
            raise SumFailed(f"the {what} of client {name!r} cannot be put together: {error}") from None
