"""What a bug report should say of a machine: versions, threads, extras, and the variables that change what runs.

Versions come from the packages' metadata, so nothing heavy is imported. No name of a user, a host or a folder is in
it, and of a variable that holds a secret or a path only whether it is set. Imports the standard library only.
"""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

__all__ = ["environment_lines", "environment_record"]

DISTRIBUTION = "fedllm-commons"
PACKAGES = (
    *("numpy", "scipy", "pyarrow", "duckdb", "datasets", "evaluate", "huggingface_hub", "matplotlib", "rich"),
    *("torch", "transformers", "trl", "peft", "accelerate", "safetensors", "tokenizers", "bitsandbytes"),
)
"""Packages whose versions decide what happens."""
_VALUES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"),
    *("HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "PYTHONHASHSEED", "LANG"),
)
"""Variables whose values are shown: numbers and switches."""
_IS_SET = ("HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "TRANSFORMERS_CACHE", "PYTHONPATH", "HTTPS_PROXY")
"""Variables of which is shown whether they are set: tokens, places."""


def environment_record(*, gpu: bool = False) -> dict[str, Any]:
    """Return what a bug report should say, ready for JSON.

    Args:
        gpu: also ask torch for the devices, which imports it.

    >>> record = environment_record()
    >>> record["package"]["name"], record["gpu"], "torch" in record["packages"]
    ('fedllm-commons', None, True)
    """
    return {
        "package": {"name": DISTRIBUTION, "version": _version(DISTRIBUTION)},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cpu_threads": {"of_machine": os.cpu_count(), "usable": _usable_threads()},
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": _extras(),
        "variables": {name: os.environ.get(name) for name in _VALUES}
        | {name: "set" if os.environ.get(name) else None for name in _IS_SET},
        "gpu": _gpu() if gpu else None,
    }


def environment_lines(record: dict[str, Any]) -> list[str]:
    """Return the record as lines to paste into a bug report.

    >>> environment_lines(environment_record())[0].startswith("fedllm-commons ")
    True
    """
    threads = record["cpu_threads"]
    lines = [
        f"{record['package']['name']} {record['package']['version'] or 'not installed'}",
        f"python      {record['python']}",
        f"platform    {record['platform']}",
        f"threads     {threads['usable']} of {threads['of_machine']} usable",
        "packages",
        *(f"  {name:<26}{found or 'not installed'}" for name, found in record["packages"].items()),
        "extras",
    ]
    for name, missing in record["extras"].items():
        lines.append(f"  {name:<26}{'installed' if not missing else 'lacks ' + ', '.join(missing)}")
    lines.append("variables")
    lines += [f"  {name:<26}{'not set' if value is None else value}" for name, value in record["variables"].items()]
    if record["gpu"] is None:
        return [*lines, "gpu         not asked; --gpu asks torch"]
    found = record["gpu"]
    devices = "; ".join(found["devices"]) or "none"
    return [*lines, f"gpu         {devices} (CUDA of torch: {found['cuda'] or 'none'})"]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _usable_threads() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _extras() -> dict[str, list[str]]:
    """Extra -> its packages that are missing."""
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in wanted:
        named = re.match(r"([\w.-]+)(\[[^]]*\])?", line)
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", line)
        if named is None or extra is None or named[1] == DISTRIBUTION:
            continue
        missing = found.setdefault(extra[1], [])
        if _version(named[1]) is None:
            missing.append(named[1])
    return dict(sorted(found.items()))


def _gpu() -> dict[str, Any]:
    """The devices that torch sees; none where it is not installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return {"cuda": None, "devices": []}
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cuda": torch.version.cuda, "devices": devices}
