"""Robust aggregation: all updates of a step, and a rule in place of their mean that few bad clients cannot move far.

The rules are in `robust_rules.py`. Two kinds of them see two kinds of methods. A selection (Krum, multi-Krum) chooses
some updates, which the method then sees as their clients sent them; distances are those of the products B A
(`update_products.py`), so that it is exact whatever of LoRA is trained. All others leave one adapter, which stands
where the clients' mean stood, so that they go with methods that are content with the mean (`Traits.sees`). They work
on the numbers that are sent: exact where one factor of LoRA is frozen or shared, or no factors are trained, and a
heuristic where both are, since a median of A and a median of B are no median of B A. Norm bounding and centred
clipping shorten changes from one broadcast, and mean what they say on any numbers.

All rules count clients alike, whatever their rows. The updates of a step are kept in memory until it is made: n times
an adapter. What centred clipping remembers between rounds is in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedllm_train.adapters.arithmetic import Adapter, Parts, change_of
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.robust_rules import (
    Matrix,
    bulyan_coordinates,
    bulyan_selection,
    centred_clip_weights,
    fltrust_weights,
    geometric_median_weights,
    krum_selection,
    median_coordinates,
    norm_bound_weights,
    trimmed_coordinates,
)
from fedllm_train.aggregation.robust_settings import SELECTIONS, RobustSettings, least_updates
from fedllm_train.aggregation.update_products import gram_of_changes, gram_of_products, sends_both_factors
from fedllm_train.engines.engine import Reply
from fedllm_train.lazy_torch import torch
from fedllm_train.strategy import Sums

__all__ = ["RobustAggregation", "RobustMemory", "heuristic_note"]

_ON_ANY_NUMBERS = (*SELECTIONS, "norm_bound", "centred_clip")
_MEMORY = "centre"


class RobustMemory:
    """What a rule remembers between rounds: the centre of centred clipping."""

    def __init__(self, parts: Parts) -> None:
        """Go on from what a checkpoint kept; nothing at first."""
        self.parts = parts

    @property
    def centre(self) -> Adapter:
        """The change that the rule made in the round before, in float64; empty before the first."""
        return self.parts.get(_MEMORY, {})

    def keep(self, centre: Adapter) -> None:
        """Remember a round's change."""
        self.parts = {_MEMORY: centre}


