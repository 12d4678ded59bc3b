"""A straightforward pandas and SciPy script for the divergences of a heterogeneity report, as the yardstick.

    python benchmarks/report_pandas.py REPO          (prints one line of JSON; `report_scale.py` runs it)

What somebody would write in an afternoon: the Parquet files as one data frame, `groupby` and `crosstab` for tables,
SciPy for distances, one call a client. It has no embeddings, no scorers and no intervals; a draw of its null
shuffles the column of client ids. Token counts and the bins of lengths are the package's own, so that both compute the
same figures to the last digits; the intraclass correlation of lengths without bins is given beside.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.spatial.distance import cdist
from scipy.stats import entropy, wasserstein_distance

from fedllm_data.features.token_counts import UNICODE_WORDS
from fedllm_data.heterogeneity.length import LOG_LENGTH_B, length_bin

MIN_ROWS = 2
NUM_DRAWS = 2


def read(repo: Path) -> pd.DataFrame:
    """One line a row: client, language, log-lengths."""
    frame = pd.concat(
        [pd.read_parquet(path, columns=["client_id", "language", "messages"]) for path in sorted(repo.glob("data/*"))],
        ignore_index=True,
    )
    for side, role in (("instruction", "user"), ("response", "assistant")):
        texts = frame["messages"].map(lambda turns: "\n".join(t["content"] for t in turns if t["role"] == role))  # noqa: B023
        tokens = UNICODE_WORDS.count(pa.array(texts))
        frame[side] = LOG_LENGTH_B[length_bin(tokens)]
        frame[f"{side}_raw"] = np.log(np.maximum(tokens, 1))
    return frame.drop(columns="messages")


def quantity(frame: pd.DataFrame) -> dict[str, float]:
    """How unequal the clients' numbers of rows are."""
    sizes = np.sort(frame.groupby("client_id").size().to_numpy())
    share = sizes / sizes.sum()
    rank = np.arange(1, len(sizes) + 1)
    return {
        "gini": float(((2 * rank - len(sizes) - 1) * sizes).sum() / (len(sizes) * sizes.sum())),
        "coefficient_of_variation": float(sizes.std() / sizes.mean()),
        "normalised_entropy": float(entropy(share) / np.log(len(sizes))),
        "effective_clients_simpson": float(1 / (share**2).sum()),
        "jain": float(sizes.sum() ** 2 / (len(sizes) * (sizes.astype(float) ** 2).sum())),
        "largest_fraction": float(share.max()),
    }


def language(frame: pd.DataFrame) -> dict[str, float]:
    """How different the clients' mixes of languages are."""
    frame = with_enough_rows(frame)
    table = pd.crosstab(frame["client_id"], frame["language"])
    mixes = table.div(table.sum(axis=1), axis=0)
    pool = table.sum() / table.to_numpy().sum()
    weight = table.sum(axis=1) / table.to_numpy().sum()
    bits = entropy(pool, base=2) - (weight * mixes.apply(entropy, axis=1, base=2)).sum()
    pairs = sum(
        cdist(mixes.iloc[start : start + 1000], mixes, "cityblock").sum() for start in range(0, len(mixes), 1000)
    )
    return {
        "divergence_bits": float(bits),
        "divergence_fraction": float(bits / entropy(pool, base=2)),
        "total_variation_to_pool": float((0.5 * (mixes - pool).abs().sum(axis=1)).mean()),
        "hellinger_to_pool": float(mixes.apply(lambda mix: hellinger(mix, pool), axis=1).mean()),
        "total_variation_pairwise": float(0.5 * pairs / (len(mixes) * (len(mixes) - 1))),
        "languages_per_client": float((table > 0).sum(axis=1).mean()),
    }


def hellinger(p: pd.Series, q: pd.Series) -> float:
    """Hellinger distance of two mixes."""
    return float(np.sqrt(max(0.0, 1 - np.sqrt(p * q).sum())))


def length(frame: pd.DataFrame) -> dict[str, float]:
    """How different the clients' lengths are."""
    frame = with_enough_rows(frame)
    figures = {}
    for side in ("instruction", "response"):
        icc, between = one_way(frame, side)
        pool = frame[side].value_counts()
        distances = frame.groupby("client_id")[side].apply(
            lambda values: wasserstein_distance(values, pool.index, v_weights=pool.to_numpy())  # noqa: B023
        )
        figures[f"{side}_icc"] = icc
        figures[f"{side}_between_fraction"] = between
        figures[f"{side}_wasserstein_to_pool"] = float(distances.mean())
        figures[f"{side}_icc_without_bins"] = one_way(frame, f"{side}_raw")[0]
    return figures


def one_way(frame: pd.DataFrame, column: str) -> tuple[float, float]:
    """Intraclass correlation by a one-way analysis of variance, and eta squared."""
    by_client = frame.groupby("client_id")[column]
    sizes, means = by_client.size(), by_client.mean()
    total = ((frame[column] - frame[column].mean()) ** 2).sum()
    between = (sizes * (means - frame[column].mean()) ** 2).sum()
    num_clients, num_rows = len(sizes), len(frame)
    typical = (num_rows - (sizes**2).sum() / num_rows) / (num_clients - 1)
    mean_between, mean_within = between / (num_clients - 1), (total - between) / (num_rows - num_clients)
    return float((mean_between - mean_within) / (mean_between + (typical - 1) * mean_within)), float(between / total)


def with_enough_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of clients that have two or more."""
    return frame[frame.groupby("client_id")["client_id"].transform("size") >= MIN_ROWS]


AXES = {"quantity": quantity, "language": language, "length": length}


def main() -> None:
    """Compute all figures, and some draws of a null, and print them with their CPU seconds."""
    start = time.process_time()
    frame = read(Path(sys.argv[1]))
    read_seconds = time.process_time() - start
    axes = {}
    for name, measure in AXES.items():
        start = time.process_time()
        values = measure(frame)
        value_seconds = time.process_time() - start
        axes[name] = {"values": values, "value_cpu_seconds": value_seconds}
        if name == "quantity":  # shuffled clients have the sizes they had: this null needs another recipe
            continue
        start = time.process_time()
        for draw in range(NUM_DRAWS):
            clients = np.random.default_rng(draw).permutation(frame["client_id"].to_numpy())
            measure(frame.assign(client_id=clients))
        axes[name]["draw_cpu_seconds"] = (time.process_time() - start) / NUM_DRAWS
    print("RESULT " + json.dumps({"read_cpu_seconds": read_seconds, "axes": axes}))


if __name__ == "__main__":
    main()
