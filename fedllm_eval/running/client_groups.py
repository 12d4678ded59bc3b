"""Groups of clients by speed and by language: thirds by the time of a visit, and main languages. Pure.

A client's speed is how long a visit takes on its machine in the run's client table; slow, middle and fast are thirds
of the clients by that time, and equal machines stay together.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_eval.machines.machine import Machine, visit_seconds

__all__ = [
    "ALL_ALIKE",
    "LANGUAGE",
    "MIN_CLIENTS",
    "OTHER",
    "SPEED",
    "UNKNOWN",
    "language_groups",
    "speed_groups",
]

SPEED, LANGUAGE = "speed", "language"
UNKNOWN = "unknown"
ALL_ALIKE = "all alike"
OTHER = "other"
"""Languages of too few clients to be told apart."""
MIN_CLIENTS = 5
"""A group with fewer clients gets no score: its score would be nearly that of single clients."""
Record = Mapping[str, Any]


def speed_groups(machines: Mapping[str, Machine], rounds: Sequence[Record], clients: Sequence[str]) -> dict[str, str]:
    """Return client -> slow, middle, fast, all alike, or unknown.

    Args:
        machines: client -> its machine, as far as the run's client table names it.
        rounds: for the length of messages and the work of a visit: their means over the run.
        clients: everybody.

    >>> fast, slow = (Machine(download_mbit=8, upload_mbit=8, flops=flops) for flops in (4e9, 1e9))
    >>> speed_groups({"ann": fast, "bob": slow}, [], ["ann", "bob", "eve"])
    {'ann': 'fast', 'bob': 'slow', 'eve': 'unknown'}
    """
    visits = [(visit["client_id"], visit) for record in rounds for visit in record["clients"]]
    down, up = (_mean([visit.get(name) for _, visit in visits]) for name in ("download_bytes", "upload_bytes"))
    work = _mean(
        [
            visit["compute_seconds"] * (machines[client].flops or math.nan)
            for client, visit in visits
            if client in machines and visit.get("compute_seconds") is not None
        ]
    )
    seconds: dict[str, float] = {}
    for client in clients:
        machine = machines.get(client)
        if machine is None or None in (machine.download_mbit, machine.upload_mbit, machine.flops):
            continue
        # Without a record of the work, one visit of 10^12 operations: it orders machines of like lines by their speed.
        took = visit_seconds(
            machine, download_bytes=int(down), flops=work or 1e12, upload_bytes=int(up), client_id=client
        )
        seconds[client] = took.total
    if not seconds:
        return dict.fromkeys(clients, UNKNOWN)
    ordered = sorted(seconds.values())
    if ordered[0] == ordered[-1]:
        return {client: ALL_ALIKE if client in seconds else UNKNOWN for client in clients}
    return {client: _third(seconds[client], ordered) if client in seconds else UNKNOWN for client in clients}


def _third(took: float, ordered: Sequence[float]) -> str:
    """The third that the middle rank of equal times lies in; the fastest are always fast, the slowest always slow."""
    if took in (ordered[0], ordered[-1]):
        return "fast" if took == ordered[0] else "slow"
    rank = (bisect_left(ordered, took) + bisect_right(ordered, took)) / (2 * len(ordered))
    return "fast" if rank < 1 / 3 else "slow" if rank > 2 / 3 else "middle"


def language_groups(languages: Mapping[str, str], clients: Sequence[str]) -> dict[str, str]:
    """Return client -> its main language, `other` for one of fewer than five clients, or unknown.

    >>> mains = {f"c{i}": "de" for i in range(5)} | {"ann": "ja"}
    >>> found = language_groups(mains, [*mains, "bob"])
    >>> found["c0"], found["ann"], found["bob"]
    ('de', 'other', 'unknown')
    """
    known = {client: languages[client] for client in clients if languages.get(client) not in (None, "", "und")}
    sizes = Counter(known.values())
    few = {language for language, num in sizes.items() if num < MIN_CLIENTS}
    return {
        client: UNKNOWN if client not in known else OTHER if known[client] in few else known[client]
        for client in clients
    }


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(known) / len(known) if known else 0.0
