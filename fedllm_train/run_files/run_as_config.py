"""A run's own `config.yaml` as a `--config` file: the same run again, in another folder, with what flags change.

Its sections are what was resolved; here they become the flags that resolve to them. A setting that has its default
does not count as given. What no flag can say (a PEFT setting that only Python takes, clients made in memory) is
refused by name. Imports no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_folder import AT_SITES
from fedllm_train.config import FederatedConfig, check_name
from fedllm_train.field_types import plain_value
from fedllm_train.run_files.former_settings import in_todays_words
from fedllm_train.strategies import settings_class, users_of

__all__ = ["flags_of_run", "is_run_config"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PEFT_TYPES = {"LORA", "IA3", "LN_TUNING", "PROMPT_TUNING", "PREFIX_TUNING"}
_LORA_FLAGS = {"r": "lora_r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
_ONLY_PYTHON = {
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "modules_to_save": None,
    "init_lora_weights": True,
    "bias": "none",
    "exclude_modules": None,
    "trainable_token_indices": None,
}
"""PEFT settings that no flag sets -> their defaults."""


def is_run_config(content: Mapping[str, Any]) -> bool:
    """Return whether a file's settings are those of a run folder.

    >>> is_run_config({"num_rounds": 3}), is_run_config({"task": "sft", "federated": {}, "client": {}})
    (False, True)
    """
    return {"task", "federated", "client"} <= content.keys()


def flags_of_run(content: Mapping[str, Any], path: Path, task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the flags of ours that a run was made with, and TRL's settings, all of them.

    Args:
        content: the content of the run's `config.yaml`.
        path: that file.
        task: the command's task.

    Raises:
        ConfigError: if the run has another task, or flags cannot express one of its settings.
    """
    if content["task"] != task:
        raise ConfigError(f"--config {path} belongs to a {content['task']} run; use fedllm-train {content['task']}")
    sections = ("federated", "client", "model", "data", "peft")
    if odd := [each for each in sections if not isinstance(content.get(each) or {}, Mapping)]:
        raise ConfigError(f"--config {path} has a section {odd[0]} without names; write one setting a line below it")
    try:
        return _flags_of(content, path)
    except KeyError as error:
        raise ConfigError(
            f"--config {path} lacks {error.args[0]}, which the config.yaml of every run has; put it back"
        ) from error


def _flags_of(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    federated = in_todays_words({str(name): value for name, value in (content["federated"] or {}).items()})
    strategy = plain_value("strategy", federated.get("strategy", "fedavg"), str)
    known = {each.name: each.default for each in (*fields(FederatedConfig), *fields(settings_class(strategy)))}
    for name in (each for each in content if each in known):
        raise ConfigError(f"{name} stands outside the sections of --config {path}; put it under federated")
    for name, value in federated.items():
        # Runs of earlier versions name the settings of every method, with their defaults.
        owned = [each for user in users_of(name)[:1] for each in fields(settings_class(user)) if each.name == name]
        if name not in known and not (owned and value in (None, owned[0].default)):
            check_name(name, strategy)
    flags = {
        name: value
        for name, value in federated.items()
        if name in known and value is not None and value != known[name]
    }
    if federated.get("cohort_rule") in ("fixed", "all"):
        flags.pop("cohort_size", None)
    model, data = content.get("model") or {}, content.get("data") or {}
    if not model.get("name"):
        raise ConfigError(f"--config {path} belongs to a run whose model was made in memory; save it and give --model")
    if data.get("revision") is None:
        raise ConfigError(
            f"--config {path} belongs to a run whose clients were made in memory; give --data in a file of flags"
        )
    flags["model"] = model["name"]
    if not str(data["revision"]).startswith(AT_SITES):  # else the command says how its sites are reached
        flags["data"] = data["name"]
    if _COMMIT.fullmatch(str(data["revision"])):
        flags["data_revision"] = data["revision"]
    if _COMMIT.fullmatch(str(model.get("revision"))):
        flags["model_revision"] = model["revision"]
    if content.get("start_adapter") is not None:
        flags["adapter"] = str(path.parent / "start_adapter")
    elif content.get("peft") is not None:
        flags |= _of_peft(content["peft"], path)
    return flags, dict(content["client"] or {})


def _of_peft(peft: Mapping[str, Any], path: Path) -> dict[str, Any]:
    kind = str(peft.get("peft_type"))
    odd = [name for name, usual in _ONLY_PYTHON.items() if name in peft and peft[name] not in (usual, MISSING)]
    if kind not in _PEFT_TYPES or odd:
        what = f"{odd[0]}={peft[odd[0]]!r}" if odd else f"peft_type {kind}"
        raise ConfigError(
            f"--config {path} belongs to a run with {what} in its PEFT settings, which no flag sets; use Python"
        )
    if kind != "LORA":
        flags: dict[str, Any] = {"peft_type": kind.lower()}
        if kind in ("PROMPT_TUNING", "PREFIX_TUNING"):
            flags["num_virtual_tokens"] = peft["num_virtual_tokens"]
        elif kind == "IA3":
            flags["lora_target_modules"] = peft["target_modules"]
        return flags
    flags = {flag: peft[name] for name, flag in _LORA_FLAGS.items()}
    flags["lora_target_modules"] = peft["target_modules"]
    if peft.get("use_dora") or peft.get("use_rslora"):
        flags["peft_type"] = "dora" if peft.get("use_dora") else "rslora"
    return flags
