"""What a robust sum did to whom: how much of each group's updates is in the model, from a run's own records.

A rule that guards against bad clients also costs honest ones: whoever differs from most, such as people of a rare
language, looks like an attacker. Counted is an update's weight: its share of what the rule made, times the number of
updates, so that 1 is what it would have in a plain mean and 0 is left out. Clients are what is drawn: a client's
weight is its mean over its updates, a group's the mean over its clients, with Student's interval. Honest clients are
grouped by main language and by rows (thirds); simulated attackers are a group of their own. Nobody is named, and a
group of fewer than five clients gets no figure. Imports no torch.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_eval.policy.run_folder import ROUNDS_FILE, find_config, is_private, read_rounds, section
from fedllm_eval.running.client_groups import LANGUAGE, MIN_CLIENTS, language_groups
from fedllm_eval.running.run_left_behind import rows_and_languages
from fedllm_eval.scoring.intervals import mean_interval

__all__ = ["ATTACKERS", "HONEST", "ROLE", "SIZE", "robustness_of_rounds", "robustness_of_run"]

ROLE, SIZE = "role", "size"
ATTACKERS, HONEST = "attackers", "honest"
Record = Mapping[str, Any]


def robustness_of_run(run: Path, table: pa.Table | None = None) -> dict[str, Any] | None:
    """Return what a run's robust sum did, and who attacked.

    Args:
        run: a run folder.
        table: the clients table of the corpus that it was trained on; without it honest clients are one group.

    Returns:
        As `robustness_of_rounds`; None for a run without robust sum and attackers, without rounds, or private.

    Raises:
        ConfigError: if the rounds cannot be read.

    >>> robustness_of_run(Path("no/such/run")) is None
    True
    """
    config = find_config(run)
    if config is None or is_private(config) or not (run / ROUNDS_FILE).is_file():
        return None
    rounds: list[Record] = [dict(record) for record in read_rounds(run)]
    if not any("robust" in record or "attack" in record for record in rounds):
        return None
    split = section(config, "data").get("split") or "train"
    asked = {client_id for record in rounds for client_id in (record.get("robust") or {}).get("shares", {})}
    num_rows, languages = rows_and_languages(table, split, asked)
    return robustness_of_rounds(rounds, languages, num_rows)


def robustness_of_rounds(
    rounds: Sequence[Record], languages: Mapping[str, str], num_rows: Mapping[str, int]
) -> dict[str, Any]:
    """Return the rule, the attacks and what became of each group's updates.

    Args:
        rounds: the lines of a run's `rounds.jsonl`.
        languages: client -> main language, as far as it is known.
        num_rows: client -> rows.

    Returns:
        `rule` (None for a plain mean), `attacks` (name -> number of clients seen attacking), `rounds_without_step`,
        and `groups`: kind, name, `num_clients`, `num_updates`, and for at least five clients `weight` (mean, low,
        high) and `left_out_fraction`, else None.

    >>> one = {"robust": {"rule": "krum", "shares": {"ann": 1.0, "bob": 0.0}}, "attack": {"attackers": {"bob": "nan"}}}
    >>> found = robustness_of_rounds([one], {}, {})
    >>> found["rule"], found["attacks"], [group["num_clients"] for group in found["groups"]]
    ('krum', {'nan': 1}, [1, 1])
    """
    attackers: dict[str, str] = {}
    weights: dict[str, list[float]] = defaultdict(list)
    for record in rounds:
        attackers |= (record.get("attack") or {}).get("attackers", {})
        shares = (record.get("robust") or {}).get("shares", {})
        for client_id, share in shares.items():
            weights[client_id].append(share * len(shares))
    honest = sorted(set(weights) - set(attackers))
    known = {each: languages[each] for each in honest if each in languages}
    groups = {
        ROLE: {each: ATTACKERS if each in attackers else HONEST for each in sorted(weights)},
        LANGUAGE: language_groups(known, honest) if known else {},
        SIZE: _thirds({each: num_rows[each] for each in honest if each in num_rows}),
    }
    return {
        "rule": next((record["robust"]["rule"] for record in rounds if "robust" in record), None),
        "attacks": dict(sorted(Counter(attackers.values()).items())),
        "rounds_without_step": sum(record.get("server_step") is False for record in rounds),
        "groups": [
            _group(kind, name, [weights[each] for each, own in of_client.items() if own == name])
            for kind, of_client in groups.items()
            for name in dict.fromkeys(sorted(of_client.values()))
        ],
    }


def _group(kind: str, name: str, weights: Sequence[Sequence[float]]) -> dict[str, Any]:
    every = [weight for own in weights for weight in own]
    told: dict[str, Any] = {"kind": kind, "name": name, "num_clients": len(weights), "num_updates": len(every)}
    if len(weights) < MIN_CLIENTS:
        return told | {"weight": None, "left_out_fraction": None}
    mean = mean_interval([sum(own) / len(own) for own in weights], bounds=(0.0, math.inf))
    return told | {
        "weight": {"mean": mean.mean, "low": mean.low, "high": mean.high},
        "left_out_fraction": sum(weight == 0 for weight in every) / len(every),
    }


def _thirds(num_rows: Mapping[str, int]) -> dict[str, str]:
    """Clients by rows; those of equal rows stay together."""
    ordered = sorted(num_rows.values())
    if not ordered or ordered[0] == ordered[-1]:
        return {}
    low, high = ordered[len(ordered) // 3], ordered[-(len(ordered) // 3) - 1]
    return {each: "few" if rows < low else "many" if rows > high else "middle" for each, rows in num_rows.items()}
