"""What a run had cost after each of its rounds: bytes, hours, money and privacy.

Bytes are the run's ledger. Hours are those of its simulated clock, where it has one; else the measured training of the
slowest visit of every round, and sending over the stated lines where lines are stated: a round waits for all its
clients. Money is what stated prices make of bytes, device hours and energy, summed over clients. What is not recorded
or not stated is unknown (None), never 0. Imports no torch.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedllm_data.wording.catalogue import marked
from fedllm_eval.machines.client_table import client_table
from fedllm_eval.machines.machine import Machine, sending_seconds
from fedllm_eval.machines.table_entries import read_entries
from fedllm_eval.policy.run_folder import CLIENT_TABLE_FILE

__all__ = [
    "CLOCK",
    "COSTS",
    "MIXED_HOURS",
    "NO_GUARANTEE",
    "NO_PRICES",
    "TRAINING",
    "TRAINING_AND_LINES",
    "Prices",
    "RoundCost",
    "RunCosts",
    "costs_by_round",
    "kept_machines",
    "visits_of",
]

COSTS = ("bytes", "hours", "money", "epsilon")
"""What a method can be charged with, in the order in which fronts are drawn."""
CLOCK, TRAINING_AND_LINES, TRAINING = "clock", "training and stated lines", "training alone"
"""Where hours come from."""
NO_PRICES = marked("no price is stated")
NO_TIME = marked("the rounds name no time")
NO_PRICED_TIME = marked("the rounds name no time, which has a price")
NO_ENERGY = marked("energy is neither metered nor stated in watts")
NO_GUARANTEE = marked("there is no guarantee of privacy")
MIXED_HOURS = marked("the hours of its seeds are of different kinds")
"""Why a cost is not known."""
Record = Mapping[str, Any]


class Line(Protocol):
    """A client's line and device; None where nothing is stated."""

    @property
    def download_mbit(self) -> float | None:
        """What its line takes in, in Mbit/s."""

    @property
    def upload_mbit(self) -> float | None:
        """What it gives out."""

    @property
    def watts(self) -> float | None:
        """What its device draws while it trains."""


class Prices(Protocol):
    """Lines and prices as somebody states them: `deciding.stated_lines.StatedPrices`."""

    @property
    def per_gb(self) -> float | None:
        """Price of one GB (1e9 bytes), either way."""

    @property
    def per_hour(self) -> float | None:
        """Price of one hour of a client's device."""

    @property
    def per_kwh(self) -> float | None:
        """Price of one kilowatt-hour."""

    def line_of(self, client_id: str) -> Line:
        """Return a client's line and device."""


@dataclass(frozen=True, kw_only=True)
class RoundCost:
    """Everything up to and with a round; None where unknown."""

    round_index: int
    bytes: float | None
    hours: float | None
    money: float | None
    epsilon: float | None

    def of(self, cost: str) -> float | None:
        """Return one of `COSTS`."""
        value: float | None = getattr(self, cost)
        return value


@dataclass(frozen=True, kw_only=True)
class RunCosts:
    """A run's costs, round by round."""

    rounds: tuple[RoundCost, ...]
    hours_from: str | None = None
    """`CLOCK`, `TRAINING_AND_LINES` or `TRAINING`."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Cost -> why it is not known."""

    @property
    def total(self) -> RoundCost | None:
        """After the last round; None where no round is known."""
        return self.rounds[-1] if self.rounds else None


@dataclass(frozen=True)
class VisitCost:
    """What one client gave in one round."""

    client_id: str
    download_bytes: float
    upload_bytes: float
    train_seconds: float | None
    """On the simulated clock, else as measured."""
    joules: float | None


def visits_of(record: Record, before: Record | None) -> list[VisitCost]:
    """Return the visits of a round, also those that came to nothing as far as their cost is recorded.

    Where a visit names no bytes, it is counted with an equal share of the round's.

    Args:
        record: a line of `rounds.jsonl`.
        before: the line before it, None for the first: the ledger adds up.

    >>> ledger = {"download_bytes": 30, "upload_bytes": 10}
    >>> [one] = visits_of({"clients": [{"client_id": "ann", "seconds": 2.0}], "ledger": ledger}, None)
    >>> one.download_bytes, one.upload_bytes, one.train_seconds
    (30.0, 10.0, 2.0)
    """
    visits = record["clients"]
    sides = {}
    for name in ("download_bytes", "upload_bytes"):
        whole = record["ledger"][name] - (0 if before is None else before["ledger"][name])
        sides[name] = whole / len(visits) if visits else 0.0
    counted = [
        VisitCost(
            visit["client_id"],
            float(visit.get("download_bytes", sides["download_bytes"])),
            float(visit.get("upload_bytes", sides["upload_bytes"])),
            visit.get("compute_seconds", visit.get("seconds")),
            visit.get("energy_joules"),
        )
        for visit in visits
    ]
    wasted = [
        VisitCost(
            one["client_id"],
            float(one.get("download_bytes", 0)),
            float(one.get("upload_bytes", 0)),
            one.get("compute_seconds"),
            one.get("energy_joules"),
        )
        for one in record.get("left_out") or ()
        if one.get("compute_seconds") is not None
    ]
    return [*counted, *wasted]


