"""A client's end of a secure sum: what it says in the four exchanges, and what it refuses whoever asks.

Follows Bonawitz et al. 2017 (Figure 4) for an honest but curious server, with what costs little against a lying one:

- keys are fresh for every attempt of every round, signed, and a peer's identity is pinned at its first use;
- of a peer it hands out its share of the seed or of the key, by one request an attempt, written down first;
- a step is opened for one set of clients only, whatever the number of attempts: two sums of nearly the same clients
  would show the difference;
- a second vector is never masked with the same keys, nor, where there is noise, in the same step at all;
- nothing is opened of fewer than `SumSpec.threshold_of` clients, three at least, and more than half.

The same question asked again gets the same answer, so that an engine may ask twice. Imports no torch.
"""

from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import FedLLMError
from fedllm_train.privacy.secure_sum.client_state import ClientState, RoundSecrets, StepNotes
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
    Context,
    KeyPair,
    KeyStream,
    add_stream,
    agreed_key,
    derived_key,
    new_secret,
    open_box,
    public_identity,
    seal_box,
    seed_digest,
    sign,
    verify,
)
from fedllm_train.privacy.secure_sum.shamir import SHARE_BYTES, split
from fedllm_train.privacy.secure_sum.skellam import skellam_noise

__all__ = ["SumClient", "SumRefused"]

Vector = npt.NDArray[Any]


class SumRefused(FedLLMError):
    """A client does not do what a server asks of it in a secure sum."""


