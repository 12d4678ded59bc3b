"""FedAvg inside groups of clients that share a main language: one adapter a language.

A simple form of clustering by language family (FedLFC, FedHLT), which FedLLM-Bench's results on Fed-Aya suggest:
collaboration among similar languages can help more than among all.

A client's group is the language of most of its rows; languages of fewer than `min_cluster_clients` clients that may
take part, and clients whose language nobody knows, form one further group. Client rule: plain training from the
group's adapter. Server rule: FedAvg in each group. The global adapter, which serves people in no group, is the mean of
the groups' adapters, each weighted by its clients' rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum, Shapes, shapes_of
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings, PersonalSettings
from fedllm_train.settings import check_at_least_one
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["LanguageClusters", "groups_of"]

OTHERS = "others"


class LanguageClusters(OneAdapter):
    """FedAvg inside groups of clients with one main language."""

    traits = Traits(
        title="Language clusters",
        source="clients grouped by language, after FedLFC and FedHLT; FedAvg inside",
        choose_when="language is what sets clients apart, and each language has enough clients",
        family="personal",
        exact_aggregation=False,
        weights="rows",
        sees="sum",
        down="adapter of the client's language",
        server_cost="O(languages x adapter)",
        personal=True,
        needs_languages=True,
        adapter_down="own",
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(PersonalSettings, MeanSettings):
        """The settings of this method."""

        min_cluster_clients: int = field(
            default=2, metadata={"help": "With language_clusters: languages of fewer clients share one group."}
        )

        def check(self) -> None:
            """Refuse a count below one."""
            check_at_least_one(self, "min_cluster_clients")

    def __init__(self, federation: Federation) -> None:
        """Group the clients."""
        super().__init__(federation)
        # Clients that never take part must neither make a group large nor weigh in the mean of the groups.
        self._group_of = groups_of(federation.languages, federation.eligible, federation.settings.min_cluster_clients)
        self._groups = sorted(set(self._group_of.values()))
        weights = Counter[str]()
        for client_id, group in self._group_of.items():
            weights[group] += self.weight_of(federation.sizes[client_id])
        self._weights = weights

    def start(self, adapter: Adapter) -> Parts:
        """Begin every group with the same adapter."""
        return {"adapter": adapter} | {f"group {group}": adapter for group in self._groups}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the adapter of the client's group, and which group it is."""
        group = self._group_of[client_id]
        return {"adapter": state[f"group {group}"], "group": {"index": torch.tensor(self._groups.index(group))}}

    def first_download(self, start: Adapter, client_id: str) -> Adapter:
        """Return the starting adapter, with which every group begins; a host does not know the groups."""
        return start

    def client_update(self, visit: Visit) -> Parts:
        """Train from the group's adapter; say which group it was."""
        return {"adapter": visit.fit(visit.received["adapter"]), "group": visit.received["group"]}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect an adapter and the group."""
        return shapes_of(self.broadcast(state, client_id, round_index))

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add theta_k with the client's weight to the sum of its group."""
        part = f"group {self._groups[int(update['group']['index'])]}"
        sums.setdefault(part, RunningSum()).add(update["adapter"], weights["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average inside each group that was visited, then over the groups."""
        groups = {part: total.mean() for part, total in sums.items()}
        after = {part: groups.get(part, adapter) for part, adapter in state.items() if part != "adapter"}
        whole = RunningSum()
        for group in self._groups:
            whole.add(after[f"group {group}"], self._weights[group])
        return {"adapter": whole.mean()} | after

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Return the adapter of the client's group."""
        return visit.received["adapter"]


def groups_of(languages: Mapping[str, str], client_ids: Any, min_clients: int) -> dict[str, str]:
    """Return the group of every client.

    >>> groups_of({"a": "en", "b": "en", "c": "fr", "d": "und"}, "abcd", 2)
    {'a': 'en', 'b': 'en', 'c': 'others', 'd': 'others'}
    """
    count = Counter(languages.get(client_id, "und") for client_id in client_ids)
    large = {language for language, number in count.items() if number >= min_clients and language != "und"}
    return {
        client_id: language if (language := languages.get(client_id, "und")) in large else OTHERS
        for client_id in client_ids
    }
