"""What the reader knows and no run does: partners' lines and devices, and prices; read from flags and a CSV file."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["Line", "StatedPrices", "parse_lines", "read_line_table"]

COLUMNS = ("client_id", "download_mbit", "upload_mbit", "watts")


@dataclass(frozen=True)
class Line:
    """A partner's line and device as the user states them; None where nothing is stated."""

    download_mbit: float | None = None
    upload_mbit: float | None = None
    watts: float | None = None
    """What its device draws while it trains."""


@dataclass(frozen=True, kw_only=True)
class StatedPrices:
    """What the reader knows and no run does."""

    default: Line = Line()
    """The line of every partner that has none of its own."""
    lines: Mapping[str, Line] = field(default_factory=dict)
    """Client id -> its line."""
    per_gb: float | None = None
    """Price of one GB (1e9 bytes), either way."""
    per_hour: float | None = None
    """Price of one hour of a partner's device in training."""
    per_kwh: float | None = None
    currency: str = ""

    def states(self, name: str) -> bool:
        """Return whether a field of `Line` is stated for anybody.

        >>> StatedPrices(default=Line(watts=5.0)).states("watts"), StatedPrices().states("watts")
        (True, False)
        """
        return any(getattr(line, name) is not None for line in (self.default, *self.lines.values()))

    def line_of(self, client_id: str) -> Line:
        """Return a partner's line, filled up from the default."""
        own = asdict(self.lines.get(client_id, Line()))
        return Line(**{name: getattr(self.default, name) if value is None else value for name, value in own.items()})


def parse_lines(texts: Sequence[str]) -> dict[str, Line]:
    """Return client id -> line from `PARTNER=DOWN/UP` or `PARTNER=DOWN/UP/WATTS`, in Mbit/s and watts.

    Raises:
        ConfigError: if one is not of that form.

    >>> parse_lines(["acme=50/10"])
    {'acme': Line(download_mbit=50.0, upload_mbit=10.0, watts=None)}
    """
    found = {}
    for text in texts:
        name, equals, rest = text.rpartition("=")
        parts = rest.split("/")
        if not equals or not name or len(parts) not in (2, 3):
            raise ConfigError(f"--line {text!r} is not of the form PARTNER=DOWN/UP; write for instance acme=50/10")
        found[name] = _line(dict(zip(COLUMNS[1:], parts, strict=False)), f"--line {text}")
    return found


def read_line_table(path: Path) -> dict[str, Line]:
    """Return client id -> line from a CSV file with the columns client_id, download_mbit, upload_mbit and watts.

    Raises:
        ConfigError: if the file cannot be read, lacks `client_id` or a line is malformed or given twice.

    >>> read_line_table(Path("no/such.csv"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no/such.csv cannot be read; give a CSV file with client_id, download_mbit, ...
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read; give a CSV file with {', '.join(COLUMNS)} ({error})") from error
    if not rows or "client_id" not in rows[0]:
        raise ConfigError(f"{path} has no column client_id; its columns are {', '.join(COLUMNS)}")
    if long := next((number for number, row in enumerate(rows, start=2) if None in row), None):
        raise ConfigError(f"{path}, line {long} has more values than there are columns; write 12.5, not 12,5")
    if unknown := sorted(set(rows[0]) - set(COLUMNS)):
        raise ConfigError(f"{path} has a column {unknown[0]!r} that is not used; its columns are {', '.join(COLUMNS)}")
    found: dict[str, Line] = {}
    for number, row in enumerate(rows, start=2):
        if not row["client_id"]:
            raise ConfigError(f"{path}, line {number} names no client_id; give each line one")
        if row["client_id"] in found:
            raise ConfigError(f"{path}, line {number} states the line of {row['client_id']} twice; keep one")
        found[row["client_id"]] = _line(row, f"{path}, line {number}")
    return found


def _line(row: Mapping[str, Any], where: str) -> Line:
    values: dict[str, float | None] = {}
    for name in COLUMNS[1:]:
        text = (row.get(name) or "").strip()
        try:
            values[name] = float(text) if text else None
        except ValueError as error:
            raise ConfigError(f"{where}: {name} is {text!r}; give a positive number") from error
        value = values[name]
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{where}: {name} is {text}; give a positive number")
    if (values["download_mbit"] is None) != (values["upload_mbit"] is None):
        raise ConfigError(f"{where} states one direction of the line alone; state both, in Mbit/s")
    return Line(**values)
