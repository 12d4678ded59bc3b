"""Tables of `codec_throughput.py` and `aggregation.py`, from their result files alone. Standard library only."""

from collections.abc import Mapping
from typing import Any

__all__ = ["aggregation_rows", "throughput_rows"]

Result = Mapping[str, Any]


def throughput_rows(result: Result) -> list[list[str]]:
    """Return each wire's speed both ways, how many copies in memory that is, and what it sends.

    >>> wire = {"pack_gb_s": 0.5, "unpack_gb_s": 2.0, "pack_copies": 8.0, "unpack_copies": 2.0, "bits_per_value": 4.0,
    ...         "relative_error": 0.27}
    >>> throughput_rows({"wires": {"int4": wire}})
    [['`int4`', '0.50', '2.00', '8', '2', '4.00', '0.270']]
    """
    return [
        [
            f"`{wire}`",
            f"{row['pack_gb_s']:.2f}",
            f"{row['unpack_gb_s']:.2f}",
            f"{row['pack_copies']:.0f}",
            f"{row['unpack_copies']:.0f}",
            f"{row['bits_per_value']:.2f}",
            f"{row['relative_error']:.3f}",
        ]
        for wire, row in result["wires"].items()
    ]


def aggregation_rows(result: Result) -> list[list[str]]:
    """Return each way to add updates up, with its seconds and its peak of memory; the last is known, not measured.

    >>> way = {"add_seconds": 50.0, "decode_seconds": 10.0, "peak_bytes": 2**28}
    >>> aggregation_rows({"ways": {"ours": way}, "stack_bytes": 2**35, "num_updates": 1000})
    [['ours', '10.0', '50.0', '60.0', '256 MiB'], ['a stack of all updates', '', '', '', '32,768 MiB or more']]
    """
    rows = []
    for name, way in result["ways"].items():
        decoding = way.get("decode_seconds", 0.0)
        rows.append(
            [
                name,
                f"{decoding:.1f}" if decoding else "",
                f"{way['add_seconds']:.1f}",
                f"{1000 * (decoding + way['add_seconds']) / result['num_updates']:.1f}",
                _mebibytes(way["peak_bytes"]),
            ]
        )
    return [*rows, ["a stack of all updates", "", "", "", f"{_mebibytes(result['stack_bytes'])} or more"]]


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
