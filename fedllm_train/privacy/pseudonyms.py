"""What is published by default about a run without a guarantee: its course and cost, but nobody's name or losses.

A client is called client-1, client-2, ... in the order in which the run first met them, so that visits can still be
counted and their cost added up. What is left out could be put together with a public dataset and name a person: ids,
row counts, losses, and the reasons for which a client was left out. `fedllm_eval/reporting/unnamed.py` says which
scores are published.
"""

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["COSTS", "without_names"]

COSTS = ("num_steps", "seconds", "num_tokens", "peak_memory_bytes", "energy_joules")
"""Fields of a visit's record that stay: what it cost, which says nothing of the client's rows."""


def without_names(rounds: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of a run's rounds with clients under running numbers, and their costs alone.

    >>> visit = {"client_id": "ann", "num_rows": 3, "num_steps": 2, "train_loss": 1.5}
    >>> rounds = [{"round_index": 0, "clients": [visit], "left_out": [{"client_id": "bob", "reason": "no rows"}]}]
    >>> without_names(rounds)[0]["clients"], without_names(rounds)[0]["left_out"]
    ([{'client_id': 'client-1', 'num_steps': 2}], [{'client_id': 'client-2'}])
    """
    numbers: dict[str, str] = {}

    def called(client_id: str) -> str:
        return numbers.setdefault(client_id, f"client-{len(numbers) + 1}")

    records = []
    for record in rounds:
        visits = [
            {"client_id": called(visit["client_id"]), **{name: visit[name] for name in COSTS if name in visit}}
            for visit in record.get("clients", ())
        ]
        left_out = [{"client_id": called(each["client_id"])} for each in record.get("left_out", ())]
        records.append({**record, "clients": visits, "left_out": left_out})
    return records
