"""Which of two answers serves better: the policy's or an opponent's, compared by a judge in both orders.

The opponent is what the run started from, so the win rate says what training gained in a judge's eyes; or a file of
answers (switch `opponent`), such as another system's. Every pair is judged twice, once in either order, and the two
verdicts are averaged (Zheng et al. 2023, section 3.4): a judge that always prefers what stands first then says a tie,
and how often the order settled its verdict is a score of its own. A tie counts half; a pair that lacks a verdict is
left out and counted. Two answers of the same text are a tie and are not put to the judge.

Beside the win rate stands the one that answers of equal length would have (`scoring/length_controlled.py`), because
judges like long answers. Lengths are in characters, as AlpacaEval counts them.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import plural_words, words
from fedllm_eval.judging.judge import Judge
from fedllm_eval.judging.pair_judgments import Pairs, judge_pairs
from fedllm_eval.judging.prompts import load_prompt
from fedllm_eval.judging.questions import Question, questions_digest
from fedllm_eval.judging.rating import JUDGE_SWITCHES, check_judge, check_switches, collect_answers, open_questions
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.length_controlled import LengthControlled, length_controlled_win_rate
from fedllm_eval.scoring.proportion import wilson_interval
from fedllm_eval.scoring.win_rate import WinRate, win_rate
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult, SuiteScore
from fedllm_eval.texts import text_bytes

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["Pairwise"]

RULES_VERSION = 1
"""Counted up when reading or summing up changes what a score means."""
FEW = 0.04
"""Below this share of longer (or of shorter) answers the win rate at equal length is a guess outside the data."""


class Pairwise:
    """Win rate over an opponent, plain and at equal length."""

    name = "pairwise"
    summary = "answers set against the base's, or a file's, by a judge who sees both orders"
    needs = ("judge", "items", "opponent")

    def run(self, policy: "Policy | ServedPolicy | None", options: SuiteOptions) -> SuiteResult:
        """Have policy and opponent answer and the judge compare.

        Switches: `opponent` (a file of answers in FastChat's or AlpacaEval's format; by default `options.opponent`
        answers), `temperature` (of the answers, 0), `answers` (a file with the policy's answers) and
        `judge_max_tokens` (2048).

        Raises:
            ConfigError: if judge, questions or opponent are missing, a question has more than one turn, or a file
                lacks an answer; before anything is answered.
            JudgeError: if the judge stops; what is judged is kept in the folder.
        """
        judge = check_judge(self.name, options)
        switches = check_switches(
            self.name, options, {"opponent": None, "temperature": 0.0, "answers": None, **JUDGE_SWITCHES}
        )
        questions = open_questions(self.name, options)
        for question in questions:
            if len(question.turns) != 1:
                raise ConfigError(
                    f"question {question.question_id!r} in {options.items} has {len(question.turns)} turns; pairs are "
                    "judged on one, so give single-turn questions"
                )
        given = switches["opponent"]
        if given is None and options.opponent is None:
            raise ConfigError(
                f"suite {self.name} has no opponent: give a file of answers by --switch {self.name}.opponent=FILE, or "
                "a policy that started from another"
            )
        told = options.progress
        on_their_side = replace(
            options,
            progress=None if told is None else lambda what, done, of: told(f"opponent's {what}", done, of),
        )
        temperatures = [float(switches["temperature"])] * len(questions)
        sides = [("ours", policy, options, switches["answers"]), ("theirs", options.opponent, on_their_side, given)]
        # Files first: one that lacks an answer is refused before any answer is written.
        sides.sort(key=lambda side: side[3] is None and side[1] is not None)
        answers = {name: collect_answers(who, questions, how, temperatures, file) for name, who, how, file in sides}
        found = _judge(judge, questions, **answers, options=options, max_tokens=int(switches["judge_max_tokens"]))
        opponent: dict[str, Any] = {"kind": "file", "file": str(given)}
        if given is None and options.opponent is not None:
            opponent = {"kind": "policy", **options.opponent.describe()}
        prompt = load_prompt("pair-v1")
        return SuiteResult(
            suite=self.name,
            version=f"{RULES_VERSION} (questions {questions_digest(questions)}, prompt {prompt.version}, judge "
            f"{judge.model}, opponent {_answers_digest(questions, found.theirs)})",
            scores=tuple(_scores(self.name, found)),
            items=_table(questions, found),
            settings={
                "opponent": opponent,
                "answers": "given" if switches["answers"] is not None else "generated",
                "temperature": float(switches["temperature"]),
                "max_new_tokens": options.max_new_tokens,
                "seed": options.seed,
                "judge": {**judge.describe(), "named": found.named()},
                "prompt": prompt.version,
                "judge_max_tokens": int(switches["judge_max_tokens"]),
                "num_questions": len(questions),
            },
            notes=tuple(_notes(found, opponent)),
        )


@dataclass(frozen=True)
class _Found:
    """Answers and verdicts on N questions, M of which were put to the judge."""

    ours: list[str]
    theirs: list[str]
    asked: list[int]
    """Positions of the M whose two answers differ."""
    pairs: Pairs | None
    """Verdicts on these; None where there are none."""
    preferences: list[float | None]
    """N, for the policy; 0.5 where the answers are the same."""
    rate: WinRate
    controlled: LengthControlled

    def named(self) -> dict[str, int]:
        """Return the judge's names for itself, and how many judgments stand under each."""
        both = [] if self.pairs is None else [*self.pairs.judgments[0], *self.pairs.judgments[1]]
        return dict(sorted(Counter(judgment.model for judgment in both if judgment.failure is None).items()))


def _judge(
    judge: Judge,
    questions: Sequence[Question],
    ours: Sequence[tuple[str, ...]],
    theirs: Sequence[tuple[str, ...]],
    options: SuiteOptions,
    max_tokens: int,
) -> _Found:
    own, other = [turns[0] for turns in ours], [turns[0] for turns in theirs]
    asked = [at for at in range(len(questions)) if own[at].strip() != other[at].strip()]
    preferences: list[float | None] = [0.5] * len(questions)
    pairs, told = None, options.progress
    if asked:
        pairs = judge_pairs(
            judge,
            [questions[at] for at in asked],
            [own[at] for at in asked],
            [other[at] for at in asked],
            max_tokens=max_tokens,
            cache=options.folder / "judgments",
            progress=None if told is None else lambda done, of: told("judgments", done, of),
        )
        for at, preference in zip(asked, pairs.swapped.preferences_N.tolist(), strict=True):
            preferences[at] = None if math.isnan(preference) else preference
    lengths = [len(answer) for answer in own], [len(answer) for answer in other]
    return _Found(
        own,
        other,
        asked,
        pairs,
        preferences,
        rate=win_rate(preferences),
        controlled=length_controlled_win_rate(preferences, *lengths),
    )


def _scores(suite: str, found: _Found) -> list[SuiteScore]:
    rate, controlled = found.rate, found.controlled

    def score(name: str, value: float, low: float, high: float, num: int, unit: str, up: bool | None) -> SuiteScore:
        return SuiteScore(
            name=f"{suite}/{name}", value=value, low=low, high=high, num_items=num, unit=unit, higher_is_better=up
        )

    def share(name: str, num_hits: int, num: int, unit: str) -> SuiteScore:
        if num == 0:
            return score(name, math.nan, math.nan, math.nan, 0, unit, False)
        hits = wilson_interval(num_hits, num)
        return score(name, hits.fraction, hits.low, hits.high, num, unit, False)

    def length(name: str, answers: Sequence[str]) -> SuiteScore:
        mean = mean_interval([len(answer) for answer in answers], bounds=(0.0, math.inf))
        return score(name, mean.mean, mean.low, mean.high, len(answers), "characters", None)

    unit = "preference for the policy, in [0, 1]"
    num_complete, num_flipped = _flipped(found)
    return [
        score("win_rate", rate.win_rate, rate.low, rate.high, rate.num_items, unit, True),
        score(
            "length_controlled_win_rate",
            controlled.win_rate,
            controlled.low,
            controlled.high,
            controlled.num_items,
            f"{unit}, at equal length",
            up=True,
        ),
        share("flipped_fraction", num_flipped, num_complete, "fraction of pairs whose verdict hangs on the order"),
        share("missing_fraction", rate.num_missing, len(found.ours), "fraction of pairs without a verdict"),
        length("answer_length", found.ours),
        length("opponent_answer_length", found.theirs),
    ]


def _flipped(found: _Found) -> tuple[int, int]:
    """Pairs that were judged in both orders, and those of them whose two verdicts differ."""
    if found.pairs is None:
        return 0, 0
    both = [
        (first, second)
        for first, second in zip(found.pairs.shown_first, found.pairs.shown_second, strict=True)
        if first is not None and second is not None
    ]
    return len(both), sum(first != second for first, second in both)


def _notes(found: _Found, opponent: dict[str, Any]) -> list[str]:
    """What a reader must know before trusting the numbers, one sentence each, without a full stop."""
    rate, controlled = found.rate, found.controlled
    notes = [
        words("set against the answers in {file}", file=opponent["file"])
        if opponent["kind"] == "file"
        else words(
            "set against the answers of {name}, which is the opponent and so is not judged itself",
            name=opponent["name"],
        )
    ]
    if rate.num_items:
        won, tied = (round(share * rate.num_items) for share in (rate.win_fraction, rate.tie_fraction))
        same = len(found.ours) - len(found.asked)
        told = {"num": rate.num_items, "high": won, "value": tied, "low": rate.num_items - won - tied}
        notes.append(
            words(
                "of {num} pairs {high} won, {value} tied and {low} lost; {number} of the ties are answers of the same"
                " text, which the judge was not shown",
                number=same,
                **told,
            )
            if same
            else words("of {num} pairs {high} won, {value} tied and {low} lost", **told)
        )
    num_complete, num_flipped = _flipped(found)
    if num_flipped and found.pairs is not None:
        first = found.pairs.swapped.first_position_preference
        notes.append(
            words(
                "the order of the answers changed the verdict on {num} of {total} pairs; what stands first is"
                " preferred at {value}, where 0.50 is no liking for a place",
                num=num_flipped,
                total=num_complete,
                value=f"{first:.2f}",
            )
        )
    if rate.num_missing and found.pairs is not None:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in found.pairs.failures.items())
        sum_there = sum(preference for preference in found.preferences if preference is not None)
        low, high = ((sum_there + bound * rate.num_missing) / len(found.preferences) for bound in (0, 1))
        notes.append(
            words(
                "left out for want of a verdict in one order or both: {num} of {total} pairs; {reasons}; had all of"
                " them been lost or won, the win rate would be {low} or {high}",
                num=rate.num_missing,
                total=len(found.preferences),
                reasons=reasons,
                low=f"{low:.2f}",
                high=f"{high:.2f}",
            )
        )
    if rate.num_items and not FEW <= controlled.longer_fraction <= 1 - FEW:
        notes.append(
            words(
                "the policy's answer is the longer one in nearly every pair: the win rate at equal length is a guess"
                " outside the data"
            )
            if controlled.longer_fraction > 0.5
            else words(
                "the policy's answer is the shorter or as long one in nearly every pair: the win rate at equal length"
                " is a guess outside the data"
            )
        )
    if found.pairs is not None and (num_cut := sum(one.cut for side in found.pairs.judgments for one in side)):
        notes.append(
            plural_words(
                "{num} judgment was cut at the limit of tokens",
                "{num} judgments were cut at the limit of tokens",
                num_cut,
            )
        )
    return notes


