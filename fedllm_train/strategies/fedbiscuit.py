"""FedBiscuit's groups (Wu et al. 2025, arXiv 2407.03038, ICLR): adapters that are trained by those they serve best.

Symbols: U adapters, N clients, w warm-up rounds an adapter.

Warm-up: in rounds u w, ..., (u + 1) w - 1 the cohort trains adapter u alone, by FedAvg; every adapter begins as the
starting one, and they come apart because other clients train them. After it, the server knows by whom each adapter is
liked: a client whose losses are not known, or were told before the last multiple of `biscuit_regroup` rounds, is sent
all U adapters, looks up its training loss of each on the batches of a visit, without a gradient, and sends the U
losses; nothing is trained in that visit. Client rule of all other visits: train the adapter of the client's group.
Server rule: FedAvg inside each group (by rows), and, when losses came, balanced groups (`balanced_groups`): clients
in a drawn order go to the adapter of least loss that is still open; the largest group takes the first
ceil(left / open) of them and closes; the rest go on. So no two groups differ by more than one client, and none dies
out because one adapter was ahead.

The loss is that of the run, so with DPO a client's group is the policy that prefers what the client prefers, and with
SFT the one that expects what it wrote. A client ends with the adapter of its group; one whose losses would be asked
for then looks them up and keeps its own best. The global adapter, for people in no group, is the mean of the adapters
whose turn has come.

What is the paper's: warm-up, losses, balanced groups, FedAvg in each, three to five adapters. There they serve a
selector of answers (FedBis is one adapter for all, FedBiscuit several), whose votes label pairs for a central DPO;
here the clients' own adapters are the result, trained on the run's own objective. Where we differ: there a round asks
all N clients for their losses at once, here each is asked at its next visit, since a cohort answers in a round (with
cohort_rule all it is the same), and groups are dealt again among all whose losses are known; the losses are of
training rows, since a client's test rows are for scores. A run that ends within its U w warm-up rounds leaves every
client the adapter whose turn is next.

The first visit of every client after the warm-up trains nothing, so a run needs several visits a client: the paper has
53 clients and 2,500 visits. With one adapter it is FedAvg, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.client_index import sorted_ids
from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum, Shapes, shapes_of
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings, PersonalSettings
from fedllm_train.seeds import stream_rng
from fedllm_train.settings import check_at_least_one
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Loss, Visit

__all__ = ["FedBiscuit", "balanced_groups"]

_CLIENTS, _ASKED, _GROUP = "clients", "asked", "group"
_LOSSES, _OF, _PLACE, _INDEX = "losses", "of_adapters", "place", "index"


class FedBiscuit(OneAdapter):
    """Several adapters, each trained and averaged by the clients whose loss it makes least, in balanced groups."""

    traits = Traits(
        title="FedBiscuit's groups",
        source="Wu et al. 2025, arXiv 2407.03038",
        choose_when="clients differ in what they prefer or write, nothing known of them beforehand says how, and each "
        "is visited several times: its losses find its group, in a visit without training",
        family="personal",
        exact_aggregation=False,
        weights="rows",
        sees="each",
        down="adapter of the client's group, or all of them to compare",
        up="adapter, or its loss of each",
        server_cost="O(adapters x adapter + clients)",
        personal=True,
        draws_start=True,
        adapter_down="several",
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(PersonalSettings, MeanSettings):
        """The settings of this method."""

        biscuit_adapters: int = field(
            default=3,
            metadata={"help": "With fedbiscuit: number of adapters, and so of groups (the paper has 3 or 5)."},
        )
        biscuit_warmup: int = field(
            default=1,
            metadata={"help": "With fedbiscuit: rounds at the beginning in which all train one adapter, for each."},
        )
        biscuit_regroup: int = field(
            default=50,
            metadata={"help": "With fedbiscuit: rounds after which clients are asked for their losses again."},
        )

        def check(self) -> None:
            """Refuse counts below one."""
            check_at_least_one(self, "biscuit_adapters", "biscuit_warmup", "biscuit_regroup")

    def __init__(self, federation: Federation) -> None:
        """Take the clients, in order, and the run seed."""
        super().__init__(federation)
        own: FedBiscuit.Settings = federation.settings
        self._num_adapters, self._regroup = own.biscuit_adapters, own.biscuit_regroup
        self._each = own.biscuit_warmup
        self._warmup = own.biscuit_adapters * own.biscuit_warmup
        self._seed = federation.seed
        self._ids = sorted_ids(federation.eligible)

    def start(self, adapter: Adapter) -> Parts:
        """Begin with U copies of the starting adapter and no group."""
        num_clients = len(self._ids)
        clients = {
            _LOSSES: torch.zeros(num_clients, self._num_adapters, dtype=torch.float64),
            _ASKED: torch.full((num_clients,), -1, dtype=torch.int64),
            _GROUP: torch.full((num_clients,), -1, dtype=torch.int64),
        }
        return {"adapter": adapter} | {_part(u): adapter for u in range(self._num_adapters)} | {_CLIENTS: clients}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the adapter whose turn it is or of the client's group, and which it is; or all, and who is asked."""
        if self.asks_for_losses(state, client_id, round_index):
            place = self._ids.find(client_id)
            every = {_part(u): state[_part(u)] for u in range(self._num_adapters)}
            return every | {_PLACE: {_PLACE: torch.tensor(-1 if place is None else place)}}
        u = self._adapter_of(state, client_id, round_index)
        return {"adapter": state[_part(u)], _GROUP: {_INDEX: torch.tensor(u)}}

    def first_download(self, start: Adapter, client_id: str) -> Adapter:
        """Return the starting adapter, with which the first one begins."""
        return start

    def anchor(self, received: Parts, start: Adapter, client_id: str, round_index: int) -> Adapter:
        """Start from the adapter that was sent; losses are measured from nothing."""
        return received.get("adapter", {})

    def client_update(self, visit: Visit) -> Parts:
        """Train the adapter that was sent; or send the loss of each, where there are all."""
        if "adapter" in visit.received:
            return {"adapter": visit.fit(visit.received["adapter"]), _GROUP: visit.received[_GROUP]}
        return {_LOSSES: {_OF: torch.from_numpy(self._losses(visit)).float()}, _PLACE: visit.received[_PLACE]}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect an adapter and its group, or U losses and whose they are."""
        if self.asks_for_losses(state, client_id, round_index):
            return {_LOSSES: {_OF: (self._num_adapters,)}, _PLACE: {_PLACE: ()}}
        u = self._adapter_of(state, client_id, round_index)
        return {**shapes_of({"adapter": state[_part(u)]}), _GROUP: {_INDEX: ()}}

    def message_kind(self, state: Parts, client_id: str, round_index: int) -> Any:
        """Return whether a client is asked for its losses."""
        return self.asks_for_losses(state, client_id, round_index)

    def opened(self, update: Parts) -> Parts:
        """Return the update itself.

        Raises:
            ValueError: if it names a group or a client that there is not.
        """
        for part, name, number in ((_GROUP, _INDEX, self._num_adapters), (_PLACE, _PLACE, len(self._ids))):
            if part not in update:
                continue
            found = update[part].get(name, torch.tensor(-1))
            if found.dtype != torch.int64 or found.ndim or not 0 <= int(found) < number:
                raise ValueError(f"its {part} is none that there is")
        return update

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh an adapter by the client's rows, or like every other; losses are in no mean."""
        return {"adapter": self.weight_of(num_rows)} if "adapter" in update else {_LOSSES: 1}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add theta_k with the client's weight to the sum of its group, or note its losses."""
        if _LOSSES in update:
            sums.setdefault(_LOSSES, {})[int(update[_PLACE][_PLACE])] = update[_LOSSES][_OF].double()
            return
        part = _part(int(update[_GROUP][_INDEX]))
        sums.setdefault(part, RunningSum()).add(update["adapter"], weights["adapter"])

    def hollow_start(self, adapter: Any) -> dict[str, Any]:
        """Return a state of which only names, shapes and who told its losses when are known; for plans."""
        clients = {_ASKED: [-1] * len(self._ids), _GROUP: [0] * len(self._ids)}
        return {"adapter": adapter} | {_part(u): adapter for u in range(self._num_adapters)} | {_CLIENTS: clients}

    def hollow_step(self, state: Any, updates: Sequence[tuple[str, Mapping[str, Any]]], round_index: int) -> None:
        """Note in such a state who told its losses in a round."""
        for client_id, update in updates:
            place = self._ids.find(client_id)
            if _LOSSES in update and place is not None:
                state[_CLIENTS][_ASKED][place] = round_index

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average inside each group that was visited; deal the groups again if losses came."""
        after = {part: sums[part].mean() if part in sums else tensors for part, tensors in state.items()}
        if _LOSSES in sums:
            after[_CLIENTS] = self._regrouped(state[_CLIENTS], sums[_LOSSES], round_index)
        begun = min(self._num_adapters, round_index // self._each + 1)
        if begun == 1:
            return after | {"adapter": after[_part(0)]}
        whole = RunningSum()
        for u in range(begun):
            whole.add(after[_part(u)], 1)
        return after | {"adapter": whole.mean()}

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Return the adapter of the client's group; where all were sent, the one of least loss."""
        if "adapter" in visit.received:
            return visit.received["adapter"]
        return visit.received[_part(int(self._losses(visit).argmin()))]

    def asks_for_losses(self, state: Parts, client_id: str, round_index: int) -> bool:
        """Return whether a client is sent all adapters in a round: its losses are not known, or they are old."""
        if self._num_adapters == 1 or round_index < self._warmup:
            return False
        place = self._ids.find(client_id)
        since = round_index - (round_index - self._warmup) % self._regroup
        return place is None or int(state[_CLIENTS][_ASKED][place]) < since

    def _adapter_of(self, state: Parts, client_id: str, round_index: int) -> int:
        if round_index < self._warmup:
            return round_index // self._each
        place = self._ids.find(client_id)
        return 0 if self._num_adapters == 1 or place is None else int(state[_CLIENTS][_GROUP][place])

    def _losses(self, visit: Visit) -> npt.NDArray[np.float64]:
        """The mean loss of every adapter over the batches of a visit, (U,)."""
        total, num_steps = np.zeros(self._num_adapters), 0

        def take_step(loss: Loss) -> None:
            nonlocal num_steps
            num_steps += 1
            total[:] += [loss(visit.received[_part(u)]) for u in range(self._num_adapters)]

        visit.walk(take_step)
        return total / num_steps

    def _regrouped(self, before: Adapter, told: Mapping[int, torch.Tensor], round_index: int) -> Adapter:
        """What is known of the clients, with the losses that came, and their groups."""
        clients = {name: tensor.clone() for name, tensor in before.items()}
        for place, losses in told.items():
            clients[_LOSSES][place], clients[_ASKED][place] = losses, round_index
        known = np.flatnonzero(clients[_ASKED].numpy() >= 0)
        # One order as long as groups stand, so that who comes later moves as few as may be.
        cycle = (round_index - self._warmup) // self._regroup
        order = stream_rng(self._seed, "biscuit groups", round_index=cycle).permutation(len(self._ids))
        groups = balanced_groups(clients[_LOSSES].numpy()[known], np.argsort(order[known], kind="stable"))
        clients[_GROUP][torch.from_numpy(known)] = torch.from_numpy(groups)
        return clients


def balanced_groups(losses: npt.NDArray[np.float64], order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return each client's group: that of the adapter of least loss, as far as groups of one size allow.

    Args:
        losses: (N, U), of every client with every adapter.
        order: the clients' positions, (N,), in the order in which they are served.

    Returns:
        (N,) positions of adapters; no two groups differ by more than one client.

    >>> losses = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 1.5], [1.0, 9.0]])  # all like the first best
    >>> balanced_groups(losses, np.array([3, 1, 0, 2])).tolist()
    [1, 0, 1, 0]
    """
    groups = np.full(len(losses), -1, dtype=np.int64)
    is_open = np.ones(losses.shape[1], dtype=bool)
    left = np.asarray(order)
    while is_open.any():
        best = np.where(is_open, losses[left], np.inf).argmin(axis=1)
        liked = np.where(is_open, np.bincount(best, minlength=len(is_open)), -1)
        largest = int(liked.argmax())
        served = left[best == largest][: -(-len(left) // int(is_open.sum()))]
        groups[served], is_open[largest] = largest, False
        left = left[~np.isin(left, served)]
    return groups


def _part(u: int) -> str:
    return f"adapter {u}"
