"""Whether a policy answers in the language it was asked in, language by language.

The questions are given by the user: a JSON object from language to a list of questions (the form of FedLLM-Bench's
Fed-Aya test set: each a text or a record with `instruction`), or JSON lines with `prompt` (or `instruction`) and
`language`. Languages may be names or codes. The answer's language is told by the project's detector; an answer that it
cannot tell is left out and counted. A right language says nothing about a right answer.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.errors import ConfigError
from fedllm_data.pipeline.language_detection import DETECTOR, detect_languages, language_code, languages_agree
from fedllm_data.wording.catalogue import words
from fedllm_eval.running.kept_answers import kept_answers
from fedllm_eval.scoring.language_consistency import LanguageConsistency, language_consistency
from fedllm_eval.scoring.proportion import Proportion
from fedllm_eval.suites.suite import SuiteOptions, SuiteResult, SuiteScore
from fedllm_eval.texts import whole

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.served import ServedPolicy

__all__ = ["Language", "read_questions"]

Detector = Callable[[Sequence[str]], list[str | None]]
FIELDS = ("instruction", "prompt", "question")


class Language:
    """Answers in the language of their question."""

    name = "language"
    summary = "share of answers in the language of their question, in all and by language"
    needs: tuple[str, ...] = ("items",)

    def __init__(self, detector: Detector = detect_languages) -> None:
        """Take the detector that tells an answer's language, None where it does not dare."""
        self._detector = detector

    def run(self, policy: "Policy | ServedPolicy", options: SuiteOptions) -> SuiteResult:
        """Put the questions to a policy.

        Raises:
            ConfigError: if no file of questions is given, or it cannot be read.
        """
        if options.items is None:
            raise ConfigError(
                "suite language ships no questions; give a JSON file of questions by language by --suite-items "
                "language=FILE"
            )
        if options.switches:
            raise ConfigError(f"suite language takes no switches, got {', '.join(options.switches)}")
        questions = read_questions(options.items)[: options.max_items]
        told = options.progress
        answers = kept_answers(
            policy,
            [[{"role": "user", "content": text}] for _, text in questions],
            options.folder,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            progress=None if told is None else lambda done, total: told("answers", done, total),
        )
        asked = [language for language, _ in questions]
        found = self._detector([answer.text for answer in answers])
        known = [answer is not None for answer in found]
        notes = []
        if not all(known):
            notes.append(
                words(
                    "the language of {num} of {total} answers cannot be told; they are left out",
                    num=known.count(False),
                    total=len(found),
                )
            )
        right = [
            None if answer is None else float(languages_agree(q, answer))
            for q, answer in zip(asked, found, strict=True)
        ]
        scores = _scores(language_consistency(asked, found, languages_agree) if any(known) else None)
        return SuiteResult(
            suite=self.name,
            version="1",
            scores=scores,
            items=pa.table(
                {
                    "item_id": pa.array([f"{q}-{i:04d}" for i, q in enumerate(asked)], pa.string()),
                    "score": pa.array(right, pa.float64()),
                    "language": pa.array(asked, pa.string()),
                    "answer_language": pa.array(found, pa.string()),
                    "prompt": pa.array([text for _, text in questions], pa.string()),
                    "answer": pa.array([answer.text for answer in answers], pa.string()),
                }
            ),
            settings={
                "language_detector": DETECTOR if self._detector is detect_languages else "given by the caller",
                "items": options.items.name,
                "max_items": options.max_items,
                "max_new_tokens": options.max_new_tokens,
            },
            notes=tuple(notes),
        )


def read_questions(file: Path) -> list[tuple[str, str]]:
    """Return (language code, question) pairs of a file, the languages in turn, so that the first few hold all of them.

    Raises:
        ConfigError: if the file cannot be read, names a language that is none, or holds no question.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".jsonl":
            records: Any = whole([json.loads(line) for line in text.split("\n") if line.strip()])
        else:
            records = whole(json.loads(text))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; name a JSON file of questions by language") from error
    if isinstance(records, dict):
        pairs = [
            (name, one) for name, group in records.items() for one in (group if isinstance(group, list) else [group])
        ]
    elif isinstance(records, list):
        pairs = [(one.get("language") if isinstance(one, dict) else None, one) for one in records]
    else:
        pairs = []
    by_language: dict[str, list[str]] = {}
    for index, (name, record) in enumerate(pairs):
        language = language_code(name.replace("_", " ") if isinstance(name, str) else name)
        if isinstance(record, dict):
            record = next((record[field] for field in FIELDS if record.get(field)), None)
        if language == "und" or not isinstance(record, str) or not record.strip():
            raise ConfigError(
                f"{file}: question {index} has no text under {' or '.join(FIELDS)}, or its language {name!r} is none; "
                "mend it or leave it out"
            )
        by_language.setdefault(language, []).append(record.strip())
    if not by_language:
        raise ConfigError(f"{file} holds no question; it needs lists of questions by language")
    longest = max(map(len, by_language.values()))
    return [(name, group[at]) for at in range(longest) for name, group in by_language.items() if at < len(group)]


def _scores(found: LanguageConsistency | None) -> tuple[SuiteScore, ...]:
    if found is None:
        nan = float("nan")
        return (_score("language/consistency", Proportion(nan, nan, nan, 0)),)
    by_language = (_score(f"language/consistency_{code}", share) for code, share in found.by_language.items())
    return (_score("language/consistency", found.overall), *by_language)


def _score(name: str, share: Proportion) -> SuiteScore:
    return SuiteScore(
        name=name,
        value=share.fraction,
        low=share.low,
        high=share.high,
        num_items=share.num_items,
        unit="fraction of answers",
        higher_is_better=True,
    )
