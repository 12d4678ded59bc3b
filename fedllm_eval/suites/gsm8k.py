"""GSM8K in the chat form: the question as a turn, the answer's final number against the reference's.

Cobbe et al. 2021. The questions are given by the user: the published `test.jsonl`, lines with `question` and `answer`.
No examples are shown and the answer is greedy, so the accuracy is not that of the few-shot form, which is
lm-evaluation-harness's (`--suite harness`, task `gsm8k`). An answer without a number is wrong.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import words
from fedllm_eval.running.kept_answers import kept_answers
from fedllm_eval.scoring.closed_ended import final_number, is_right_number
from fedllm_eval.scoring.proportion import wilson_interval
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult, SuiteScore
from fedllm_eval.texts import whole

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["Gsm8k"]

INSTRUCTION = "Work it out step by step and write the final number on a line of its own after ####."


class Gsm8k:
    """Final numbers of grade-school problems."""

    name = "gsm8k"
    summary = "accuracy of the final number on grade-school problems, without examples"
    needs: tuple[str, ...] = ("items",)

    def run(self, policy: "Policy | ServedPolicy", options: SuiteOptions) -> SuiteResult:
        """Put the problems to a policy.

        Raises:
            ConfigError: if no file of problems is given, or a line is none.
        """
        if options.items is None:
            raise ConfigError("suite gsm8k ships no problems; give GSM8K's test.jsonl by --suite-items gsm8k=FILE")
        if options.switches:
            raise ConfigError(f"suite gsm8k takes no switches, got {', '.join(options.switches)}")
        problems = _read(options.items)[: options.max_items]
        told = options.progress
        answers = kept_answers(
            policy,
            [[{"role": "user", "content": f"{question}\n{INSTRUCTION}"}] for question, _ in problems],
            options.folder,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            progress=None if told is None else lambda done, total: told("answers", done, total),
        )
        right = [
            is_right_number(answer.text, reference, anywhere=True)
            for answer, (_, reference) in zip(answers, problems, strict=True)
        ]
        numbers = [final_number(answer.text, anywhere=True) for answer in answers]
        share = wilson_interval(sum(right), len(right))
        notes = []
        if (num_without := sum(number is None for number in numbers)) > 0:
            notes.append(
                words(
                    "{num} of {total} answers hold no number and count as wrong", num=num_without, total=len(numbers)
                )
            )
        if (num_cut := sum(not answer.finished for answer in answers)) > 0:
            notes.append(
                words("{num} of {total} answers were cut at the limit of tokens", num=num_cut, total=len(answers))
            )
        return SuiteResult(
            suite=self.name,
            version="1",
            scores=(
                SuiteScore(
                    name="gsm8k/accuracy",
                    value=share.fraction,
                    low=share.low,
                    high=share.high,
                    num_items=share.num_items,
                    unit="fraction of problems",
                    higher_is_better=True,
                ),
            ),
            items=pa.table(
                {
                    "item_id": pa.array([f"{index:04d}" for index in range(len(problems))], pa.string()),
                    "score": pa.array([float(one) for one in right], pa.float64()),
                    "final_number": pa.array([None if n is None else str(n) for n in numbers], pa.string()),
                    "question": pa.array([question for question, _ in problems], pa.string()),
                    "answer": pa.array([answer.text for answer in answers], pa.string()),
                }
            ),
            settings={
                "instruction": INSTRUCTION,
                "num_examples": 0,
                "items": options.items.name,
                "max_items": options.max_items,
                "max_new_tokens": options.max_new_tokens,
            },
            notes=tuple(notes),
        )


def _read(file: Path) -> list[tuple[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; name GSM8K's test.jsonl") from error
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = whole(json.loads(line))
            question, reference = record["question"], record["answer"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}, line {number} has no question and answer; write them as JSON") from error
        if final_number(reference) is None:
            raise ConfigError(f"{file}, line {number}: the answer has no number after ####; add it")
        problems.append((question, reference))
    if not problems:
        raise ConfigError(f"{file} holds no problem; name GSM8K's test.jsonl")
    return problems
