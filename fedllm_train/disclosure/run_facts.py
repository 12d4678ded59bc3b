"""What a run folder shows of what the run gave away: its settings, its rounds, and what publishing it would push.

Everything is read from the folder; nothing is assumed of a setting that is not there, which counts as off. Later
versions of a run record more (a secure sum, a robust sum, the unit of privacy): their keys are looked at by name.
Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.audit.claims import Claim, claimed
from fedllm_eval.policy.run_folder import (
    ADAPTER,
    AT_SITES,
    CARD_FILE,
    CHECKPOINTS,
    CLIENT_MEMORY,
    CLIENT_TABLE_FILE,
    CONFIG_FILE,
    MODEL,
    PERSONAL,
    RELEASES_FILE,
    ROUNDS_FILE,
    SCORES,
    SECRET_FILE,
    SITES_FILE,
    START_ADAPTER,
    UNRENDERED_FILE,
    is_private,
    read_config,
    read_released_rounds,
    section,
)
from fedllm_eval.policy.run_records import RunConfig
from fedllm_train.run_files.publish_run import new_is_private
from fedllm_train.strategy import Traits

__all__ = ["RunFacts", "read_run_facts"]

_NEVER = (SECRET_FILE, CHECKPOINTS, CLIENT_MEMORY, PERSONAL, SITES_FILE, CLIENT_TABLE_FILE, UNRENDERED_FILE)
"""Of what a run folder may hold, what is never pushed."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What the rounds of a run recorded; counts are of all rounds together."""

    num_rounds: int
    is_named: bool
    """Whether they name clients; a published run with privacy has releases alone."""
    num_clients: int
    """Distinct clients whose update arrived."""
    num_visits: int
    smallest: int | None
    """Clients in the smallest round; None where the rounds do not say."""
    largest: int | None
    upload_bytes: int | None
    """Mean length of an update; None where nothing travelled or the rounds do not say."""
    rows: tuple[int, int] | None
    """The fewest and the most rows that a visit trained on; None where no client's are recorded."""
    has_losses: bool
    """Whether single clients' losses are recorded."""
    num_scored: int
    """Rounds in which clients' held-out rows were scored."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known of a run, for a page about what it gives away."""

    name: str
    strategy: str
    traits: Traits
    num_clients: int
    num_planned: int
    """Rounds that the run was to have."""
    rounds: Rounds
    hashed_ids: bool
    at_sites: bool
    """Whether the rows stayed at other organisations; if not, all of them were where the run was."""
    claims: Mapping[str, Claim]
    is_sampled: bool
    """Whether the claim rests on nobody but the server knowing who took part."""
    noise_in_visits: bool
    """Whether clients add the noise while they train, so that no update leaves them without."""
    clip: float | None
    clip_adapts: bool
    """Whether that is the clip of the first round alone."""
    secret_is_there: bool
    secure_sum: Mapping[str, Any]
    """Its settings by name; empty where there is none."""
    robust_sum: str | None
    attack: str | None
    max_update_norm: float | None
    wire: str | None
    download_wire: str | None
    is_private: bool
    """Whether publishing is limited to what a guarantee covers."""
    new_repo_is_private: bool | None
    pushed: Sequence[str]
    """Files and folders that publishing would push, as they are called there."""
    kept_back: Sequence[str]
    """What is in the folder and would not be pushed."""
    has_scores: bool
    num_personal: int | None
    """Clients with adapters of their own, which stay with them; None where the method makes none."""
    num_earlier: int
    """Earlier datasets that the run's start was trained on."""


