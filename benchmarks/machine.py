"""What a measurement ran on, and where its result file goes: shared by the scripts of this folder."""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("fedllm-commons", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "huggingface_hub"),
    *("duckdb", "pyarrow", "numpy", "scipy"),
)


def describe() -> dict[str, Any]:
    """Return processor, cores and package versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": model,
        "num_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `results/<name>.json`, machine included, and return its path."""
    path = Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**result, "machine": describe()}, indent=2, ensure_ascii=False) + "\n")
    return path


def memory_bytes(name: str) -> int:
    """Return a line of this process's memory in bytes: VmRSS now, VmHWM at most since the last reset. Linux only."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def reset_peak() -> None:
    """Let VmHWM begin anew, so that what came before does not count."""
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """Fill in CPU and wall seconds and peak memory of what happens inside; anonymous memory is looked at every 50 ms.

    `peak_bytes` counts mapped pages of Arrow files, which the system takes back at will; `peak_anonymous_bytes` leaves
    them out.
    """
    spent: dict[str, Any] = {}
    reset_peak()
    most, is_over = memory_bytes("RssAnon"), threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(0.05):
            most = max(most, memory_bytes("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start, wall = time.process_time(), time.perf_counter()
    try:
        yield spent
    finally:
        cpu_seconds, wall_seconds = time.process_time() - start, time.perf_counter() - wall
        is_over.set()
        watcher.join()
        spent |= {
            "cpu_seconds": round(cpu_seconds, 4),
            "wall_seconds": round(wall_seconds, 2),
            "peak_bytes": memory_bytes("VmHWM"),
            "peak_anonymous_bytes": max(most, memory_bytes("RssAnon")),
        }
