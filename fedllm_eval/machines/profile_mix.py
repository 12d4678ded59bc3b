"""Named profiles in the text of a client table: `phone-4g`, `phone-4g~0.6` or `phone-4g=0.7,laptop-home=0.3`.

Imports no torch.
"""

import math
from dataclasses import dataclass

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.profiles import profile_of

__all__ = ["Spread", "mix_of", "spread_of"]


@dataclass(frozen=True)
class Spread:
    """A profile, and how far speeds spread around it."""

    name: str
    sigma: float = 0.0

    @property
    def label(self) -> str:
        """The profile as a client table names it: `phone-4g~0.6`."""
        return f"{self.name}~{self.sigma:g}" if self.sigma else self.name


def mix_of(listed: str, text: str) -> tuple[tuple[Spread, float], ...]:
    """Return the profiles of a mix, each with the sum of the shares up to and with its own.

    Args:
        listed: `NAME=SHARE,...`, of which a name may carry `~SIGMA`; shares sum to 1.
        text: the setting as it was given, for the words of an error.

    Raises:
        ConfigError: if a piece is not of that form, a profile is unknown or named twice, or shares do not sum to 1.

    >>> [(spread.label, upto) for spread, upto in mix_of("phone-4g~0.6=0.75,laptop-home=0.25", "")]
    [('phone-4g~0.6', 0.75), ('laptop-home', 1.0)]
    """
    found: list[tuple[Spread, float]] = []
    total = 0.0
    for piece in listed.split(","):
        name, equals, share = piece.strip().rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not equals or not 0 < value <= 1:
            raise ConfigError(
                f"client_table {text!r}: {piece!r} is not of the form NAME=SHARE with a share above 0 and at most 1; "
                "write for instance profiles:phone-4g=0.7,laptop-home=0.3"
            )
        spread = spread_of(name.strip(), text)
        if spread in [each for each, _ in found]:
            raise ConfigError(f"client_table {text!r} names {name!r} twice; keep one")
        total += value
        found.append((spread, total))
    if abs(total - 1) > 1e-6:
        raise ConfigError(f"client_table {text!r} gives shares that sum to {total:g}; they must sum to 1")
    return tuple(found)


def spread_of(text: str, where: str) -> Spread:
    """Return a profile and the spread of speeds around it.

    Args:
        text: `NAME`, or `NAME~SIGMA` with a sigma from 0 to 3.
        where: what holds the text, for the words of an error.

    Raises:
        ConfigError: if sigma is no such number, or the profile is unknown.

    >>> spread_of("phone-4g~0.6", "profile")
    Spread(name='phone-4g', sigma=0.6)
    """
    name, tilde, sigma = text.partition("~")
    try:
        value = float(sigma) if tilde else 0.0
    except ValueError:
        value = math.nan
    if not 0 <= value <= 3:
        raise ConfigError(f"{where}: the spread {sigma!r} is no sigma from 0 to 3; write for instance phone-4g~0.6")
    profile_of(name)
    return Spread(name, value)
