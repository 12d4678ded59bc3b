"""CRASS: counterfactual questions with three or four choices, chosen by log-probability.

Frohberg and Binder 2022, fixed-target mode. The questions are given by the user: the data set's own
`CRASS_FTM_main_data_set.csv` (Apache-2.0), semicolons between columns, a header, then two columns of numbering,
premise, question, the right choice, and two or three wrong ones. Each choice is scored as the answer of one turn
under the policy's chat template, its end of turn included. Letters are not shown, so the order of choices has no say.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fedllm_data.errors import ConfigError
from fedllm_eval.scoring.closed_ended import choice_credit
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.proportion import wilson_interval
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult, SuiteScore

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["Crass", "Question", "read_questions"]

NUM_COLUMNS_BEFORE = 4
MAX_CHOICES = 4


@dataclass(frozen=True)
class Question:
    """A question; the first choice is the right one."""

    item_id: str
    text: str
    choices: tuple[str, ...]


class Crass:
    """Accuracy on counterfactual questions."""

    name = "crass"
    summary = "accuracy on counterfactual questions, chosen by log-probability"
    needs: tuple[str, ...] = ("items",)

    def run(self, policy: "Policy", options: SuiteOptions) -> SuiteResult:
        """Score the choices of every question.

        Raises:
            ConfigError: if no file of questions is given, it cannot be read, or a question is longer than the model's
                positions.
        """
        if options.items is None:
            raise ConfigError(
                "suite crass ships no questions; give CRASS_FTM_main_data_set.csv by --suite-items crass=FILE"
            )
        if options.switches:
            raise ConfigError(f"suite crass takes no switches, got {', '.join(options.switches)}")
        questions = read_questions(options.items)[: options.max_items]
        logps = choice_logps(policy, questions, options)
        summed = [choice_credit(logp_C, 0) for logp_C in logps]
        per_byte = [
            choice_credit(logp_C, 0, [len(choice.encode()) for choice in question.choices])
            for logp_C, question in zip(logps, questions, strict=True)
        ]
        chance = float(np.mean([1 / len(question.choices) for question in questions]))
        return SuiteResult(
            suite=self.name,
            version="1",
            scores=(_score("crass/accuracy", summed), _score("crass/accuracy_per_byte", per_byte)),
            items=pa.table(
                {
                    "item_id": pa.array([question.item_id for question in questions], pa.string()),
                    "score": pa.array(summed, pa.float64()),
                    "score_per_byte": pa.array(per_byte, pa.float64()),
                    "question": pa.array([question.text for question in questions], pa.string()),
                    "choices": pa.array([list(question.choices) for question in questions], pa.list_(pa.string())),
                    "logps": pa.array(logps, pa.list_(pa.float64())),
                }
            ),
            settings={
                "items": options.items.name,
                "max_items": options.max_items,
                "num_examples": 0,
                "chance": chance,
            },
        )


def read_questions(file: Path) -> list[Question]:
    """Return the questions of a file in CRASS's form.

    Raises:
        ConfigError: if the file cannot be read, a row has fewer than two choices, or there is no row.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.reader(lines, delimiter=";"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; name CRASS_FTM_main_data_set.csv") from error
    questions = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = [" ".join(cell.split()) for cell in row[2 : NUM_COLUMNS_BEFORE + MAX_CHOICES]]
        choices = tuple(cell for cell in cells[2:] if cell)
        if len(choices) < 2 or not cells[0] or not cells[1]:
            raise ConfigError(
                f"{file}, row {number}: needs numbering in two columns, premise, question and at least two choices, "
                "with semicolons between"
            )
        questions.append(Question(f"{number - 1:04d}", f"{cells[0]} {cells[1]}", choices))
    if not questions:
        raise ConfigError(f"{file} holds no question under its header; name CRASS_FTM_main_data_set.csv")
    return questions


def choice_logps(policy: "Policy", questions: list[Question], options: SuiteOptions) -> list[list[float]]:
    """Return the log-probability of each choice of each question, given the question."""
    from fedllm_eval.policy.chat import encode_messages
    from fedllm_eval.policy.models import sequence_logps

    sequences = []
    positions = getattr(policy.model.config, "max_position_embeddings", None)
    for question in questions:
        for choice in question.choices:
            turns = [{"role": "user", "content": question.text}, {"role": "assistant", "content": choice}]
            encoded = encode_messages(policy.tokenizer, turns)
            sequences.append((encoded["input_ids"], encoded["assistant_masks"]))
            if positions is not None and len(encoded["input_ids"]) > positions:
                raise ConfigError(
                    f"question {question.item_id} with a choice is {len(encoded['input_ids'])} tokens long, but the "
                    f"model has {positions} positions; leave it out"
                )
    told = options.progress
    with policy.active() as model:
        logp_N, _ = sequence_logps(
            model,
            sequences,
            options.batch_size,
            None if told is None else lambda done, total: told("choices", done, total),
        )
    ends = np.cumsum([len(question.choices) for question in questions])
    return [part.tolist() for part in np.split(logp_N, ends[:-1])]


def _score(name: str, credit: list[float]) -> SuiteScore:
    value = float(np.mean(credit))
    if set(credit) <= {0.0, 1.0}:
        share = wilson_interval(int(sum(credit)), len(credit))
        low, high = share.low, share.high
    else:
        interval = mean_interval(credit, bounds=(0.0, 1.0))
        low, high = interval.low, interval.high
    return SuiteScore(
        name=name,
        value=value,
        low=low,
        high=high,
        num_items=len(credit),
        unit="fraction of questions",
        higher_is_better=True,
    )
