"""The results of one evaluation, as data, and their reader.

`results.json` says what was scored, against what, on which data and with which settings; every score stands with its
interval and the number of clients and items behind it, split by split. `running/assemble.py` makes results,
`reporting/results_folder.py` writes them with their tables and their page, `reporting/results_text.py` prints them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["FORMAT", "Results", "read_results"]

FORMAT = "fedllm-eval/1"


@dataclass(frozen=True)
class Results:
    """The content of a results folder."""

    summary: Mapping[str, Any]
    """The content of `results.json`; undefined numbers are None."""
    per_client: pa.Table
    """One row per split and client."""
    per_row: pa.Table | None = None
    """One row per scored row, as in `ClientScores`."""
    policies: "Mapping[str, Results]" = field(default_factory=dict)
    """The other policies of the evaluation by label: base, personal, alone, ..."""
    gains: pa.Table | None = None
    """Gain of every client, as `client_tables.gain_table` gives it."""
    suite_items: Mapping[tuple[str, str], pa.Table] = field(default_factory=dict)
    """(policy, suite) -> one row per item."""
    reused: tuple[str, ...] = ()
    """Names of the parts that an earlier run of the same command had finished."""
    changed: tuple[str, ...] = ()
    """One sentence for each part that was made again because its settings changed or its file was damaged."""
    taken_over: tuple[str, ...] = ()
    """One phrase for each policy of which log-probabilities were known from an earlier pass."""

    def markdown(self) -> str:
        """Return the scores as a Markdown document."""
        from fedllm_eval.reporting.results_text import results_markdown

        return results_markdown(self.summary)

    def table(self) -> "Table":
        """Return the scores as a table for the terminal."""
        from fedllm_eval.reporting.results_text import results_table

        return results_table(self.summary)


def read_results(folder: Path) -> Results:
    """Read a results folder: the summary and the per-client table; the other files stay on disk.

    Raises:
        ConfigError: if the folder holds no results, or those of another format version.
    """
    import pyarrow.parquet as pq

    path = Path(folder) / "results.json"
    if not path.is_file() or not path.with_name("per_client.parquet").is_file():
        raise ConfigError(f"{folder} holds no results; make them by `fedllm-eval run ... --out {folder}`")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        table = pq.read_table(path.with_name("per_client.parquet"))
    except (json.JSONDecodeError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{folder} cannot be read: {reason}; score the policy again") from error
    version = summary.get("format") if isinstance(summary, dict) else None
    if version != FORMAT:
        raise ConfigError(f"{path} has format {version!r}, this version reads {FORMAT!r}; score the policy again")
    return Results(summary, table)