class SumClient:
    """One client in one run; keeps nothing in itself, so that any process of its machine may go on."""

    def __init__(self, state: ClientState, spec: SumSpec, *, run: str, client_id: str) -> None:
        """Take the client's folder and what the run has agreed on.

        Args:
            state: the client's folder.
            spec: ring, bounds and threshold.
            run: the run's key.
            client_id: the client.
        """
        self._state, self._spec, self._run, self._id = state, spec, run, client_id

    def keys(self, step: int, content: bytes) -> bytes:
        """Answer the first exchange: fresh public keys, signed.

        Args:
            step: the round's index.
            content: a `KeysRequest`.

        Raises:
            SumRefused: if the attempt was made before.
        """
        request = _read(KeysRequest, content)
        secrets, notes = self._state.round(), self._state.notes(step)
        begun = replace(notes, attempts=[*notes.attempts, request.attempt])
        if secrets is not None and (secrets.step, secrets.attempt) == (step, request.attempt):
            if request.attempt not in notes.attempts:  # it was killed before it wrote this down
                self._state.note(step, begun)
            return bytes.fromhex(secrets.public)
        if request.attempt in notes.attempts:
            raise SumRefused("this attempt of the round was made before, and its keys are gone")
        if self._spec.noise and step >= self._spec.num_rounds:
            raise SumRefused(f"round {step + 1} is none of the {self._spec.num_rounds} that its noise was sized for")
        identity = self._state.identity()
        signing_key = bytes.fromhex(identity.signing_key)
        mask, share, seed = KeyPair.fresh(), KeyPair.fresh(), new_secret()
        keys = PublicKeys(
            mask_key=mask.public,
            share_key=share.public,
            seed_digest=seed_digest(seed),
            identity=public_identity(signing_key),
        )
        context = Context(run=self._run, step=step, attempt=request.attempt)
        signed = SignedKeys(keys=keys, signature=sign(signing_key, keys.signed_text(context, self._id)))
        self._state.keep(
            RoundSecrets(
                step=step,
                attempt=request.attempt,
                mask_key=mask.private.hex(),
                share_key=share.private.hex(),
                seed=seed.hex(),
                public=signed.to_bytes().hex(),
            )
        )
        self._state.note(step, begun)
        return signed.to_bytes()

    def shares(self, step: int, content: bytes) -> bytes:
        """Answer the second exchange: shares of the seed and of the mask key, sealed for each peer.

        Args:
            step: the round's index.
            content: a `SharesRequest`.

        Raises:
            SumRefused: if the keys of a peer are not its own, or there are too few or too many peers.
        """
        request = _read(SharesRequest, content)
        secrets, digest = self._secrets_of(step, request.attempt), sha256(content).hexdigest()
        if secrets.shares is not None:
            if secrets.asked_shares != digest:
                raise SumRefused("it was asked for shares before, for other keys")
            return bytes.fromhex(secrets.shares)
        context = Context(run=self._run, step=step, attempt=request.attempt)
        self._check_keys(request, secrets, context)
        if secrets.seed is None or secrets.mask_key is None or secrets.share_key is None:
            raise SumRefused("the secrets of this attempt are gone")
        names = sorted(request.keys)
        threshold = self._spec.threshold_of(len(names))
        seed_shares = split(bytes.fromhex(secrets.seed), len(names), threshold)
        key_shares = split(bytes.fromhex(secrets.mask_key), len(names), threshold)
        boxes, own = {}, []
        for name, of_seed, of_key in zip(names, seed_shares, key_shares, strict=True):
            if name == self._id:
                own = [of_seed.hex(), of_key.hex()]
                continue
            bound = context.bound_to("share", self._id, name)
            peer = request.keys[name].keys.share_key
            key = self._agreed(secrets.share_key, peer, bound, name)
            boxes[name] = seal_box(key, of_seed + of_key, bound)
        answer = SealedShares(boxes=boxes).to_bytes()
        keys = {n: [each.keys.mask_key.hex(), each.keys.share_key.hex()] for n, each in request.keys.items()}
        self._state.keep(replace(secrets, asked_shares=digest, shares=answer.hex(), keys=keys, own_shares=own))
        return answer

    def masked(self, step: int, header: TrainHeader, vector: Vector) -> Vector:
        """Return the client's vector under its masks, and with its share of the noise.

        Args:
            step: the round's index.
            header: with whom it is masked.
            vector: elements of the ring; changed in place.

        Raises:
            SumRefused: if there are too few peers, or another vector was masked before.
        """
        secrets = self._secrets_of(step, header.attempt)
        names = sorted(header.summed)
        if self._id not in names or not set(names) <= set(secrets.keys):
            raise SumRefused("it is to mask its vector for clients whose keys it was not told")
        needed = self._spec.threshold_of(len(secrets.keys))
        if len(names) < needed:
            raise SumRefused(f"{len(names)} clients would be summed, fewer than the {needed} that are needed")
        if secrets.seed is None or secrets.mask_key is None:
            raise SumRefused("the sum of this attempt was opened before")
        if secrets.summed is not None and secrets.summed != names:
            raise SumRefused("it masked its vector in this attempt for other clients before")
        digest = sha256(vector.tobytes()).hexdigest()
        if secrets.vector is not None and secrets.vector != digest:
            raise SumRefused("it masked another vector with the same keys before")
        notes = self._state.notes(step)
        if self._spec.noise:
            self._check_noise(notes, digest)
        self._state.note(step, replace(notes, vector=digest))
        self._state.keep(replace(secrets, summed=names, vector=digest))
        if self._spec.noise:
            vector += self._noise(step, digest, len(vector)).astype(vector.dtype)
        context = Context(run=self._run, step=step, attempt=header.attempt)
        add_stream(vector, derived_key(bytes.fromhex(secrets.seed), context.bound_to("self", self._id)), 1)
        for name in names:
            if name == self._id:
                continue
            bound = context.bound_to("mask", *sorted((self._id, name)))
            key = self._agreed(secrets.mask_key, bytes.fromhex(secrets.keys[name][0]), bound, name)
            add_stream(vector, key, 1 if self._id < name else -1)
        return vector

    def unmask(self, step: int, content: bytes) -> bytes:
        """Answer the fourth exchange: shares of the seeds of those who arrived, and of the keys of those who did not.

        Args:
            step: the round's index.
            content: an `UnmaskRequest`.

        Raises:
            SumRefused: if it would open anything but one sum of enough clients.
        """
        request = _read(UnmaskRequest, content)
        secrets, digest = self._secrets_of(step, request.attempt), sha256(content).hexdigest()
        if secrets.opened is not None:
            if secrets.asked_unmask != digest:
                raise SumRefused("it has opened its shares of this attempt before, for another request")
            return bytes.fromhex(secrets.opened)
        names = self._check_unmask(request, secrets)
        notes = self._state.notes(step)
        arrived = sha256("\0".join(sorted(request.arrived)).encode()).hexdigest()
        if notes.opened_for not in (None, arrived):
            raise SumRefused("it has helped to open a sum of other clients in this round before")
        opened = self._opened(step, request, secrets, names)
        self._state.note(step, replace(notes, opened_for=arrived))
        # The secrets go with what they were for: whoever reads the disk later opens nothing.
        self._state.keep(
            replace(
                secrets,
                asked_unmask=digest,
                opened=opened.to_bytes().hex(),
                mask_key=None,
                share_key=None,
                seed=None,
                own_shares=[],
                shares=None,
            )
        )
        return opened.to_bytes()

    def stream_for(self, purpose: str, step: int, digest: str) -> KeyStream:
        """Return a stream of the client's own, known to nobody, that is the same when a round is made again.

        Args:
            purpose: what is drawn.
            step: the round's index.
            digest: of what it is drawn for: something else has another stream.
        """
        secret = bytes.fromhex(self._state.identity().noise_secret)
        context = Context(run=self._run, step=step, attempt="")
        return KeyStream(derived_key(secret, context.bound_to(purpose, self._id, digest)))

    def _noise(self, step: int, digest: str, size: int) -> npt.NDArray[np.int64]:
        return skellam_noise(size, self._spec.noise, self.stream_for("noise", step, digest))

    def _check_noise(self, notes: StepNotes, digest: str) -> None:
        if notes.vector not in (None, digest):
            raise SumRefused("it gave another update to this round before, and its noise is sized for one a round")
        if notes.vector is None and self._state.num_steps_masked() >= self._spec.num_rounds:
            raise SumRefused(f"it has taken part in the {self._spec.num_rounds} rounds that its noise is sized for")

    def _secrets_of(self, step: int, attempt: str) -> RoundSecrets:
        secrets = self._state.round()
        if secrets is None or (secrets.step, secrets.attempt) != (step, attempt):
            raise SumRefused("it has no keys of this attempt of the round; they are made in its first exchange")
        return secrets

    def _check_keys(self, request: SharesRequest, secrets: RoundSecrets, context: Context) -> None:
        names = sorted(request.keys)
        least, most = self._spec.min_clients, self._spec.max_clients
        if not least <= len(names) <= most:
            raise SumRefused(f"there are {len(names)} clients, and a sum is of {least} to {most}")
        own = request.keys.get(self._id)
        if own is None or own.to_bytes() != bytes.fromhex(secrets.public):
            raise SumRefused("its own keys are not among those that it was told")
        for field in ("mask_key", "share_key", "identity", "seed_digest"):
            if len({getattr(each.keys, field) for each in request.keys.values()}) < len(names):
                raise SumRefused(f"two clients have one {field.replace('_', ' ')}")
        pinned = self._state.peers()
        for name in names:
            keys, signature = request.keys[name].keys, request.keys[name].signature
            if not verify(keys.identity, signature, keys.signed_text(context, name)):
                raise SumRefused(f"the keys of client {name!r} are not signed by its identity for this round")
            if pinned.get(name, keys.identity.hex()) != keys.identity.hex():
                raise SumRefused(f"client {name!r} has another identity than before")
        fresh = {name: request.keys[name].keys.identity.hex() for name in names}
        if not fresh.items() <= pinned.items():
            self._state.pin(pinned | fresh)

    def _check_unmask(self, request: UnmaskRequest, secrets: RoundSecrets) -> list[str]:
        """The clients whose vectors were masked, or a refusal."""
        if secrets.summed is None or secrets.share_key is None:
            raise SumRefused("it has masked no vector in this attempt")
        arrived, lost, summed = set(request.arrived), set(request.lost), set(secrets.summed)
        if arrived & lost:
            raise SumRefused(f"client {min(arrived & lost)!r} is said to have arrived and to be lost")
        if arrived | lost != summed:
            raise SumRefused("those who arrived and those who were lost are not those for whom it was masked")
        if self._id not in arrived:
            raise SumRefused("it is asked to open a sum that it is not in")
        needed = self._spec.threshold_of(len(secrets.keys))
        if len(arrived) < needed:
            raise SumRefused(f"a sum of {len(arrived)} clients is not opened; {needed} are needed")
        if set(request.boxes) != summed - {self._id}:
            raise SumRefused("the boxes are not those of its peers")
        return sorted(summed)

    def _opened(self, step: int, request: UnmaskRequest, secrets: RoundSecrets, names: list[str]) -> OpenShares:
        context = Context(run=self._run, step=step, attempt=request.attempt)
        seeds, keys, arrived = {}, {}, set(request.arrived)
        assert secrets.share_key is not None, "checked"
        for name in names:
            if name == self._id:
                of_seed, of_key = (bytes.fromhex(each) for each in secrets.own_shares)
            else:
                bound = context.bound_to("share", name, self._id)
                key = self._agreed(secrets.share_key, bytes.fromhex(secrets.keys[name][1]), bound, name)
                try:
                    both = open_box(key, request.boxes[name], bound)
                except ValueError as error:
                    raise SumRefused(f"the box of client {name!r} cannot be opened: {error}") from None
                if len(both) != 2 * SHARE_BYTES:
                    raise SumRefused(f"the box of client {name!r} holds no two shares")
                of_seed, of_key = both[:SHARE_BYTES], both[SHARE_BYTES:]
            if name in arrived:
                seeds[name] = of_seed
            else:
                keys[name] = of_key
        return OpenShares(seeds=seeds, keys=keys)

    @staticmethod
    def _agreed(private: str, public: bytes, bound: bytes, name: str) -> bytes:
        try:
            return agreed_key(bytes.fromhex(private), public, bound)
        except ValueError:
            raise SumRefused(f"the key of client {name!r} is one with which nothing is secret") from None


def _read(kind: Any, content: bytes) -> Any:
    try:
        return kind.from_bytes(content)
    except ValueError as error:
        raise SumRefused(f"what it was sent is no {kind.__name__}: {error}") from None
