"""The shape of a scorer, what it is given, and the columns that a batch of rows gets from it.

A scorer is a callable with a name and a revision. It is given *exchanges*: the answer of a row (`sft`: the last
assistant message; `preference`: the chosen answer), the user message that it answers, what was said before, and the
row's language. It returns one float an exchange, NaN where it has nothing to say, and its word on an answer must not
depend on the other answers of the batch. A reward model is one more scorer:

    def reward(exchanges):
        texts = [tokenizer.apply_chat_template([*e.history, answer(e)], tokenize=False) for e in exchanges]
        return model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0].tolist()

    Scorer(ScorerInfo("reward", revision="org/model@1a2b3c", unit="logit"), reward)

Scores that took an accelerator to compute come from a file instead: see `scorers.score_file`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from fedllm_data.errors import ReportError
from fedllm_data.heterogeneity.quality import ScorerInfo
from fedllm_data.schema import Task

__all__ = ["Exchange", "Score", "Scorer", "as_scores", "exchanges", "score_columns"]

FloatArray = NDArray[np.float64]


class Exchange(NamedTuple):
    """One answer and the question that it answers."""

    prompt: str
    """The user message right before the answer; empty if there is none."""
    answer: str
    language: str
    """The row's `language`: an ISO 639 code, or `und`."""
    history: Sequence[Mapping[str, str]] = ()
    """All messages before the answer, the prompt included."""


Score = Callable[[Sequence[Exchange]], ArrayLike]
"""Exchanges -> one number each, NaN where undefined."""


@dataclass(frozen=True)
class Scorer:
    """A named way to judge answers."""

    info: ScorerInfo
    """Name, revision, unit and direction, as they are printed with every number."""
    score: Score
    parts: tuple[str, ...] = ()
    """Scorers of which this one is made; where all are at hand, their numbers are not computed again."""
    combine: Callable[[Sequence[FloatArray]], FloatArray] | None = None
    """The parts' numbers -> this one's."""


def exchanges(rows: pa.Table, task: Task) -> list[Exchange]:
    """Return the exchange that each row is judged by.

    Args:
        rows: rows in the format of `fedllm_data.schema`.
        task: which of the two formats.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    >>> row = {"language": "en", "messages": turns}
    >>> exchanges(pa.Table.from_pylist([row]), "sft")[0][:3]
    ('Hi', 'Hello!', 'en')
    """
    languages = rows["language"].to_pylist()
    return [
        Exchange(_last_prompt(history), answer, language, history)
        for (history, answer), language in zip(_answers(rows, task), languages, strict=True)
    ]


def score_columns(rows: pa.Table, task: Task, scorers: Sequence[Scorer]) -> dict[str, FloatArray]:
    """Return the columns `score:<name>` of some rows: what axis `quality` counts.

    Args:
        rows: rows in the format of `fedllm_data.schema`.
        task: which of the two formats.
        scorers: what judges; names must differ.

    Returns:
        One (N,) float column a scorer, NaN where undefined.

    Raises:
        ReportError: if a scorer gives another number of scores than it got exchanges, or an infinite one.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    >>> rows = pa.Table.from_pylist([{"language": "en", "messages": turns}])
    >>> length = Scorer(ScorerInfo("length", revision="1", unit="characters"), lambda xs: [len(x.answer) for x in xs])
    >>> score_columns(rows, "sft", [length])["score:length"].tolist()
    [6.0]
    """
    judged = exchanges(rows, task)
    found: dict[str, FloatArray] = {}
    for scorer in sorted(scorers, key=lambda scorer: bool(scorer.parts)):
        if scorer.combine is not None and found.keys() >= set(scorer.parts):
            found[scorer.info.name] = scorer.combine([found[name] for name in scorer.parts])
        else:
            found[scorer.info.name] = as_scores(scorer, judged)
    return {f"score:{scorer.info.name}": found[scorer.info.name] for scorer in scorers}


def as_scores(scorer: Scorer, judged: Sequence[Exchange]) -> FloatArray:
    """Return a scorer's numbers as float64, checked.

    Raises:
        ReportError: if there is not one finite number or NaN for each exchange.

    >>> constant = Scorer(ScorerInfo("constant", revision="1", unit="none"), lambda xs: [1])
    >>> as_scores(constant, [])
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ReportError: scorer 'constant' gave scores of shape (1,) for 0 answers: give one float for each
    """
    scores_N = np.asarray(scorer.score(judged), np.float64)
    if scores_N.shape != (len(judged),):
        raise ReportError(
            f"scorer {scorer.info.name!r} gave scores of shape {scores_N.shape} for {len(judged)} answers: "
            "give one float for each"
        )
    if np.isinf(scores_N).any():
        raise ReportError(f"scorer {scorer.info.name!r} gave an infinite score: give NaN where it is undefined")
    return scores_N


def _answers(rows: pa.Table, task: Task) -> Iterator[tuple[list[dict[str, str]], str]]:
    if task == "sft":
        for messages in rows["messages"].to_pylist():
            yield messages[:-1], messages[-1]["content"]
        return
    for prompt, chosen in zip(rows["prompt"].to_pylist(), rows["chosen"].to_pylist(), strict=True):
        yield [*prompt, *chosen[:-1]], chosen[-1]["content"]


def _last_prompt(history: Sequence[Mapping[str, Any]]) -> str:
    return next((str(message["content"]) for message in reversed(history) if message["role"] == "user"), "")
