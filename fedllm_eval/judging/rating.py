"""Suites whose score is a judge's rating of single answers: ask, read, sum up, and show every failure."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import plural_words, words
from fedllm_eval.judging.answering import answer_questions, stored_answers
from fedllm_eval.judging.judge import Judge
from fedllm_eval.judging.questions import Question, pick, questions_digest, read_questions
from fedllm_eval.judging.recorded import FASTCHAT_ERROR
from fedllm_eval.judging.request import JudgeRequest, Judgment
from fedllm_eval.scoring.proportion import wilson
from fedllm_eval.scoring.ratings import HIGHEST, LOWEST, MeanRating, Rating, mean_rating, parse_rating
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult, SuiteScore

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["JUDGE_SWITCHES", "Item", "check_judge", "check_switches", "collect_answers", "open_questions", "rate"]

JUDGE_SWITCHES: dict[str, Any] = {"judge_max_tokens": 2048}
"""What every judged suite lets a user set of the judge; the benchmarks allow it 2,048 tokens."""
UNIT = f"rating, {LOWEST:g} to {HIGHEST:g}"
RULES_VERSION = 2
"""Counted up when reading or summing up changes what a score means."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One answer to be rated."""

    question: Question
    turn: int
    """From 1."""
    answer: str
    request: JudgeRequest
    groups: tuple[str, ...]
    """Names of the scores it counts in, beside the average of all."""


def open_questions(suite: str, options: SuiteOptions) -> list[Question]:
    """Read and pick the questions that the user gave.

    Raises:
        ConfigError: if none were given or they cannot be read.
    """
    if options.items is None:
        raise ConfigError(f"suite {suite} needs its questions, which are not the project's to ship; name the file")
    return pick(read_questions(options.items), options.max_items)


def check_judge(suite: str, options: SuiteOptions) -> Judge:
    """Return the judge that the user gave.

    Raises:
        ConfigError: if there is none.
    """
    if not isinstance(options.judge, Judge):
        raise ConfigError(
            f"suite {suite} needs a judge; make one by fedllm_eval.judging.make_judge(JudgeSettings(...))"
        )
    return options.judge