class RobustAggregation:
    """The updates of one step."""

    def __init__(
        self,
        inbox: Inbox,
        server: Parts,
        settings: RobustSettings,
        memory: RobustMemory,
        *,
        step: int,
        min_clients: int,
    ) -> None:
        """Begin with nothing.

        Args:
            inbox: unpacks replies.
            server: the server's state that the step begins from.
            settings: the rule.
            memory: what it remembers.
            step: the step.
            min_clients: the least number of updates that make a server step, if the rule needs no more.
        """
        self._inbox, self._server, self._settings, self._memory = inbox, server, settings, memory
        self._step, self._least = step, max(min_clients, least_updates(settings))
        self._updates: dict[str, Parts] = {}
        self._anchors: dict[str, Adapter] = {}
        self._root: Adapter | None = None
        self._shares: dict[str, float] = {}

    def add(self, reply: Reply) -> str | None:
        """Keep an update; return why it cannot be used, or None."""
        update, anchor, problem = self._inbox.read(reply, self._server)
        if problem is None and reply.client_id == self._settings.robust_root:
            self._root = change_of(update["adapter"], anchor)
        elif problem is None:
            self._updates[reply.client_id] = update
            self._anchors[reply.client_id] = anchor
        return problem

    def is_enough(self) -> bool:
        """Return whether there are enough updates for the rule, and the root's where it needs one."""
        has_root = self._settings.robust_root is None or self._root is not None
        return has_root and len(self._updates) >= self._least

    def sums(self) -> Sums:
        """Return the sums of the chosen updates, or of the one adapter that the rule made."""
        strategy = self._inbox.strategy
        sums: Sums = {}
        for update in self._seen_by_method():
            strategy.fold(sums, update, strategy.weigh(update, num_rows=1))
        return sums

    def as_record(self) -> dict[str, Any]:
        """Return the rule and how much of each client is in what it made, as a share of the whole."""
        told: dict[str, Any] = {"rule": self._settings.robust_sum, "num_updates": len(self._updates)}
        if not self.is_enough():
            missing = "the root's update" if len(self._updates) >= self._least else f"{self._least} updates"
            told["reason"] = f"the rule needs {missing}"
        return {"robust": {**told, "shares": self._shares}}

    def _seen_by_method(self) -> list[Parts]:
        settings = self._settings
        ids = sorted(self._updates)
        if settings.robust_sum in SELECTIONS:
            chosen = self._selected(ids)
            self._shares = {each: 1.0 / len(chosen) if each in chosen else 0.0 for each in ids}
            return [self._updates[each] for each in chosen]
        start = self._anchors[ids[0]]
        names = sorted(self._updates[ids[0]]["adapter"])
        changes = [change_of(self._updates[each]["adapter"], start) for each in ids]
        change, shares = self._combined(changes)
        self._shares = dict(zip(ids, (round(float(each), 9) for each in shares), strict=True))
        adapter = {name: (start[name].double() + change[name]).to(start[name].dtype) for name in names}
        return [{"adapter": adapter}]

    def _selected(self, ids: Sequence[str]) -> list[str]:
        bad = self._settings.robust_num_bad or 0
        keep = 1 if self._settings.robust_sum == "krum" else self._settings.robust_keep or len(ids) - bad
        return [ids[each] for each in krum_selection(self._products(ids), bad, min(keep, len(ids)))]

    def _products(self, ids: Sequence[str]) -> Matrix:
        """Inner products of what the clients changed in the weights."""
        adapters = [self._updates[each]["adapter"] for each in ids]
        start = self._anchors[ids[0]]
        names = adapters[0].keys()
        frozen = {name: tensor for name, tensor in {**self._inbox.start_adapter, **start}.items() if name not in names}
        return gram_of_products(adapters, {name: start[name] for name in names}, frozen)

    def _combined(self, changes: list[Adapter]) -> tuple[Adapter, Matrix]:
        """The change that the rule makes of the clients', and the share of each client in it."""
        settings, rule = self._settings, self._settings.robust_sum
        bad = settings.robust_num_bad or 0
        if rule == "geometric_median":
            weights = geometric_median_weights(gram_of_changes(changes), settings.robust_steps)
        elif rule == "norm_bound":
            weights = norm_bound_weights(gram_of_changes(changes), settings.robust_clip)
        elif rule == "centred_clip":
            return self._centred(changes)
        elif rule == "fltrust":
            assert self._root is not None, "is_enough"
            weights = fltrust_weights(gram_of_changes([self._root, *changes]))
        else:
            return self._by_coordinates(changes, rule, bad)
        return _weighted(changes, weights), weights

    def _centred(self, changes: list[Adapter]) -> tuple[Adapter, Matrix]:
        settings = self._settings
        centre = self._memory.centre or {name: torch.zeros_like(tensor) for name, tensor in changes[0].items()}
        every = [centre, *changes]
        weights = centred_clip_weights(gram_of_changes(every), settings.robust_clip, settings.robust_steps or 1)
        change = _weighted(every, weights)
        self._memory.keep(change)
        return change, weights[1:]

    def _by_coordinates(self, changes: list[Adapter], rule: str, bad: int) -> tuple[Adapter, Matrix]:
        everybody = range(len(changes))
        kept = bulyan_selection(self._products(sorted(self._updates)), bad) if rule == "bulyan" else everybody
        made: Adapter = {}
        shares, count = np.zeros(len(changes)), 0
        for name in sorted(changes[0]):
            stacked = torch.stack([changes[each][name] for each in kept])
            if rule == "median":
                one = median_coordinates(stacked)
            elif rule == "trimmed_mean":
                one = trimmed_coordinates(stacked, bad)
            else:
                one = bulyan_coordinates(stacked, bad)
            made[name] = one.values
            shares[list(kept)] += one.shares.numpy()
            count += one.values.numel()
        return made, np.asarray(shares / max(1, count))


def heuristic_note(settings: RobustSettings, adapter: Mapping[str, object]) -> str | None:
    """Return a warning where a rule goes by the numbers of both LoRA factors; else None.

    Args:
        settings: the rule.
        adapter: the names of what clients send.
    """
    rule = settings.robust_sum
    if rule == "none" or rule in _ON_ANY_NUMBERS or not sends_both_factors(adapter):
        return None
    return (
        f"robust_sum {rule} goes by the numbers of A and B apart, and neither says what the product B A is: here it "
        "is a heuristic. It is exact where one factor is frozen (ffa_lora, rolora, fed_sb) or with full_finetuning; "
        "krum and multi_krum compare products"
    )


def _weighted(changes: Sequence[Adapter], weights: Matrix) -> Adapter:
    """The weighted sum of changes."""
    made = {name: torch.zeros_like(tensor) for name, tensor in changes[0].items()}
    for change, weight in zip(changes, weights, strict=True):
        for name, tensor in change.items():
            made[name] += float(weight) * tensor
    return made
