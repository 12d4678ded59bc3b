"""Which clients are alike: distances between clients from the columns of a report, and an order that shows them.

The distance is Gower's (1971): within an axis the mean over its columns, then the mean over the axes. A column of
numbers counts the difference of ranks among all clients (0: tied, 1: lowest and highest), a column of words 0 or 1;
a column that either client lacks is left out. The order is that of a dendrogram (average linkage) whose leaves are
turned so that neighbours are as alike as the tree allows (Bar-Joseph et al. 2001).
Symbols: K clients in the report, S clients shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

__all__ = ["MAX_CLIENTS_MAPPED", "SimilarityMap", "client_distances", "seriated", "similarity_map"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_CLIENTS_MAPPED = 60


@dataclass(frozen=True)
class SimilarityMap:
    """The largest clients in an order in which neighbours are alike."""

    position_S: IntArray
    """Where each client shown stands in the report's columns."""
    distance_SS: FloatArray
    """In [0, 1]; rows and columns in the order of `position_S`."""
    axes: tuple[str, ...]
    """The axes that gave columns."""


def similarity_map(document: Mapping[str, Any], max_clients: int = MAX_CLIENTS_MAPPED) -> SimilarityMap | None:
    """Return the map of the clients with the most rows; None for fewer than three clients.

    Args:
        document: the content of heterogeneity.json.
        max_clients: how many clients to show.

    >>> columns = {"client_id": ["a", "b", "c"], "num_rows": [1, 9, 2]}
    >>> axes = {"quantity": {"client_columns": ["num_rows"]}}
    >>> similarity_map({"clients": columns, "axes": axes}).position_S.tolist()
    [0, 2, 1]
    """
    columns = document["clients"]
    num_clients = len(columns["client_id"])
    if num_clients < 3:
        return None
    rows_K = np.array([rows or 0 for rows in columns.get("num_rows", [0] * num_clients)], np.float64)
    shown_S = np.lexsort((np.arange(num_clients), -rows_K))[:max_clients]
    groups = _without_ids(column_groups(document), columns)
    distance_SS = client_distances(columns, groups, shown_S)
    order_S = seriated(distance_SS)
    return SimilarityMap(shown_S[order_S], distance_SS[np.ix_(order_S, order_S)], tuple(groups))


def _without_ids(groups: Mapping[str, list[str]], columns: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """The groups without columns that name clients, such as the nearest one: they differ between any two."""
    ids = {*columns["client_id"], None}
    kept = {axis: [name for name in names if not ids.issuperset(columns[name])] for axis, names in groups.items()}
    return {axis: names for axis, names in kept.items() if names}


def column_groups(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the columns of clients by axis; columns that no axis names stand under "other".

    >>> column_groups({"clients": {"client_id": [], "x": [], "y": []}, "axes": {"one": {"client_columns": ["y"]}}})
    {'one': ['y'], 'other': ['x']}
    """
    present = [name for name in document["clients"] if name != "client_id"]
    groups = {
        axis: [name for name in content.get("client_columns", []) if name in present]
        for axis, content in document["axes"].items()
    }
    named = {name for names in groups.values() for name in names}
    groups["other"] = [name for name in present if name not in named]
    return {axis: names for axis, names in groups.items() if names}


def client_distances(
    columns: Mapping[str, Sequence[Any]], groups: Mapping[str, Sequence[str]], shown_S: IntArray
) -> FloatArray:
    """Return Gower's distance between the clients shown.

    Args:
        columns: one entry a client; None if there is none.
        groups: axis -> its columns.
        shown_S: positions of the clients to compare; ranks are those among all clients.

    Returns:
        (S, S) distances in [0, 1]; 0 where two clients agree in all they both have, 1 where they have nothing.

    >>> columns = {"size": [1, 2, 3], "word": ["x", "x", "y"]}
    >>> client_distances(columns, {"one": ["size"], "two": ["word"]}, np.arange(3)).tolist()
    [[0.0, 0.25, 1.0], [0.25, 0.0, 0.75], [1.0, 0.75, 0.0]]
    """
    size = len(shown_S)
    total_SS, weight_SS = np.zeros((size, size)), np.zeros((size, size))
    for names in groups.values():
        axis_SS, count_SS = np.zeros((size, size)), np.zeros((size, size))
        for name in names:
            part_SS = _column_distances(columns[name], shown_S)
            known_SS = ~np.isnan(part_SS)
            axis_SS += np.where(known_SS, part_SS, 0.0)
            count_SS += known_SS
        total_SS += np.divide(axis_SS, count_SS, out=np.zeros_like(axis_SS), where=count_SS > 0)
        weight_SS += count_SS > 0
    distance_SS = np.divide(total_SS, weight_SS, out=np.ones_like(total_SS), where=weight_SS > 0)
    np.fill_diagonal(distance_SS, 0.0)
    return distance_SS


def _column_distances(values: Sequence[Any], shown_S: IntArray) -> FloatArray:
    known_K = np.array([value is not None for value in values])
    if any(isinstance(value, str) for value in values):
        _, code_K = np.unique(np.array([str(value) for value in values]), return_inverse=True)
        distance_SS: FloatArray = (code_K[shown_S][:, None] != code_K[shown_S]).astype(np.float64)
    else:
        place_K = np.zeros(len(values))
        place_K[known_K] = _ranks(np.array([value for value in values if value is not None], np.float64))
        spread = np.ptp(place_K[known_K]) if known_K.any() else 0.0
        distance_SS = np.asarray(np.abs(place_K[shown_S][:, None] - place_K[shown_S]) / (spread or 1.0))
    lacking_S = ~known_K[shown_S]
    distance_SS[lacking_S, :] = distance_SS[:, lacking_S] = np.nan
    return distance_SS


def _ranks(values_N: FloatArray) -> FloatArray:
    """Ranks from 0, ties at the middle of theirs: `rankdata` of SciPy less 1, whose import takes half a second."""
    _, value_N, times_V = np.unique(values_N, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(times_V) - (times_V + 1) / 2)[value_N])


def seriated(distance_SS: FloatArray) -> IntArray:
    """Return an order in which neighbours are alike.

    >>> sorted(seriated(np.array([[0, 9, 1], [9, 0, 9], [1, 9, 0]]) / 9).tolist()[1:])
    [0, 2]
    """
    tree = linkage(squareform(distance_SS, checks=False), "average", optimal_ordering=True)
    return np.asarray(leaves_list(tree), np.int64)
