"""What the methods of a comparison cost: a mean over the seeds of each, with the range, or why it is not known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedllm_data.wording.catalogue import marked
from fedllm_eval.comparing.compared_methods import Method, ScoredRun, run_of
from fedllm_eval.deciding.stated_lines import StatedPrices
from fedllm_eval.machines.machine import Machine
from fedllm_eval.policy.run_folder import find_config, is_private, read_rounds
from fedllm_eval.policy.run_records import RunConfig
from fedllm_eval.running.round_costs import (
    COSTS,
    MIXED_HOURS,
    RoundCost,
    RunCosts,
    costs_by_round,
    kept_machines,
)

__all__ = ["ChargedMethod", "ChargedRun", "MethodCost", "charged_methods"]

NOT_AT_HAND = marked("the run folder is not at hand")


@dataclass(frozen=True)
class ChargedRun:
    """A scored run with what it cost."""

    run: ScoredRun
    costs: RunCosts
    rounds: Sequence[Mapping[str, Any]] = ()
    """Its `rounds.jsonl`; empty where its folder is not at hand, and for what was not trained."""
    config: RunConfig | None = None
    machines: Mapping[str, Machine] = field(default_factory=dict)
    """Client -> its machine, where the run has a client table."""


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """One cost of one method."""

    mean: float | None
    """Over seeds; None where it is unknown of one of them."""
    low: float | None = None
    """The least of a seed."""
    high: float | None = None
    hours_from: str | None = None
    """What the hours are hours of, as `running.round_costs` names it."""
    why_unknown: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChargedMethod:
    """All runs of a method with their costs."""

    method: Method
    runs: tuple[ChargedRun, ...]
    by_name: Mapping[str, MethodCost]
    """Cost -> over the whole of each run."""

    @property
    def label(self) -> str:
        """What the method is called."""
        return self.method.label


def charged_methods(methods: Sequence[Method], prices: StatedPrices) -> list[ChargedMethod]:
    """Return the methods with their costs, in their order.

    Raises:
        ConfigError: if the rounds or the client table of a run cannot be read.
    """
    found = []
    for method in methods:
        runs = tuple(_charged(run, prices) for run in method.runs)
        found.append(ChargedMethod(method=method, runs=runs, by_name={cost: _over(runs, cost) for cost in COSTS}))
    return found


def _charged(run: ScoredRun, prices: StatedPrices) -> ChargedRun:
    """A run's costs as far as its folder is at hand; what was not trained cost nothing."""
    if run.is_base:
        return ChargedRun(
            run, RunCosts(rounds=(RoundCost(round_index=-1, bytes=0.0, hours=0.0, money=0.0, epsilon=0.0),))
        )
    folder = run_of(run)
    if folder is not None:
        config = find_config(folder)
        machines = kept_machines(folder)
        watts = {client: machine.watts for client, machine in machines.items() if machine.watts is not None}
        rounds: Sequence[Mapping[str, Any]] = [dict(record) for record in read_rounds(folder)]
        private = config is not None and is_private(config)
        return ChargedRun(run, costs_by_round(rounds, prices, watts=watts, private=private), rounds, config, machines)
    unknown = dict.fromkeys(COSTS, NOT_AT_HAND)
    cost = run.results.summary.get("cost")
    if cost is None:
        return ChargedRun(run, RunCosts(rounds=(), unknown=unknown))
    # Its results hold what the ledger came to; the rounds themselves stayed with the run.
    num_bytes = float(cost["download_bytes"] + cost["upload_bytes"])
    last = RoundCost(round_index=cost["num_rounds"] - 1, bytes=num_bytes, hours=None, money=None, epsilon=None)
    del unknown["bytes"]
    return ChargedRun(run, RunCosts(rounds=(last,), unknown=unknown))


def _over(runs: Sequence[ChargedRun], cost: str) -> MethodCost:
    values, sources = [], []
    for one in runs:
        value = None if one.costs.total is None else one.costs.total.of(cost)
        if value is None:
            return MethodCost(mean=None, why_unknown=one.costs.unknown.get(cost, NOT_AT_HAND))
        values.append(value)
        sources.append(one.costs.hours_from)
    if cost == "hours" and len(set(sources)) > 1:
        return MethodCost(mean=None, why_unknown=MIXED_HOURS)
    return MethodCost(
        mean=sum(values) / len(values),
        low=min(values),
        high=max(values),
        hours_from=sources[0] if cost == "hours" else None,
    )
