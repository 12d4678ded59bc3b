"""User-level differential privacy: DP-FedAvg (McMahan et al. 2018, arXiv 1710.06963, Algorithm 1, fixed denominator).

Symbols: Delta_k = theta_k - theta the change that client k sends, C the clipping norm, z the noise multiplier, q the
probability that a client takes part, N clients. In every round

    theta' = theta + (sum_k Delta_k min(1, C / ||Delta_k||) + N(0, (z C)^2 I)) / (q N),

and theta' stands where the clients' mean stood: the server rule of the method (a mean, momentum, adaptive rates) takes
it as it would one client's adapter. Norms are over all that is sent, taken as one vector. Every client counts alike:
weights by rows would let a client with many rows move the sum by more than C. The denominator is the expected cohort,
since the true one tells who was there; for the same reason noise is also added in a round without clients.

The server clips what it decoded, so the bound holds whatever a client sends and however it was compressed. Allowed are
methods whose server looks at the mean of the adapters and nothing else (`Traits.sees` is "mean").
`privacy/accounting.py` says what the noise buys.

A client's second update to a step is left out by name, whatever the engine lets through. With a clip that adapts C is
C_t, z on the sum is z_Delta, and the clients below C_t are counted with noise (`privacy/adaptive_clip.py`). Where the
noise of rounds is related, it comes from `privacy/correlated_noise.py`, and an update of a client that came too lately
or too often is left out by name (`privacy/turns.py`).

Noise must be secret, and so must who was in a Poisson cohort, on which the accountant's amplification rests: both are
drawn from the run's secret (`privacy/secret.py`). Nothing else need be. The bound holds for whatever a client does, so
its order of rows, its dropout and the rounding of a packed upload follow from the run seed as ever.

Why not FedLLM-Bench's "FedDP": it clips gradients, not the update, then adds noise of a standard deviation derived
from the sensitivity of one SGD step (2 lr C / n_k) to the weights a client sends. A visit there is many AdamW steps,
whose change is not bounded by that, so its (epsilon, delta) does not hold and is not reproduced here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, distance
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.staleness import ServerStates
from fedllm_train.engines.engine import Reply
from fedllm_train.lazy_torch import torch
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.correlated_noise import CorrelatedNoise
from fedllm_train.privacy.private_memory import PrivateMemory
from fedllm_train.privacy.secret import secret_normals, secret_seed
from fedllm_train.strategy import Sums, Traits

__all__ = ["ClientPrivacy", "PrivateAggregation", "check_private_method", "clipped_change"]


@dataclass(frozen=True, kw_only=True)
class ClientPrivacy:
    """What makes a run private."""

    guarantee: Guarantee
    secret: bytes | None = field(repr=False)
    """What noise and cohorts are drawn from (`privacy/secret.py`); None if the guarantee has no noise."""
    memory: PrivateMemory = field(default_factory=PrivateMemory)
    """What the server remembers from round to round."""

    @cached_property
    def related(self) -> CorrelatedNoise | None:
        """The noise of all rounds, where it is related."""
        if self.guarantee.related is None or self.secret is None:
            return None
        return CorrelatedNoise(self.guarantee.related.form, self.secret)

    @property
    def cohort_seed(self) -> int | None:
        """What cohorts are drawn from instead of the run seed; None if there is nothing to hide."""
        return None if self.secret is None else secret_seed(self.secret, "cohort")


class PrivateAggregation:
    """The clipped changes of a round's clients, and the noise on their sum."""

    def __init__(self, inbox: Inbox, states: ServerStates, privacy: ClientPrivacy, *, anybody: str) -> None:
        """Begin at zero.

        Args:
            inbox: unpacks replies.
            states: the server's state that the step begins from, and those that old updates were made from.
            privacy: clip, noise and the secret it is drawn from.
            anybody: any client that may take part; all of them start from one anchor.
        """
        self._inbox, self._states, self._privacy, self._step = inbox, states, privacy, states.step
        anchor = inbox.anchor(states.newest, anybody, states.step)
        names = sorted(inbox.strategy.expects(states.newest, anybody, states.step)["adapter"])
        self._start = {name: anchor[name] for name in names}
        self._sum = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in self._start.items()}
        self._clip = privacy.memory.clip_of(privacy.guarantee)
        self._num_updates = self._num_clipped = 0
        self._came: set[str] = set()

    def add(self, reply: Reply) -> str | None:
        """Add a client's change, shortened to the clipping norm; return why it cannot be used, or None."""
        update, anchor, problem = self._inbox.read(reply, self._states.of(reply.step))
        problem = self._why_not(reply.client_id) if problem is None else problem
        if problem is None:
            start = {name: anchor[name] for name in self._start}
            self.add_update(update, start=start, weight=self._states.weight_of(reply.step))
            self._came.add(reply.client_id)
            if (turns := self._privacy.memory.turns) is not None:
                turns.came(reply.client_id, self._step)
        return problem

    def _why_not(self, client_id: str) -> str | None:
        """Why no update of a client can be in this step."""
        if client_id in self._came:
            return "it has an update in this round already, and the guarantee allows one"
        turns = self._privacy.memory.turns
        return None if turns is None else turns.reason_against(client_id, self._step)

    def add_update(self, update: Parts, *, start: Adapter | None = None, weight: float = 1.0) -> None:
        """Add one client's change, shortened to the clipping norm where it is longer.

        Args:
            update: what the client sent.
            start: what its training started from; by default where this step's clients start.
            weight: how much of the change counts, at most 1: an old one counts less.
        """
        start = self._start if start is None else start
        change, was_longer = clipped_change(update["adapter"], start, self._clip)
        self._num_updates += 1
        self._num_clipped += was_longer
        for name, total in self._sum.items():
            total += change[name] if weight == 1.0 else weight * change[name]

    def is_enough(self) -> bool:
        """Return True: a step that depended on who was there would reveal it; no cohort is too small."""
        return True

    def sums(self) -> Sums:
        """Return sums of a single update, the noisy mean: with "mean" that is all the server rule needs."""
        strategy, released = self._inbox.strategy, self.release()
        self._move_clip()
        sums: Sums = {}
        strategy.fold(sums, released, strategy.weigh(released, num_rows=1))
        return sums

    def total(self) -> Adapter:
        """Return the sum without noise, in float64; it must not leave the server."""
        return self._sum

    def release(self) -> Parts:
        """Return what stands for the clients' mean: the start moved by the noisy sum over the expected cohort."""
        adapter = {}
        for name, total in self._sum.items():
            noisy = total + self._noise(name, total)
            moved = self._start[name].double() + noisy / self._privacy.guarantee.expected_cohort
            adapter[name] = moved.to(self._start[name].dtype)
        return {"adapter": adapter}

    def _noise(self, name: str, total: torch.Tensor) -> torch.Tensor:
        guarantee, secret = self._privacy.guarantee, self._privacy.secret
        if not guarantee.has_noise:
            return torch.zeros_like(total)
        assert secret is not None, "a guarantee with noise has a secret"
        shape, deviation = tuple(total.shape), guarantee.update_noise_multiplier * self._clip
        if (related := self._privacy.related) is not None:
            return torch.from_numpy(related.of_round(self._step, name, shape)) * deviation
        drawn = secret_normals(secret, "privacy noise", round_index=self._step, name=name, shape=shape)
        return torch.from_numpy(drawn) * deviation

    def _move_clip(self) -> None:
        """Let the clip follow the noisy count of updates that were not longer than it."""
        guarantee, secret = self._privacy.guarantee, self._privacy.secret
        if (rule := guarantee.adaptive) is None:
            return
        votes = 0.5 * (self._num_updates - 2 * self._num_clipped)  # 1/2 below the clip, -1/2 above it
        if guarantee.has_noise:
            assert secret is not None, "a guarantee with noise has a secret"
            drawn = secret_normals(secret, "count noise", round_index=self._step, name="", shape=(1,))
            votes += rule.count_noise * float(drawn[0])
        self._privacy.memory.clip = rule.next_clip(self._clip, votes, guarantee.expected_cohort)

    def as_record(self) -> dict[str, Any]:
        """Return what was spent up to this round; `num_clipped` itself is not private, a clip that adapts is."""
        guarantee = self._privacy.guarantee
        spent = {
            "unit": "client",
            "epsilon": guarantee.epsilon(self._step + 1),
            "delta": guarantee.delta,
            **({} if guarantee.adaptive is None else {"clip": self._clip}),
            "num_clipped": self._num_clipped,
        }
        return {"privacy": spent}


