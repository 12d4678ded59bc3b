"""What an artificial partition can be asked for, and who gets which row by it, on arrays alone.

Symbols: N rows that clients hold, K new clients of a pool, L labels (values of the column that is dealt out unevenly).
There are two pools: `train` and `test` rows go to the training clients, a client's test rows by the same mix of labels
as its training rows, and `unseen` rows to the unseen clients. The arithmetic is in `dealing.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.encoders import DEFAULT_ENCODER, ENCODERS
from fedllm_data.errors import PartitionError
from fedllm_data.partition.dealing import (
    Floats,
    Ints,
    allocate,
    deal,
    dirichlet_mix,
    equal_sizes,
    sorted_counts,
    zipf_sizes,
)

__all__ = ["CLUSTER_COLUMN", "RULES", "PartitionRule", "RuleName", "deal_rows", "random_stream"]

RuleName = Literal["iid", "dirichlet", "quantity", "clusters"]
RULES: dict[str, tuple[str, ...]] = {
    "iid": (),
    "dirichlet": ("alpha", "column", "num_clusters"),
    "quantity": ("skew",),
    "clusters": ("alpha", "num_clusters"),
}
"""The settings each rule takes."""
CLUSTER_COLUMN = "cluster"
_POOLS = (("train", "test"), ("unseen",))
_MOST_CELLS = 20_000_000
"""Most entries of each (K, L) table: 160 MB."""

Labels = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class PartitionRule:
    """How rows are dealt out to artificial clients.

    >>> PartitionRule(name="clusters", num_clusters=1)
    Traceback (most recent call last):
    fedllm_data.errors.PartitionError: num_clusters is 1, but must be at least 2
    """

    name: RuleName
    """`iid`: at random. `dirichlet`: each client draws its mix of a column's values. `quantity`: at random, to clients
    of very different sizes. `clusters`: each client holds one cluster of embeddings, or with alpha a mix of them."""
    alpha: float | None = None
    """Concentration of the mixes: clients hold few values as it goes to 0, and the common mix as it grows."""
    column: str | None = None
    """A text column of the rows, a column of the clients config (numbers cut at their deciles), or `cluster`."""
    skew: float | None = None
    """Exponent of the sizes: the share of the k-th largest client is proportional to k^-skew."""
    num_clusters: int | None = None
    """Clusters of the rows' embeddings (k-means); 10 where clusters are asked for and nothing is said."""
    encoder: str = DEFAULT_ENCODER
    """What embeds the instructions: a name of `ENCODERS`."""

    def __post_init__(self) -> None:
        """Check the settings against one another, and fill in what follows from them.

        Raises:
            PartitionError: if a setting is missing, makes no sense, or is not of this rule.
        """
        if self.name not in RULES:
            raise PartitionError(
                f"there is no rule {self.name!r}; {did_you_mean(self.name, RULES)}choose one of {', '.join(RULES)}"
            )
        for setting in ("alpha", "column", "skew", "num_clusters"):
            if getattr(self, setting) is not None and setting not in RULES[self.name]:
                known = ", ".join(RULES[self.name]) or "none"
                raise PartitionError(f"the rule {self.name} takes no {setting}; its settings are: {known}")
        needed = {"dirichlet": "alpha", "quantity": "skew"}.get(self.name)
        if needed and getattr(self, needed) is None:
            raise PartitionError(f"the rule {self.name} needs {needed}, such as {needed} 1.0")
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise PartitionError(f"alpha is {self.alpha}, but must be above 0: 0.1 gives clients few values, 100 most")
        if self.skew is not None and not 0 <= self.skew < float("inf"):
            raise PartitionError(f"skew is {self.skew}, but must be 0 (equal sizes) or more")
        if self.encoder not in ENCODERS:
            raise PartitionError(f"there is no encoder {self.encoder!r}; choose one of {', '.join(ENCODERS)}")
        if self.name == "dirichlet" and self.column is None:
            object.__setattr__(self, "column", "language")
        if self.name == "clusters":
            object.__setattr__(self, "column", CLUSTER_COLUMN)
        if self.column != CLUSTER_COLUMN and self.num_clusters is not None:
            raise PartitionError(f"num_clusters is of no use with the column {self.column}; leave it out")
        if self.column == CLUSTER_COLUMN and self.num_clusters is None:
            object.__setattr__(self, "num_clusters", 10)
        if self.num_clusters is not None and self.num_clusters < 2:
            raise PartitionError(f"num_clusters is {self.num_clusters}, but must be at least 2")

    @property
    def is_sorted(self) -> bool:
        """Whether rows are sorted by label and cut into clients."""
        return self.name == "clusters" and self.alpha is None

    @property
    def parameters(self) -> dict[str, Any]:
        """The settings that matter, for the record."""
        given = {name: value for name, value in asdict(self).items() if value is not None and name != "name"}
        return given if self.num_clusters else {name: value for name, value in given.items() if name != "encoder"}


