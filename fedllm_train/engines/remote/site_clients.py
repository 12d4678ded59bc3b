"""Clients whose rows lie at other organisations: what the server may know of them, and the line that leads there.

`SiteClients` takes the place of a `ClientDataset` in a trainer: ids, counts, languages and whatever columns the sites
let go, and no row. It is made from what the sites say of themselves (`hello`); two sites with one client, or sites
that would train something else, are refused by name.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from fedllm_data.client_index import ClientIds, sorted_ids
from fedllm_data.errors import ConfigError, WorkerError
from fedllm_data.schema import Task
from fedllm_eval.policy.run_folder import AT_SITES
from fedllm_train.engines.remote.line import Line
from fedllm_train.engines.remote.messages import (
    PROTOCOL,
    Hello,
    MessageError,
    Refused,
    SiteFacts,
    one_line,
    read_answer,
)
from fedllm_train.run_files.open_run import package_versions

__all__ = ["SiteClients", "clients_at_sites"]


@dataclass(frozen=True, kw_only=True)
class SiteClients:
    """The clients of all sites, without their rows."""

    line: Line = field(repr=False)
    """Open for as long as the clients are asked."""
    facts: Mapping[str, SiteFacts] = field(repr=False)
    """What each site said of itself, by its name."""
    fingerprints: Mapping[str, str | None] = field(default_factory=dict)
    """Of the key that each site proved to have, where the line knows keys."""
    name: str = "sites"
    split: str = "train"
    licence: None = None
    id_facts: None = None
    task: Task
    site_of: Mapping[str, str]
    """Client -> its site."""
    sizes: Mapping[str, int]
    """Rows of each client, by id, sorted."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the client ids in sorted order."""
        return iter(self.sizes)

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.sizes)

    @cached_property
    def ids(self) -> ClientIds:
        """The client ids, sorted."""
        return sorted_ids(self.sizes)

    @property
    def revision(self) -> str:
        """A digest of what all sites have: a run does not go on with other rows or other clients."""
        lines = sorted(
            f"{site} {name} {facts.digest} {sorted(facts.rows.items())}"
            for site, told in self.facts.items()
            for name, facts in told.splits.items()
        )
        return AT_SITES + hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def table(self) -> pa.Table:
        """The clients table as far as the sites let it go: one row per client, sorted."""
        names = sorted({name for facts in self.facts.values() for name in facts.table})
        told = {
            client_id: {name: column[position] for name, column in facts.table.items()}
            for facts in self.facts.values()
            for position, client_id in enumerate(facts.ids)
        }
        columns: dict[str, list[Any]] = {"client_id": list(self.sizes)}
        columns |= {name: [told.get(client_id, {}).get(name) for client_id in self.sizes] for name in names}
        return pa.table(columns)

    def rows_of(self, split: str) -> dict[str, int]:
        """Return the rows that each client has in a split, as far as the sites say so, sorted by id."""
        found = {
            client_id: rows
            for facts in self.facts.values()
            if split in facts.splits
            for client_id, rows in facts.splits[split].rows.items()
        }
        return dict(sorted(found.items()))

    def as_record(self) -> dict[str, Any]:
        """Return what the run folder keeps of the sites: who has which clients; never published."""
        return {
            site: {
                "fingerprint": self.fingerprints.get(site),
                "clients": facts.ids,
                "splits": {
                    name: {"digest": told.digest, "num_clients": len(told.rows), "num_rows": sum(told.rows.values())}
                    for name, told in sorted(facts.splits.items())
                },
            }
            for site, facts in sorted(self.facts.items())
        }


