"""Which machine every client has: from a file, columns of the clients table, one named profile or a mix of them.

    nodes.csv                       a row per client; the row of client_id * fills what the others leave empty
    columns                         the columns of these names in the dataset's own clients table
    profile:phone-4g                the same for all
    profile:phone-4g~0.6            each client's speed divided by a lognormal of median 1 and this sigma
    profiles:phone-4g=0.7,laptop-home=0.3      each client's drawn, with these probabilities

Draws come from (seed, "client table", client), so a client's machine depends on no other client. FedScale draws its
synthetic speeds from a lognormal of mu 1 and sigma 0.6, whose median is e and whose mean is e^1.18: with it the usual
client is 2.7 times slower than the number one wrote down, which the median of 1 avoids. Imports no torch.
"""

import csv
import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_file
from fedllm_data.seeds import stream_rng
from fedllm_eval.machines.machine import Machine, Windows
from fedllm_eval.machines.profile_mix import Spread, mix_of, spread_of
from fedllm_eval.machines.profiles import profile_of
from fedllm_eval.machines.table_entries import COLUMNS, NUMBERS, SUFFIXES, Entry, read_entries
from fedllm_eval.machines.window_text import as_float, windows_of, windows_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ClientTable", "Source", "client_table", "write_client_table"]

ALL = "*"
"""The client id of the row that stands for whoever has none, and fills what others leave empty."""
STATED = "as stated"
"""Stands for the date of numbers that the user gives."""


class Source(NamedTuple):
    """Where numbers come from."""

    name: str
    """`PROFILE: LINE` or `PROFILE: DEVICE`, or the file."""
    numbers: dict[str, float]
    source: str
    date: str
    """When they were measured; "assumption" where nobody did, "as stated" where the user gives them."""


@dataclass(frozen=True)
class _Row:
    """A row of a file or of the clients table, checked; None where it says nothing."""

    numbers: dict[str, Any]
    """Floats, by the names of `Machine`'s fields."""
    windows: Windows | None
    profile: Spread | None
    attack: str | None = None
    """What the client does as a simulated attacker."""


@dataclass(frozen=True, kw_only=True)
class ClientTable:
    """The clients' machines; made by `client_table`."""

    text: str
    """The setting that it was made from."""
    seed: int
    mix: tuple[tuple[Spread, float], ...] = ()
    """Profiles with the sums of their probabilities up to and with each; empty where rows say it."""
    rows: Mapping[str, _Row] | None = None
    """By client id, also `*`."""
    unknown: tuple[str, ...] = ()
    """Clients of the file that the split lacks."""
    origin: Source | None = None
    """The file or the dataset's columns."""

    def machine(self, client_id: str) -> Machine:
        """Return a client's machine.

        Raises:
            ConfigError: if the table has no row for it.
        """
        if self.rows is None:
            return self._of_profile(self._dealt(client_id), client_id, Machine())
        own, default = self.rows.get(client_id), self.rows.get(ALL)
        if own is None and default is None:
            raise ConfigError(f"{self.text} has no row for client {client_id!r}; add it, or a row of client_id {ALL}")
        machine = Machine()
        for row in (default, own):
            if row is not None:
                if row.profile is not None:
                    machine = self._of_profile(row.profile, client_id, machine)
                machine = replace(machine, **row.numbers, windows=row.windows or machine.windows)
        return machine

    def attacks(self, client_ids: Collection[str]) -> dict[str, str]:
        """Return the clients whose row, or that of all, names an attack: client -> its name; empty for profiles.

        Args:
            client_ids: whose.
        """
        rows = self.rows or {}
        if not any(row.attack for row in rows.values()):
            return {}
        default = rows[ALL].attack if ALL in rows else None
        found = {each: (rows[each].attack if each in rows else None) or default for each in client_ids}
        return {each: attack for each, attack in found.items() if attack}

    def sources(self) -> list[Source]:
        """Return where the numbers come from: the file first, then every profile that is used."""
        used = [spread for spread, _ in self.mix]
        used += [row.profile for row in (self.rows or {}).values() if row.profile is not None]
        found = [] if self.origin is None else [self.origin]
        for name in dict.fromkeys(spread.name for spread in used):
            for part, stated in profile_of(name).stated:
                found.append(Source(f"{name}: {part}", dict(stated.numbers), stated.source, stated.date))
        for spread in dict.fromkeys(spread for spread in used if spread.sigma):
            what = (
                f"each client's flops divided by a lognormal of median 1 and sigma {spread.sigma:g}, drawn by the seed"
            )
            found.append(Source(spread.label, {"sigma": spread.sigma}, what, "assumption"))
        return found

    def notes(self) -> list[str]:
        """Return what the user should be told once: rows that are of no client here."""
        if not self.unknown:
            return []
        rest = f" and {len(self.unknown) - 1} more" if len(self.unknown) > 1 else ""
        return [
            f"{self.text} has rows of clients that are not in this split and are not used: {self.unknown[0]!r}{rest}"
        ]

    def _dealt(self, client_id: str) -> Spread:
        if len(self.mix) == 1:
            return self.mix[0][0]
        share = _draws(self.seed, client_id)[0] * self.mix[-1][1]
        return next(spread for spread, upto in self.mix if share < upto)

    def _of_profile(self, spread: Spread, client_id: str, before: Machine) -> Machine:
        machine = _machine_of(spread.name)
        flops = machine.flops
        assert flops is not None
        if spread.sigma:
            flops /= math.exp(spread.sigma * _draws(self.seed, client_id)[1])
        return replace(machine, flops=flops, profile=spread.label, drop_out=before.drop_out, windows=before.windows)


