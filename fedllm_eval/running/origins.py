"""Which datasets a policy was trained on, as far as its folder tells.

A run's `config.yaml` names the dataset of the run (`data`) and those of the runs that its adapter or model comes from
(`earlier`), which are copied from run to run: a folder that is moved or published keeps them, and needs none of the
folders it came from. Dataset names, revisions and fingerprints of salts alone; no digest of a row. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_eval.policy.run_folder import (
    ADAPTER,
    BEST,
    CONFIG_FILE,
    MODEL,
    PERSONAL,
    START_ADAPTER,
    find_config,
    section,
)

__all__ = ["Origin", "Origins", "origins_in", "origins_of", "origins_of_name"]

_MADE_OF_RUN = (ADAPTER, MODEL, BEST, PERSONAL)
"""Folders inside a run folder whose weights were trained by the run."""


@dataclass(frozen=True)
class Origin:
    """The rows that one run trained on."""

    name: str
    """Folder or Hub id of the dataset."""
    revision: str | None
    """Commit, or the digest of a folder's Parquet files; None for clients made in memory."""
    split: str
    id_facts: Mapping[str, Any] | None = None
    """How client ids were made (`fedllm_data/id_facts.py`); None where the run does not say."""
    only_client: str | None = None
    """The only client whose rows were trained on, where there was one."""

    def as_record(self) -> dict[str, Any]:
        """Return it as it stands under `earlier` in a `config.yaml`."""
        return {
            "name": self.name,
            "revision": self.revision,
            "split": self.split,
            "client_ids": None if self.id_facts is None else dict(self.id_facts),
            "only_client": self.only_client,
        }


@dataclass(frozen=True)
class Origins:
    """All that is known of what a policy was trained on."""

    known: tuple[Origin, ...]
    """The newest first."""
    is_complete: bool
    """Whether they are all: False where it started from an adapter of which nothing is known."""

    def as_record(self) -> dict[str, Any]:
        """Return them as the section `earlier` of the `config.yaml` of a run that starts from this policy."""
        return {"data": [origin.as_record() for origin in self.known], "is_complete": self.is_complete}


def origins_of(folder: str | Path) -> Origins | None:
    """Return what the weights in a folder were trained on; None where the folder is no run's or does not say.

    Args:
        folder: a run folder, one that lies in it (`adapter/`, `model/`, `personal/...`), or a published run.

    >>> origins_of("no/such/folder") is None
    True
    """
    place = Path(folder).resolve()
    if (place / CONFIG_FILE).is_file():
        return _origins_in(place)
    for run in (place.parent, place.parent.parent):
        inside = place.relative_to(run).parts[0] if place != run else ""
        if inside in (*_MADE_OF_RUN, START_ADAPTER) and (run / CONFIG_FILE).is_file():
            return _origins_in(run, only_earlier=inside == START_ADAPTER)
    return None


def origins_of_name(name: str | Path) -> Origins | None:
    """Return what the adapter or model of this name was trained on: a folder as above, or a Hub id.

    Of a Hub repo its `config.yaml` alone is fetched. What cannot be fetched says nothing.

    >>> origins_of_name("no such name") is None
    True
    """
    if Path(name).is_dir():
        return origins_of(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        return _origins_in(Path(hf_hub_download(str(name), CONFIG_FILE)).parent)
    except (OSError, HFValidationError):
        return None


def origins_in(earlier: Mapping[str, Any]) -> Origins:
    """Return what the section `earlier` of a config.yaml states.

    >>> origins_in(Origins((Origin("org/chats", "a1", "train"),), True).as_record()).known[0].name
    'org/chats'
    """
    data = earlier.get("data")
    stated = data if isinstance(data, list) else []
    found = [origin for record in stated if isinstance(record, dict) and (origin := _read(record)) is not None]
    return Origins(tuple(found), bool(earlier.get("is_complete")) and len(found) == len(stated))


def _origins_in(run: Path, *, only_earlier: bool = False) -> Origins | None:
    config = find_config(run)
    if config is None or not isinstance(config.get("data"), dict):
        return None
    known = []
    only_client = section(config, "federated").get("local_client")
    if not only_earlier and (own := _read({**section(config, "data"), "only_client": only_client})) is not None:
        known.append(own)
    earlier = config.get("earlier")
    if not isinstance(earlier, dict):
        # Runs of older versions keep the start adapter's digest alone.
        is_start_known = "earlier" in config or (config.get("start_adapter") is None and not only_earlier)
        return Origins(tuple(known), is_start_known)
    before = origins_in(earlier)
    return Origins((*known, *before.known), before.is_complete)


def _read(record: Mapping[str, Any]) -> Origin | None:
    if not isinstance(record.get("name"), str):
        return None
    facts = record.get("client_ids")
    return Origin(
        name=record["name"],
        revision=record.get("revision"),
        split=str(record.get("split") or "train"),
        id_facts=facts if isinstance(facts, dict) else None,
        only_client=record.get("only_client"),
    )
