"""A judge that reads its judgments from a file: the same scores again, offline and for nothing.

A record is a JSONL file, one judgment a line with the request it answers (`request.judgment_line`), written by any
other judge under `record=`. MT-Bench's own files (`*_single.jsonl` of FastChat's `llm_judge`) are read as well. A
judgment is found by the content of the request, so a record serves whoever asks the same about the same answers, and a
request that is not in it stops the run: a score over the part that happens to be there would be another score.

Where FastChat could not reach its judge it wrote `$ERROR$`, which is no judgment: it counts as one that failed, and
another line that judges the same takes its place. A file in which an answer was judged twice (FastChat appends) is
refused with the lines: one of the two would be chosen by accident.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging.prompts import PROMPTS, load_prompt
from fedllm_eval.judging.request import Finish, JudgeRequest, Judgment, judgment_from
from fedllm_eval.judging.store import read_jsonl
from fedllm_eval.texts import whole

__all__ = ["FASTCHAT_ERROR", "Recorded"]

FASTCHAT_TEMPERATURE, FASTCHAT_MAX_TOKENS = 0.0, 2048
"""How FastChat asks its judges."""
FASTCHAT_ERROR = "$ERROR$"
"""What FastChat writes where a judgment or an answer could not be had."""


class Recorded:
    """The judgments of one judge in a file."""

    def __init__(self, path: str | Path, *, model: str | None = None, answered_by: str | None = None) -> None:
        """Read a record.

        Args:
            path: the JSONL file.
            model: whose judgments, where the file holds those of several judges.
            answered_by: in FastChat's files, whose answers were judged; None takes all.

        Raises:
            ConfigError: if the file cannot be read, holds no judgments of this judge, or two that contradict one
                another.
        """
        self.path: Path = Path(path)
        self.record_file: Path | None = self.path
        found: dict[str, dict[str, Judgment]] = {}
        places: dict[tuple[str, str], int] = {}
        judged: dict[tuple[str, ...], int] = {}
        lines = read_jsonl(self.path)
        for number, line in zip(_line_numbers(self.path), lines, strict=True):
            if answered_by is not None and "judgment" in line and line.get("model") != answered_by:
                continue
            judge, request, judgment = _read_line(line, f"{self.path}, line {number}")
            if judgment.failure is None and (item := _judged_item(line)) is not None:
                if (first := judged.setdefault(item, number)) != number:
                    raise ConfigError(
                        f"{self.path}, lines {first} and {number} judge the same answer (question "
                        f"{line.get('question_id')}, turn {line.get('turn')}, model {line.get('model')!r}); keep one"
                    )
            known = found.setdefault(judge, {}).get(request.key)
            if known is None or (known.failure is not None and judgment.failure is None):
                found[judge][request.key] = judgment
                places[judge, request.key] = number
            elif judgment.failure is None and known.text != judgment.text:
                raise ConfigError(
                    f"{self.path}, lines {places[judge, request.key]} and {number}: judge {judge!r} answered one "
                    "request in two ways; keep one of them (for FastChat's files, name the model whose answers were "
                    "judged: answered_by)"
                )
        if model is None and len(found) > 1:
            raise ConfigError(f"{self.path} holds judgments of {', '.join(sorted(found))}; name one as model")
        if not found or (model is not None and model not in found):
            there = ", ".join(sorted(found)) or "nobody"
            raise ConfigError(f"{self.path} holds judgments of {there}; name a record of judge {model or 'any'!r}")
        self.model = model or next(iter(found))
        self._judgments = found[self.model]

    def __len__(self) -> int:
        """Return the number of judgments."""
        return len(self._judgments)

    def identity(self) -> str:
        """Return a name that no other kind of judge has."""
        return f"recorded {self.model}"

    def describe(self) -> dict[str, Any]:
        """Return kind, model and file name."""
        return {"kind": "recorded", "model": self.model, "file": self.path.name}

    def usage(self) -> dict[str, Any]:
        """Return nothing: what was recorded costs nothing."""
        return {}

    def ask(self, requests: Sequence[JudgeRequest], finish: Finish) -> None:
        """Find every request in the record.

        Raises:
            JudgeError: if any is missing; before any judgment is handed on.
        """
        missing = [request for request in requests if request.key not in self._judgments]
        if missing:
            raise JudgeError(
                f"{len(missing)} of {len(requests)} requests are not in the record {self.path} (first: prompt "
                f"{missing[0].prompt or 'unnamed'}, key {missing[0].key[:12]}); the answers, questions, prompts or "
                "settings differ from those recorded: record again with the judge itself"
            )
        for at, request in enumerate(requests):
            finish(at, self._judgments[request.key])


def _read_line(line: dict[str, Any], where: str) -> tuple[str, JudgeRequest, Judgment]:
    if "judgment" in line and "user_prompt" in line:
        return _read_fastchat(line, where)
    pair = judgment_from(line)
    if pair is None:
        raise ConfigError(
            f"{where}: neither a judgment as `record` writes it (its key must fit its content) nor one of FastChat's; "
            "drop the line or record again"
        )
    return str(line.get("judge")), *pair


def _read_fastchat(line: dict[str, Any], where: str) -> tuple[str, JudgeRequest, Judgment]:
    try:
        judge, name = line["judge"]
        prompt = load_prompt(name if (name := f"fastchat-{name}") in PROMPTS else "")
        request = JudgeRequest(
            system=prompt.system,
            user=whole(line["user_prompt"]),
            temperature=FASTCHAT_TEMPERATURE,
            max_tokens=FASTCHAT_MAX_TOKENS,
            prompt=prompt.version,
        )
        text = whole(str(line["judgment"]))
        failure = f"FastChat could not reach the judge ({FASTCHAT_ERROR})" if text.strip() == FASTCHAT_ERROR else None
        return str(judge), request, Judgment(text="" if failure else text, model=str(judge), failure=failure)
    except (KeyError, TypeError, ValueError, OSError) as error:
        known = ", ".join(_fastchat_names())
        raise ConfigError(f"{where}: no judgment under one of FastChat's prompts {known}; drop the line") from error


def _judged_item(line: dict[str, Any]) -> tuple[str, ...] | None:
    """Which answer a line of FastChat's judges, under which prompt; None where the line does not say."""
    if "judgment" not in line or not {"question_id", "turn", "model"} <= line.keys():
        return None
    return tuple(str(line[name]) for name in ("judge", "question_id", "turn", "model"))


def _line_numbers(path: Path) -> list[int]:
    """The numbers of the lines that hold something, as an editor counts them."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [number for number, line in enumerate(lines, start=1) if line.strip()]


def _fastchat_names() -> Iterable[str]:
    return (name.removeprefix("fastchat-") for name in PROMPTS if name.startswith("fastchat-"))
