"""Which of two answers a judge prefers, asked in both orders so that its liking for a position cancels out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_eval.judging.judge import Judge, Progress
from fedllm_eval.judging.prompts import load_prompt
from fedllm_eval.judging.questions import Question
from fedllm_eval.judging.request import Judgment
from fedllm_eval.scoring.ratings import parse_verdict
from fedllm_eval.scoring.win_rate import Swapped, average_swapped

__all__ = ["Pairs", "judge_pairs"]

PROMPT = "pair-v1"


@dataclass(frozen=True)
class Pairs:
    """Verdicts on N pairs of answers."""

    shown_first: list[float | None]
    """Preference for the candidate where it was answer A; None where the judge gave no verdict."""
    shown_second: list[float | None]
    """Preference for the candidate where it was answer B."""
    swapped: Swapped
    """Both orders averaged."""
    failures: Mapping[str, int]
    """Why verdicts are missing -> how many, of 2 N."""
    prompt: str
    judgments: tuple[list[Judgment], list[Judgment]]
    """What the judge said, N where the candidate was answer A and N where it was answer B."""


def judge_pairs(
    judge: Judge,
    questions: Sequence[Question],
    candidate: Sequence[str],
    baseline: Sequence[str],
    *,
    max_tokens: int = 2048,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Pairs:
    """Have each pair of answers compared twice, once in either order.

    Args:
        judge: who compares.
        questions: N; the first turn is what was asked.
        candidate: N answers whose preference is wanted.
        baseline: N answers they are set against.
        max_tokens: tokens that each judgment may have.
        cache: folder for judgments, where the judge has none of its own.
        progress: called after every judgment.

    Returns:
        Preferences from the candidate's point of view: 1 it wins, 0.5 a tie, 0 it loses.

    Raises:
        ConfigError: if the lengths differ or there are no questions.
        JudgeError: if the judge stops.
    """
    if not len(questions) == len(candidate) == len(baseline) or not questions:
        raise ConfigError(
            f"{len(questions)} questions, {len(candidate)} answers and {len(baseline)} of the baseline; give one of "
            "each"
        )
    prompt = load_prompt(PROMPT)
    orders = [(candidate, baseline), (baseline, candidate)]
    requests = [
        prompt.request({"question": question.as_text(), "answer_a": a, "answer_b": b}, max_tokens=max_tokens)
        for first, second in orders
        for question, a, b in zip(questions, first, second, strict=True)
    ]
    judgments = judge.ask(requests, cache=cache, progress=progress)
    failures: dict[str, int] = {}
    verdicts = [_verdict(judgment, failures) for judgment in judgments]
    shown_first = verdicts[: len(questions)]
    shown_second = [None if verdict is None else 1 - verdict for verdict in verdicts[len(questions) :]]
    return Pairs(
        shown_first,
        shown_second,
        average_swapped(shown_first, shown_second),
        failures,
        prompt.version,
        (judgments[: len(questions)], judgments[len(questions) :]),
    )


def _verdict(judgment: Judgment, failures: dict[str, int]) -> float | None:
    verdict = None if judgment.failure else parse_verdict(judgment.text)
    if verdict is None:
        reason = "no verdict" if judgment.failure is None else f"no judgment: {judgment.failure}"
        failures[reason] = failures.get(reason, 0) + 1
    return verdict
