"""What a site tells a server of its clients: ids, counts and the columns that its policy lets go; no text."""

from typing import Any

import pyarrow as pa

from fedllm_data.errors import ConfigError, SchemaError
from fedllm_data.repo import open_repo
from fedllm_data.roster import Roster, roster_of_repo
from fedllm_train.engines.remote.messages import PROTOCOL, SiteFacts, SplitFacts
from fedllm_train.engines.remote.organisation import Organisation
from fedllm_train.engines.remote.policy import Policy
from fedllm_train.run_files.open_run import package_versions

__all__ = ["site_facts"]

_SPLITS = ("train", "test", "unseen")


def site_facts(site: Organisation, policy: Policy) -> SiteFacts:
    """Read a site's clients tables and counts.

    Args:
        site: what the site has.
        policy: what of it may be told.

    Raises:
        ConfigError: if there are no clients to train on, or a column that may be told is not there.
    """
    repo = open_repo(site.data)
    rosters: dict[str, Roster] = {}
    for split in _SPLITS:
        try:
            rosters[split] = roster_of_repo(repo, split)
        except SchemaError:
            if split == "train":
                raise
    splits = policy.visible({split: _facts(roster) for split, roster in rosters.items()})
    ids = sorted(splits["train"].rows)
    if not ids:
        raise ConfigError(f"none of the clients of {site.data} may be asked by the policy; name some of theirs")
    return SiteFacts(
        protocol=PROTOCOL,
        versions=package_versions(),
        splits=splits,
        ids=ids,
        table=_columns(rosters["train"].table, ids, policy.columns),
        policy={
            "approve": policy.approve,
            "scores": policy.scores,
            "profile": policy.profile,
            "min_rows": policy.min_rows,
            "max_rounds": policy.max_rounds,
            "max_steps": policy.max_steps,
            "max_epsilon": policy.max_epsilon,
            "epsilon_unit": policy.epsilon_unit,
            "needs_secure_sum": policy.needs_secure_sum,
        },
    )


def _facts(roster: Roster) -> SplitFacts:
    return SplitFacts(
        task=roster.task, digest=roster.revision, rows={name: int(roster.sizes[name]) for name in roster}
    )


def _columns(table: pa.Table, ids: list[str], wanted: tuple[str, ...]) -> dict[str, list[Any]]:
    """The columns that may be told, in the order of the ids; a column that the table has not is left out."""
    rows = {row["client_id"]: row for row in table.select(_there(table, wanted)).to_pylist()}
    return {
        name: [_cell(rows.get(client_id, {}).get(name)) for client_id in ids]
        for name in _there(table, wanted)
        if name != "client_id"
    }


def _there(table: pa.Table, wanted: tuple[str, ...]) -> list[str]:
    return ["client_id", *(name for name in wanted if name in table.column_names and name != "client_id")]


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
