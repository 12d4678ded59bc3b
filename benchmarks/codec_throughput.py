"""How fast wires pack and unpack on one core, beside a copy in memory: gigabytes of float32 values a second.

    python benchmarks/codec_throughput.py [--values N] [--repeats N]

The values are drawn from a Gaussian, as many as an adapter of some million parameters has, in 64 tensors; speed hardly
depends on what they are, bits and errors do (`benchmarks/wires.py` has those of real updates). Seconds are CPU seconds
of one thread, medians over repeats; wires take turns within a repeat, so that a busy minute hits all of them. A
gigabyte is 10^9 bytes of the values in float32, whatever precision a codec works in: packing begins from the change in
float64, unpacking ends there. The copy reads and writes the float32 values once.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from machine import write_result

WIRES = (
    *("none", "bf16", "bf16+huffman", "int8", "int8+huffman", "int4", "int4+huffman", "int4:block=64", "int3"),
    *("int3:nearest+huffman", "sign", "drive", "drive:biased", "topk", "topk-int8", "topk-int4", "ecolora"),
)
NUM_TENSORS = 64
COPY = "copy"


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=2**22, help="values of the vector (default 4,194,304)")
    parser.add_argument("--repeats", type=int, default=11, help="times that each wire packs and unpacks (default 11)")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    size = arguments.values // NUM_TENSORS
    cases = {wire: case_of(wire, size) for wire in WIRES}
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in (COPY, *WIRES)}
    values = torch.randn(size * NUM_TENSORS)
    for _ in range(arguments.repeats):
        seconds[COPY].append((cpu_seconds(values.clone),))
        for wire, (pack, unpack, _) in cases.items():
            seconds[wire].append((cpu_seconds(pack), cpu_seconds(unpack)))
    result = summary(seconds, {wire: facts for wire, (_, _, facts) in cases.items()}, size * NUM_TENSORS)
    path = write_result("codec_throughput", result | {"num_repeats": arguments.repeats, "num_tensors": NUM_TENSORS})
    for wire, row in result["wires"].items():
        print(f"{wire:22} {row['pack_gb_s']:7.3f} {row['unpack_gb_s']:7.3f} GB/s {row['bits_per_value']:7.3f} bits")
    print(f"{COPY:22} {result['copy_gb_s']:7.3f} GB/s\n{path}")


def case_of(wire: str, size: int) -> tuple[Callable[[], Any], Callable[[], Any], dict[str, Any]]:
    """Return what packs a vector and what unpacks it, and what is known of the message."""
    import numpy as np
    import torch

    from fedllm_train.messages import codec
    from fedllm_train.messages.packing import codec_of
    from fedllm_train.messages.place import Place

    drawn = np.random.default_rng(0).standard_normal(size * NUM_TENSORS).astype(np.float32)
    values, sizes, place = torch.from_numpy(drawn.astype(np.float64)), [size] * NUM_TENSORS, Place(0, 0, "a client")
    if (packer := codec_of(wire)) is None:
        whole = {"adapter": {str(n): each for n, each in enumerate(torch.from_numpy(drawn).split(size))}}
        message = codec.encode(whole)
        return lambda: codec.encode(whole), lambda: codec.decode(message), facts_of(message, values, values)
    packed = packer.pack(values, sizes, place)
    facts = facts_of(codec.encode({"packed": packed}), values, packer.unpack(packed, sizes, place))
    return (lambda: packer.pack(values, sizes, place)), (lambda: packer.unpack(packed, sizes, place)), facts


def facts_of(message: bytes, values: Any, back: Any) -> dict[str, Any]:
    """Return bytes, bits a value, and how far what comes back is from the values."""
    return {
        "message_bytes": len(message),
        "bits_per_value": round(8 * len(message) / len(values), 3),
        "relative_error": round(float((back - values).norm() / values.norm()), 4),
    }


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def summary(
    seconds: dict[str, list[tuple[float, ...]]], facts: dict[str, dict[str, Any]], num_values: int
) -> dict[str, Any]:
    """Return the result: medians, gigabytes a second, and multiples of the copy's seconds."""
    gigabytes = 4 * num_values / 1e9
    medians = {name: [statistics.median(each) for each in zip(*runs, strict=True)] for name, runs in seconds.items()}
    copy = medians.pop(COPY)[0]
    wires = {}
    for wire, (pack, unpack) in medians.items():
        wires[wire] = {
            "pack_seconds": round(pack, 5),
            "unpack_seconds": round(unpack, 5),
            "pack_gb_s": round(gigabytes / pack, 3),
            "unpack_gb_s": round(gigabytes / unpack, 3),
            "pack_copies": round(pack / copy, 1),
            "unpack_copies": round(unpack / copy, 1),
            **facts[wire],
        }
    return {
        "num_values": num_values,
        "drawn_from": "a Gaussian",
        "num_threads": 1,
        "copy_seconds": round(copy, 5),
        "copy_gb_s": round(gigabytes / copy, 3),
        "wires": wires,
    }


if __name__ == "__main__":
    main()
