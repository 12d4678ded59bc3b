"""What a measurement ran on, and where its result file goes: shared by the scripts of this folder."""

import json
import os
import platform
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