def client_table(text: str, client_ids: Collection[str], table: "pa.Table | None" = None, *, seed: int) -> ClientTable:
    """Return the clients' machines by a setting.

    Args:
        text: a file, `columns`, `profile:NAME` or `profiles:NAME=SHARE,...`, as above.
        client_ids: the clients of the split, each of which must have a machine.
        table: the dataset's clients table, which `columns` reads.
        seed: the run seed.

    Raises:
        ConfigError: if the text is of no such form, a file cannot be read, a client is missing or named twice, or a
            number makes no sense: with file, line and column.

    >>> machines = client_table("profile:starlink+rtx-4090", ["ann", "bob"], seed=0)
    >>> machines.machine("ann").upload_mbit, machines.sources()[0].date
    (14.84, '2025-03')
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "profile":
        return ClientTable(text=text, seed=seed, mix=((spread_of(rest, text), 1.0),))
    if colon and kind == "profiles":
        return ClientTable(text=text, seed=seed, mix=mix_of(rest, text))
    if text == "columns":
        entries: Iterator[Entry] = _of_columns(table)
        origin = Source("columns", {}, "the dataset's clients table", STATED)
    elif Path(text).suffix.lower() in SUFFIXES:
        entries = read_entries(Path(text))
        origin = Source(text, {}, f"the file {Path(text).name}, sha256 {_digest(Path(text))}", STATED)
    else:
        hint = did_you_mean(kind, ("profile", "profiles", "columns"))
        raise ConfigError(
            f"client_table is {text!r}; {hint}give a file ({', '.join(SUFFIXES)}), columns, profile:NAME or "
            "profiles:NAME=SHARE,..."
        )
    return _with_rows(text, entries, client_ids, seed=seed, origin=origin)


def write_client_table(path: Path, table: ClientTable, client_ids: Collection[str]) -> None:
    """Write the machines of some clients as a CSV file that `client_table` reads to the same machines.

    Args:
        path: the file, in a folder that is there.
        table: the machines.
        client_ids: whose, in this order.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place, "client_table.csv")
    ...     write_client_table(file, client_table("profile:phone-4g", ["ann"], seed=0), ["ann"])
    ...     client_table(str(file), ["ann"], seed=1).machine("ann").latency_ms
    40.0
    """
    with fill_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        attacks = table.attacks(client_ids)
        writer.writerow(COLUMNS if attacks else [name for name in COLUMNS if name != "attack"])
        for client_id in client_ids:
            machine = table.machine(client_id)
            numbers = [getattr(machine, name) for name in NUMBERS]
            windows = "" if machine.windows is None else windows_text(machine.windows)
            attack = [attacks.get(client_id, "")] if attacks else []
            told = ["" if each is None else repr(each) for each in numbers]
            writer.writerow([client_id, *told, machine.profile, windows, *attack])


def _with_rows(
    text: str, entries: Iterator[Entry], client_ids: Collection[str], *, seed: int, origin: Source
) -> ClientTable:
    known = client_ids if isinstance(client_ids, (set, frozenset, dict)) else frozenset(client_ids)
    rows: dict[str, _Row] = {}
    unknown: dict[str, None] = {}
    for entry in entries:
        if entry.client_id in rows or entry.client_id in unknown:
            raise ConfigError(f"{entry.where} names client {entry.client_id!r} a second time; keep one")
        row = _row(entry)  # also of clients elsewhere: a bad number in them is a sign of a bad file
        if entry.client_id == ALL or entry.client_id in known:
            rows[entry.client_id] = row
        else:
            unknown[entry.client_id] = None
    if ALL not in rows and (missing := [each for each in client_ids if each not in rows]):
        raise ConfigError(
            f"{text} has no row for {len(missing)} of {len(known)} clients, the first is {min(missing)!r}; add them, "
            f"or one row of client_id {ALL} for all that have none"
        )
    return ClientTable(text=text, seed=seed, rows=rows, unknown=tuple(sorted(unknown)), origin=origin)


def _row(entry: Entry) -> _Row:
    numbers: dict[str, Any] = {name: _number(entry, name) for name in NUMBERS if name in entry.values}
    try:
        Machine(**numbers)
    except ConfigError as error:
        raise ConfigError(f"{entry.where}, column {error}") from error
    try:
        windows = windows_of(entry.values["windows"]) if "windows" in entry.values else None
        profile = entry.values.get("profile")
        if profile is not None and not isinstance(profile, str):
            raise ConfigError(f"profile is {profile!r}; give the name of one")
        attack = entry.values.get("attack")
        if attack is not None and not isinstance(attack, str):
            raise ConfigError(f"attack is {attack!r}; give the name of one")
        spread = None if profile is None else spread_of(profile.strip(), f"profile {profile}")
        return _Row(numbers, windows, spread, None if attack is None else attack.strip() or None)
    except ConfigError as error:
        raise ConfigError(f"{entry.where}: {error}") from error


def _number(entry: Entry, name: str) -> float:
    value = entry.values[name]
    where = f"{entry.where}, column {name!r}"
    if isinstance(value, str):
        text = value.strip()
        if "," in text:
            raise ConfigError(f"{where} holds {text!r}; write 12.5, not 12,5, and no commas between thousands")
        try:
            if "_" in text:
                raise ValueError
            value = float(text)
        except ValueError:
            raise ConfigError(f"{where} holds {text!r}, which is no number; write a plain one such as 12.5") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{where} holds {value!r}, which is no number; write a plain one such as 12.5")
    number = as_float(value)
    if not math.isfinite(number):
        raise ConfigError(f"{where} holds {number}; write a finite number")
    return number


def _of_columns(table: "pa.Table | None") -> Iterator[Entry]:
    there = [] if table is None else [name for name in table.column_names if name in COLUMNS and name != "client_id"]
    if table is None or not there:
        has = [] if table is None else table.column_names
        wanted = ", ".join(map(repr, COLUMNS[1:]))
        raise ConfigError(
            f"client_table is columns, but the dataset's clients table has none of {wanted}; it has "
            f"{', '.join(has) or 'no columns'}"
        )
    if "client_id" not in table.column_names:
        raise ConfigError("client_table is columns, but the dataset's clients table has no column client_id; add it")
    for row in table.select(["client_id", *there]).to_pylist():
        values = {name: row[name] for name in there if row[name] is not None and row[name] != ""}
        yield Entry(row["client_id"], values, f"the clients table, client {row['client_id']!r}")


@lru_cache(maxsize=256)
def _machine_of(name: str) -> Machine:
    return profile_of(name).machine


def _draws(seed: int, client_id: str) -> tuple[float, float]:
    """A uniform number for the profile and a normal one for the speed: always both, so neither moves the other."""
    rng = stream_rng(seed, "client table", client_id=client_id)
    return float(rng.random()), float(rng.standard_normal())


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ConfigError(f"the client table {path} cannot be read ({error}); name a file that is there") from error