def _table(questions: Sequence[Question], found: _Found) -> pa.Table:
    none: list[Any] = [None] * len(questions)
    first, second, said_first, said_second, judges = (list(none) for _ in range(5))
    if found.pairs is not None:
        for row, at in enumerate(found.asked):
            first[at], second[at] = found.pairs.shown_first[row], found.pairs.shown_second[row]
            one, other = found.pairs.judgments[0][row], found.pairs.judgments[1][row]
            said_first[at], said_second[at] = one.failure or one.text, other.failure or other.text
            judges[at] = one.model or other.model or None
    columns: dict[str, tuple[pa.DataType, list[Any]]] = {
        "item_id": (pa.string(), [question.question_id for question in questions]),
        "score": (pa.float64(), found.preferences),
        "shown_first": (pa.float64(), first),
        "shown_second": (pa.float64(), second),
        "category": (pa.string(), [question.category for question in questions]),
        "language": (pa.string(), [question.language for question in questions]),
        "client_id": (pa.string(), [question.client_id for question in questions]),
        "answer": (pa.string(), found.ours),
        "opponent_answer": (pa.string(), found.theirs),
        "judgment_first": (pa.string(), said_first),
        "judgment_second": (pa.string(), said_second),
        "judge": (pa.string(), judges),
    }
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})


def _answers_digest(questions: Sequence[Question], answers: Sequence[str]) -> str:
    """Eight digits that change with any of the opponent's answers: win rates over two opponents are two scores."""
    said = sorted(zip((question.question_id for question in questions), answers, strict=True))
    return hashlib.sha256(text_bytes(json.dumps(said, ensure_ascii=False))).hexdigest()[:8]
