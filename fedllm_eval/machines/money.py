"""Money: what a server pays for downloads, what hours and kilowatt-hours cost, and the bytes of split learning.

Clouds charge for what leaves them and take in for nothing, so the server pays the clients' downloads; what a client
pays for its own line is not known here. The prices are the first paid tier of the published lists, before free
allowances and discounts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedllm_data.errors import ConfigError

__all__ = ["EGRESS", "EgressPrice", "MoneyRange", "egress_money", "price", "split_bytes_per_step"]


@dataclass(frozen=True)
class MoneyRange:
    """In one currency, from and to."""

    low: float
    high: float


@dataclass(frozen=True)
class EgressPrice:
    """What a provider takes for bytes that leave it."""

    per_gb: float
    """US dollars for 10^9 bytes, first 10 TB a month."""
    source: str
    date: str


_LISTS = "published list, first 10 TB a month to the internet, by dev.to and cloudtoolstack.com"
EGRESS: Mapping[str, EgressPrice] = {
    "aws": EgressPrice(0.09, f"AWS, {_LISTS}", "2026"),
    "azure": EgressPrice(0.087, f"Azure, {_LISTS}", "2026"),
    "gcp-premium": EgressPrice(0.12, f"Google Cloud, premium tier, {_LISTS}", "2026"),
    "gcp-standard": EgressPrice(0.085, f"Google Cloud, standard tier, {_LISTS}", "2026"),
    "own": EgressPrice(0.0, "a server of one's own on a flat rate", "assumption"),
}


def egress_money(download_bytes: float) -> MoneyRange:
    """Return what the server pays for the clients' downloads, over all clouds of `EGRESS`, in US dollars.

    Raises:
        ConfigError: if the number is negative or not finite.

    >>> cost = egress_money(26.8e9)
    >>> round(cost.low, 2), round(cost.high, 2)
    (2.28, 3.22)
    """
    gigabytes = _amount("downloaded bytes", download_bytes) / 1e9
    prices = [each.per_gb for name, each in EGRESS.items() if name != "own"]
    return MoneyRange(min(prices) * gigabytes, max(prices) * gigabytes)


def price(
    *,
    gigabytes: float = 0.0,
    per_gb: float = 0.0,
    hours: float = 0.0,
    per_hour: float = 0.0,
    kwh: float = 0.0,
    per_kwh: float = 0.0,
) -> float:
    """Return a sum over bytes, device hours and electricity at stated prices, all in one currency.

    Raises:
        ConfigError: if a number is negative or not finite.

    >>> price(gigabytes=10, per_gb=0.09, hours=3, per_hour=1.5, kwh=2, per_kwh=0.3)
    6.0
    """
    pairs = (("gigabytes", gigabytes, per_gb), ("hours", hours, per_hour), ("kilowatt-hours", kwh, per_kwh))
    return sum(_amount(what, amount) * _amount(f"price of {what}", each) for what, amount, each in pairs)


def split_bytes_per_step(
    *, batch_size: int, sequence_length: int, hidden_size: int, value_bytes: int = 2, labels_leave: bool = False
) -> int:
    """Return what a client and a server send each other in one step of split learning.

    Activations of all tokens travel at every cut, and their gradients travel back. With labels that stay with the
    client there are two cuts (U-shape: after its first layers and before its last), so four transfers; where labels
    may leave it, there is one cut and two transfers (V-shape). LoRA's whole update travels once a visit instead.

    Args:
        batch_size: sequences of a step.
        sequence_length: tokens of each.
        hidden_size: values of a token at a cut.
        value_bytes: of one value: 2 in bfloat16.
        labels_leave: whether the server may see the labels.

    Raises:
        ConfigError: if a number is not positive.

    >>> split_bytes_per_step(batch_size=16, sequence_length=512, hidden_size=4096)
    268435456
    """
    sizes = (batch_size, sequence_length, hidden_size, value_bytes)
    if min(sizes) < 1:
        raise ConfigError(f"a step of split learning of sizes {sizes}; give positive numbers")
    transfers = 2 if labels_leave else 4
    return batch_size * sequence_length * hidden_size * value_bytes * transfers


def _amount(what: str, value: float) -> float:
    if not (np.isfinite(value) and value >= 0):
        raise ConfigError(f"{what}: {value}; give a finite number that is not negative")
    return float(value)