def clients_at_sites(
    line: Line, *, seconds: float = 120.0, min_sites: int | None = None, name: str = "sites"
) -> SiteClients:
    """Ask the sites of an open line who their clients are.

    Args:
        line: open.
        seconds: how long to wait for answers.
        min_sites: go on with so many; by default every site of the line must answer.
        name: stands for the dataset's.

    Raises:
        WorkerError: if too few sites answer in time.
        ConfigError: if a site refuses, two have one client, or one would train something else.
    """
    facts, silent = _ask_all(line, seconds, min_sites)
    wanted = len(facts) + len(silent) if min_sites is None else min_sites
    if len(facts) < max(1, wanted):
        told = "; ".join(f"{site}: {why}" for site, why in sorted(silent.items()))
        raise WorkerError(f"{len(facts)} sites answered in {seconds:g} s and {max(1, wanted)} are needed; {told}")
    _check_alike(facts)
    site_of: dict[str, str] = {}
    for site, told in sorted(facts.items()):
        for client_id in told.splits["train"].rows:
            if client_id in site_of:
                raise ConfigError(
                    f"client {client_id!r} is at the sites {site_of[client_id]!r} and {site!r}; let one of them leave "
                    "it out (clients in its worker.yaml), or give their clients other ids"
                )
            site_of[client_id] = site
    sizes = {client_id: rows for told in facts.values() for client_id, rows in told.splits["train"].rows.items()}
    known = line.sites()
    return SiteClients(
        line=line,
        facts=facts,
        fingerprints={site: known[site].fingerprint for site in facts if site in known},
        name=name,
        task=next(iter(facts.values())).splits["train"].task,
        site_of=dict(sorted(site_of.items())),
        sizes=dict(sorted(sizes.items())),
    )


def _ask_all(line: Line, seconds: float, min_sites: int | None) -> tuple[dict[str, SiteFacts], dict[str, str]]:
    """Say hello to every site, again and again to those that cannot be reached, until the time is over."""
    end = time.monotonic() + seconds
    facts: dict[str, SiteFacts] = {}
    silent: dict[str, str] = {}
    asked: dict[str, float] = {}
    while time.monotonic() < end:
        sites = line.sites()
        missing = [site for site in sites if site not in facts]
        if sites and (not missing or (min_sites is not None and len(facts) >= min_sites)):
            break
        for site in missing:
            silent.setdefault(site, "no answer")
            if sites[site].is_online and time.monotonic() >= asked.get(site, 0.0):
                left = max(1.0, end - time.monotonic())
                line.send(site, f"{site}/hello", Hello().header(), b"", seconds=left)
                asked[site] = time.monotonic() + left
        event = line.receive(min(1.0, max(0.01, end - time.monotonic())))
        if event is None:
            continue
        if event.header is None:
            silent[event.site] = one_line(event.problem or "no answer")
            asked[event.site] = time.monotonic() + 1.0
            continue
        try:
            answer = read_answer(event.header)
        except MessageError as error:
            raise ConfigError(f"site {event.site!r} answers with what is no message ({error})") from None
        if isinstance(answer, Refused):
            raise ConfigError(f"site {event.site!r} refused: {answer.reason}")
        if isinstance(answer, SiteFacts):
            facts[event.site] = answer
            silent.pop(event.site, None)
        else:
            silent[event.site] = one_line(getattr(answer, "reason", "it answers something else"))
            asked[event.site] = time.monotonic() + 1.0
    return facts, silent


def _check_alike(facts: Mapping[str, SiteFacts]) -> None:
    """Refuse sites that speak otherwise, or would train something else."""
    ours = package_versions()
    tasks: dict[str, str] = {}
    for site, told in sorted(facts.items()):
        if told.protocol != PROTOCOL:
            raise ConfigError(
                f"site {site!r} speaks protocol {told.protocol} and this server {PROTOCOL}; give both the same "
                "version of fedllm-commons"
            )
        if "train" not in told.splits or not told.splits["train"].rows:
            raise ConfigError(f"site {site!r} has no clients to train on; leave it out")
        if set(told.ids) != set(told.splits["train"].rows) or any(
            len(column) != len(told.ids) for column in told.table.values()
        ):
            raise ConfigError(f"site {site!r} tells of clients in a table that are not those it has; mend its data")
        for name in sorted(ours):
            if told.versions.get(name) != ours[name]:
                raise ConfigError(
                    f"site {site!r} has {name} {told.versions.get(name)} and this server {ours[name]}, so it would "
                    "train something else; install the same constraints.txt"
                )
        tasks[site] = told.splits["train"].task
    if len(set(tasks.values())) > 1:
        named = ", ".join(f"{site} {task}" for site, task in sorted(tasks.items()))
        raise ConfigError(f"the sites have rows of different tasks ({named}); train on those of one")
