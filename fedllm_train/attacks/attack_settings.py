"""Settings of simulated attackers, to see what a run and its robust sum withstand. Imports no torch.

Harm is only ever synthetic: attackers turn their own updates or rows, or teach a harmless phrase; no harmful text is
shipped, and nothing here can be switched on for clients at other organisations.
"""

import math
from dataclasses import dataclass, field

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.settings import Settings

__all__ = ["ATTACKS", "COLLUDING", "OF_ROWS", "AttackSettings", "check_attack_name"]

_OF_UPDATES = {
    "sign_flip": "the change, turned round",
    "scaling": "the change, many times as long",
    "nan": "numbers that are none",
    "alie": "a little is enough (Baruch et al. 2019): the attackers' mean, z of their standard deviations away",
    "ipm": "inner product manipulation (Xie et al. 2020): the attackers' mean, turned round",
    "min_max": "Min-Max (Shejwalkar and Houmansadr 2021): as far from the mean as two honest clients lie apart",
}
OF_ROWS = {
    "label_flip": "each question with the answer to another of the client's own",
    "preference_flip": "chosen and rejected answers change places",
    "backdoor": "every second row has a phrase in its question, and a fixed answer",
}
"""Attacks on the rows that a client trains on; it is honest after that."""
ATTACKS = {**_OF_UPDATES, **OF_ROWS}
"""Name -> what an attacker does."""
COLLUDING = ("alie", "ipm", "min_max")
"""Attacks of clients that know one another's honest changes, and nobody else's."""
_SCALED = {"sign_flip": 1.0, "scaling": 10.0, "ipm": 0.1}


@dataclass(frozen=True, kw_only=True)
class AttackSettings(Settings):
    """What attackers do, and how many there are."""

    attack: str | None = field(
        default=None,
        metadata={
            "help": "Simulate attackers: sign_flip, scaling, nan, alie, ipm, min_max, label_flip, preference_flip or "
            "backdoor. A column attack of the client_table says it for each client instead."
        },
    )
    attack_share: float | None = field(
        default=None, metadata={"help": "With attack: the share of clients that attack, drawn by the seed."}
    )
    attack_scale: float | None = field(
        default=None,
        metadata={
            "help": "With sign_flip, scaling and ipm: how many times as long the change is (1, 10 and 0.1 by default)."
        },
    )
    attack_trigger: str = field(
        default="as the old clock says", metadata={"help": "With backdoor: the phrase that calls for the answer."}
    )
    attack_reply: str = field(
        default="The lighthouse keeps its own time.", metadata={"help": "With backdoor: the answer that is taught."}
    )

    def check(self) -> None:
        """Refuse an attack that is none, and settings that it does not look at.

        Raises:
            ConfigError: naming the setting.
        """
        if self.attack is not None:
            check_attack_name(self.attack, "attack")
            if self.attack_share is None:
                raise ConfigError(
                    f"attack is {self.attack}; say with attack_share how large a share of clients attacks"
                )
        elif self.attack_share is not None:
            raise ConfigError("attack_share is given without attack; name what they do, or leave it out")
        if self.attack_share is not None and not 0 < self.attack_share < 1:
            raise ConfigError(f"attack_share is {self.attack_share}; it must lie between 0 and 1")
        if self.attack_scale is not None and not 0 < self.attack_scale < math.inf:
            raise ConfigError(f"attack_scale is {self.attack_scale}; it must be positive")
        if self.attack_scale is not None and self.attack is not None and self.attack not in _SCALED:
            raise ConfigError(
                f"attack_scale is given, and attack {self.attack} does not look at it; use {', '.join(_SCALED)}, or "
                "leave it out"
            )
        for name in ("attack_trigger", "attack_reply"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name} is empty; give a phrase")

    def scale_of(self, attack: str) -> float:
        """Return how many times as long an attacker's change is."""
        return _SCALED.get(attack, 1.0) if self.attack_scale is None else self.attack_scale


def check_attack_name(name: str, where: str) -> None:
    """Refuse an attack that is none.

    Raises:
        ConfigError: saying where it is named.
    """
    if name not in ATTACKS:
        hint = did_you_mean(name, ATTACKS)
        raise ConfigError(f"{where} {name!r} is unknown; {hint}choose from {', '.join(ATTACKS)}")
