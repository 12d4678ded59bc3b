"""How often IID partitions of a corpus fall outside the nulls of a report: a null that holds lets 5 % of them out.

Features of all rows are computed once; for every seed the rows are dealt to as many clients of the same sizes as there
are (`partition --rule iid --one-split`), profiled and measured. Axis `quantity` would see the natural sizes there, so
it sees those of `--random-sizes`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.clients import ClientDataset
from fedllm_data.codebook import Codebook
from fedllm_data.features import row_features
from fedllm_data.features.cache import FeatureCache
from fedllm_data.features.judges import NO_JUDGES, find_judges
from fedllm_data.heterogeneity.axes import measure_axes, profile_rows
from fedllm_data.heterogeneity.axis import Axis
from fedllm_data.heterogeneity.profile import ClientProfile
from fedllm_data.partition.rules import PartitionRule, deal_rows
from fedllm_data.profiles import task_of

__all__ = ["corpus_features", "deal_profiles", "iid_p_values"]

Columns = dict[str, NDArray[Any]]

BATCH_ROWS = 8192


def corpus_features(
    datasets: Sequence[ClientDataset], codebook: Codebook, cache: FeatureCache | None = None
) -> Columns:
    """Return the features of all rows of some splits, one entry a row, with their `client_id`.

    Args:
        datasets: splits of one repo.
        codebook: made with the default tokenizer, of the shipped scorers.
        cache: where features of the same rows may lie already.

    Raises:
        ReportError: if there is no split, or the splits hold rows of different formats.
    """
    task, judges = task_of(datasets), find_judges(codebook, NO_JUDGES)
    parts = [
        row_features(batch, task, codebook=codebook, judges=judges, cache=cache)
        for dataset in datasets
        for batch in dataset.rows.with_format("arrow").iter(batch_size=BATCH_ROWS)
    ]
    return {name: np.concatenate([_array(part[name]) for part in parts]) for name in parts[0]}


def deal_profiles(columns: Columns, codebook: str, *, random_sizes: bool = False, seed: int) -> list[ClientProfile]:
    """Return the profiles of artificial clients to whom the rows are dealt at random.

    Args:
        columns: features of the rows, with their natural `client_id`.
        codebook: digest of the codebook that made them.
        random_sizes: whether each row goes to a client drawn at random; otherwise sizes are the natural ones.
        seed: seeds the dealing.

    >>> columns = {"client_id": np.array(["a", "a", "b"]), "language": np.array(["en", "fr", "en"])}
    >>> columns |= {"instruction_tokens": np.array([3, 4, 5]), "response_tokens": np.array([9, 9, 1])}
    >>> [profile.num_rows for profile in deal_profiles(columns, "digest", seed=0)]
    [2, 1]
    """
    natural_N = np.unique(columns["client_id"], return_inverse=True)[1].astype(np.int32)
    rows = {"train": (natural_N, np.zeros(len(natural_N), np.int32))}
    dealt, num_made = deal_rows(rows, 1, PartitionRule(name="iid"), None, seed, random_sizes=random_sizes)
    order = np.argsort(dealt["train"], kind="stable")
    borders = np.searchsorted(dealt["train"][order], np.arange(num_made + 1))
    dealt_columns = {name: column[order] for name, column in columns.items() if name != "client_id"}
    return [
        profile_rows(
            f"iid-{client:06d}",
            {name: column[borders[client] : borders[client + 1]] for name, column in dealt_columns.items()},
            codebook=codebook,
        )
        for client in range(num_made)
    ]


def iid_p_values(
    columns: Columns, axes: Mapping[str, Axis], codebook: str, *, seeds: Iterable[int], num_null: int = 199
) -> dict[tuple[str, str], list[float]]:
    """Return the uncorrected p of every measure of every axis, one entry for each IID partition.

    Args:
        columns: features of the rows, with their natural `client_id`.
        axes: what to measure; see `fedllm_data.heterogeneity.axes.axes_of`.
        codebook: digest of the codebook that made the features.
        seeds: one for each partition and its null.
        num_null: draws of the null.

    Returns:
        (axis, measure) -> p-values; a measure that a partition does not determine has no entry for it.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        for random_sizes, names in ((False, [name for name in axes if name != "quantity"]), (True, ["quantity"])):
            wanted = {name: axes[name] for name in names if name in axes}
            if not wanted:
                continue
            profiles = deal_profiles(columns, codebook, random_sizes=random_sizes, seed=seed)
            results = measure_axes(profiles, seed=seed, num_null=num_null, num_bootstrap=1, axes=wanted)
            for axis, result in results.items():
                for measure, estimate in result.estimates.items():
                    if estimate.p is not None:
                        found.setdefault((axis, measure), []).append(estimate.p)
    return found


def _array(column: Any) -> NDArray[Any]:
    if isinstance(column, np.ndarray):
        return column
    array = np.empty(len(column), object)
    array[:] = column
    return array
