"""Questions from files, in every format that the suites' benchmarks come in. The project ships none of them.

- MT-Bench and Vicuna: JSONL of `{question_id, category, turns: [...]}`, references in `reference_answer/*.jsonl`
  beside it (FastChat's answer format) or in the field `reference`.
- FedLLM-Bench: JSON, a list of `{instruction, reference?, language?}` or such lists under the name of a language.
- Any `sft` rows of this project (`messages`; JSONL or Parquet): the last user turn is the question, what precedes it
  the context, and the assistant's last turn the reference.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.judging.store import read_jsonl
from fedllm_eval.texts import text_bytes, whole

__all__ = ["Question", "pick", "questions_digest", "read_answers", "read_outputs", "read_questions"]

Message = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, in one turn or more."""

    question_id: str
    turns: tuple[str, ...]
    context: tuple[tuple[str, str], ...] = ()
    """(role, content) of what was said before the first turn."""
    references: tuple[str, ...] = ()
    """An answer to each turn, or nothing."""
    category: str | None = None
    language: str | None = None
    client_id: str | None = None

    def first_messages(self) -> list[Message]:
        """Return the conversation up to the first turn."""
        said = [{"role": role, "content": content} for role, content in self.context]
        return [*said, {"role": "user", "content": self.turns[0]}]

    def as_text(self) -> str:
        """Return the first turn as a judge reads it, with what was said before it."""
        if not self.context:
            return self.turns[0]
        return "\n\n".join(f"{role}: {content}" for role, content in [*self.context, ("user", self.turns[0])])


def read_questions(path: str | Path) -> list[Question]:
    """Read the questions of a file, or of a folder with a `question.jsonl` in it.

    Raises:
        ConfigError: if there is no such file, it holds no questions, or one cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "question.jsonl"
    if not path.is_file():
        raise ConfigError(f"no questions at {path}; name a file, or a folder that holds question.jsonl")
    references = _references(path)
    questions = []
    for number, (row, language) in enumerate(_rows(path), start=1):
        try:
            questions.append(_question(row, number, language, references))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: question {number} cannot be read ({type(error).__name__}: {error}); it takes turns, "
                "instruction or messages"
            ) from error
    if not questions:
        raise ConfigError(f"{path} holds no questions")
    twice = [name for name, count in Counter(question.question_id for question in questions).items() if count > 1]
    if twice:
        raise ConfigError(f"{path}: question id {twice[0]!r} comes twice; ids must tell questions apart")
    return questions


def read_answers(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read answers in FastChat's format: JSONL of `{question_id, choices: [{turns: [...]}]}`.

    Raises:
        ConfigError: if the file or a line cannot be read.
    """
    answers = {}
    for number, line in enumerate(whole(read_jsonl(Path(path))), start=1):
        try:
            answers[str(line["question_id"])] = tuple(map(_text, line["choices"][0]["turns"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: answer {number} has no question_id or choices[0].turns") from error
    return answers


def read_outputs(path: str | Path) -> dict[str, str]:
    """Read answers in AlpacaEval's format, a JSON list of `{instruction, output}`: instruction -> output.

    Raises:
        ConfigError: if the file or an entry cannot be read, or one instruction has two outputs.
    """
    outputs: dict[str, str] = {}
    for number, (row, _) in enumerate(_rows(Path(path)), start=1):
        try:
            instruction, output = _text(row["instruction"]), _text(row["output"])
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path}: answer {number} has no instruction and output, both texts") from error
        if outputs.setdefault(instruction, output) != output:
            raise ConfigError(f"{path}: answer {number} is a second output for its instruction; keep one")
    return outputs


def pick(questions: Sequence[Question], max_items: int | None) -> list[Question]:
    """Return at most `max_items` questions, spread evenly over the file, because files are sorted by category.

    >>> [q.question_id for q in pick([Question(question_id=c, turns=("?",)) for c in "abcdef"], 3)]
    ['a', 'c', 'e']
    """
    if max_items is None or max_items >= len(questions):
        return list(questions)
    if max_items < 1:
        raise ConfigError(f"max_items is {max_items}; ask at least one question")
    return [questions[at * len(questions) // max_items] for at in range(max_items)]


def questions_digest(questions: Iterable[Question]) -> str:
    """Return eight digits that change with any question or reference."""
    digest = hashlib.sha256()
    for question in questions:
        parts = [question.question_id, question.context, question.turns, question.references, question.category]
        digest.update(text_bytes(json.dumps(parts, ensure_ascii=False)))
    return digest.hexdigest()[:8]


def _rows(path: Path) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Rows of a file with the language under whose name they stand."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        for row in pq.read_table(path).to_pylist():
            yield row, None
        return
    if path.suffix != ".json":
        for row in read_jsonl(path):
            yield whole(row), None
        return
    try:
        value = whole(json.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    groups = value.items() if isinstance(value, dict) else [(None, value)]
    for language, rows in groups:
        if not isinstance(rows, list):
            raise ConfigError(f"{path} must hold a list of questions, or such lists under names of languages")
        for row in rows:
            yield row, language


def _question(
    row: Mapping[str, Any], number: int, language: str | None, references: Mapping[str, tuple[str, ...]]
) -> Question:
    name = row.get("question_id", row.get("row_id"))
    question_id = f"{number:04d}" if name is None else str(name)
    context: tuple[tuple[str, str], ...] = ()
    given: Any = row.get("reference")
    if "turns" in row:
        turns = tuple(map(_text, row["turns"]))
    elif "messages" in row:
        said = [(_text(message["role"]), _text(message["content"])) for message in row["messages"]]
        if [role for role, _ in said[-2:]] != ["user", "assistant"]:
            raise ValueError("messages must end with a user's and an assistant's turn")
        context, turns, given = tuple(said[:-2]), (said[-2][1],), said[-1][1]
    else:
        turns = (_text(row["instruction"]),)
    if not turns or not all(turn.strip() for turn in turns):
        raise ValueError("a turn is empty")
    if question_id in references:
        given = references[question_id]
    given = [given] if isinstance(given, str) else list(given or [])
    return Question(
        question_id=question_id,
        turns=turns,
        context=context,
        references=tuple(_text(reference) for reference in given),
        category=_optional(row.get("category")),
        language=_optional(row.get("language")) or language,
        client_id=_optional(row.get("client_id")),
    )


def _references(path: Path) -> dict[str, tuple[str, ...]]:
    """Reference answers beside a question file."""
    files = sorted((path.parent / "reference_answer").glob("*.jsonl"))
    if len(files) > 1:
        raise ConfigError(f"{path.parent / 'reference_answer'} holds {len(files)} files; keep the one to grade by")
    return read_answers(files[0]) if files else {}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else str(value)
