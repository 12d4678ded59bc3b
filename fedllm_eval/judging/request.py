"""What is put to a judge or a served policy and what comes back, and the key under which a judgment is kept."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedllm_eval.texts import text_bytes

__all__ = [
    "AnswerRequest",
    "Backend",
    "ChatRequest",
    "Finish",
    "JudgeRequest",
    "Judgment",
    "judgment_from",
    "judgment_line",
]

FORMAT = "fedllm-judgment/1"


class ChatRequest(Protocol):
    """What an endpoint needs to know of a request."""

    @property
    def temperature(self) -> float:
        """At which it is answered."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens that its answer has at most."""
        ...

    def messages(self) -> list[dict[str, str]]:
        """Return the messages of a chat completion."""
        ...

    def fields(self) -> dict[str, Any]:
        """Return further fields of the request's body."""
        ...


@dataclass(frozen=True, kw_only=True)
class AnswerRequest:
    """A conversation that a served policy is to go on with."""

    conversation: tuple[Mapping[str, str], ...]
    temperature: float
    max_tokens: int
    more: Mapping[str, Any]
    """Further fields of the body, such as `top_p` and `seed`."""

    def messages(self) -> list[dict[str, str]]:
        """Return the messages of a chat completion."""
        return [dict(message) for message in self.conversation]

    def fields(self) -> dict[str, Any]:
        """Return further fields of the request's body."""
        return dict(self.more)


@dataclass(frozen=True, kw_only=True)
class JudgeRequest:
    """One question to a judge."""

    system: str
    user: str
    temperature: float = 0.0
    max_tokens: int = 2048
    prompt: str = ""
    """Name and digest of the prompt that it was made from; tells readers, is not part of the key."""

    @property
    def key(self) -> str:
        """SHA-256 of everything that can change the answer, except the judge itself.

        >>> request = JudgeRequest(system="s", user="u")
        >>> request.key == JudgeRequest(system="s", user="u", prompt="other").key
        True
        >>> request.key == JudgeRequest(system="s", user="u", temperature=0.2).key
        False
        """
        content = [self.system, self.user, float(self.temperature), self.max_tokens]
        return hashlib.sha256(text_bytes(json.dumps(content, ensure_ascii=False))).hexdigest()

    def messages(self) -> list[dict[str, str]]:
        """Return the messages of a chat completion; no system message where it is empty."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]

    def fields(self) -> dict[str, Any]:
        """Return no further fields."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """A judge's words, or why there are none."""

    text: str = ""
    model: str = ""
    """As the judge names itself, which may be more exact than the name it was asked under."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cut: bool = False
    """Whether the limit of tokens ended it."""
    failure: str | None = None
    """Why no judgment came; such a one is asked for again by the next run."""


Finish = Callable[[int, Judgment], None]
"""Called with (position of the request, its judgment), once each, from any thread; it is then kept."""


class Backend(Protocol):
    """What judges: an endpoint, a model in memory, a record."""

    model: str
    """Its name."""
    record_file: Path | None
    """The file that its judgments are read from, which are in no need of a cache; None where it judges itself."""

    def identity(self) -> str:
        """Return a name that tells its judgments from those of other judges in a shared cache."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what a results file says of it; no secrets."""
        ...

    def usage(self) -> dict[str, Any]:
        """Return what its judgments have cost so far, as far as it counts that: calls, tokens, money."""
        ...

    def ask(self, requests: Sequence[JudgeRequest], finish: Finish) -> None:
        """Ask every request once and call `finish` for each as soon as its judgment is there.

        Raises:
            JudgeError: if it makes no sense to go on; what `finish` was given stays.
        """
        ...


def judgment_line(request: JudgeRequest, judgment: Judgment, judge: str) -> dict[str, Any]:
    """Return a judgment as a record or a cache keeps it, with the request that it answers."""
    return {
        "format": FORMAT,
        "key": request.key,
        "judge": judge,
        "model": judgment.model,
        "prompt": request.prompt,
        "system": request.system,
        "user": request.user,
        "temperature": float(request.temperature),
        "max_tokens": request.max_tokens,
        "text": judgment.text,
        "prompt_tokens": judgment.prompt_tokens,
        "completion_tokens": judgment.completion_tokens,
        "cut": judgment.cut,
    }


def judgment_from(line: Mapping[str, Any]) -> tuple[JudgeRequest, Judgment] | None:
    """Read what `judgment_line` wrote; None where it is something else or was damaged."""
    try:
        if line["format"] != FORMAT or not isinstance(line["text"], str):
            return None
        request = JudgeRequest(
            system=line["system"],
            user=line["user"],
            temperature=float(line["temperature"]),
            max_tokens=int(line["max_tokens"]),
            prompt=line["prompt"],
        )
        judgment = Judgment(
            text=line["text"],
            model=line["model"],
            prompt_tokens=line["prompt_tokens"],
            completion_tokens=line["completion_tokens"],
            cut=bool(line["cut"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return (request, judgment) if line["key"] == request.key else None
