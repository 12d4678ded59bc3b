"""Does a build's memory grow with the corpus? Peak resident memory of 20,000 against 400,000 generated rows.

Each build runs in a process of its own (`VmHWM`, Linux), with generated rows of one size, so that only their number
differs. An empty build of 200 rows shows what the imports alone hold.

Run:  python benchmarks/build_memory.py          (about two minutes; writes benchmarks/results/build_memory.json)
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import write_result

ROWS_PER_CLIENT = 100
SIZES = (200, 20_000, 400_000)


def generated_rows(num_rows: int) -> Iterator["SourceRow"]:  # noqa: F821
    """Rows of about a kilobyte; nothing repeats, and the order of clients is scattered."""
    import numpy as np

    from fedllm_data.source import SourceRow

    rng = np.random.default_rng(0)
    words = np.array([f"w{index:05d}" for index in range(20_000)])
    for index in range(num_rows):
        drawn = words[rng.integers(0, len(words), 150)]
        messages = [
            {"role": "user", "content": f"{index} " + " ".join(drawn[:50])},
            {"role": "assistant", "content": " ".join(drawn[50:])},
        ]
        row = {"client_id": f"c{index * 7919 % max(1, num_rows // ROWS_PER_CLIENT):06d}", "messages": messages}
        yield SourceRow(row, "generated", index + 1)


def build_once(num_rows: int) -> dict[str, float]:
    """Build in this process and return its peak memory and time."""
    from fedllm_data.build import build
    from fedllm_data.source import Source

    source = Source(
        name="memory",
        task="sft",
        summary="",
        client="",
        licence="cc0-1.0",
        licence_url="",
        attribution="",
        upstream="generated",
        revision="",
        citation="",
        read=lambda path, seed, options: generated_rows(num_rows),
        options={},
    )
    start = time.perf_counter()
    with TemporaryDirectory() as place:
        result = build(source, Path(place, "repo"))
        num_bytes = sum(split["num_text_bytes"] for split in result.facts["splits"].values())
    seconds = time.perf_counter() - start
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return {"num_rows": num_rows, "text_bytes": num_bytes, "peak_bytes": int(peak[1]) * 1024, "seconds": seconds}


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
