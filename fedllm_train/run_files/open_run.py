"""When a run may begin in a folder, or go on in it, and the `config.yaml` that it begins with.

A run goes on only with the settings, package versions and data that it was begun with: nothing else gives the same
adapter. What lies where in a run folder is declared in `fedllm_eval/policy/run_folder.py`. Imports no torch.
"""

import json
import shutil
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError, ResumeError
from fedllm_data.in_place import write_file
from fedllm_eval.policy.run_folder import CONFIG_FILE, LOCK_FILE, RUN_FORMAT, WORK, read_config, run_format
from fedllm_eval.policy.run_records import RunConfig
from fedllm_eval.texts import yaml_text
from fedllm_train.run_files.former_settings import with_defaults

__all__ = ["PACKAGES", "check_run_folder", "is_begun", "open_run_folder", "package_versions"]

PACKAGES = ("fedllm-commons", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide a run's bits."""
    return {name: _version(name) for name in PACKAGES}


@cache
def _version(name: str) -> str:
    """A package's version, read once: its metadata are parsed whole, and no package changes while it is in use."""
    return version(name)


def is_begun(run: Path) -> bool:
    """Return whether a folder holds a run, finished or not.

    >>> is_begun(Path("no/such/run"))
    False
    """
    return (run / CONFIG_FILE).exists()


def open_run_folder(run: Path, config: RunConfig, *, resume: bool) -> None:
    """Begin or go on in a run folder.

    Args:
        run: the folder; made if it does not exist.
        config: the resolved settings, JSON-ready.
        resume: whether to go on with a run that is in the folder.

    Raises:
        ConfigError: if the folder holds another run and `resume` is off, or holds files that are no run.
        ResumeError: if the run in the folder was begun with other settings, or by another version.
    """
    now = json.loads(json.dumps(config))
    check_run_folder(run, resume=resume)
    if is_begun(run):
        _check_same(dict(read_config(run)), now, run)
        return
    shutil.rmtree(run / WORK, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    write_file(run / CONFIG_FILE, yaml_text(now))


def check_run_folder(run: Path, *, resume: bool) -> None:
    """Refuse a folder in which a run may not begin or go on, before a model is loaded or anything is written.

    Raises:
        ConfigError: as `open_run_folder`.
        ResumeError: if the run in the folder was begun by a version that lays a run folder out in another way.

    >>> check_run_folder(Path("no/such/run"), resume=True)
    """
    if is_begun(run):
        if not resume:
            raise ConfigError(f"{run} already holds a run; resume it, or choose another output_dir")
        if (begun_with := run_format(read_config(run))) != RUN_FORMAT:
            raise ResumeError(
                f"{run} was begun by another version of this package (run format {begun_with}; this version writes "
                f"{RUN_FORMAT}), so it cannot go on from its checkpoints; resume it with the version that began it, "
                "or start afresh in another output_dir (it can still be scored and published)"
            )
    elif run.exists() and (not run.is_dir() or not all(_is_left_over(path) for path in run.iterdir())):
        raise ConfigError(f"{run} exists and is not a run folder; choose another output_dir")


def _is_left_over(path: Path) -> bool:
    """Whether a file was left by a run that ended before it began, in the middle of its config.yaml at the latest."""
    return path.name in (WORK, LOCK_FILE) or path.name.startswith(f".{CONFIG_FILE}.")


_MAY_DIFFER = {
    ("federated", name)
    for name in ("num_processes", "report_to", "keep_checkpoints", "keep_every", "personal_clients")
}
"""Settings that change no adapter, at most for whom one is written."""
_MAY_DIFFER |= {("data", "client_ids"), ("earlier", "data"), ("earlier", "is_complete")}
"""What is said of data whose content other settings settle; runs of older versions do not say it."""
_MAY_DIFFER |= {("privacy", name) for name in ("assumptions", "by_accountant", "claim")}  # told, not decided
_MAY_DIFFER.add(("template_date", ""))  # a resumed run keeps the day it began on


def _check_same(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    before = before | {"federated": with_defaults(before["federated"])}
    changed = [
        f"{section}.{key}: {_show(before.get(section), key)} -> {_show(now.get(section), key)}"
        for section in sorted(before.keys() | now.keys())
        for key in sorted(_keys(before.get(section)) | _keys(now.get(section)))
        if (section, key) not in _MAY_DIFFER and _show(before.get(section), key) != _show(now.get(section), key)
    ]
    if changed:
        raise ResumeError(
            f"{run} was begun with other settings ({'; '.join(changed[:5])}"
            f"{'; ...' if len(changed) > 5 else ''}); resume with the same ones, or choose another output_dir"
        )


def _keys(section: Any) -> set[str]:
    return set(section) if isinstance(section, dict) else {""}


def _show(section: Any, key: str) -> str:
    return json.dumps(section.get(key) if isinstance(section, dict) else section, sort_keys=True)
