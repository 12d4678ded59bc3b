"""How anybody's files are read as rows of a client repo: whose rows they are, which columns hold what, their terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fedllm_data.build_settings import BuildSettings
from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.importing.conversations import ROLE_MEANINGS
from fedllm_data.importing.import_notes import check_max_rejected_fraction
from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.schema import UNDETERMINED, Task
from fedllm_data.upstream.records import AS_SEEN, ReadSettings

__all__ = ["TARGETS", "ImportSettings", "part_settings"]

TARGETS: dict[Task, tuple[str, ...]] = {
    "sft": (
        "instruction",
        "input",
        "response",
        "system",
        "messages",
        "tools",
        "language",
        "row_id",
        "group",
        "organisation",
    ),
    "preference": (
        "prompt",
        "input",
        "chosen",
        "rejected",
        "system",
        "tools",
        "chosen_model",
        "rejected_model",
        "language",
        "row_id",
        "group",
        "organisation",
    ),
}
"""What `columns` can name for each task."""


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """How files are read as rows.

    Raises:
        ConfigError: if `columns` names an unknown target or two forms of a row, a role means nothing, or the language
            is none.

    >>> ImportSettings(task="sft", client_column="who", columns={"chosen": "best"})
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: --columns cannot name 'chosen' for sft rows; it can name instruction, input, ...
    """

    task: Task
    client_column: str
    """The column that tells whose row it is; `metadata.user` is `user` in the column `metadata`."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the columns are called, where they are not called as in `TARGETS`: target to column; `a+b` joins the texts
    of two columns by a blank line, and an empty name leaves a target out."""
    name: str | None = None
    """Name of the corpus; None takes the name of the folder that is made."""
    language: str | None = None
    """Code or name of the language of all rows, where no column tells it. A column `language` that `columns` does not
    name is used if most of its distinct values are languages."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """What the roles of messages mean, where the files have names of their own: name to user, assistant, system, tool
    or call."""
    max_rejected_fraction: float = 0.1
    """Stop where one reason rejects more than this fraction of the rows; 1 never stops."""
    shared_items: bool | None = None
    """Whether clients judge or answer the same items, so that equal rows of two clients are no duplicates; None: for
    preference rows, whose equality is that two people agree. Equal rows of one client are duplicates either way."""
    licence: str = ""
    """Identifier as on the Hub (cc-by-4.0, ...), in any spelling, or the licence's name; empty if unknown."""
    attribution: str = ""
    """Whom to credit."""
    gate: str = ""
    """What readers on the Hub must agree to; a licence that forbids commercial use needs it."""
    reading: ReadSettings = AS_SEEN
    """Delimiter, encoding and sheet, where the files do not show them."""

    def __post_init__(self) -> None:
        """Check the settings against one another."""
        object.__setattr__(self, "columns", dict(self.columns or {}))
        object.__setattr__(self, "roles", dict(self.roles or {}))
        for target in ("instruction", "response", "input"):
            if self.columns.get("messages") and self.columns.get(target):
                raise ConfigError(
                    f"--columns names both messages and {target}; a row is a conversation or an instruction with its "
                    "response: leave one out"
                )
        for name, meaning in self.roles.items():
            if meaning not in ROLE_MEANINGS:
                raise ConfigError(
                    f"--roles {name[:40]}={meaning[:40]} means none of {', '.join(ROLE_MEANINGS)}"
                    + (f"; {hint}" if (hint := did_you_mean(meaning, ROLE_MEANINGS).rstrip()) else "")
                )
        check_max_rejected_fraction(self.max_rejected_fraction)
        unknown = sorted(set(self.columns) - set(TARGETS[self.task]))
        if unknown:
            raise ConfigError(
                f"--columns cannot name {unknown[0]!r} for {self.task} rows; {self._meant(unknown)}it can name "
                f"{', '.join(TARGETS[self.task])}"
            )
        language = self.language
        if language is not None and language != UNDETERMINED and language_code(language) == UNDETERMINED:
            raise ConfigError(
                f"--language {language[:40]!r} is no language; write a code such as en, or its English name"
            )

    def _meant(self, unknown: Sequence[str]) -> str:
        """What was meant by names that are no target: two names in the wrong order, or a misspelt one."""
        targets = TARGETS[self.task]
        pairs = [(self.columns[name], name) for name in unknown]
        if reversed_pairs := [pair for pair in pairs if pair[0] in targets and pair[0] not in self.columns]:
            shown = ",".join(f"{target}={column[:40]}" for target, column in sorted(reversed_pairs))
            return f"did you mean {shown}? The target comes first, then your column: "
        return did_you_mean(unknown[0], targets)


def part_settings(single: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the single settings of an import apart from those of its build.

    >>> part_settings({"task": "sft", "seed": 3})
    ({'task': 'sft'}, {'seed': 3})
    """
    of_build = {each.name for each in fields(BuildSettings)}
    return (
        {name: value for name, value in single.items() if name not in of_build},
        {name: value for name, value in single.items() if name in of_build},
    )
