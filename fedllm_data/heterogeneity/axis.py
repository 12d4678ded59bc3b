"""The shape of an axis: what a client counts, what the counts measure, and what chance would show.

An axis is one file that defines one `Axis`, listed in `axes.py`. Its functions see arrays of counts only.
numpy only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedllm_data.heterogeneity.profile import ClientProfile, Counts, Stack, Vectors

__all__ = ["Axis", "Columns", "DrawnValues", "Facts", "Measure", "Reading", "Tile", "Values", "of_one"]

Columns = Mapping[str, Any]
"""Features of one client's rows: column name -> one entry a row (see `fedllm_data.features`)."""
Values = dict[str, float]
"""Name of a measure -> its value; NaN where the counts do not determine it."""
DrawnValues = dict[str, NDArray[np.float64]]
"""Name of a measure -> its value in each of R draws, (R,)."""
Facts = dict[str, Any]
"""Plain descriptions of the pool (means, medians, shares): numbers and words that need no null."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How one number of an axis is to be read."""

    title: str
    unit: str
    meaning: str
    """One sentence that says what both extremes mean."""
    undefined: str = "the rows do not determine it"
    """Why it has no value where the counts give none."""
    unequal: Literal["high", "low"] = "high"
    """Which direction means that clients differ more; the p-value is one-sided in that direction."""
    spread_known: bool = True
    """Whether profiles tell how much chance varies; if not, its mean is printed alone, with no z and no p."""


@dataclass(frozen=True)
class Tile:
    """A fact of the axis that stands in large digits at the head of the page."""

    fact: str
    """Its name among the facts."""
    label: str
    """What it counts: in the plural, or without a spread in the singular."""
    spread: str = ""
    """Name of the fact that says how much it varies."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an axis means for a method, what it rests on and how it is drawn: all that a report says in words."""

    means: str = ""
    """What clients that differ on this axis mean for the choice of a method, in plain sentences."""
    alike: str = (
        "A method that adapts to this axis has nothing to adapt to here, and plain averaging loses nothing by it."
    )
    """What clients that do not differ mean for it."""
    unknown: str = "There is not enough data"
    """Why nothing is known, as the beginning of a sentence, and what would tell."""
    absent: str = ""
    """Why there is not enough data if no row has a label in the first table; by default, the number of clients."""
    rests_on: tuple[str, ...] = ("tokenizer", "codebook")
    """The tools without which two reports cannot be compared: `tokenizer`, `scorers`, `codebook`."""
    plot: Literal["sizes", "mix", "lengths"] | None = None
    """How its tables are drawn (see `reporting.draw_figures.PLOTS`); None draws its measures against chance."""
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One way in which clients may differ."""

    name: str
    question: str
    headline: str
    """The measure that stands for the axis: the one whose p-value is corrected for the number of axes."""
    null: str
    """What the clients would be if they did not differ, in words."""
    tables: tuple[str, ...]
    """Statistics that are measured; a client needs `min_rows` rows in the first of them to take part."""
    min_rows: int
    measures: dict[str, Measure]
    count: Callable[[Columns], dict[str, Counts]]
    """Features of one client's rows -> its tables; none where the features are not there."""
    measure: Callable[[Stack], Values]
    """One stack of clients -> the value of every measure."""
    null_sampler: Callable[[Stack], Callable[[Generator], Stack]]
    """The observed clients -> a function that draws clients of these sizes as chance would make them."""
    describe: Callable[[Stack, ClientProfile], Facts]
    """The observed clients and the merged profile of all clients -> facts."""
    per_client: Callable[[Stack], dict[str, list[Any]]]
    """The observed clients -> columns with one entry a client."""
    sentence: Callable[[Values, Facts], str]
    """The finding in words, with no claim about chance: that one is added from the null."""
    measure_draws: Callable[[Sequence[Stack]], DrawnValues] | None = None
    """The same of several draws or resamples at once, where that is faster: stacks of as many clients and the same
    labels. `measure` is then `of_one` of it."""
    vectors: tuple[str, ...] = ()
    """Vector statistics that are measured beside the tables."""
    sum_up: Callable[[Columns], Vectors] = lambda columns: {}
    """Features of one client's rows -> its vectors; none where the features are not there."""
    prepare: Callable[[Stack], Stack] = lambda stack: stack
    """Precompute, once, what every null draw and resample would otherwise recompute; stored in `Stack.derived`."""
    tasks: tuple[str, ...] = ("sft", "preference")
    """Formats of rows that have the features; a report on others leaves the axis out."""
    slow_above: int = 5_000
    """With more clients than this, null and bootstrap take at most `axes.FEW_DRAWS` draws."""
    gather: Callable[[Sequence[ClientProfile]], dict[str, NDArray[np.int64]]] = lambda profiles: {}
    """Profiles of the clients that take part -> `Stack.shared`: labels too many to lay side by side, such as which
    clients judged the same pair."""
    reading: "Reading" = field(default_factory=lambda: Reading())
    """What the axis means for a method, and how it is shown."""


def of_one(measure_draws: Callable[[Sequence[Stack]], DrawnValues]) -> Callable[[Stack], Values]:
    """Return what measures one stack, from what measures several at once.

    >>> of_one(lambda stacks: {"num_stacks": np.full(len(stacks), float(len(stacks)))})(Stack((), {}))
    {'num_stacks': 1.0}
    """
    return lambda stack: {name: float(value_R[0]) for name, value_R in measure_draws([stack]).items()}
