"""What an endpoint answered, read: a chat completion, the codes of an error, how long it asks to wait.

Endpoints that call themselves compatible differ in what they leave out: counts of tokens, texts, reasons. Standard
library only.
"""

import email.utils
import json
import time
from dataclasses import replace
from typing import Any

from fedllm_eval.judging.request import Judgment
from fedllm_eval.judging.spend import Usage
from fedllm_eval.texts import whole

__all__ = ["Passing", "error_codes", "is_moderated", "read_answer", "read_completion", "retry_after"]


class Passing(Exception):
    """A failure that may pass."""

    def __init__(self, message: str, retry_after: float | None = None, *, unpaid: bool = False) -> None:
        """Say what failed, how long the endpoint asks to wait, and whether nothing can have been billed."""
        super().__init__(message)
        self.retry_after, self.unpaid = retry_after, unpaid


def read_completion(reply: bytes, model: str) -> tuple[Judgment, Usage | None]:
    """Read a judge's chat completion."""
    judgment, used, refusal = _read(reply, model)
    failure = judgment.failure
    if failure is None and not judgment.text and refusal:
        failure = f"the judge refused to answer: {' '.join(refusal.split())[:200]}"
    elif failure is None and judgment.cut and not judgment.text.strip():
        failure = "the limit of tokens was spent before the first word, by thinking say; raise judge_max_tokens"
    return replace(judgment, failure=failure), used


def read_answer(reply: bytes, model: str) -> tuple[Judgment, Usage | None]:
    """Read a served policy's chat completion; to refuse is to answer, and so is to think until the limit."""
    judgment, used, refusal = _read(reply, model)
    return replace(judgment, text=judgment.text or refusal), used


def _read(reply: bytes, model: str) -> tuple[Judgment, Usage | None, str]:
    """The completion with its usage and the words of a refusal, which some endpoints give a place of their own."""
    try:
        value = json.loads(reply)
        choice = value["choices"][0]
        content = choice["message"].get("content")
        if isinstance(content, list):  # some servers give parts
            content = "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)
        if content is not None and not isinstance(content, str):
            raise TypeError
        prompt_tokens, completion_tokens = _token_counts(value.get("usage"), bool(content))
        name = value.get("model")
        reason = choice.get("finish_reason")
        refusal = choice["message"].get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        start = " ".join(reply[:80].decode("utf-8", "replace").split())
        raise Passing(f"an answer that is no chat completion: {start!r}") from None
    if reason == "error":
        raise Passing("an answer that the endpoint broke off by an error")
    filtered = "the endpoint's content filter took the answer, or the end of it, away"
    judgment = Judgment(
        text=whole(content or ""),
        model=whole(name) if isinstance(name, str) and name else model,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cut=reason == "length",
        failure=filtered if reason == "content_filter" else None,
    )
    used = None if prompt_tokens is None or completion_tokens is None else Usage(prompt_tokens, completion_tokens)
    return judgment, used, whole(refusal) if isinstance(refusal, str) else ""


def _token_counts(usage: Any, has_text: bool) -> tuple[int | None, int | None]:
    """Tokens of prompt and completion as an endpoint tells them, None where it does not.

    Some endpoints count a model's thinking in `total_tokens` alone, and some tell zeros for what was not counted.

    >>> _token_counts({"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 400}, True)
    (30, 370)
    >>> _token_counts({"prompt_tokens": 0, "completion_tokens": 0}, True), _token_counts(None, True)
    ((None, None), (None, None))
    """
    told = usage if isinstance(usage, dict) else {}
    prompt, completion, total = (
        count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
        for count in (told.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    )
    if completion == 0 and has_text:
        completion = None
    if prompt and completion is not None and total is not None:
        completion = max(completion, total - prompt)
    return prompt or None, completion


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header asks for: a number or an HTTP date.

    >>> retry_after("2.5"), retry_after("soon"), retry_after("Thu, 01 Jan 1970 00:00:00 GMT")
    (2.5, None, 0.0)
    """
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def error_codes(said: str) -> list[str]:
    """Return code and type of an error in the body of an answer.

    >>> error_codes('{"error": {"message": "no", "type": "a", "code": null}}'), error_codes("<html>")
    (['a'], [])
    """
    try:
        error = json.loads(said)["error"]
        return [value for name in ("code", "type") if isinstance(value := error.get(name), str)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def is_moderated(said: str) -> bool:
    """Return whether the body of an error says that a moderator took offence at this one request (OpenRouter's 403).

    >>> is_moderated('{"error": {"code": 403, "metadata": {"reasons": ["violence"]}}}'), is_moderated("<html>")
    (True, False)
    """
    try:
        return bool(json.loads(said)["error"]["metadata"]["reasons"])
    except (ValueError, KeyError, TypeError):
        return False
