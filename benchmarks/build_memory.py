"""Does a build's memory grow with the corpus? Peak resident memory of 20,000 against 400,000 generated rows.

Each build runs in a process of its own (`VmHWM`, Linux), with generated rows of one kind, so that only their number
differs. An empty build of 200 rows shows what the imports alone hold.

Run:  python benchmarks/build_memory.py          (about two minutes; writes benchmarks/results/build_memory.json)
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from generated import Corpus, generated_source, source_rows
from machine import memory_bytes, write_result

ROWS_PER_CLIENT = 100
SIZES = (200, 20_000, 400_000)


def build_once(num_rows: int) -> dict[str, float]:
    """Build in this process and return its peak memory and time."""
    from fedllm_data.build import build

    num_clients = max(1, num_rows // ROWS_PER_CLIENT)
    corpus = Corpus(num_rows=num_rows, num_clients=num_clients, zipf=0.0, has_copies=False)
    source = generated_source("memory", lambda: source_rows(corpus))
    start = time.perf_counter()
    with TemporaryDirectory() as place:
        result = build(source, Path(place, "repo"))
        num_bytes = sum(split["num_text_bytes"] for split in result.facts["splits"].values())
    seconds = time.perf_counter() - start
    return {"num_rows": num_rows, "text_bytes": num_bytes, "peak_bytes": memory_bytes("VmHWM"), "seconds": seconds}


def main() -> None:
    """Build every size in a process of its own, print the ratios and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(build_once(arguments.one)))
        return
    builds = []
    for num_rows in SIZES:
        output = subprocess.run(
            [sys.executable, __file__, "--one", str(num_rows)], check=True, capture_output=True, text=True
        ).stdout
        builds.append(json.loads(output))
        print(
            f"{num_rows:>9,} rows  {builds[-1]['text_bytes'] / 2**20:>7.1f} MiB of text  "
            f"peak {builds[-1]['peak_bytes'] / 2**20:>7.1f} MiB  {builds[-1]['seconds']:>6.1f} s"
        )
    empty, small, large = builds
    ratio = large["peak_bytes"] / small["peak_bytes"]
    print(f"{large['num_rows'] // small['num_rows']} times the rows need {ratio:.2f} times the memory")
    document = {
        "builds": builds,
        "rows_ratio": large["num_rows"] / small["num_rows"],
        "peak_ratio": ratio,
        "peak_ratio_above_empty": (large["peak_bytes"] - empty["peak_bytes"])
        / max(1, small["peak_bytes"] - empty["peak_bytes"]),
    }
    print(f"written: {write_result('build_memory', document)}")


if __name__ == "__main__":
    main()
