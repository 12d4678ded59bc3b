"""Which clients attack: those that the client table names, or a share of all, drawn by the run's seed."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_data.seeds import stream_rng
from fedllm_eval.machines.client_table import ClientTable
from fedllm_train.attacks.attack_settings import OF_ROWS, AttackSettings, check_attack_name
from fedllm_train.strategy import Traits

__all__ = ["attackers_of", "check_attacked_rows", "check_attackers"]


def attackers_of(
    settings: AttackSettings, client_ids: Sequence[str], machines: ClientTable | None, *, seed: int
) -> dict[str, str]:
    """Return the clients that attack, sorted, with what they do.

    Args:
        settings: what attackers do, and how many there are.
        client_ids: clients that may take part.
        machines: the client table; its rows may have an attack each.
        seed: the run seed.

    Raises:
        ConfigError: if the table names an attack that is none, or both the table and the settings name attackers.
    """
    named = {} if machines is None else machines.attacks(client_ids)
    for client_id, attack in named.items():
        check_attack_name(attack, f"client_table {machines.text if machines else ''}: attack of client {client_id!r}")
    if named and settings.attack is not None:
        raise ConfigError("attack is given, and client_table has a column attack; drop one")
    if settings.attack is None or settings.attack_share is None:
        return named
    count = max(1, round(settings.attack_share * len(client_ids)))
    drawn = stream_rng(seed, "attackers").choice(len(client_ids), size=count, replace=False)
    return {client_ids[int(place)]: settings.attack for place in sorted(drawn)}


def check_attackers(attackers: Mapping[str, str], name: str, traits: Traits, *, others: dict[str, Any]) -> None:
    """Refuse attacks that a run cannot simulate.

    Args:
        attackers: client -> attack.
        name: of the method.
        traits: what the method can do.
        others: settings that simulated attackers do not go with -> whether they are given.

    Raises:
        ConfigError: with the reason.
    """
    if not attackers:
        return
    attacks = sorted(set(attackers.values()))
    if given := [each for each, is_given in others.items() if is_given]:
        raise ConfigError(
            f"attackers are simulated ({', '.join(attacks)}), which does not go with {given[0]}; drop one"
        )
    if traits.family == "baseline":
        raise ConfigError(f"attackers are simulated, and strategy {name!r} has no federation of clients; drop one")
    of_updates = [each for each in attacks if each not in OF_ROWS]
    if of_updates and not (traits.sends_adapter and traits.travels):
        raise ConfigError(
            f"attack {of_updates[0]} changes the adapter that a client sends, and strategy {name!r} sends none; "
            f"use {', '.join(OF_ROWS)}"
        )


def check_attacked_rows(attackers: Mapping[str, str], task: str | None) -> None:
    """Refuse attacks on rows of another kind, and on rows that are not here.

    Args:
        attackers: client -> attack.
        task: `sft` or `preference`, by the rows; None where these are at other organisations.

    Raises:
        ConfigError: with the reason.
    """
    attacks = set(attackers.values())
    if attacks and task is None:
        raise ConfigError(
            f"attackers are simulated ({', '.join(sorted(attacks))}), and the clients are at sites; try attacks "
            "on one machine"
        )
    if "preference_flip" in attacks and task != "preference":
        raise ConfigError("attack preference_flip swaps chosen and rejected answers, and these rows have none")
    if "label_flip" in attacks and task != "sft":
        raise ConfigError("attack label_flip is for rows with one answer; with pairs use preference_flip")
