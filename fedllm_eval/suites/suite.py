"""What a suite is: a named set of questions put to a policy, and scores with their intervals.

A suite is one file beside this one, listed in `SUITES`. It answers (or scores) its items once, keeps one line per
item, and sums them up; comparing two policies is done on the items, paired by `item_id`. No torch here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from fedllm_eval.policy.models import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["Suite", "SuiteOptions", "SuiteResult", "SuiteScore"]

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, items done, items in all)."""


@dataclass(frozen=True, kw_only=True)
class SuiteScore:
    """One number of a suite, never without its interval and the number of items behind it."""

    name: str
    """Such as `mt_bench/turn_1`."""
    value: float
    """NaN where there is not enough data; a note of the result then says why."""
    low: float
    high: float
    """95 % interval over items."""
    num_items: int
    unit: str
    higher_is_better: bool | None
    """None where neither direction is better, as of a length."""


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What a suite found out about one policy."""

    suite: str
    version: str
    """Of the questions, prompts and rules: scores of two versions are not compared."""
    scores: tuple[SuiteScore, ...]
    items: pa.Table
    """One row per item: `item_id` (string, unique), `score` (float, null where there is none) and what else is known,
    such as `language`, `category`, `answer`."""
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What a user gives beside the policy; a suite names what it `needs` of it."""

    folder: Path
    """An existing folder for what must survive a stop: answers and judgments, reused when the suite runs again."""
    items: Path | None = None
    """The suite's questions, where they are not the project's to ship."""
    judge: Any = None
    """A judge from `fedllm_eval.judging`."""
    opponent: "Policy | ServedPolicy | None" = None
    """Whose answers the policy's are set against, in a suite that needs an opponent."""
    batch_size: int = 8
    max_new_tokens: int = 512
    max_items: int | None = None
    seed: int = 0
    progress: Progress | None = None
    switches: Mapping[str, Any] = field(default_factory=dict)
    """Settings of one suite, such as the benchmark's own refusal list."""


class Suite(Protocol):
    """Questions, rules and scores under one name."""

    name: str
    summary: str
    """One line."""
    needs: tuple[str, ...]
    """Names of options without which it cannot run, such as `judge` or `items`; an `opponent` is the base of the
    evaluation unless the switch of that name gives a file of answers."""

    def run(self, policy: "Policy | ServedPolicy", options: SuiteOptions) -> SuiteResult:
        """Put the questions to a policy; a served one comes to no suite of `NEED_WEIGHTS`.

        Raises:
            ConfigError: if something it needs is missing or cannot be used; before anything is answered.
        """
        ...