def read_run_facts(run: Path) -> RunFacts:
    """Return what a run folder shows.

    Raises:
        ConfigError: if the folder is no run folder, holds no rounds, or names a method that is not known here.

    >>> read_run_facts(Path("no/such/run"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no/such/run holds no readable config.yaml, so it is not a run folder; name one
    """
    from fedllm_train.strategies import strategy_class

    config = read_config(run)
    federated, data = section(config, "federated"), section(config, "data")
    privacy = section(config, "privacy")
    if not federated or not data:
        raise ConfigError(
            f"{run}/{CONFIG_FILE} lacks its section federated or data; name a run folder of fedllm-train"
        )
    traits = strategy_class(federated["strategy"]).traits
    revision = str(data.get("revision"))
    earlier = config.get("earlier") or {}
    return RunFacts(
        name=run.resolve().name,
        strategy=str(federated["strategy"]),
        traits=traits,
        num_clients=int(data.get("num_clients", 0)),
        num_planned=int(federated.get("num_rounds", 0)),
        rounds=_rounds(run),
        hashed_ids=bool((data.get("client_ids") or {}).get("hashed")),
        at_sites=revision.startswith(AT_SITES) or (run / SITES_FILE).is_file(),
        claims=claimed(config),
        is_sampled=bool(privacy.get("is_sampled", True)) and (privacy.get("sampling_rate") or 1.0) < 1.0,
        noise_in_visits=federated.get("dp_unit") == "example" and bool(claimed(config)),
        clip=federated.get("dp_clip"),
        clip_adapts=federated.get("dp_clip_quantile") is not None,
        secret_is_there=(run / SECRET_FILE).is_file(),
        secure_sum={
            name: value
            for name, value in federated.items()
            if name.startswith("secure_sum") and federated.get("secure_sum")
        },
        robust_sum=_unless_none(federated.get("robust_sum")),
        attack=_unless_none(federated.get("attack")),
        max_update_norm=federated.get("max_update_norm"),
        wire=_unless_none(federated.get("wire")),
        download_wire=_unless_none(federated.get("download_wire")),
        is_private=is_private(config),
        new_repo_is_private=new_is_private(config),
        pushed=_pushed(run, config),
        kept_back=[name for name in (*_NEVER, *_uncovered(run, config)) if (run / name).exists()],
        has_scores=(run / SCORES).is_dir(),
        num_personal=_num_personal(run) if traits.personal else None,
        num_earlier=len(earlier.get("data", ())),
    )


def _rounds(run: Path) -> Rounds:
    try:
        records = read_released_rounds(run)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{run} holds no readable {ROUNDS_FILE}; train the run first, or go on with --resume"
        ) from error
    named = [record for record in records if "clients" in record]
    visits = [visit for record in named for visit in record["clients"]]
    rows = [visit["num_rows"] for visit in visits if "num_rows" in visit]
    sent = [visit["upload_bytes"] for visit in visits if visit.get("upload_bytes")]
    sizes = [len(record["clients"]) for record in named]
    return Rounds(
        num_rounds=len(records),
        is_named=bool(named),
        num_clients=len({visit["client_id"] for visit in visits}),
        num_visits=len(visits),
        smallest=min(sizes, default=None),
        largest=max(sizes, default=None),
        upload_bytes=round(sum(sent) / len(sent)) if sent else None,
        rows=(min(rows), max(rows)) if rows else None,
        has_losses=any("train_loss" in visit for visit in visits),
        num_scored=sum("eval" in record for record in records),
    )


def _pushed(run: Path, config: RunConfig) -> list[str]:
    """What `fedllm-train publish` pushes without further flags, in its order; a test compares the two."""
    made = run / ADAPTER if (run / ADAPTER).is_dir() else run / MODEL
    names = sorted(path.name for path in made.iterdir()) if made.is_dir() else []
    if (run / START_ADAPTER).is_dir():
        names.append(START_ADAPTER)
    names += [CONFIG_FILE, RELEASES_FILE if is_private(config) else ROUNDS_FILE]
    if (run / SCORES).is_dir() and not is_private(config):
        names.append(SCORES)
    return [*(name for name in names if name != CARD_FILE), CARD_FILE]


def _uncovered(run: Path, config: RunConfig) -> list[str]:
    """What a guarantee keeps back that would be pushed without one."""
    return [ROUNDS_FILE, SCORES] if is_private(config) else []


def _num_personal(run: Path) -> int:
    from fedllm_eval.policy.run_folder import personal_folders

    return len(personal_folders(run))


def _unless_none(value: Any) -> str | None:
    return None if value in (None, "none") else str(value)
