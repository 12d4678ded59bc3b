"""What a run took: bytes, hours, energy and money, in all and for each partner.

Bytes are the run's own ledger; where it does not tell them apart, a partner is counted with an equal share of those of
each round it took part in. Seconds are those of the simulated clock where the run had a client table (it knows the
partners' lines and devices), else those of training alone, measured where the run was made. What else rests on facts
that no run knows (lines, watts, prices) is None unless it is stated, or stands in the run's client table.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_eval.deciding.stated_lines import Line, StatedPrices
from fedllm_eval.machines.machine import Machine, sending_seconds
from fedllm_eval.policy.run_folder import find_config, is_private, read_rounds, section
from fedllm_eval.policy.run_records import RoundRecord
from fedllm_eval.running.round_costs import kept_machines

__all__ = ["PartnerCost", "RunPrice", "price_of_runs"]

_SUMS = ("rounds", "down", "up", "seconds", "compute_seconds", "send_seconds", "joules")


@dataclass(frozen=True, kw_only=True)
class PartnerCost:
    """What one partner gave; None where a fact is not stated."""

    num_rounds: int
    num_rows: int | None
    """Rows it trained on."""
    num_bytes: float
    """Both ways."""
    train_hours: float
    send_hours: float | None
    energy_kwh: float | None
    money: float | None

    @property
    def hours(self) -> float:
        """Training, and sending where its line is stated."""
        return self.train_hours + (self.send_hours or 0.0)


@dataclass(frozen=True, kw_only=True)
class RunPrice:
    """What it took to make a candidate: the run, and the runs that it started from where they are given."""

    num_runs: int
    num_rounds: int
    num_bytes: int
    partners: Mapping[str, PartnerCost]
    energy_is_metered: bool
    is_simulated: bool
    """Whether hours are those of a simulated clock, by the machines of a client table."""
    epsilon: float | None
    """Spent privacy, added up over the runs; None where a run has no guarantee."""
    delta: float | None
    private: bool
    """Whether who took part is under a guarantee, so that nothing is said of single partners."""

    def total(self, name: str) -> float | None:
        """Return a partner's field summed over all of them; None where it is unknown of any."""
        values = [getattr(cost, name) for cost in self.partners.values()]
        return math.fsum(values) if values and None not in values else None

    def mean(self, name: str) -> float | None:
        """Return the mean over the partners that took part; None where it is unknown of any."""
        total = self.total(name)
        return None if total is None else total / len(self.partners)

    def most(self, name: str) -> float | None:
        """Return the largest over partners; None where it is unknown of any."""
        return None if self.total(name) is None else max(getattr(cost, name) for cost in self.partners.values())

    def as_record(self) -> dict[str, Any]:
        """Return totals and means, without a line for any partner."""
        per_partner = ("num_bytes", "train_hours", "send_hours", "hours", "energy_kwh", "money")
        names = ("num_runs", "num_rounds", "num_bytes", "energy_is_metered", "is_simulated", "epsilon", "delta")
        return {
            **{name: getattr(self, name) for name in names},
            "num_partners": len(self.partners),
            **{f"{name}_per_partner": self.mean(name) for name in per_partner},
            **{f"most_{name}_of_a_partner": self.most(name) for name in ("num_bytes", "hours")},
            **{f"total_{name}": self.total(name) for name in ("hours", "energy_kwh", "money")},
        }


