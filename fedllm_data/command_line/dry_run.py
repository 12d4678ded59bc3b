"""What `--dry-run` prints: what a command would do, read and write; nothing was changed when it is shown.

Imports the standard library only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["DryRun", "folder_to_write", "place_to_read"]


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a command would do."""

    does: str
    """In one sentence without its end."""
    reads: Sequence[str]
    writes: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was decided, by the words to show."""

    def lines(self) -> list[str]:
        """Return what to print, a few lines.

        >>> DryRun(does="build fed-synth", reads=["nothing"], writes=["x: a client repo"]).lines()
        ['dry run: build fed-synth', '  reads   nothing', '  writes  x: a client repo', 'nothing was written']
        """
        width = max((len(name) for name in self.settings), default=0)
        width = max(width, 6)
        rows = [
            *(("reads" if not number else "", text) for number, text in enumerate(self.reads)),
            *(("writes" if not number else "", text) for number, text in enumerate(self.writes)),
            *((name, str(value)) for name, value in self.settings.items()),
        ]
        return [
            f"dry run: {self.does}",
            *(f"  {name:<{width}}  {text}" for name, text in rows),
            "nothing was written",
        ]

    def text(self, *, as_json: bool = False) -> str:
        """Return what to print, as JSON or as lines."""
        if as_json:
            return json.dumps({"dry_run": asdict(self)}, indent=2, ensure_ascii=False)
        return "\n".join(self.lines())


def folder_to_write(out: Path, holds: str) -> str:
    """Return the words for a folder that would be made or replaced.

    >>> folder_to_write(Path("no/such"), "a client repo")
    'no/such: a client repo'
    """
    is_there = out.is_dir() and any(out.iterdir())
    return f"{out}: {holds}{' (replaces what is there)' if is_there else ''}"


def place_to_read(name: str | Path, holds: str) -> str:
    """Return the words for a model or an adapter that would be read; one that is not here is left to the Hub.

    >>> place_to_read("org/model", "the policy")
    'org/model: the policy; no folder here, so it must be on the Hub, which a dry run does not ask'
    """
    on_hub = "" if Path(name).exists() else "; no folder here, so it must be on the Hub, which a dry run does not ask"
    return f"{name}: {holds}{on_hub}"
