"""Canaries for the one-run audit: each is planted or kept out by a fair coin of its own, thrown before training.

Coins, handles and secrets follow from the salt, and from nothing else: nobody without it can tell which canaries are
in, and those that are out look like those that are in. With the unit "example" a canary is one row of some client of
the federation, so that a bound is one on the epsilon of a row. With the unit "client" it is a client of its own, whose
rows all hold the one secret: in or out with everything it has. The number of clients counts as public in a guarantee,
and a client that is out is missing from it; where a guarantee must fit to the last digit, keep the number of clients
out of what is guessed from.
"""

from collections.abc import Sequence
from dataclasses import replace

from fedllm_data.errors import ConfigError
from fedllm_eval.audit.canaries import Canary, make_canaries, secret_stream
from fedllm_eval.scoring.epsilon_bound import Unit

__all__ = ["FEWEST_COINS", "coin_canaries"]

FEWEST_COINS = 8
"""Fewer canaries prove nothing about epsilon, however many are guessed right."""


def coin_canaries(
    client_ids: Sequence[str],
    num_canaries: int,
    *,
    salt: bytes,
    unit: Unit = "example",
    alphabet: str = "digits",
    length: int = 6,
    copies: int = 1,
) -> list[Canary]:
    """Return canaries with their coins thrown.

    Args:
        client_ids: whose rows the canaries are, in turn, with the unit "example"; clients that exist already, whose
            names no canary takes, with the unit "client".
        num_canaries: how many; about half of them are in.
        salt: what coins, handles and secrets follow from.
        unit: what a coin decides about.
        alphabet: as in `make_canaries`.
        length: letters of a secret.
        copies: rows of a canary that is a client. A canary that is an example is one row.

    Raises:
        ConfigError: if there are too few canaries, no clients, or an example is to stand in several rows.

    >>> canaries = coin_canaries(["ann", "bob"], 100, salt=b"s" * 32)
    >>> len(canaries), {canary.client_id for canary in canaries} == {"ann", "bob"}
    (100, True)
    >>> 30 < sum(canary.is_in for canary in canaries) < 70
    True
    """
    if num_canaries < FEWEST_COINS:
        raise ConfigError(
            f"{num_canaries} canaries with coins prove nothing about epsilon; plant {FEWEST_COINS} or more, better "
            "hundreds"
        )
    if unit == "example" and copies != 1:
        raise ConfigError(
            f"copies is {copies}; a coin that decides about {copies} rows bounds no epsilon of one example, so leave "
            "copies out, or take the unit client"
        )
    if unit == "example" and not client_ids:
        raise ConfigError("no clients for canaries; name those whose rows they become")
    canaries: dict[str, Canary] = {}
    taken, number = set(client_ids), 0
    while len(canaries) < num_canaries:
        (made,) = make_canaries(
            [f"{unit} {number}"],
            salt=salt,
            alphabet=alphabet,
            length=length,
            copies=1 if unit == "example" else copies,
        )
        number += 1
        own = f"canary-{made.handle}"
        # Two canaries with one handle would ask one question with two answers.
        if made.handle in canaries or (unit == "client" and own in taken):
            continue
        canaries[made.handle] = replace(
            made,
            client_id=own if unit == "client" else client_ids[len(canaries) % len(client_ids)],
            is_in=next(secret_stream(salt, "coin", f"{unit} {made.handle}")) % 2 == 1,
            unit=unit,
        )
    return list(canaries.values())