def deal_rows(
    rows_by_split: Mapping[str, Sequence[NDArray[np.int32]]],
    num_labels: int,
    rule: PartitionRule,
    num_clients: int | None,
    seed: int,
    *,
    random_sizes: bool = False,
) -> tuple[dict[str, Labels], int]:
    """Return the new client of every row of each split, and how many clients there are.

    Args:
        rows_by_split: for train, test and unseen, as far as there are any: (natural client, label) of each row, both
            numbers from 0. The order of the rows must not depend on chance.
        num_labels: L.
        rule: how rows are dealt out.
        num_clients: training clients; None for the natural number and the natural sizes. Unseen clients are as many
            in proportion.
        seed: seeds all draws.
        random_sizes: whether each row goes to a client drawn at random; clients that get no row of the first split
            of their pool are left out.

    Raises:
        PartitionError: if there are fewer rows than clients, or too many labels for this number of clients.

    >>> rows = {"train": (np.array([0, 0, 1], np.int32), np.zeros(3, np.int32))}
    >>> dealt, num_made = deal_rows(rows, 1, PartitionRule(name="iid"), None, seed=0)
    >>> np.bincount(dealt["train"]).tolist(), num_made
    ([2, 1], 2)
    """
    dealt: dict[str, Labels] = {}
    num_made = num_natural = 0
    for pool in _POOLS:
        natural = {split: rows_by_split[split][0] for split in pool if split in rows_by_split}
        labels = {split: rows_by_split[split][1] for split in natural}
        if not natural:
            continue
        num_here = len(np.unique(np.concatenate(list(natural.values()))))
        num_natural = num_natural or num_here
        wanted = num_clients
        if num_clients is not None and pool == ("unseen",):
            wanted = min(len(natural["unseen"]), max(1, round(num_clients * num_here / num_natural)))
        sizes = _sizes(rule, wanted, natural, random_stream(seed, f"{pool[0]} sizes"), random_sizes)
        num_pool = len(next(iter(sizes.values())))
        if num_pool * num_labels > _MOST_CELLS:
            raise PartitionError(
                f"{num_labels} values of {rule.column} are too many to mix for {num_pool} clients; choose a column of "
                "fewer values"
            )
        mix_KL = _mix(rule, sizes, labels, num_labels, random_stream(seed, f"{pool[0]} mix"))
        for split, label_N in labels.items():
            rng = random_stream(seed, f"{split} rows")
            supply_L = np.bincount(label_N, minlength=num_labels)
            # The first split was cut at the clients' borders; the others follow its mixes as far as they can.
            if rule.is_sorted and split == pool[0]:
                counts_KL = sorted_counts(sizes[split], supply_L)
            else:
                counts_KL = allocate(sizes[split], supply_L, mix_KL, rng)
            dealt[split] = deal(label_N, counts_KL, rng) + np.int32(num_made)
        num_made += num_pool
    return dealt, num_made


def random_stream(seed: int, purpose: str) -> Generator:
    """Return the random numbers for one purpose: what is drawn for another changes nothing here.

    >>> bool(random_stream(0, "a").random() == random_stream(0, "a").random() != random_stream(0, "b").random())
    True
    """
    return default_rng(SeedSequence([seed, int.from_bytes(purpose.encode(), "big")]))


def _sizes(
    rule: PartitionRule, num_clients: int | None, natural: Mapping[str, Labels], rng: Generator, random_sizes: bool
) -> dict[str, Ints]:
    """Rows of each new client in each split of a pool; every client has one at least in the first."""
    first = next(iter(natural))
    if num_clients is not None and num_clients > len(natural[first]):
        raise PartitionError(
            f"{len(natural[first])} rows of {first} cannot make {num_clients} clients; ask for fewer clients"
        )
    clients = np.unique(np.concatenate(list(natural.values())))
    if random_sizes:
        sizes = {first: np.bincount(rng.integers(num_clients or len(clients), size=len(natural[first])))}
        sizes[first] = sizes[first][sizes[first] > 0]
        num_made = len(sizes[first])
        others = {split: rng.integers(num_made, size=len(rows)) for split, rows in natural.items() if split != first}
        return sizes | {split: np.bincount(drawn, minlength=num_made) for split, drawn in others.items()}
    if rule.skew is not None:
        order = rng.permutation(num_clients or len(clients))
        return {
            split: zipf_sizes(len(rows), len(order), rule.skew, least=int(split == first))[order]
            for split, rows in natural.items()
        }
    if num_clients is not None:
        return {split: equal_sizes(len(rows), num_clients) for split, rows in natural.items()}
    return {
        split: np.bincount(np.searchsorted(clients, rows), minlength=len(clients)) for split, rows in natural.items()
    }


def _mix(
    rule: PartitionRule,
    sizes: Mapping[str, Ints],
    labels: Mapping[str, Labels],
    num_labels: int,
    rng: Generator,
) -> Floats:
    """The shares of the labels that each client wants, in all its splits."""
    first = next(iter(labels))
    if rule.alpha is not None:
        count_L = np.bincount(np.concatenate(list(labels.values())), minlength=num_labels)
        return dirichlet_mix(len(sizes[first]), count_L / count_L.sum(), rule.alpha, rng)
    if rule.is_sorted:
        counts_KL = sorted_counts(sizes[first], np.bincount(labels[first], minlength=num_labels))
        mix_KL: Floats = counts_KL / np.maximum(sizes[first], 1)[:, None]
        return mix_KL
    return np.ones((len(sizes[first]), num_labels))
