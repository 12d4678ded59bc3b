"""How many bytes travel to read one client of a published repo: by range requests, against downloading the file.

A generated corpus is built, published to the loopback Hub of `tests/hub` and read in several ways; the server counts
the bytes of every answer. `load_clients` fetches all splits, because datasets prepares all splits of a config.
Loopback has no latency: requests are counted as well, and each costs a round trip elsewhere.

Run:  python benchmarks/hub_range_read.py     (under a minute; writes benchmarks/results/hub_range_read.json)
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from generated import Corpus, generated_source, source_rows
from machine import write_result

ROOT = Path(__file__).parents[1]
ROWS_PER_CLIENT = 50
NUM_READ = 10


@contextmanager
def loopback_hub(place: Path | str) -> Iterator[Any]:
    """A Hub on loopback that the Hub's clients talk to; none of them may have been imported before."""
    sys.path.insert(0, str(ROOT))
    from tests.hub.server import LoopbackHub

    with LoopbackHub() as hub:
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_HOME": f"{place}/home", "HF_TOKEN": "hf_of_the_benchmark"}
        os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        import datasets

        datasets.config.USE_PARQUET_EXPORT = False
        datasets.disable_progress_bars()
        yield hub


def build_repo(folder: Path, num_rows: int) -> None:
    """Build the corpus as a client repo with a card."""
    from fedllm_data.build import build
    from fedllm_data.cards.card import write_card

    corpus = Corpus(num_rows=num_rows, num_clients=num_rows // ROWS_PER_CLIENT, zipf=0.0, has_copies=False)
    build(generated_source("range-read", lambda: source_rows(corpus)), folder)
    write_card(folder)


def measure(hub: Any, read: Callable[[], int]) -> dict[str, float]:
    """What one read cost: bytes answered, requests, seconds, and the rows it gave."""
    hub.requests.clear()
    started = time.perf_counter()
    num_rows = read()
    seconds = time.perf_counter() - started
    num_bytes = sum(request.num_bytes for request in hub.requests)
    return {"num_bytes": num_bytes, "num_requests": len(hub.requests), "seconds": seconds, "num_rows": num_rows}


def median_of(results: list[dict[str, float]]) -> dict[str, float]:
    """The median of each number over the clients read."""
    return {name: round(statistics.median(result[name] for result in results), 3) for name in results[0]}


def main() -> None:
    """Build, publish, read in several ways, and write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-rows", type=int, default=60_000)
    arguments = parser.parse_args()

    with TemporaryDirectory() as place, loopback_hub(place) as hub:
        results = read_in_several_ways(hub, Path(place), arguments.num_rows)
    print(json.dumps(results, indent=2))
    print(write_result("hub_range_read", results))


def read_in_several_ways(hub: Any, place: Path, num_rows: int) -> dict[str, Any]:
    """Publish the corpus in our row groups and in one, and read clients spread over the file from each."""
    import datasets
    import pyarrow.parquet as pq
    from huggingface_hub import hf_hub_download

    from fedllm_data import load_client, load_clients
    from fedllm_data.hub.publish import publish
    from fedllm_data.hub.push import push_folder

    repo = place / "repo"
    build_repo(repo, num_rows)
    publish(repo, "org/small-groups")
    [path] = repo.glob("data/train-*.parquet")
    sizes = load_clients(repo).sizes
    chosen = list(sizes)[:: max(1, len(sizes) // NUM_READ)][:NUM_READ]

    one_group = place / "one-group" / "data" / path.name
    one_group.parent.mkdir(parents=True)
    table = pq.read_table(path)
    pq.write_table(table, one_group, row_group_size=table.num_rows, compression="zstd")
    push_folder(place / "one-group", "org/one-group")

    def streamed(repo_id: str, client_id: str) -> int:
        filters = [("client_id", "==", client_id)]
        data_files = {"train": f"hf://datasets/{repo_id}/data/train-*.parquet"}
        rows = datasets.load_dataset("parquet", data_files=data_files, split="train", streaming=True, filters=filters)
        return sum(1 for _ in rows)

    def downloaded(repo_id: str, client_id: str) -> int:
        cache = place / "download"  # apart from the cache of load_clients
        file = hf_hub_download(repo_id, f"data/{path.name}", repo_type="dataset", cache_dir=cache)
        return pq.read_table(file, filters=[("client_id", "==", client_id)]).num_rows

    def each(read: Callable[[str], int]) -> dict[str, float]:
        return median_of([measure(hub, lambda: read(client_id)) for client_id in chosen])  # noqa: B023

    ways = {
        "load_client": each(lambda client_id: load_client("org/small-groups", client_id).num_rows),
        "stream_with_filter": each(lambda client_id: streamed("org/small-groups", client_id)),
        "stream_with_filter_one_row_group": each(lambda client_id: streamed("org/one-group", client_id)),
        "download_the_file": measure(hub, lambda: downloaded("org/small-groups", chosen[0])),
        "load_clients": measure(hub, lambda: load_clients("org/small-groups")[chosen[0]].num_rows),
    }
    footer = pq.ParquetFile(path).metadata
    file = {
        "num_bytes": path.stat().st_size,
        "num_rows": footer.num_rows,
        "num_row_groups": footer.num_row_groups,
        "footer_num_bytes": footer.serialized_size,
        "num_clients": len(sizes),
    }
    fraction = {name: round(way["num_bytes"] / file["num_bytes"], 4) for name, way in ways.items()}
    return {"train_file": file, "num_clients_read": len(chosen), "ways": ways, "bytes_over_file": fraction}


if __name__ == "__main__":
    main()