def price_of_runs(runs: Sequence[Path], stated: StatedPrices) -> RunPrice:
    """Return what runs took together: one run, or a chain of which each started from the one before.

    Args:
        runs: run folders with their rounds.
        stated: lines and prices.

    Raises:
        ConfigError: if a run's rounds cannot be read.
    """
    gathered: dict[str, dict[str, Any]] = {}
    machines: dict[str, Machine] = {}
    num_bytes = num_rounds = 0
    epsilons: list[tuple[float | None, float | None]] = []
    metered = True
    for run in runs:
        rounds = read_rounds(run)
        config = find_config(run)
        num_rounds += len(rounds)
        ledger = rounds[-1]["ledger"]
        num_bytes += ledger["download_bytes"] + ledger["upload_bytes"]
        metered &= _gather(rounds, gathered)
        machines |= kept_machines(
            run, sorted({visit["client_id"] for record in rounds for visit in record["clients"]})
        )
        privacy = {} if config is None else section(config, "privacy")
        spent = rounds[-1].get("privacy") or privacy
        epsilons.append((spent.get("epsilon"), spent.get("delta")) if config and is_private(config) else (None, None))
    known = bool(epsilons) and all(epsilon is not None for epsilon, _ in epsilons)
    return RunPrice(
        num_runs=len(runs),
        num_rounds=num_rounds,
        num_bytes=num_bytes,
        partners={
            client: _partner(facts, stated.line_of(client), machines.get(client, Machine()), stated)
            for client, facts in sorted(gathered.items())
        },
        energy_is_metered=metered and bool(gathered),
        is_simulated=bool(gathered) and all(facts["is_clocked"] for facts in gathered.values()),
        epsilon=math.fsum(epsilon or 0.0 for epsilon, _ in epsilons) if known else None,
        delta=math.fsum(delta or 0.0 for _, delta in epsilons) if known else None,
        private=any(epsilon is not None for epsilon, _ in epsilons),
    )


def _gather(rounds: Sequence[RoundRecord], gathered: dict[str, dict[str, Any]]) -> bool:
    """Add the rounds to what each client gave; returns whether all energy was metered."""
    before = {"download_bytes": 0, "upload_bytes": 0}
    metered = True
    for record in rounds:
        now = {name: record["ledger"][name] for name in before}  # type: ignore[literal-required]
        visits = record["clients"]
        shares = {name: (now[name] - before[name]) / max(1, len(visits)) for name in before}
        for visit in visits:
            facts = gathered.setdefault(
                visit["client_id"], dict.fromkeys(_SUMS, 0.0) | {"rows": None, "is_clocked": True}
            )
            facts["rounds"] += 1
            facts["rows"] = max(filter(None, (facts["rows"], visit.get("num_rows"))), default=None)
            facts["down"] += visit.get("download_bytes", shares["download_bytes"])
            facts["up"] += visit.get("upload_bytes", shares["upload_bytes"])
            facts["seconds"] += visit.get("seconds", 0.0)
            facts["compute_seconds"] += visit.get("compute_seconds", 0.0)
            facts["send_seconds"] += visit.get("download_seconds", 0.0) + visit.get("upload_seconds", 0.0)
            facts["is_clocked"] &= "compute_seconds" in visit
            facts["joules"] += visit.get("energy_joules", 0.0)
            metered &= "energy_joules" in visit
        before = now
    return metered


def _partner(facts: Mapping[str, Any], line: Line, machine: Machine, stated: StatedPrices) -> PartnerCost:
    down, up = line.download_mbit, line.upload_mbit
    if (down is None or up is None) and not facts["is_clocked"]:
        down, up = machine.download_mbit, machine.upload_mbit
    send = None
    if down is not None and up is not None:
        send = sending_seconds(facts["down"], facts["up"], download_mbit=down, upload_mbit=up) / 3600
    elif facts["is_clocked"]:
        send = facts["send_seconds"] / 3600
    train = facts["compute_seconds" if facts["is_clocked"] else "seconds"] / 3600
    watts = machine.watts if line.watts is None else line.watts
    kwh = facts["joules"] / 3.6e6 if facts["joules"] else None if watts is None else train * watts / 1000
    num_bytes = facts["down"] + facts["up"]
    parts = [
        (price, amount)
        for price, amount in ((stated.per_gb, num_bytes / 1e9), (stated.per_hour, train), (stated.per_kwh, kwh))
        if price is not None
    ]
    # A sum that lacks one of the stated prices would read as the whole.
    money = (
        None if any(amount is None for _, amount in parts) else [price * (amount or 0.0) for price, amount in parts]
    )
    return PartnerCost(
        num_rounds=int(facts["rounds"]),
        num_rows=facts["rows"],
        num_bytes=num_bytes,
        train_hours=train,
        send_hours=send,
        energy_kwh=kwh,
        money=math.fsum(money) if money else None,
    )
