"""MT-Bench (Zheng et al. 2023, arXiv 2306.05685): 80 questions of two turns, every answer rated 1 to 10 by a judge.

The rules are those of FastChat's `llm_judge` in single-answer mode, so that scores can be compared: its prompts word
for word, the second turn judged with the whole conversation in view, references for mathematics, reasoning and coding,
the judge at temperature 0, and the policy at the temperature of the question's category. The average is over all
ratings of both turns. FedLLM-Bench answers every category at 0.7 (switch `temperature`). The questions come from the
user: FastChat's `data/mt_bench` folder, with `reference_answer/` beside `question.jsonl`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedllm_data.errors import ConfigError
from fedllm_eval.judging.prompts import load_prompt
from fedllm_eval.judging.questions import Question
from fedllm_eval.judging.rating import (
    JUDGE_SWITCHES,
    Item,
    check_judge,
    check_switches,
    collect_answers,
    open_questions,
    rate,
)
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["MTBench"]

REFERENCE_CATEGORIES = ("math", "reasoning", "coding")
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""Of the answers, by category as in FastChat; 0 for all others."""


class MTBench:
    """Two turns per question; scores `average`, `turn_1`, `turn_2` and one per category."""

    name = "mt_bench"
    summary = "80 two-turn questions, answers rated 1 to 10 by a judge"
    needs = ("judge", "items")

    def run(self, policy: "Policy | ServedPolicy | None", options: SuiteOptions) -> SuiteResult:
        """Have the policy answer and the judge rate.

        Switches: `temperature` (one for all), `answers` (a file of FastChat's format) and
        `judge_max_tokens` (2048).

        Raises:
            ConfigError: if judge or questions are missing, or a question has not two turns or no reference where its
                category needs one; before anything is answered.
            JudgeError: if the judge stops.
        """
        judge = check_judge(self.name, options)
        switches = check_switches(self.name, options, {"temperature": None, "answers": None, **JUDGE_SWITCHES})
        questions = open_questions(self.name, options)
        for question in questions:
            _check(question)
        fixed = switches["temperature"]
        temperatures = [
            TEMPERATURES.get(question.category or "", 0.0) if fixed is None else float(fixed) for question in questions
        ]
        answers = collect_answers(policy, questions, options, temperatures, switches["answers"])
        max_tokens = int(switches["judge_max_tokens"])
        items = [
            item
            for question, turns in zip(questions, answers, strict=True)
            for item in (_first(question, turns, max_tokens), _second(question, turns, max_tokens))
        ]
        settings = {
            "answers": "given" if switches["answers"] is not None else "generated",
            "temperature": "by category" if fixed is None else float(fixed),
            "max_new_tokens": options.max_new_tokens,
            "seed": options.seed,
        }
        return rate(self.name, items, judge, options, settings)


def _check(question: Question) -> None:
    if len(question.turns) != 2:
        raise ConfigError(f"question {question.question_id!r} has {len(question.turns)} turns; MT-Bench's have two")
    if question.category in REFERENCE_CATEGORIES and len(question.references) != 2:
        raise ConfigError(
            f"question {question.question_id!r} is about {question.category} and has {len(question.references)} "
            "references for its two turns; put reference_answer/*.jsonl beside the questions"
        )


def _first(question: Question, answers: Sequence[str], max_tokens: int) -> Item:
    fields = {"question": question.turns[0], "answer": answers[0]}
    name = "fastchat-single-v1"
    if question.category in REFERENCE_CATEGORIES:
        name = "fastchat-single-math-v1"
        fields["ref_answer_1"] = question.references[0]
    return _item(question, 1, answers[0], name, fields, max_tokens)


def _second(question: Question, answers: Sequence[str], max_tokens: int) -> Item:
    fields = {
        "question_1": question.turns[0],
        "question_2": question.turns[1],
        "answer_1": answers[0],
        "answer_2": answers[1],
    }
    name = "fastchat-single-v1-multi-turn"
    if question.category in REFERENCE_CATEGORIES:
        name = "fastchat-single-math-v1-multi-turn"
        fields |= {"ref_answer_1": question.references[0], "ref_answer_2": question.references[1]}
    return _item(question, 2, answers[1], name, fields, max_tokens)


def _item(question: Question, turn: int, answer: str, prompt: str, fields: dict[str, str], max_tokens: int) -> Item:
    groups = [f"turn_{turn}"]
    if question.category is not None:
        groups.append(question.category)
    request = load_prompt(prompt).request(fields, max_tokens=max_tokens)
    return Item(question=question, turn=turn, answer=answer, request=request, groups=tuple(groups))
