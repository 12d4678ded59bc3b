"""Updates that were made from an earlier server step: applied as changes, and with less weight.

Symbols: theta_k what client k ended with, a_k what its training started from (its anchor in the step it was asked
for), b_k what it would start from in today's step, tau how many steps lie between. In the step's mean stands

    b_k + w(tau) (theta_k - a_k),    w(tau) = (1 + tau) ** -exponent,

the adapter that the client would have ended with from today's state, its change scaled: FedBuff's rule (Nguyen et al.
2022, arXiv 2106.06639, Algorithm 1 and section 5: exponent 1/2). The divisor stays the number of updates, or of their
rows, as in Algorithm 1's Delta / K: an old update makes the step shorter and gives no other one more weight. (FLSim's
released code divides by the weight of the mean staleness besides, which lengthens the step again; we do not.)

An update of today's step is left as it is, to the bit: a difference added back would lose the last ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.participation.participation_settings import ParticipationSettings
from fedllm_train.strategy import Traits

__all__ = ["ServerStates", "as_of_today", "check_asynchronous_method", "staleness_weight"]


@dataclass(frozen=True, kw_only=True)
class ServerStates:
    """The server's states that the replies of a step were made from."""

    step: int
    """The step that is being made."""
    newest: Parts
    """The state that it begins from."""
    earlier: Mapping[int, Parts] = field(default_factory=dict)
    """Step -> the state that it began from, for those steps that somebody is under way from."""
    staleness_exponent: float = 0.5

    def of(self, step: int) -> Parts:
        """Return the state that clients asked for a step were sent."""
        return self.newest if step == self.step else self.earlier[step]

    def weight_of(self, step: int) -> float:
        """Return how much of a change counts that was made for a step."""
        return staleness_weight(self.step - step, self.staleness_exponent)


def staleness_weight(staleness: int, exponent: float) -> float:
    """Return how much of a change counts.

    Args:
        staleness: tau, from 0.
        exponent: how fast old changes lose weight; 0 leaves all alike.

    >>> [staleness_weight(tau, 0.5) for tau in (0, 3, 8)]
    [1.0, 0.5, 0.3333333333333333]
    """
    return float((1 + staleness) ** -exponent)


def as_of_today(adapter: Adapter, anchor: Adapter, today: Adapter, weight: float) -> Adapter:
    """Return today's anchor moved by a share of an old change, rounded once to the adapter's precision.

    Args:
        adapter: what the client sent.
        anchor: what its training started from.
        today: what it would start from now.
        weight: the share of the change, in [0, 1].

    >>> import torch
    >>> new = as_of_today({"a": torch.tensor([3.0])}, {"a": torch.tensor([1.0])}, {"a": torch.tensor([10.0])}, 0.5)
    >>> new["a"].tolist()
    [11.0]
    """
    return {
        name: (today[name].double() + weight * (value.double() - anchor[name].double())).to(value.dtype)
        for name, value in adapter.items()
    }


def check_asynchronous_method(settings: ParticipationSettings, traits: Traits) -> None:
    """Refuse a method whose server needs more of an old update than a change of the adapter.

    Args:
        settings: of participation.
        traits: the method's.

    Raises:
        ConfigError: with the reason.
    """
    reasons = {
        "nothing": "exchanges nothing, so there is no update to wait for",
        "each": "works on every client's own factors or losses, and a change of them cannot be applied to later ones",
        "sum": f"also sums what belongs to the step a client was asked for ({traits.up})",
    }
    if traits.sees in reasons:
        setting = "participation is 'buffered'" if settings.participation == "buffered" else "late is 'apply'"
        raise ConfigError(
            f"{setting}, but {traits.title} {reasons[traits.sees]}; use participation synchronous, or deadline with "
            'late drop, or a method whose "sees" is "mean" in `fedllm-train methods --json`'
        )
