"""The Vicuna questions (Chiang et al. 2023): 80 of one turn, each answer rated from 1 to 10 by a judge.

Rated as MT-Bench's first turn is, by FastChat's prompts. A question about mathematics, reasoning or coding is judged
with its reference where the file has one, as FastChat does; FedLLM-Bench ships none and judges all alike (switch
`references=False`). Strong models all score near the top here: the set no longer tells them apart.
"""

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

__all__ = ["Vicuna"]

REFERENCE_CATEGORIES = ("math", "reasoning", "coding")


class Vicuna:
    """One turn per question; scores `average` and one per category."""

    name = "vicuna"
    summary = "80 single-turn questions, answers rated 1 to 10 by a judge"
    needs = ("judge", "items")

    def run(self, policy: "Policy | ServedPolicy | None", options: SuiteOptions) -> SuiteResult:
        """Have the policy answer and the judge rate.

        Switches: `temperature` (0.7), `references` (True), `answers` (a file of FastChat's format) and
        `judge_max_tokens` (2048).

        Raises:
            ConfigError: if judge or questions are missing, or a question has more than one turn.
            JudgeError: if the judge stops.
        """
        judge = check_judge(self.name, options)
        switches = check_switches(
            self.name, options, {"temperature": 0.7, "references": True, "answers": None, **JUDGE_SWITCHES}
        )
        questions = open_questions(self.name, options)
        for question in questions:
            if len(question.turns) != 1:
                raise ConfigError(
                    f"question {question.question_id!r} has {len(question.turns)} turns; Vicuna's have one"
                )
        temperature = float(switches["temperature"])
        answers = collect_answers(policy, questions, options, [temperature] * len(questions), switches["answers"])
        items = [
            _item(question, turns[0], bool(switches["references"]), int(switches["judge_max_tokens"]))
            for question, turns in zip(questions, answers, strict=True)
        ]
        settings = {
            "answers": "given" if switches["answers"] is not None else "generated",
            "temperature": temperature,
            "references": bool(switches["references"]),
            "max_new_tokens": options.max_new_tokens,
            "seed": options.seed,
        }
        return rate(self.name, items, judge, options, settings)


def _item(question: Question, answer: str, with_reference: bool, max_tokens: int) -> Item:
    fields = {"question": question.as_text(), "answer": answer}
    name = "fastchat-single-v1"
    if with_reference and question.category in REFERENCE_CATEGORIES and question.references:
        name = "fastchat-single-math-v1"
        fields["ref_answer_1"] = question.references[0]
    return Item(
        question=question,
        turn=1,
        answer=answer,
        request=load_prompt(name).request(fields, max_tokens=max_tokens),
        groups=() if question.category is None else (question.category,),
    )
