"""What a heterogeneity report costs: 300 clients with 20,000 rows, and 1,000 clients with 100,000 and 200,000.

    python benchmarks/report_speed.py          (about two minutes; writes benchmarks/results/report_speed.json)

Rows of about a kilobyte in twelve languages, clients of log-normal size. CPU seconds of this process, apart for the
two steps: profiles (read the rows from Parquet, count tokens) and measures (999 draws of the null and 999 resamples of
the clients for every axis), and for the page with its figures.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import write_result

from fedllm_data.clients import load_clients
from fedllm_data.features import client_profiles
from fedllm_data.heterogeneity import measure_axes
from fedllm_data.report import write_report
from fedllm_data.schema import SCHEMAS

CASES = ((300, 20_000), (1_000, 100_000), (1_000, 200_000))
LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "pt", "ru", "te", "zh")


def write_repo(folder: Path, num_clients: int, num_rows: int) -> int:
    """Write the train split of a client repo, and return the number of bytes of text in it."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{index:05d}" for index in range(20_000)])
    weights = np.exp(rng.normal(0, 1, num_clients))
    sizes = 1 + rng.multinomial(num_rows - num_clients, weights / weights.sum())
    rows, num_bytes = [], 0
    for client, size in enumerate(sizes.tolist()):
        mix, log_length = rng.dirichlet(np.full(len(LANGUAGES), 0.2)), rng.normal(4.5, 0.4)
        for index in range(size):
            lengths = 1 + np.exp(rng.normal([3.0, log_length], 0.8)).astype(int)
            contents = [" ".join(words[rng.integers(0, len(words), length)]) for length in lengths]
            num_bytes += sum(map(len, contents))
            messages = [
                {"role": role, "content": content}
                for role, content in zip(("user", "assistant"), contents, strict=True)
            ]
            language = LANGUAGES[rng.choice(len(LANGUAGES), p=mix)]
            client_id = f"c{client:05d}"
            rows.append({"client_id": client_id, "row_id": f"{client_id}-{index}", "language": language})
            rows[-1]["messages"] = messages
    (folder / "data").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["sft"])
    pq.write_table(table, folder / "data/train-00000-of-00001.parquet", row_group_size=500)
    return num_bytes


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its CPU seconds."""
    start = time.process_time()
    return call(), time.process_time() - start


def main() -> None:
    """Measure every case and write the result."""
    cases = []
    for num_clients, num_rows in CASES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "repo"
            num_bytes = write_repo(folder, num_clients, num_rows)
            clients, load_seconds = timed(lambda: load_clients(folder))  # noqa: B023
            profiles, profile_seconds = timed(lambda: client_profiles([clients]))  # noqa: B023
            results, measure_seconds = timed(lambda: measure_axes(profiles))  # noqa: B023
            wall = time.perf_counter()
            _, report_seconds = timed(lambda: write_report(folder, Path(place) / "report"))  # noqa: B023
            cases.append(
                {
                    "num_clients": num_clients,
                    "num_rows": num_rows,
                    "text_bytes": num_bytes,
                    "load_cpu_seconds": round(load_seconds, 2),
                    "profiles_cpu_seconds": round(profile_seconds, 2),
                    "measures_cpu_seconds": round(measure_seconds, 2),
                    "write_report_cpu_seconds": round(report_seconds, 2),
                    "write_report_wall_seconds": round(time.perf_counter() - wall, 2),
                    "page_bytes": (Path(place) / "report/report.html").stat().st_size,
                    "verdicts": {name: result.verdict for name, result in results.items()},
                }
            )
            print(cases[-1], flush=True)
    write_result("report_speed", {"num_null": 999, "num_bootstrap": 999, "cases": cases})


if __name__ == "__main__":
    main()
