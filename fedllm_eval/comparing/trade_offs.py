"""What a comparison says about costs: the fronts, and the three standard protocols as far as they are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedllm_data.errors import MetricError
from fedllm_eval.comparing.asked_protocols import parse_budget, parse_targets
from fedllm_eval.comparing.compared_methods import Method
from fedllm_eval.comparing.front_words import front_sentences
from fedllm_eval.comparing.fronts import fronts_of, headline_score
from fedllm_eval.comparing.method_costs import charged_methods
from fedllm_eval.comparing.protocols import cost_to_target, quality_under_budget
from fedllm_eval.comparing.robustness import robustness
from fedllm_eval.deciding.stated_lines import StatedPrices

__all__ = ["AskedCosts", "drawn_fronts", "trade_offs"]


@dataclass(frozen=True, kw_only=True)
class AskedCosts:
    """What a reader states and asks about costs."""

    prices: StatedPrices | None = None
    """Lines and prices, which no run knows; nothing where None."""
    budgets: Sequence[str] = ()
    """Such as `bytes=20MB,hours=2`: the best score within each."""
    targets: Sequence[str] = ()
    """Such as `heldout_loss=1.5`: what it cost to get there."""


def trade_offs(methods: Sequence[Method], asked: AskedCosts, *, seed: int = 0) -> dict[str, Any]:
    """Return fronts and protocols of methods that were scored alike.

    The order of the methods changes nothing.

    Args:
        methods: two or more.
        asked: prices, budgets and targets.
        seed: seeds the bootstrap and the sign flips.

    Returns:
        `currency`; `fronts` as `fronts.fronts_of` gives them, each item with its `sentences` (None where the results
        have no score in common); `budgets`, `targets` and
        `robustness`, lists of what the protocols give.

    Raises:
        MetricError: if a budget or a target makes no sense.
        ConfigError: if the rounds or the client table of a run cannot be read.
    """
    budgets, targets = [parse_budget(text) for text in asked.budgets], parse_targets(asked.targets)
    tables = [run.results.per_client.column_names for method in methods for run in method.runs]
    if missing := next((name for name, _ in targets if not any(name in columns for columns in tables)), None):
        raise MetricError(f"a target for {missing}, which none of these results has; name a score that they have")
    prices = asked.prices or StatedPrices()
    charged = sorted(charged_methods(methods, prices), key=lambda one: one.label)
    score = headline_score(methods)
    if score is None:
        if budgets:
            raise MetricError("a budget is given, and the results have no score in common; score all of them alike")
        return {"currency": prices.currency, "fronts": None, "budgets": [], "targets": [], "robustness": []}
    fronts = fronts_of(charged, score, seed=seed)
    for item in fronts["items"]:
        item["sentences"] = front_sentences(item, prices.currency)
    return {
        "currency": prices.currency,
        "fronts": fronts,
        "budgets": [quality_under_budget(charged, score, limits) for limits in budgets],
        "targets": [cost_to_target(charged, name, value) for name, value in targets],
        "robustness": robustness(charged, score),
    }


def drawn_fronts(trade: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the fronts on which two methods or more can be set against one another.

    >>> drawn_fronts({"fronts": {"items": [{"points": [{}]}, {"points": [{}, {}]}]}})
    [{'points': [{}, {}]}]
    """
    return [] if trade["fronts"] is None else [item for item in trade["fronts"]["items"] if len(item["points"]) > 1]
