"""The run folder: what lies where, and when a run may begin in it.

config.yaml      resolved settings, package versions, revisions of data and base model
rounds.jsonl     one line a round
checkpoints/     the newest rounds' states, and those of every `keep_every` rounds
best/            with `eval_every`: the adapter that scored best, as PEFT writes it
adapter/         the finished adapter, as PEFT writes it, and the tokenizer and chat template it was trained with
model/           in its place, with full fine-tuning: the finished model and its tokenizer
personal/        of methods that personalise: the clients' own adapters, and clients.json, which says whose is which
start_adapter/   the adapter the run started from, if any: with the base, DPO's reference
README.md        model card
privacy_secret   with differential privacy: what noise and cohorts are drawn from; never published
unrendered_rows.json  rows that the chat template cannot render, by client and reason, if there are any
.lock            held by the process that trains in the folder
.work/           token ids and updates in transit while the run is on; removed when it is done
"""

import json
import shutil
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from fedllm_data.errors import ConfigError, ResumeError
from fedllm_eval.texts import yaml_text
from fedllm_train.run_files.files import write_bytes
from fedllm_train.run_files.run_lock import LOCK_FILE

__all__ = ["PACKAGES", "RUN_FORMAT", "check_run_folder", "open_run_folder", "package_versions", "read_config"]

RUN_FORMAT = 2
"""What `config.yaml` says of how the folder is laid out; runs of older versions say nothing, and stand for 1."""
PACKAGES = ("fedllm-commons", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide a run's bits."""
    return {name: _version(name) for name in PACKAGES}


@cache
def _version(name: str) -> str:
    """A package's version, read once: its metadata are parsed whole, and no package changes while it is in use."""
    return version(name)


def read_config(run: Path) -> dict[str, Any]:
    """Return a run folder's `config.yaml`.

    Raises:
        ConfigError: if the folder is not a run folder.
    """
    try:
        content = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{run} holds no readable config.yaml, so it is not a run folder; name one") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{run / 'config.yaml'} holds no settings, so this is not a run folder; name one")
    return content


def open_run_folder(run: Path, config: dict[str, Any], *, resume: bool) -> None:
    """Begin or go on in a run folder.

    Args:
        run: the folder; made if it is not there.
        config: the resolved settings, JSON-ready.
        resume: whether a run that is there may be gone on with.

    Raises:
        ConfigError: if the folder holds another run and `resume` is off, or holds files that are no run.
        ResumeError: if the run in the folder was begun with other settings.
    """
    config = json.loads(json.dumps(config))
    check_run_folder(run, resume=resume)
    if (run / "config.yaml").exists():
        before = read_config(run)
        if before.get("format", 1) != RUN_FORMAT:
            raise ResumeError(
                f"{run} was begun by another version of this package (run format {before.get('format', 1)}, this one "
                f"writes {RUN_FORMAT}), so its checkpoints cannot be gone on from; resume it with the version that "
                "began it, or start afresh in another output_dir (it can still be scored and published)"
            )
        _check_same(before, config, run)
        return
    shutil.rmtree(run / ".work", ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    write_bytes(run / "config.yaml", yaml_text(config).encode())


def check_run_folder(run: Path, *, resume: bool) -> None:
    """Refuse a folder in which a run may not begin, before anything is written into it; as `open_run_folder` does."""
    if (run / "config.yaml").exists():
        if not resume:
            raise ConfigError(f"{run} already holds a run; resume it, or choose another output_dir")
    elif run.exists() and (not run.is_dir() or any(path.name not in _NO_RUN for path in run.iterdir())):
        raise ConfigError(f"{run} exists and is not a run folder; choose another output_dir")


_NO_RUN = (".work", LOCK_FILE)
"""What a run leaves that ended before it began."""
_MAY_DIFFER = {
    ("federated", name)
    for name in ("num_processes", "report_to", "keep_checkpoints", "keep_every", "personal_clients")
}
"""Settings that change no adapter, at most for whom one is written."""
_MAY_DIFFER |= {("data", "client_ids"), ("earlier", "data"), ("earlier", "is_complete")}
"""What is said of data whose content other settings settle; runs of older versions do not say it."""
_MAY_DIFFER.add(("template_date", ""))  # a resumed run keeps the day it began on


def _check_same(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
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
