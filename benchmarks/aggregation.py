"""What adding up a thousand updates costs the server: CPU seconds and peak memory, beside plain NumPy.

    python benchmarks/aggregation.py [--updates N] [--values N]     (some minutes)

A thousand updates of eight million float32 values (as an adapter of rank 16 of a model of some billion weights has).
They are made one after another as messages and not kept, as a server gets them:

ours     every message is decoded and added to `RunningSum` (`adapters/arithmetic.py`), as `aggregation/plain.py` does
         with a method that takes a mean: weighted, in float64; then the mean, rounded once to float32
numpy    the same sum in NumPy, `total += weight * update.astype(float64)` tensor by tensor, of updates in memory

Each runs in a process of its own. Seconds are CPU seconds of one thread, without those that make the messages; memory
is the peak of the process from before the first update on, less what it held then. Both end with the same mean to the
bit, or the script stops. Keeping all updates for one `numpy.average` over a stack is not run: its bytes follow from
the numbers alone. Linux only.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from machine import memory_bytes, reset_peak, write_result

NUM_TENSORS = 32
WAYS = ("ours", "numpy")


def main() -> None:
    """Measure and write the result file; with `--way`, run one way and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=1000, help="updates that are added up (default 1000)")
    parser.add_argument("--values", type=int, default=8_000_000, help="values of each (default 8,000,000)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way is not None:
        run = ours if arguments.way == "ours" else numpy_sum
        print(json.dumps(run(arguments.updates, arguments.values // NUM_TENSORS)))
        return
    ways = {way: measured(way, arguments) for way in WAYS}
    digests = {way: each.pop("mean_sha256") for way, each in ways.items()}
    if len(set(digests.values())) != 1:
        raise SystemExit(f"the two means differ: {digests}")
    num_values = arguments.values // NUM_TENSORS * NUM_TENSORS
    result = {
        "num_updates": arguments.updates,
        "num_values": num_values,
        "num_tensors": NUM_TENSORS,
        "num_threads": 1,
        "ways": ways,
        "same_mean": True,
        "stack_bytes": 4 * num_values * arguments.updates,
    }
    print(json.dumps(result, indent=2))
    print(write_result("aggregation", result))


def measured(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one way in a process of its own."""
    numbers = ["--updates", str(arguments.updates), "--values", str(arguments.values)]
    command = [sys.executable, __file__, "--way", way, *numbers]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def updates(num_updates: int, size: int) -> Any:
    """Yield the updates one after another, each in memory of its own, with its weight in rows."""
    import numpy as np

    base = np.random.default_rng(0).standard_normal((NUM_TENSORS, size), dtype=np.float32)
    for number in range(num_updates):
        share = np.float32(1 + number / num_updates)
        yield {f"tensor {n:02}": row * share for n, row in enumerate(base)}, 1.0 + number % 40


class Clock:
    """Adds up the CPU seconds of calls."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.seconds = 0.0

    def __call__(self, work: Callable[[], Any]) -> Any:
        """Return what a call returns."""
        start = time.process_time()
        result = work()
        self.seconds += time.process_time() - start
        return result


def ours(num_updates: int, size: int) -> dict[str, Any]:
    """Decode messages and add them up as the server does."""
    import torch

    from fedllm_train.adapters.arithmetic import RunningSum
    from fedllm_train.messages import codec

    torch.set_num_threads(1)
    codec.decode(codec.encode({"adapter": {"a": torch.zeros(1)}}))  # imports are no part of what is measured
    begin = started()
    decoding, adding, total = Clock(), Clock(), RunningSum()
    for update, weight in updates(num_updates, size):
        message = codec.encode({"adapter": {name: torch.from_numpy(row) for name, row in update.items()}})
        del update
        parts = decoding(lambda message=message: codec.decode(message))
        adding(lambda parts=parts, weight=weight: total.add(parts["adapter"], weight))
        del parts, message
    mean = adding(total.mean)
    return finished(begin, {name: tensor.numpy() for name, tensor in mean.items()}) | {
        "decode_seconds": round(decoding.seconds, 2),
        "add_seconds": round(adding.seconds, 2),
    }


def numpy_sum(num_updates: int, size: int) -> dict[str, Any]:
    """Add updates up in NumPy, tensor by tensor."""
    import numpy as np

    begin = started()
    clock, weights = Clock(), 0.0
    total = {f"tensor {n:02}": np.zeros(size) for n in range(NUM_TENSORS)}

    def add(update: dict[str, Any], weight: float) -> None:
        for name, row in update.items():
            total[name] += weight * row.astype(np.float64)

    for update, weight in updates(num_updates, size):
        clock(lambda update=update, weight=weight: add(update, weight))
        weights += weight
        del update
    mean = clock(lambda: {name: (each / weights).astype(np.float32) for name, each in total.items()})
    return finished(begin, mean) | {"add_seconds": round(clock.seconds, 2)}


def started() -> int:
    """Return the memory of this process before the first update, and let its peak begin anew."""
    reset_peak()
    return memory_bytes("VmRSS")


def finished(begin: int, mean: dict[str, Any]) -> dict[str, Any]:
    """Return the peak of memory since `started`, less what there was, and a digest of the mean."""
    peak = memory_bytes("VmHWM") - begin
    digest = sha256(b"".join(mean[name].tobytes() for name in sorted(mean))).hexdigest()
    return {"peak_bytes": peak, "mean_sha256": digest}


if __name__ == "__main__":
    main()
