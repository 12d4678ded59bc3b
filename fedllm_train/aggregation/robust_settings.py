"""Settings of a robust sum: a rule in place of the mean that a few bad clients cannot move far. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.settings import Settings, check_at_least_one
from fedllm_train.strategy import Traits

__all__ = ["ROBUST_SUMS", "SELECTIONS", "RobustSettings", "check_robust_method", "check_root", "least_updates"]

ROBUST_SUMS = (
    *("none", "median", "trimmed_mean", "krum", "multi_krum", "bulyan"),
    *("geometric_median", "norm_bound", "centred_clip", "fltrust"),
)
"""Rules in place of the mean (`robust_rules.py`)."""
SELECTIONS = ("krum", "multi_krum")
"""Rules that choose some updates whole, so that the method sees updates as clients sent them."""
_WITH_NUM_BAD = ("trimmed_mean", "krum", "multi_krum", "bulyan")
_WITH_CLIP = ("norm_bound", "centred_clip")
_WITH_STEPS = ("geometric_median", "centred_clip")


@dataclass(frozen=True, kw_only=True)
class RobustSettings(Settings):
    """The rule, and how many bad clients it is made for."""

    robust_sum: Literal[
        "none",
        "median",
        "trimmed_mean",
        "krum",
        "multi_krum",
        "bulyan",
        "geometric_median",
        "norm_bound",
        "centred_clip",
        "fltrust",
    ] = field(
        default="none",
        metadata={
            "help": "In place of the clients' mean, a rule that few bad clients cannot move far: median, "
            "trimmed_mean, krum, multi_krum, bulyan, geometric_median, norm_bound, centred_clip or fltrust. All count "
            "clients alike, whatever their rows."
        },
    )
    robust_num_bad: int | None = field(
        default=None,
        metadata={"help": "With trimmed_mean, krum, multi_krum and bulyan: bad clients of a round, at most."},
    )
    robust_keep: int | None = field(
        default=None,
        metadata={"help": "With multi_krum: updates that are averaged; all but robust_num_bad by default."},
    )
    robust_clip: float | None = field(
        default=None,
        metadata={
            "help": "With norm_bound: largest norm of a client's change; with centred_clip: largest distance from "
            "where the clients were before. By default the median of the round's."
        },
    )
    robust_steps: int | None = field(
        default=None,
        metadata={
            "help": "With geometric_median: steps of Weiszfeld's algorithm (until it stands still by default); with "
            "centred_clip: steps in a round (1 by default)."
        },
    )
    robust_root: str | None = field(
        default=None,
        metadata={
            "help": "With fltrust: the client whose rows everybody trusts, such as public rows at the server; it is "
            "asked in every round, and its change is what others are measured by."
        },
    )

    def check(self) -> None:
        """Refuse settings that the rule does not look at, and values that mean nothing.

        Raises:
            ConfigError: naming the setting.
        """
        rule = self.robust_sum
        if rule not in ROBUST_SUMS:
            hint = did_you_mean(rule, ROBUST_SUMS)
            raise ConfigError(f"robust_sum {rule!r} is unknown; {hint}choose from {', '.join(ROBUST_SUMS)}")
        check_at_least_one(self, "robust_keep", "robust_steps")
        for name, rules in (
            ("robust_num_bad", _WITH_NUM_BAD),
            ("robust_keep", ("multi_krum",)),
            ("robust_clip", _WITH_CLIP),
            ("robust_steps", _WITH_STEPS),
            ("robust_root", ("fltrust",)),
        ):
            if getattr(self, name) is not None and rule not in rules:
                raise ConfigError(
                    f"{name} is given, and robust_sum {rule} does not look at it; use {' or '.join(rules)}, or leave "
                    "it out"
                )
        if self.robust_num_bad is not None and self.robust_num_bad < 0:
            raise ConfigError(f"robust_num_bad is {self.robust_num_bad}; it must not be negative")
        if rule in _WITH_NUM_BAD and self.robust_num_bad is None:
            raise ConfigError(f"robust_sum is {rule}; say with robust_num_bad how many bad clients a round may have")
        if self.robust_clip is not None and not 0 < self.robust_clip < math.inf:
            raise ConfigError(f"robust_clip is {self.robust_clip}; it must be positive")
        if rule == "fltrust" and self.robust_root is None:
            raise ConfigError("robust_sum is fltrust; name with robust_root the client whose rows everybody trusts")


def least_updates(settings: RobustSettings) -> int:
    """Return how few updates the rule says anything about: 2 f + 3 for Krum, 4 f + 3 for Bulyan, 2 f + 1 trimmed.

    >>> least_updates(RobustSettings(robust_sum="krum", robust_num_bad=2))
    7
    """
    bad = settings.robust_num_bad or 0
    if settings.robust_sum == "bulyan":
        return 4 * bad + 3
    if settings.robust_sum in SELECTIONS:
        return max(2 * bad + 3, (settings.robust_keep or 0) + bad)
    return 2 * bad + 1


def check_robust_method(
    settings: RobustSettings, name: str, traits: Traits, *, cohort_size: int, others: dict[str, bool]
) -> None:
    """Refuse a rule that cannot stand in the place of a method's mean, or that the round is too small for.

    Args:
        settings: the rule.
        name: of the method.
        traits: what the method can do.
        cohort_size: updates that make a step.
        others: settings that no such rule goes with -> whether they are given.

    Raises:
        ConfigError: with the reason.
    """
    rule = settings.robust_sum
    if rule == "none":
        return
    if given := [each for each, is_given in others.items() if is_given]:
        raise ConfigError(
            f"robust_sum is {rule} and {given[0]} is given: a robust sum looks at every update by itself, made from "
            "one broadcast; drop one of them"
        )
    if not traits.sends_adapter or not traits.travels:
        raise ConfigError(f"robust_sum is {rule}, and clients of strategy {name!r} send no adapter; leave it out")
    if traits.adapter_down not in ("same", "none") and traits.sees != "each":
        raise ConfigError(
            f"robust_sum is {rule}, and strategy {name!r} sends clients adapters of their own, whose changes "
            "cannot be set against one another; use a method that sends all the same"
        )
    if rule not in SELECTIONS and traits.sees != "mean":
        needs = {"sum": f"makes more of what clients send ({traits.up}) than", "each": "needs every update, not"}
        raise ConfigError(
            f"robust_sum is {rule}, which leaves one adapter, and strategy {name!r} {needs.get(traits.sees, 'needs')} "
            f'the mean of their adapters; use {" or ".join(SELECTIONS)}, or a method whose "sees" is "mean"'
        )
    if cohort_size < (least := least_updates(settings)):
        bad = "" if settings.robust_num_bad is None else f" with robust_num_bad {settings.robust_num_bad}"
        raise ConfigError(
            f"robust_sum {rule}{bad} needs {least} updates, and a step takes {cohort_size}; choose a larger "
            "cohort_size, or fewer bad clients"
        )


def check_root(
    settings: RobustSettings,
    client_ids: Sequence[str],
    *,
    cohort_size: int,
    is_synchronous: bool,
    attackers: Mapping[str, str],
) -> None:
    """Refuse a root that is no client or no honest one, or that could not be asked in every round beside a cohort.

    Args:
        settings: may name a root.
        client_ids: clients that may take part.
        cohort_size: clients of a round, without the root.
        is_synchronous: whether every client that is asked is waited for.
        attackers: client -> attack, of simulated attackers.

    Raises:
        ConfigError: naming it.
    """
    root = settings.robust_root
    if root is None:
        return
    if root not in client_ids:
        hint = did_you_mean(root, client_ids[:10_000])
        raise ConfigError(f"robust_root {root!r} is none of the {len(client_ids):,} clients; {hint}name one of them")
    if not is_synchronous:
        raise ConfigError("robust_root is asked in every round and waited for; use participation synchronous")
    if root in attackers:
        raise ConfigError(
            f"robust_root {root!r} is trusted by everybody, and it is a simulated attacker ({attackers[root]}); name "
            "another root, or other attackers"
        )
    if cohort_size > len(client_ids) - 1:
        raise ConfigError(
            f"a round takes {cohort_size} clients, and beside robust_root {root!r} there are {len(client_ids) - 1}; "
            f"use cohort_rule uniform with a cohort_size of at most {len(client_ids) - 1}"
        )
