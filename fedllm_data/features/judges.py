"""The columns `score:<name>` of a batch: from the shipped scorers, from callables, and from scores files.

A codebook lists what judges. The shipped scorers are at hand everywhere; any other must be given wherever rows are
read, as a callable or as a file, with the name and the revision that the codebook states.
"""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fedllm_data.codebook import Codebook
from fedllm_data.errors import ConfigError
from fedllm_data.heterogeneity.quality import SHIPPED, ScorerInfo
from fedllm_data.schema import Task
from fedllm_data.scorers.heuristics import HEURISTICS
from fedllm_data.scorers.score_file import ScoreFile
from fedllm_data.scorers.scorer import Scorer, score_columns

__all__ = ["NO_JUDGES", "Judges", "find_judges"]


@dataclass(frozen=True)
class Judges:
    """What gives scores: functions, and tables of scores by row id."""

    scorers: tuple[Scorer, ...] = ()
    files: tuple[ScoreFile, ...] = ()

    @property
    def infos(self) -> tuple[ScorerInfo, ...]:
        """What they are."""
        return (*(scorer.info for scorer in self.scorers), *(info for file in self.files for info in file.infos))

    @property
    def listed(self) -> tuple[ScorerInfo, ...]:
        """What a codebook made with them lists: the shipped ones, unless one of the same name is given, and these."""
        given = {info.name for info in self.infos}
        return (*(info for info in SHIPPED if info.name not in given), *self.infos)

    def from_functions(self, rows: pa.Table, task: Task) -> dict[str, Any]:
        """Return one column of floats for each scorer that is a function."""
        return dict(score_columns(rows, task, self.scorers)) if self.scorers else {}

    def from_files(self, rows: pa.Table) -> dict[str, Any]:
        """Return one column of floats for each scorer whose scores are in a file."""
        columns: dict[str, Any] = {}
        for file in self.files:
            columns |= file.columns(rows["row_id"].to_pylist())
        return columns


NO_JUDGES = Judges()


def find_judges(codebook: Codebook, given: Judges = NO_JUDGES) -> Judges:
    """Return the judges that a codebook lists: shipped ones as they are, others from those given.

    Args:
        codebook: lists name and revision of each.
        given: callables and files; none that the codebook does not list.

    Raises:
        ConfigError: if one is missing, has another revision, or is not in the codebook.

    >>> book = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")
    >>> [info.name for info in find_judges(book).infos][:2]
    ['heuristics', 'repetition']
    """
    listed = {info.name: info.revision for info in codebook.scorers}
    at_hand = {info.name: info.revision for info in given.infos}
    shipped = tuple(scorer for scorer in HEURISTICS if scorer.info.name in listed and scorer.info.name not in at_hand)
    at_hand |= {scorer.info.name: scorer.info.revision for scorer in shipped}
    for name, revision in at_hand.items():
        if name not in listed:
            raise ConfigError(f"the codebook does not list scorer {name!r}: make one that does, or leave it out")
        if revision != listed[name]:
            raise ConfigError(f"scorer {name!r} is at revision {revision}, the codebook's is {listed[name]}: use that")
    missing = [name for name in listed if name not in at_hand]
    if missing:
        raise ConfigError(f"the codebook lists scorer {missing[0]!r} and there are no scores of it: give a file")
    return Judges((*shipped, *given.scorers), given.files)