def clipped_change(adapter: Adapter, start: Adapter, clip: float) -> tuple[Adapter, bool]:
    """Return an adapter's change, in float64, shortened to a norm of at most `clip`, and whether it was longer.

    >>> change, was_longer = clipped_change({"a": torch.tensor([3.0, 5.0])}, {"a": torch.tensor([0.0, 1.0])}, 1.0)
    >>> change["a"].tolist(), was_longer
    ([0.6000000000000001, 0.8], True)
    """
    norm = distance(adapter, start)
    scale = clip / norm if norm > clip else 1.0
    return {name: (adapter[name].double() - start[name].double()) * scale for name in start}, norm > clip


def check_private_method(name: str, traits: Traits) -> None:
    """Refuse a method whose server needs more of the clients than the mean of their adapters.

    Raises:
        ConfigError: with the reason.
    """
    reasons = {
        "nothing": "exchanges nothing between clients, so there is no update to clip",
        "each": "needs every client's own factors or losses, not their sum",
        "sum": f"makes more of what clients send ({traits.up}) than the mean of their adapters",
    }
    if traits.sees in reasons:
        raise ConfigError(
            f"dp_clip is given, but strategy {name!r} {reasons[traits.sees]}; use fedavg, ffa_lora or another method "
            'whose "sees" is "mean" in `fedllm-train methods --json`'
        )
