"""How many clients are asked and waited for, resolved from settings, clients and their machines; and the rule itself.

Imports no torch: plans and refusals are made from here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.client_table import ClientTable
from fedllm_eval.machines.machine import Machine
from fedllm_train.participation.buffered import BufferedClients
from fedllm_train.participation.deadline import DeadlineCohort
from fedllm_train.participation.over_selection import clients_to_ask
from fedllm_train.participation.participation_contract import Participation, TurnTaking
from fedllm_train.participation.participation_settings import ParticipationSettings
from fedllm_train.participation.synchronous import SynchronousCohort

__all__ = ["Turnout", "check_machines", "has_windows", "make_participation", "resolve_turnout"]

_MOST_LOOKED_AT = 10_000
"""Machines that are looked at before a run: all of a thousand clients, one in a hundred of a million."""


@dataclass(frozen=True, kw_only=True)
class Turnout:
    """The numbers of a run's rule of participation."""

    wanted: int
    """Updates that make a server step."""
    asked: int
    """Clients that are asked in a round, or that are under way at any time."""
    drop_out: float
    """Mean probability that a client is lost in a visit."""

    def in_words(self, settings: ParticipationSettings) -> str:
        """Return what the server waits for, for people.

        >>> settings = ParticipationSettings(
        ...     participation="deadline", client_table="profile:phone-4g", deadline_seconds=60.0
        ... )
        >>> Turnout(wanted=10, asked=14, drop_out=0.1).in_words(settings)
        'the first 10 of 14 clients, or 60 s'
        """
        if settings.participation == "synchronous":
            return f"all of {self.wanted} clients"
        if settings.participation == "buffered":
            return f"{self.wanted} updates, with {self.asked} clients under way at any time"
        end = "" if settings.deadline_seconds is None else f", or {settings.deadline_seconds:g} s"
        return f"the first {self.wanted} of {self.asked} clients{end}"


def resolve_turnout(
    settings: ParticipationSettings, client_ids: Sequence[str], cohort_size: int, machines: ClientTable | None
) -> Turnout:
    """Return how many clients are asked and waited for.

    Args:
        settings: the rule's settings.
        client_ids: clients that may take part.
        cohort_size: updates that make a step.
        machines: the clients' machines; None without a clock.

    Raises:
        ConfigError: if more clients are to be asked than there are.
    """
    drop_out = 0.0 if machines is None else _mean_drop_out(settings, client_ids, machines)
    asked = cohort_size
    if settings.participation == "deadline":
        takes_all = settings.cohort_rule in ("fixed", "all")
        if takes_all and settings.over_selection is not None:
            raise ConfigError(
                f"over_selection is given, but cohort_rule {settings.cohort_rule!r} asks all its clients anyway; "
                "leave it out"
            )
        if settings.over_selection is not None:
            asking = settings.over_selection * cohort_size
            asked = max(cohort_size, round(min(asking, len(client_ids) + 1)))
            if asked > len(client_ids):
                raise ConfigError(
                    f"over_selection {settings.over_selection:g} asks {asking:.0f} clients in a round, and there are "
                    f"{len(client_ids)}; choose less, or a smaller cohort_size"
                )
        elif not takes_all:
            asked = min(clients_to_ask(cohort_size, drop_out), len(client_ids))
    elif settings.participation == "buffered":
        asked = min(2 * cohort_size, len(client_ids)) if settings.concurrency is None else settings.concurrency
        if asked > len(client_ids):
            raise ConfigError(
                f"concurrency is {asked}, and there are {len(client_ids)} clients; choose at most {len(client_ids)}"
            )
    return Turnout(wanted=cohort_size, asked=asked, drop_out=drop_out)


def check_machines(client_ids: Sequence[str], machines: ClientTable) -> None:
    """Refuse a client table that does not say how long a visit takes.

    Raises:
        ConfigError: naming the first client and what it lacks.
    """
    for client_id, machine in _looked_at(client_ids, machines.machine):
        for name in ("download_mbit", "upload_mbit", "flops"):
            if getattr(machine, name) is None:
                raise ConfigError(
                    f"client_table {machines.text}: client {client_id!r} has no {name}, so how long its visits take "
                    f"is not known; state {name}, or give a profile that has it"
                )


def has_windows(client_ids: Sequence[str], machines: ClientTable) -> bool:
    """Return whether any machine is open at some times only."""
    return any(machine.windows is not None for _, machine in _looked_at(client_ids, machines.machine))


def make_participation(
    settings: ParticipationSettings,
    turnout: Turnout,
    client_ids: Sequence[str],
    *,
    seed: int,
    sizes: Mapping[str, int],
    spool: Path | None,
    turns: TurnTaking | None = None,
    always: str | None = None,
) -> Participation:
    """Return the rule of participation.

    Args:
        settings: the rule's settings.
        turnout: its numbers.
        client_ids: clients that may take part.
        seed: what cohorts are drawn from.
        sizes: rows of each client.
        spool: an existing folder for messages that wait; None, where there is none, keeps them in memory.
        turns: who may not come yet, where a guarantee of privacy says how often; None lets everybody come.
        always: a client that is asked in every round beside those that are drawn, with participation synchronous.
    """
    if always is not None:
        client_ids = [client_id for client_id in client_ids if client_id != always]
    common: dict[str, Any] = {"client_ids": client_ids, "rule": settings.cohort_rule, "seed": seed, "sizes": sizes}
    common["turns"] = turns
    if settings.participation == "deadline":
        rule: Participation = DeadlineCohort(
            wanted=turnout.wanted,
            asked=turnout.asked,
            deadline_seconds=settings.deadline_seconds,
            keeps_late=settings.late == "apply",
            max_staleness=settings.max_staleness,
            is_partial=settings.partial_work,
            spool=spool,
            **common,
        )
        return rule
    if settings.participation == "buffered":
        return BufferedClients(
            buffer_size=turnout.wanted,
            concurrency=turnout.asked,
            max_staleness=settings.max_staleness,
            spool=spool,
            **common,
        )
    return SynchronousCohort(cohort_size=turnout.wanted, spool=spool, always=always, **common)


def _mean_drop_out(settings: ParticipationSettings, client_ids: Sequence[str], machines: ClientTable) -> float:
    if settings.drop_out is not None:
        return settings.drop_out
    found = [machine.drop_out for _, machine in _looked_at(client_ids, machines.machine)]
    return sum(found) / len(found)


def _looked_at(client_ids: Sequence[str], machine_of: Callable[[str], Machine]) -> list[tuple[str, Machine]]:
    """Clients with their machines: all, or where there are very many an even choice of them."""
    stride = -(-len(client_ids) // _MOST_LOOKED_AT)
    return [(client_id, machine_of(client_id)) for client_id in client_ids[:: max(1, stride)]]
