"""From a name to files: a run folder, a PEFT adapter or a plain model, here or on the Hub.

A folder is a run if it holds `config.yaml` and `adapter/` (or `model/`, where all weights were trained), an adapter if
it holds `adapter_config.json`, a plain model if it holds `config.json`. A name that is no folder is a Hub id; its
files are fetched into the Hub's cache and looked at the same way. Imports no torch.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedllm_data.errors import ConfigError, HubError
from fedllm_eval.policy.run_folder import ADAPTER, CONFIG_FILE, MODEL, START_ADAPTER, read_config, section

__all__ = ["HUB_ID", "Location", "locate"]

Kind = Literal["run", "adapter", "model"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
ALLOWED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.yaml"]
IGNORED = ["checkpoints/*", "onnx/*", "runs/*"]


@dataclass(frozen=True)
class Location:
    """Where the files of a policy are, and what it stands on."""

    name: str
    """As given."""
    kind: Kind
    folder: Path
    revision: str | None = None
    """Commit of a Hub repo."""
    adapter: Path | None = None
    model: Path | None = None
    """The whole model that a run with full fine-tuning left; such a run has no adapter."""
    start_adapter: Path | None = None
    """The adapter a run started from: part of its DPO reference."""
    base: str | None = None
    """Folder or Hub id of the base model, which a run with full fine-tuning started from; None for a plain model."""
    base_revision: str | None = None
    beta: float | None = None
    """Beta of DPO or KTO, where the run says so."""
    template_date: str | None = None
    """The day that a chat template which writes the date took for today when the run was trained."""


def locate(name: str | Path, revision: str | None = None) -> Location:
    """Return what a name stands for.

    Args:
        name: local folder or Hub id.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ConfigError: if the folder holds no run, adapter or model, or names no base model.
        HubError: if the Hub id cannot be fetched.

    >>> locate("no/such/folder")
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: 'no/such/folder' is neither a folder here nor a Hub id; check the path
    """
    given, folder = str(name), Path(name)
    commit = None
    if not folder.is_dir():
        if folder.exists() or not HUB_ID.fullmatch(given):
            raise ConfigError(f"{given!r} is neither a folder here nor a Hub id; check the path")
        folder = _fetch(given, revision)
        commit = folder.name
    if (folder / CONFIG_FILE).is_file():
        # A run's folder keeps its adapter in adapter/; published, the adapter lies at the root, where PEFT looks.
        for adapter in (folder / ADAPTER, folder):
            if (adapter / "adapter_config.json").is_file():
                return _locate_run(given, folder, commit, adapter=adapter)
        for model in (folder / MODEL, folder):
            if (model / "config.json").is_file():
                return _locate_run(given, folder, commit, model=model)
    if (folder / "adapter_config.json").is_file():
        adapter_config = _read_json(folder / "adapter_config.json")
        return Location(
            name=given,
            kind="adapter",
            folder=folder,
            revision=commit,
            adapter=folder,
            base=_base_name(adapter_config.get("base_model_name_or_path"), folder / "adapter_config.json"),
            base_revision=adapter_config.get("revision"),
        )
    if (folder / "config.json").is_file():
        return Location(name=given, kind="model", folder=folder, revision=commit)
    if (folder / CONFIG_FILE).is_file():
        raise ConfigError(f"run {given!r} has no adapter yet; let it finish, or go on with it by --resume")
    raise ConfigError(
        f"{given!r} holds neither a run (config.yaml, adapter/), nor an adapter (adapter_config.json), nor a model "
        "(config.json); name such a folder or a Hub id"
    )


def _locate_run(
    given: str, folder: Path, commit: str | None, *, adapter: Path | None = None, model: Path | None = None
) -> Location:
    config = read_config(folder)
    base, beta, day = section(config, "model"), section(config, "client").get("beta"), config.get("template_date")
    start_adapter = folder / START_ADAPTER
    return Location(
        name=given,
        kind="run",
        folder=folder,
        revision=commit,
        adapter=adapter,
        model=model,
        start_adapter=start_adapter if (start_adapter / "adapter_config.json").is_file() else None,
        base=_base_name(base.get("name"), folder / CONFIG_FILE),
        base_revision=base.get("revision"),
        beta=float(beta) if config.get("task") in ("dpo", "kto") and isinstance(beta, int | float) else None,
        template_date=None if day is None else str(day),
    )


def _base_name(name: object, place: Path) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{place} names no base model; write the base's folder or Hub id into it")
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable JSON: {error}; fetch or save the adapter again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object; fetch or save the adapter again")
    return content


def _fetch(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=ALLOWED, ignore_patterns=IGNORED))
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"{repo_id!r}{at} is no folder here and cannot be fetched from the Hub (no connection, and not in the "
            "cache); check the path or the network"
        ) from error
    except HfHubHTTPError as error:
        reason = " ".join(str(error).split())[:120]
        raise HubError(
            f"{repo_id!r}{at} is no folder here and no Hub model that can be read ({reason}); check the path, the id "
            "and `hf auth whoami`"
        ) from error
