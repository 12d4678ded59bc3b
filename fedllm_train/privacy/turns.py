"""When a client may come again, where the noise of rounds is related: its sensitivity counts on it.

A client gives at most one update in `min_separation` rounds in a row, and at most `max_participations` in the run. Who
may not come is not asked; an update that comes all the same (a slow client's, a client's second one) is left out by
name. What counts are updates that were added to a sum: a client that was asked and lost may be asked again. Nothing of
this depends on what clients hold. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError

__all__ = ["TurnRule", "Turns", "check_enough_clients"]


@dataclass(frozen=True, kw_only=True)
class TurnRule:
    """How often a client may come."""

    min_separation: int
    """Rounds from one update of a client to its next, at least; 1 allows every round."""
    max_participations: int
    """Updates of a client in the whole run, at most."""


@dataclass
class Turns:
    """Who gave an update, and when."""

    rule: TurnRule
    last: dict[str, int] = field(default_factory=dict)
    """Client id -> the newest step that has an update of it."""
    count: dict[str, int] = field(default_factory=dict)
    """Client id -> how many steps have one."""

    def resting(self, step: int) -> set[str]:
        """Return the clients that may not come in a step.

        >>> turns = Turns(TurnRule(min_separation=3, max_participations=2))
        >>> turns.came("ann", 0)
        >>> turns.resting(2), turns.resting(3)
        ({'ann'}, set())
        """
        return {client_id for client_id in self.last if self.reason_against(client_id, step) is not None}

    def reason_against(self, client_id: str, step: int) -> str | None:
        """Return why an update of a client cannot be in a step; None where it can."""
        if (last := self.last.get(client_id)) is None:
            return None
        if step - last < self.rule.min_separation:
            when = "this round" if step == last else f"round {last + 1}"
            return (
                f"it has an update in {when} already, and the guarantee allows one in {self.rule.min_separation} "
                "rounds (dp_min_separation)"
            )
        if self.count[client_id] >= self.rule.max_participations:
            return (
                f"it has {self.count[client_id]} updates in the run already, as many as the guarantee allows "
                "(dp_max_participations)"
            )
        return None

    def came(self, client_id: str, step: int) -> None:
        """Remember a client's update to a step."""
        self.last[client_id] = step
        self.count[client_id] = self.count.get(client_id, 0) + 1

    def as_record(self) -> dict[str, list[int]]:
        """Return client id -> newest step and number of updates, JSON-ready."""
        return {client_id: [step, self.count[client_id]] for client_id, step in self.last.items()}

    @classmethod
    def from_record(cls, rule: TurnRule, record: Mapping[str, list[int]]) -> "Turns":
        """Return what `as_record` wrote down.

        >>> rule = TurnRule(min_separation=1, max_participations=2)
        >>> Turns.from_record(rule, {"ann": [4, 2]}).reason_against("ann", 9)[:29]
        'it has 2 updates in the run a'
        """
        return cls(
            rule,
            {client_id: step for client_id, (step, _) in record.items()},
            {client_id: count for client_id, (_, count) in record.items()},
        )


def check_enough_clients(rule: TurnRule, *, num_clients: int, wanted: int, asked: int, num_rounds: int) -> None:
    """Refuse a rule by which the run would have nobody left to ask.

    Args:
        rule: how often a client may come.
        num_clients: clients that may take part.
        wanted: updates that make a round.
        asked: clients that are asked in a round.
        num_rounds: rounds of the run.

    Raises:
        ConfigError: with what would do.

    >>> check_enough_clients(
    ...     TurnRule(min_separation=4, max_participations=3), num_clients=40, wanted=10, asked=10, num_rounds=12
    ... )
    """
    rounds_apart = min(rule.min_separation, num_rounds)
    needed = (rounds_apart - 1) * wanted + asked
    if needed > num_clients:
        most = max(1, (num_clients - asked) // wanted + 1)
        raise ConfigError(
            f"dp_min_separation is {rule.min_separation}, and rounds of {asked} clients with that much rest take "
            f"{needed} clients; there are {num_clients}, so choose at most {most}, or a smaller cohort_size"
        )
    if rule.max_participations * num_clients < num_rounds * wanted:
        least = -(-num_rounds * wanted // num_clients)
        raise ConfigError(
            f"dp_max_participations is {rule.max_participations}, and {num_rounds} rounds of {wanted} of "
            f"{num_clients} clients take {least} of each; choose {least} or more, or fewer rounds"
        )