def check_switches(suite: str, options: SuiteOptions, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the suite's switches: those given over their defaults.

    Raises:
        ConfigError: if one is unknown.
    """
    for name in options.switches:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"suite {suite} has no switch {name!r}; {hint}its switches are {', '.join(known)}")
    return {**known, **options.switches}


def collect_answers(
    policy: "Policy | ServedPolicy | None",
    questions: Sequence[Question],
    options: SuiteOptions,
    temperatures: Sequence[float],
    answers: str | None,
) -> list[tuple[str, ...]]:
    """Return the policy's answers, or those of a file where one is given.

    Raises:
        ConfigError: if there is nobody to answer, or an answer of the file is FastChat's mark of an error.
    """
    if answers is not None:
        found = stored_answers(str(answers), questions)
        failed = [
            question.question_id
            for question, turns in zip(questions, found, strict=True)
            if any(turn.strip() == FASTCHAT_ERROR for turn in turns)
        ]
        if failed:
            raise ConfigError(
                f"{answers}: {len(failed)} of {len(questions)} questions have {FASTCHAT_ERROR} instead of an "
                f"answer (first: {failed[0]}), which is what FastChat writes where the model could not be reached; "
                "have them answered again"
            )
        return found
    if policy is None:
        raise ConfigError("there is neither a policy to answer nor a file of answers; give one of them")
    return answer_questions(policy, questions, options, temperatures)


def rate(
    suite: str, items: Sequence[Item], judge: Judge, options: SuiteOptions, settings: Mapping[str, Any]
) -> SuiteResult:
    """Have every answer rated and sum up.

    Args:
        suite: its name, the first part of every score's.
        items: answers and what the judge is asked of each.
        judge: who rates.
        options: folder, seed and progress.
        settings: what else the result says about how the answers came about.

    Returns:
        `<suite>/average` over all ratings, one score a group, and `<suite>/unrated_fraction`. A mean counts the
        readable ratings; the notes say how many were not, why, and how far they could move it. Intervals are
        over questions, whose turns are alike. NaN where nothing could be read.

    Raises:
        JudgeError: if the judge stops; what is judged is kept in the folder.
    """
    progress = options.progress
    judgments = judge.ask(
        [item.request for item in items],
        cache=options.folder / "judgments",
        progress=None if progress is None else lambda done, of: progress("judgments", done, of),
    )
    ratings = [_read(judgment) for judgment in judgments]
    questions = [item.question.question_id for item in items]
    means = {"average": mean_rating(ratings, questions)}
    depth = max(len(item.groups) for item in items)
    for group in dict.fromkeys(name for at in range(depth) for item in items for name in item.groups[at : at + 1]):
        members = [at for at, item in enumerate(items) if group in item.groups]
        means[group] = mean_rating([ratings[at] for at in members], [questions[at] for at in members])
    scores = [
        SuiteScore(
            name=f"{suite}/{name}",
            value=mean.mean,
            low=mean.low,
            high=mean.high,
            num_items=mean.num_items,
            unit=UNIT,
            higher_is_better=True,
        )
        for name, mean in means.items()
    ]
    num_failed = means["average"].num_failed
    low, high = wilson(num_failed / len(items), len(items))
    scores.append(
        SuiteScore(
            name=f"{suite}/unrated_fraction",
            value=num_failed / len(items),
            low=low,
            high=high,
            num_items=len(items),
            unit="fraction of judgments",
            higher_is_better=False,
        )
    )
    named = Counter(judgment.model for judgment in judgments if judgment.failure is None)
    prompts = Counter(item.request.prompt for item in items)
    questions_version = questions_digest(dict.fromkeys(item.question for item in items))
    prompts_version = hashlib.sha256("\n".join(sorted(prompts)).encode()).hexdigest()[:8]
    return SuiteResult(
        suite=suite,
        version=f"{RULES_VERSION} (questions {questions_version}, prompts {prompts_version}, judge {judge.model})",
        scores=tuple(scores),
        items=_table(items, judgments, ratings),
        settings={
            **settings,
            "judge": {**judge.describe(), "named": dict(sorted(named.items()))},
            "prompts": dict(sorted(prompts.items())),
            "judge_temperatures": sorted({item.request.temperature for item in items}),
            "judge_max_tokens": sorted({item.request.max_tokens for item in items}),
            "num_questions": len(set(questions)),
        },
        notes=tuple(_notes(means["average"], ratings, judgments)),
    )


def _read(judgment: Judgment) -> Rating:
    if judgment.failure is not None:
        return Rating(math.nan, f"no judgment: {judgment.failure}")
    return parse_rating(judgment.text)


def _notes(mean: MeanRating, ratings: Sequence[Rating], judgments: Sequence[Judgment]) -> list[str]:
    """What a reader must know before trusting the numbers, one sentence each, without a full stop."""
    notes = []
    num_items = len(ratings)
    if mean.num_failed:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in mean.failures.items())
        notes.append(
            words(
                "{num} of {total} judgments could be read as ratings, {number} could not: {reasons}; had all of them"
                " been {least} or {value}, the average would be {low} or {high}",
                num=0 if mean.num_failed == num_items else mean.num_items,
                total=num_items,
                number=mean.num_failed,
                reasons=reasons,
                least=f"{LOWEST:g}",
                value=f"{HIGHEST:g}",
                low=f"{mean.lowest:.2f}",
                high=f"{mean.highest:.2f}",
            )
        )
    if num_ambiguous := sum(rating.ambiguous for rating in ratings):
        notes.append(
            plural_words(
                "{num} judgment gives several ratings that differ; the first counts",
                "{num} judgments give several ratings that differ; the first counts",
                num_ambiguous,
            )
        )
    if num_cut := sum(judgment.cut for judgment in judgments):
        notes.append(
            plural_words(
                "{num} judgment was cut at the limit of tokens",
                "{num} judgments were cut at the limit of tokens",
                num_cut,
            )
        )
    return notes


def _table(items: Sequence[Item], judgments: Sequence[Judgment], ratings: Sequence[Rating]) -> pa.Table:
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "item_id": (pa.string(), [f"{item.question.question_id}/{item.turn}" for item in items]),
        "score": (pa.float64(), [None if rating.failure else rating.value for rating in ratings]),
        "failure": (pa.string(), [rating.failure for rating in ratings]),
        "question_id": (pa.string(), [item.question.question_id for item in items]),
        "turn": (pa.int64(), [item.turn for item in items]),
        "category": (pa.string(), [item.question.category for item in items]),
        "language": (pa.string(), [item.question.language for item in items]),
        "client_id": (pa.string(), [item.question.client_id for item in items]),
        "answer": (pa.string(), [item.answer for item in items]),
        "judgment": (pa.string(), [judgment.text for judgment in judgments]),
        "judge": (pa.string(), [judgment.model or None for judgment in judgments]),
        "prompt": (pa.string(), [item.request.prompt for item in items]),
    }
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})
