"""A LoRA rank for each client, for methods whose clients may differ: weaker machines, or fewer rows, train less.

The resident model has the largest rank R. A client of rank r < R trains in it with the rows of A and the columns of B
beyond r at zero; their gradients are zero then (each is multiplied by the other factor), so they stay zero and the
client trains exactly as in a model of rank r. Only the first r travel (`sliced`, `padded`). The scaling s = alpha / R
is the same for every client (alpha_k = s r_k, as FLoRA's code has it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fedllm_data.client_index import BLOCK, ClientIds, ClientValues, sorted_ids
from fedllm_data.clients_table import places_of
from fedllm_data.disk_block import Block
from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.adapters.dealt_ranks import DrawnRanks, RanksByRows, RanksOfColumn
from fedllm_train.adapters.lora import factor_names
from fedllm_train.lazy_torch import torch

if TYPE_CHECKING:
    from fedllm_train.clients.memory_fit import ClientMemory

__all__ = ["check_ranks", "client_ranks", "numbers_of_column", "padded", "rank_of", "sliced"]


def client_ranks(
    rule: str,
    sizes: Mapping[str, int],
    table: pa.Table | None,
    *,
    seed: int,
    memory: ClientMemory | None = None,
) -> Mapping[str, int]:
    """Return the rank of every client.

    Args:
        rule: `4,8,16` gives each rank to equally many clients, the lowest to those with the fewest rows;
            `random:4,8,16` draws one for every client; `memory:4,8,16` gives each the largest whose training fits its
            memory; `column:NAME` takes an integer column of the clients table.
        sizes: rows of each client.
        table: the dataset's table of clients.
        seed: the run seed.
        memory: of the clients; without it, ranks by memory are not dealt out yet.

    Raises:
        ConfigError: if the rule cannot be read, the column is missing or holds anything but positive integers, or the
            lowest rank does not fit a client's memory.

    >>> client_ranks("2,8", {"a": 10, "b": 1, "c": 5, "d": 7}, None, seed=0)
    {'a': 8, 'b': 2, 'c': 2, 'd': 8}
    """
    ids = sizes.ids if isinstance(sizes, ClientValues) else sorted_ids(sizes)
    if rule.startswith("column:"):
        return numbers_of_column("client_ranks", rule.removeprefix("column:"), ids, table)
    kind, _, listed = rule.rpartition(":")
    try:
        ranks = [int(each) for each in listed.split(",")]
    except ValueError:
        ranks = []
    if not ranks or min(ranks) < 1 or kind not in ("", "random", "memory"):
        raise ConfigError(
            f"client_ranks is {rule!r}; give ranks such as 4,8,16, random:4,8,16, memory:4,8,16 or column:NAME"
        )
    if kind == "memory":
        if memory is None:
            return {}
        choices = sorted(set(ranks))
        return {client_id: memory.most(client_id, choices, memory.fit.gb_of_rank, "ranks") for client_id in ids}
    return DrawnRanks(ids, ranks, seed) if kind == "random" else RanksByRows(ids, sizes, ranks)


def sliced(adapter: Adapter, rank: int) -> Adapter:
    """Return the first `rank` rows of every A and the first `rank` columns of every B; other tensors stay whole.

    >>> sliced({"m.lora_A.weight": torch.ones(4, 5), "m.lora_B.weight": torch.ones(6, 4)}, 2)["m.lora_B.weight"].shape
    torch.Size([6, 2])
    """
    result = dict(adapter)
    for a, b in factor_names(adapter).values():
        result[a], result[b] = adapter[a][:rank].contiguous(), adapter[b][:, :rank].contiguous()
    return result


def padded(adapter: Adapter, rank: int) -> Adapter:
    """Return an adapter of a higher rank with the same products, filled up with zeros.

    >>> padded({"m.lora_A.weight": torch.ones(2, 5), "m.lora_B.weight": torch.ones(6, 2)}, 4)["m.lora_A.weight"].shape
    torch.Size([4, 5])
    """
    result = dict(adapter)
    for a, b in factor_names(adapter).values():
        missing = rank - adapter[a].shape[0]
        result[a] = torch.nn.functional.pad(adapter[a], (0, 0, 0, missing))
        result[b] = torch.nn.functional.pad(adapter[b], (0, missing))
    return result


def rank_of(adapter: Adapter) -> int:
    """Return the rank of an adapter's factors.

    >>> rank_of({"m.lora_A.weight": torch.ones(4, 5), "m.lora_B.weight": torch.ones(6, 4)})
    4
    """
    a, _ = next(iter(factor_names(adapter).values()))
    return adapter[a].shape[0]


def check_ranks(ranks: Mapping[str, int], adapter: Adapter) -> None:
    """Refuse ranks that the resident adapter cannot hold.

    Raises:
        ConfigError: if a client's rank is above the adapter's, or the adapter has no LoRA factors or several ranks.
    """
    of_modules = {adapter[a].shape[0] for a, _ in factor_names(adapter).values()}
    if not of_modules:
        raise ConfigError("the adapter has no LoRA factors, which this strategy needs; use a LoraConfig")
    if ranks and len(of_modules) > 1:
        raise ConfigError("client_ranks needs one rank for all modules; leave rank_pattern out")
    if ranks and (highest := max(ranks.values())) > max(of_modules):
        raise ConfigError(
            f"client_ranks gives rank {highest} but lora_r is {max(of_modules)}; raise lora_r to {highest}"
        )


def numbers_of_column(setting: str, name: str, ids: Sequence[str], table: pa.Table | None) -> RanksOfColumn:
    """Return a column's positive integers by client, kept on disk.

    Args:
        setting: that names the column, for errors.
        name: the column.
        ids: the clients.
        table: the dataset's table of clients.

    Raises:
        ConfigError: if the column is missing or holds anything else.

    >>> numbers_of_column("client_ranks", "gpu", ["ann"], pa.table({"client_id": ["ann"], "gpu": [4]}))
    {'ann': 4}
    """
    if table is None or name not in table.column_names:
        there = [] if table is None else [field.name for field in table.schema if pa.types.is_integer(field.type)]
        raise ConfigError(f"{setting} names column {name!r}, which the clients table lacks; it has {there}")
    clients = ids if isinstance(ids, ClientIds) else sorted_ids(ids)
    numbers = Block.of_zeros(8 * len(clients))
    numbers_K = np.frombuffer(numbers.view, dtype=np.int64)
    for batch in table.select(["client_id", name]).to_batches(max_chunksize=BLOCK):
        places_N, values = places_of(batch["client_id"], clients), batch[name].to_pylist()
        for place, value in zip(places_N.tolist(), values, strict=True):
            if place >= 0 and (not isinstance(value, int) or value < 1):
                raise _no_number(setting, name, value, clients[place])
            if place >= 0:
                numbers_K[place] = value
    if (without := next((place for place, number in enumerate(numbers_K) if not number), None)) is not None:
        raise _no_number(setting, name, None, clients[without])
    return RanksOfColumn(clients, numbers)


def _no_number(setting: str, name: str, value: object, client_id: str) -> ConfigError:
    what = setting.removeprefix("client_")
    return ConfigError(f"{setting}: column {name!r} holds {value!r} for client {client_id!r}; {what} are 1 or more")
