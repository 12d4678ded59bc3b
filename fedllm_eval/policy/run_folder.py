"""A run folder, declared once: what lies where in it, and how it is read; its records are in `run_records.py`.

    config.yaml           the resolved settings, package versions, revisions of data and base model (`RunConfig`)
    rounds.jsonl          one line a round (`RoundRecord`)
    releases.jsonl        in a published run with differential privacy, instead of rounds.jsonl
    checkpoints/          `round-000007/`: the state after a round, for the newest rounds and every `keep_every`-th
                          (`CheckpointRecord`); with `eval_every` also what best/ was made of
    best/                 with `eval_every`: the adapter that scored best, as PEFT writes it
    adapter/              the finished adapter, as PEFT writes it, with its tokenizer and chat template
    model/                with full fine-tuning, instead of adapter/: the finished model and its tokenizer
    personal/             of methods that personalise: the clients' own adapters, and clients.json, which says whose
                          is which (`PersonalClients`)
    start_adapter/        the adapter that the run started from, if any: with the base, DPO's reference
    README.md             the model card
    scores/               the results folder of the run's own evaluation
    tracker.json          which run of a tracker this one is, with `report_to`; tensorboard/ holds TensorBoard's events
    client_memory/        `RUN_KEY/`: what the clients of this machine keep from visit to visit, for one start of the
                          run; belongs to their hosts and is never published
    client_table.csv      with a simulated clock: the clients' lines and devices; never published
    sites.json            of a run between organisations: which site has which clients; never published
    identities.json       with secure sums: the key by which each client signs; never published
    privacy_secret        with differential privacy: what noise and cohorts are drawn from; never published
    unrendered_rows.json  rows that the chat template cannot render, by client and reason (`UnrenderedRecord`)
    .lock                 held by the process that trains in the folder
    .work/                token ids and updates in transit; removed when the run is done

`fedllm_train` writes all of it through the names here; scoring, comparing and publishing read it with the functions
here. A published run has the same files, with the content of adapter/ or model/ at its root. Imports no torch.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_records import PersonalClients, RoundRecord, RunConfig
from fedllm_eval.texts import json_lines

__all__ = [
    "ADAPTER",
    "AT_SITES",
    "BEST",
    "CARD_FILE",
    "CHECKPOINTS",
    "CLIENT_MEMORY",
    "CLIENT_TABLE_FILE",
    "CONFIG_FILE",
    "IDENTITIES_FILE",
    "LOCK_FILE",
    "MODEL",
    "PERSONAL",
    "PERSONAL_CLIENTS",
    "RELEASES_FILE",
    "ROUNDS_FILE",
    "RUN_FORMAT",
    "SCORES",
    "SECRET_FILE",
    "SITES_FILE",
    "START_ADAPTER",
    "START_SCORES",
    "TENSORBOARD",
    "TRACKER_FILE",
    "UNRENDERED_FILE",
    "WORK",
    "find_config",
    "is_private",
    "is_private_run",
    "personal_folders",
    "read_config",
    "read_released_rounds",
    "read_rounds",
    "run_format",
    "section",
    "whole_lines",
]

RUN_FORMAT = 2
"""The layout that this version writes, under `format` in config.yaml. Folders without the field have layout 1: they
are scored and published like all others, and cannot be resumed."""

CONFIG_FILE = "config.yaml"
ROUNDS_FILE = "rounds.jsonl"
RELEASES_FILE = "releases.jsonl"
CARD_FILE = "README.md"
CHECKPOINTS = "checkpoints"
BEST = "best"
ADAPTER = "adapter"
MODEL = "model"
PERSONAL = "personal"
PERSONAL_CLIENTS = "clients.json"
"""Inside `PERSONAL`."""
START_ADAPTER = "start_adapter"
SCORES = "scores"
START_SCORES = "start_scores"
"""Of what a run between organisations started from, scored at the sites when the run had ended."""
CLIENT_TABLE_FILE = "client_table.csv"
SITES_FILE = "sites.json"
IDENTITIES_FILE = "identities.json"
AT_SITES = "sites:"
"""What the revision of clients begins with whose rows are at other organisations."""
CLIENT_MEMORY = "client_memory"
TRACKER_FILE = "tracker.json"
TENSORBOARD = "tensorboard"
SECRET_FILE = "privacy_secret"
UNRENDERED_FILE = "unrendered_rows.json"
LOCK_FILE = ".lock"
WORK = ".work"


def read_config(run: Path) -> RunConfig:
    """Return the `config.yaml` of a run folder.

    Raises:
        ConfigError: if there is none, or it cannot be read.

    >>> read_config(Path("no/such/run"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no/such/run holds no readable config.yaml, so it is not a run folder; name one
    """
    import yaml

    file = run / CONFIG_FILE
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{run} holds no readable {CONFIG_FILE}, so it is not a run folder; name one") from error
    except (UnicodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{file} is not readable YAML: {reason}; restore it or name the adapter folder instead"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no settings, so this is not a run folder; name one")
    return cast("RunConfig", content)


def find_config(run: Path) -> RunConfig | None:
    """Return the `config.yaml` of a folder, or None if it has none that can be read.

    >>> find_config(Path("no/such/run")) is None
    True
    """
    try:
        return read_config(run)
    except ConfigError:
        return None


def run_format(config: RunConfig) -> int:
    """Return the layout of a run folder; folders made before layouts were numbered have layout 1.

    >>> run_format({"format": 2}), run_format({"task": "sft"})
    (2, 1)
    """
    return config.get("format", 1)


def section(config: RunConfig, name: str) -> Mapping[str, Any]:
    """Return one section of a config, empty where it is missing or is no mapping.

    >>> section({"federated": {"seed": 3}}, "federated"), section({}, "client")
    ({'seed': 3}, {})
    """
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def is_private(config: RunConfig) -> bool:
    """Return whether a config states a guarantee of differential privacy; clipping without noise gives none.

    >>> is_private({"privacy": {"epsilon": 8.0}}), is_private({"privacy": {"epsilon": None}}), is_private({})
    (True, False, False)
    """
    return section(config, "privacy").get("epsilon") is not None


def is_private_run(run: Path) -> bool:
    """Return whether a run's `config.yaml` states a guarantee of differential privacy.

    >>> is_private_run(Path("no/such/run"))
    False
    """
    config = find_config(run)
    return config is not None and is_private(config)


def read_rounds(run: Path) -> list[RoundRecord]:
    """Return the rounds of a run in order.

    Raises:
        ConfigError: if there is no `rounds.jsonl`, it is broken, or rounds are missing.
    """
    file = run / ROUNDS_FILE
    if not file.is_file():
        raise ConfigError(f"{run} has no {ROUNDS_FILE}; name a run folder of fedllm-train")
    rounds = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{file}, line {number} is no JSON: {error}; go on with the run by --resume") from error
        if not isinstance(record, dict) or not RoundRecord.__required_keys__ <= record.keys():
            raise ConfigError(f"{file}, line {number} is no round; name a run folder of fedllm-train")
        rounds.append(cast("RoundRecord", record))
    if not rounds or [record["round_index"] for record in rounds] != list(range(len(rounds))):
        raise ConfigError(f"{file} does not hold rounds 0, 1, ... one after another; go on with the run by --resume")
    return rounds


def read_released_rounds(run: Path) -> list[dict[str, Any]]:
    """Return the records of a run's rounds, or of its releases where it has no others; fields may be missing.

    Raises:
        OSError: if there are neither.
        ValueError: if a line is no JSON.
    """
    file = run / ROUNDS_FILE
    text = (file if file.is_file() else run / RELEASES_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in json_lines(text)]


def whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; a line that was cut short or damaged yields nothing."""
    for line in json_lines(file.read_bytes().decode("utf-8", "replace")):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content


def personal_folders(run: Path) -> dict[str, Path]:
    """Return the adapter folder of each client of a run; empty for a run that made none.

    Raises:
        ConfigError: if the list of clients cannot be read or names a folder that is not there.

    >>> personal_folders(Path("no/such/run"))
    {}
    """
    listed = run / PERSONAL / PERSONAL_CLIENTS
    if not listed.is_file():
        return {}
    try:
        entries: PersonalClients = json.loads(listed.read_text(encoding="utf-8"))
        made = {client_id: entry["folder"] for client_id, entry in entries.items() if "folder" in entry}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{listed} cannot be read ({error}); finish the run again with --resume") from error
    folders = {client_id: listed.parent / name for client_id, name in made.items()}
    for client_id, folder in folders.items():
        if not any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
            raise ConfigError(f"{listed} names {folder.name} for client {client_id!r}, which holds no adapter")
    return folders
