"""Clients with little memory train the adapters of the last layers alone; what they leave out counts in no mean.

Nothing below the first layer that is trained keeps anything for a backward pass, so a client trains as many of the
last layers as its memory holds. It sends what it trained. The server's mean of a tensor is taken over those who
trained it (as HeteroFL does for parts of a width, Diao et al. 2021, arXiv 2010.01264, equation 2); a tensor that
nobody trained in a round stays as it was. With all layers for everybody this is the method itself, to the bit.

That is sound where the server's rule treats each tensor by itself and asks for no more than its mean: for FedAvg,
FedProx, and server steps along the mean change. `LastLayers` stands around such a method, at both ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum, Shapes
from fedllm_train.adapters.ranks import numbers_of_column
from fedllm_train.strategy import Federation, Strategy, Sums
from fedllm_train.visit import Correction, Fit, Visit

if TYPE_CHECKING:
    from fedllm_train.clients.memory_fit import ClientMemory

__all__ = ["LastLayers", "client_layers", "names_of_last_layers", "with_last_layers"]

_LAYER = re.compile(r"\.(\d+)\.")


def client_layers(
    rule: str, ids: Sequence[str], table: pa.Table | None, memory: ClientMemory | None = None
) -> dict[str, int]:
    """Return how many of the last layers every client trains; more than there are means all.

    Args:
        rule: `memory` gives each as many as its memory holds; `column:NAME` takes an integer column of the clients
            table.
        ids: the clients.
        table: the dataset's table of clients.
        memory: of the clients; without it, layers by memory are not dealt out yet.

    Raises:
        ConfigError: if the rule cannot be read, the column is missing or holds anything but positive integers, or one
            layer does not fit a client's memory.

    >>> client_layers("column:depth", ["ann"], pa.table({"client_id": ["ann"], "depth": [3]}))
    {'ann': 3}
    """
    if rule.startswith("column:"):
        return numbers_of_column("client_layers", rule.removeprefix("column:"), sorted(ids), table)
    if rule != "memory":
        raise ConfigError(f"client_layers is {rule!r}; give memory or column:NAME")
    if memory is None:
        return {}
    choices, gb_of = list(range(1, memory.fit.shape.num_layers + 1)), memory.fit.gb_of_last_layers
    return {client_id: memory.most(client_id, choices, gb_of, "last layers") for client_id in sorted(ids)}


def names_of_last_layers(names: Sequence[str], num_layers: int) -> frozenset[str]:
    """Return the tensors of the last layers that an adapter has, with those that belong to no layer.

    A layer is told by the first number in a tensor's name.

    Raises:
        ConfigError: if no name has a number.

    >>> sorted(names_of_last_layers(["m.0.q", "m.1.q", "m.2.q", "head"], 2))
    ['head', 'm.1.q', 'm.2.q']
    """
    of_name = {name: int(found[1]) for name in names if (found := _LAYER.search(name)) is not None}
    if not of_name:
        raise ConfigError(
            "client_layers is given, but no tensor of the adapter belongs to a numbered layer; adapt modules of the "
            "layers, or leave it out"
        )
    first = sorted(set(of_name.values()))[-num_layers:][0]
    return frozenset(name for name in names if of_name.get(name, first) >= first)


def with_last_layers(method: Strategy, federation: Federation) -> Strategy:
    """Return a method as a federation uses it: with layers of their own for some clients, if it has such."""
    return LastLayers(method, federation.layers) if federation.layers else method


class LastLayers:
    """A method some of whose clients train the last layers of the adapter alone."""

    def __init__(self, method: Strategy, layers: Mapping[str, int]) -> None:
        """Stand around a method.

        Args:
            method: averages one adapter, tensor by tensor.
            layers: client -> how many of the last layers it trains; clients that are missing train all.
        """
        self._method, self._layers = method, layers
        self.traits, self.Settings = method.traits, method.Settings
        self.fits_per_visit = getattr(method, "fits_per_visit", 1)

    def participants(self, client_ids: Sequence[str]) -> list[str]:
        """Return the method's own."""
        return self._method.participants(client_ids)

    def start(self, adapter: Adapter) -> Parts:
        """Begin as the method does.

        Raises:
            ConfigError: if the adapter has no layers.
        """
        names_of_last_layers([*adapter], 1)
        return self._method.start(adapter)

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the whole adapter: its lower layers are read, too."""
        return self._method.broadcast(state, client_id, round_index)

    def anchor(self, received: Parts, start: Adapter, client_id: str, round_index: int) -> Adapter:
        """Start where the method starts."""
        return self._method.anchor(received, start, client_id, round_index)

    def client_update(self, visit: Visit) -> Parts:
        """Train what the client holds, and send that."""
        names = self._names([*visit.received["adapter"]], visit.client_id)
        if names is None:
            return self._method.client_update(visit)
        update = self._method.client_update(replace(visit, fitter=_only(visit.fitter, names)))
        return update | {"adapter": {name: value for name, value in update["adapter"].items() if name in names}}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect the tensors that the client trains."""
        expected = self._method.expects(state, client_id, round_index)
        names = self._names([*expected["adapter"]], client_id)
        if names is None:
            return expected
        kept = {name: shape for name, shape in expected["adapter"].items() if name in names}
        return {**expected, "adapter": kept}

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return what the client trained: no more of it stands for anything."""
        return self._method.contribution(state, update)

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh as the method does."""
        return self._method.weigh(update, num_rows)

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add what the client trained; each tensor has a weight of its own (`RunningSum`)."""
        self._method.fold(sums, update, weights)

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Follow the method's rule; what nobody trained stands in the mean as it was."""
        total: RunningSum = sums["adapter"]
        there = total.total()
        total.add({name: value for name, value in state["adapter"].items() if name not in there}, 1)
        return self._method.server_step(state, sums, round_index)

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Keep what the method keeps."""
        return self._method.personal_adapter(visit)

    def _names(self, names: Sequence[str], client_id: str) -> frozenset[str] | None:
        """What a client trains; None for all of it."""
        if client_id not in self._layers:
            return None
        found = names_of_last_layers(names, self._layers[client_id])
        return None if len(found) == len(names) else found


def _only(fitter: Fit, names: frozenset[str]) -> Fit:
    """A fit that trains some tensors alone."""

    def fit(
        start: Adapter, *, correct: Correction | None, trains: Callable[[str], bool] | None, **rest: Any
    ) -> Adapter:
        def trained(name: str) -> bool:
            return name in names and (trains is None or trains(name))

        return fitter(start, correct=correct, trains=trained, **rest)

    return fit
