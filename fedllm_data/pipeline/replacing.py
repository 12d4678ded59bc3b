"""When an output folder may be replaced without being told so: by a new making of the very same dataset, and no other.

The same dataset is one of the same name, task, source and kind of client; a partition besides of the same parent by
the same rule. The source is the upstream corpus and, where local files were read, their names; a corpus that is built
from a local copy must be built from that copy (same bytes), while files that are imported may have grown since.
Seed, filters, salt and options may differ: that is the same dataset, made again.

Whatever else lies there stays: another dataset, a report that would not be made again, files that no command put
there. Saying `--overwrite` gives up the first two and the files, but never a folder without a mark of ours, nor one
under version control.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_data.pipeline.record import describe_source_files

__all__ = ["Remake", "check_replaceable"]

_REPORT = ("heterogeneity.json", "report.html")
_OF_A_REPO = frozenset(
    {"README.md", "NOTICE", "croissant.json", "build.json", "rejected.jsonl", "data", "clients"}
    | {"codebook.json", "figures", "report_inputs.json", *_REPORT}
    | {".cache", ".gitattributes", ".DS_Store"}
)
"""What our commands put into a client repo, what a download from the Hub adds, and what a desktop litters."""


@dataclass(frozen=True, kw_only=True)
class Remake:
    """What is about to be made, as far as it tells whether an earlier folder is the same thing."""

    name: str
    task: str
    upstream: str
    client: str
    source_files: tuple[Path, ...] = ()
    """Local files and folders that are read."""
    is_copy: bool = False
    """They are a copy of a known corpus: other bytes are another source."""
    partition: tuple[str, str] | None = None
    """Rule and name of the parent."""
    has_report: bool = False
    """A new report will lie in the folder."""
    overwrite: bool = False
    """Replace whatever was made here."""

    def differences(self, earlier: Mapping[str, Any]) -> Iterator[str]:
        """Yield the ways in which an earlier `build.json` is another dataset, one phrase each.

        >>> made = {"name": "a", "task": "sft", "upstream": "x.csv", "client": "who", "source_files": []}
        >>> list(Remake(name="a", task="preference", upstream="x.csv", client="who").differences(made))
        ["task 'sft', not 'preference'"]
        """
        for key in ("name", "task", "upstream", "client"):
            now, before = getattr(self, key), earlier.get(key)
            if now != before:
                yield f"{key} {str(before)[:80]!r}, not {str(now)[:80]!r}"
        partition = earlier.get("partition") or None
        if _partition_of(partition) != self.partition:
            yield "dealt out by another rule or from another parent" if self.partition else "a partition"
        elif self.partition is None and self.source_files:
            yield from self._other_files(earlier.get("source_files") or [])

    def _other_files(self, before: list[Mapping[str, Any]]) -> Iterator[str]:
        now = describe_source_files(self.source_files)
        names = [sorted(str(file.get("name")) for file in files) for files in (before, now)]
        if names[0] != names[1]:
            yield f"made from {', '.join(names[0][:3]) or 'no local file'}, not from {', '.join(names[1][:3])}"
        elif self.is_copy and _digests(before) != _digests(now):
            yield f"made from another copy of {', '.join(names[0][:3])}"


def check_replaceable(out: Path, mark: str, remake: Remake | None) -> None:
    """Raise if something lies at `out` that must stay.

    Args:
        out: the final place of a folder.
        mark: a JSON file at the root of a folder of ours, in which `made_by` is "fedllm-data".
        remake: what is to take the place; None replaces any folder with the mark.

    Raises:
        ConfigError: if there is a file, a folder that was not made here, or one that only `--overwrite` replaces.

    >>> check_replaceable(Path("no/such/folder"), "build.json", None)
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise ConfigError(f"{out} exists and is not a folder; name another --out")
    present = {path.name for path in out.iterdir()}
    if not present:
        return
    earlier = _made_here(out / mark)
    is_report = earlier is None and "build.json" not in present and set(_REPORT) <= present
    if ".git" in present or (earlier is None and not (is_report and remake is not None)):
        raise ConfigError(
            f"{out} holds files that were not made here (no {mark} of ours, or a .git); "
            "name another --out or remove it"
        )
    if remake is None or remake.overwrite:
        return
    if earlier is None:
        raise ConfigError(f"{out} holds a report and no dataset; name another --out, or replace it with --overwrite")
    if found := next(remake.differences(earlier), None):
        raise ConfigError(f"{out} holds another dataset ({found}); name another --out, or replace it with --overwrite")
    if not remake.has_report and present & set(_REPORT):
        raise ConfigError(
            f"{out} holds a report, and no new one is to be made; leave out --no-report, name another --out, or "
            "replace the folder with --overwrite"
        )
    if foreign := sorted(present - _OF_A_REPO):
        raise ConfigError(
            f"{out} holds {foreign[0][:60]!r}, which is no part of a client repo and would be lost; move it, name "
            "another --out, or replace the folder with --overwrite"
        )


def _made_here(mark: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("made_by") == "fedllm-data" else None


def _partition_of(partition: Any) -> tuple[str, str] | None:
    if not isinstance(partition, Mapping):
        return None
    parent = partition.get("parent")
    return str(partition.get("rule")), str(parent.get("name") if isinstance(parent, Mapping) else parent)


def _digests(files: list[Mapping[str, Any]] | list[dict[str, Any]]) -> list[str]:
    return sorted(str(file.get("sha256")) for file in files)
