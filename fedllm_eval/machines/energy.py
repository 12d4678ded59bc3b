"""Electricity of devices and lines, and the carbon of it: ranges with sources, since these differ up to tenfold.

A device's energy is its watts times its seconds. What sending a gigabyte takes has been estimated from operators'
yearly totals and from single base stations, which count different parts of a network: every kind of line has a range
from the smallest to the largest published figure of its kind. Carbon is energy times the grid's intensity, which the
reader gives (Ember publishes it yearly for every country, CC-BY).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError

__all__ = ["LINE_ENERGY", "LINE_KINDS", "EnergyRange", "LineEnergy", "carbon_kg", "device_kwh", "line_kwh"]


@dataclass(frozen=True)
class EnergyRange:
    """Kilowatt-hours, from and to."""

    low: float
    high: float


@dataclass(frozen=True)
class LineEnergy:
    """One published figure."""

    kwh_per_gb: float
    """kWh for 10^9 bytes, either way."""
    source: str
    year: str
    """That the figure is of; `UNKNOWN` where its source was not at hand."""


UNKNOWN = "unknown"
_BY_SCOPE3 = "by scope3.com"
LINE_ENERGY: Mapping[str, tuple[LineEnergy, ...]] = {
    "fixed": (
        LineEnergy(0.06, "Aslan et al. 2018, core and fixed access; halved about every two years before", "2015"),
        LineEnergy(0.03, f"EU ICT impact study 2020, {_BY_SCOPE3}", "2020"),
        LineEnergy(0.05, "Traficom, all networks of Finland", "2021"),
    ),
    "mobile": (
        LineEnergy(0.14, f"EU ICT impact study 2020, {_BY_SCOPE3}", "2020"),
        LineEnergy(0.12, "Traficom, all networks of Finland", "2021"),
    ),
    "3g": (LineEnergy(2.8, f"Base Station Energy Use in Dense Urban and Suburban Areas, {_BY_SCOPE3}", UNKNOWN),),
    "4g": (
        LineEnergy(0.104, f"Base Station Energy Use in Dense Urban and Suburban Areas, {_BY_SCOPE3}", UNKNOWN),
        LineEnergy(0.23, f"Power consumption evaluation of mobile radio access networks, {_BY_SCOPE3}", UNKNOWN),
    ),
    "5g": (
        LineEnergy(0.0104, f"Base Station Energy Use in Dense Urban and Suburban Areas, {_BY_SCOPE3}", UNKNOWN),
        LineEnergy(0.06, f"Power consumption evaluation of mobile radio access networks, {_BY_SCOPE3}", UNKNOWN),
    ),
}
LINE_KINDS: Mapping[str, str] = {
    "fixed": "fixed",
    "broadband-us": "fixed",
    "office": "fixed",
    "data-centre": "fixed",
    "mobile": "4g",
    "mobile-2025": "mobile",
    "5g": "5g",
    "slow-3g": "3g",
}
"""Line of a profile -> kind in `LINE_ENERGY`; for satellites no figure was found."""


def device_kwh(seconds: float, watts: float) -> float:
    """Return the energy of a device that draws `watts` for some time.

    Raises:
        ConfigError: if a number is negative or not finite.

    >>> device_kwh(27.0, 400.0)
    0.003
    """
    if not (np.isfinite([seconds, watts]).all() and seconds >= 0 and watts >= 0):
        raise ConfigError(f"{seconds} seconds at {watts} watts; give finite numbers that are not negative")
    return seconds * watts / 3.6e6


def line_kwh(num_bytes: float, kind: str) -> EnergyRange:
    """Return the energy of sending bytes over a line.

    Args:
        num_bytes: in either direction.
        kind: a key of `LINE_ENERGY`.

    Raises:
        ConfigError: if there is no such kind, or the number is negative.

    >>> line_kwh(2e9, "mobile")
    EnergyRange(low=0.24, high=0.28)
    """
    if kind not in LINE_ENERGY:
        hint = did_you_mean(kind, LINE_ENERGY)
        raise ConfigError(f"no kind of line is called {kind!r}; {hint}choose from {', '.join(LINE_ENERGY)}")
    if not (np.isfinite(num_bytes) and num_bytes >= 0):
        raise ConfigError(f"{num_bytes} bytes; give a finite number that is not negative")
    found = [each.kwh_per_gb * num_bytes / 1e9 for each in LINE_ENERGY[kind]]
    return EnergyRange(min(found), max(found))


def carbon_kg(kwh: float, grams_per_kwh: float) -> float:
    """Return the carbon dioxide equivalent of some electricity.

    Args:
        kwh: energy.
        grams_per_kwh: the grid's intensity; of 2023 by Ember: 56 in France, 381 in Germany, 713 in India, 481 in the
            world.

    Raises:
        ConfigError: if a number is negative or not finite.

    >>> carbon_kg(2.0, 381.0)
    0.762
    """
    if not (np.isfinite([kwh, grams_per_kwh]).all() and kwh >= 0 and grams_per_kwh >= 0):
        raise ConfigError(f"{kwh} kWh at {grams_per_kwh} g a kWh; give finite numbers that are not negative")
    return kwh * grams_per_kwh / 1000
