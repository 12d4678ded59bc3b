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
`privacy/accounting.py` says what the noise buys. Example-level privacy (DP-SGD inside a visit) is another unit and not
offered.

Noise must be secret, and so must who was in a Poisson cohort, on which the accountant's amplification rests: both are
drawn from the run's secret (`privacy/secret.py`). Nothing else need be. The bound holds for whatever a client does, so
its order of rows, its dropout and the rounding of a packed upload follow from the run seed as ever.

Why not FedLLM-Bench's "FedDP": it clips gradients, not the update, then adds noise of a standard deviation derived
from the sensitivity of one SGD step (2 lr C / n_k) to the weights a client sends. A visit there is many AdamW steps,
whose change is not bounded by that, so its (epsilon, delta) does not hold and is not reproduced here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, distance
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.staleness import ServerStates
from fedllm_train.engines.engine import Reply
from fedllm_train.lazy_torch import torch
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.secret import secret_normals, secret_seed
from fedllm_train.strategy import Sums, Traits

__all__ = ["ClientPrivacy", "PrivateAggregation", "check_private_method", "clipped_change"]


@dataclass(frozen=True, kw_only=True)
class ClientPrivacy:
    """What makes a run private."""

    guarantee: Guarantee
    secret: bytes | None = field(repr=False)
    """What noise and cohorts are drawn from (`privacy/secret.py`); None if the guarantee has no noise."""

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
        self._num_clipped = 0

    def add(self, reply: Reply) -> str | None:
        """Add a client's change, shortened to the clipping norm; return why it cannot be used, or None."""
        update, anchor, problem = self._inbox.read(reply, self._states.of(reply.step))
        if problem is None:
            start = {name: anchor[name] for name in self._start}
            self.add_update(update, start=start, weight=self._states.weight_of(reply.step))
        return problem

    def add_update(self, update: Parts, *, start: Adapter | None = None, weight: float = 1.0) -> None:
        """Add one client's change, shortened to the clipping norm where it is longer.

        Args:
            update: what the client sent.
            start: what its training started from; by default where this step's clients start.
            weight: how much of the change counts, at most 1: an old one counts less.
        """
        start = self._start if start is None else start
        change, was_longer = clipped_change(update["adapter"], start, self._privacy.guarantee.clip)
        self._num_clipped += was_longer
        for name, total in self._sum.items():
            total += change[name] if weight == 1.0 else weight * change[name]

    def is_enough(self) -> bool:
        """Return True: a step that depended on who was there would reveal it; no cohort is too small."""
        return True

    def sums(self) -> Sums:
        """Return sums of a single update, the noisy mean: with "mean" that is all the server rule needs."""
        strategy, released = self._inbox.strategy, self.release()
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
        drawn = secret_normals(secret, "privacy noise", round_index=self._step, name=name, shape=tuple(total.shape))
        return torch.from_numpy(drawn) * (guarantee.noise_multiplier * guarantee.clip)

    def as_record(self) -> dict[str, Any]:
        """Return what was spent up to this round; `num_clipped` itself is not private."""
        guarantee = self._privacy.guarantee
        spent = {
            "unit": "client",
            "epsilon": guarantee.epsilon(self._step + 1),
            "delta": guarantee.delta,
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