def costs_by_round(
    rounds: Sequence[Record], prices: Prices, *, watts: Mapping[str, float] | None = None, private: bool = False
) -> RunCosts:
    """Return what a run had cost after each round.

    Args:
        rounds: the lines of its `rounds.jsonl`, all of them.
        prices: lines and prices.
        watts: client id -> what its device draws, of the run's own client table; what is stated goes first.
        private: whether the run has a guarantee of differential privacy.

    >>> from fedllm_eval.deciding.stated_lines import StatedPrices
    >>> ledger = {"download_bytes": 3 * 10**9, "upload_bytes": 10**9}
    >>> record = {"round_index": 0, "clients": [{"client_id": "ann", "seconds": 36.0}], "ledger": ledger}
    >>> found = costs_by_round([record], StatedPrices(per_gb=0.5))
    >>> found.total.bytes, found.total.hours, found.total.money, found.hours_from
    (4000000000.0, 0.01, 2.0, 'training alone')
    """
    clocked = bool(rounds) and all(record.get("clock_seconds") is not None for record in rounds)
    visits_by_round = [visits_of(record, before) for record, before in zip(rounds, [None, *rounds[:-1]], strict=True)]
    hours_R, hours_from = _hours(rounds, visits_by_round, prices, clocked=clocked)
    bytes_R = [float(record["ledger"]["download_bytes"] + record["ledger"]["upload_bytes"]) for record in rounds]
    money_R, no_money = _money(bytes_R, visits_by_round, prices, watts or {})
    found = []
    for index, record in enumerate(rounds):
        epsilon = (record.get("privacy") or {}).get("epsilon") if private else None
        found.append(
            RoundCost(
                round_index=record["round_index"],
                bytes=bytes_R[index],
                hours=None if hours_R is None else hours_R[index],
                money=None if money_R is None else money_R[index],
                epsilon=epsilon,
            )
        )
    unknown = {}
    if hours_R is None:
        unknown["hours"] = NO_TIME
    if no_money is not None:
        unknown["money"] = no_money
    if not found or found[-1].epsilon is None:
        unknown["epsilon"] = NO_GUARANTEE
    return RunCosts(rounds=tuple(found), hours_from=hours_from, unknown=unknown)


def kept_machines(run: Path, client_ids: Collection[str] | None = None) -> dict[str, Machine]:
    """Return client id -> its machine in a run's own `client_table.csv`; empty where the run has none.

    Args:
        run: the run folder.
        client_ids: whose machines; by default those of all clients that the file names.

    Raises:
        ConfigError: if the file cannot be read, or lacks one of these clients.

    >>> kept_machines(Path("no/such/run"))
    {}
    """
    file = run / CLIENT_TABLE_FILE
    if not file.is_file():
        return {}
    ids = [entry.client_id for entry in read_entries(file)] if client_ids is None else client_ids
    table = client_table(str(file), ids, seed=0)
    return {client_id: table.machine(client_id) for client_id in ids}


def _hours(
    rounds: Sequence[Record], visits_by_round: Sequence[Sequence[VisitCost]], prices: Prices, *, clocked: bool
) -> tuple[list[float] | None, str | None]:
    """Hours since the start after each round, and where they come from; None where a visit names no time."""
    if clocked:
        return [record["clock_seconds"] / 3600 for record in rounds], CLOCK
    every = [visit for visits in visits_by_round for visit in visits]
    if not every or any(visit.train_seconds is None for visit in every):
        return None, None
    lines = {visit.client_id: prices.line_of(visit.client_id) for visit in every}
    stated = all(line.download_mbit is not None and line.upload_mbit is not None for line in lines.values())
    total, found = 0.0, []
    for visits in visits_by_round:
        slowest = 0.0
        for visit in visits:
            line, seconds = lines[visit.client_id], visit.train_seconds or 0.0
            if stated:
                seconds += sending_seconds(
                    visit.download_bytes,
                    visit.upload_bytes,
                    download_mbit=line.download_mbit or math.nan,
                    upload_mbit=line.upload_mbit or math.nan,
                )
            slowest = max(slowest, seconds)
        total += slowest / 3600
        found.append(total)
    return found, TRAINING_AND_LINES if stated else TRAINING


def _money(
    bytes_R: Sequence[float],
    visits_by_round: Sequence[Sequence[VisitCost]],
    prices: Prices,
    watts: Mapping[str, float],
) -> tuple[list[float] | None, str | None]:
    """Money after each round, or why it is not known: a sum that lacks a stated part would read as the whole."""
    if prices.per_gb is prices.per_hour is prices.per_kwh is None:
        return None, NO_PRICES
    total, found = 0.0, []
    for num_bytes, visits in zip(bytes_R, visits_by_round, strict=True):
        for visit in visits:
            hours = None if visit.train_seconds is None else visit.train_seconds / 3600
            drawn = prices.line_of(visit.client_id).watts or watts.get(visit.client_id)
            kwh = visit.joules / 3.6e6 if visit.joules is not None else None
            if kwh is None and drawn is not None and hours is not None:
                kwh = drawn * hours / 1000
            if prices.per_hour is not None:
                if hours is None:
                    return None, NO_PRICED_TIME
                total += prices.per_hour * hours
            if prices.per_kwh is not None:
                if kwh is None:
                    return None, NO_ENERGY
                total += prices.per_kwh * kwh
        found.append(total + (prices.per_gb or 0.0) * num_bytes / 1e9)
    return found, None
