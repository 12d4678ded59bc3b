"""A policy that answers from a server: conversations in, answers out, each asked for once.

What a server gives are answers. It draws tokens from random numbers of its own, so an answer at a temperature above 0
is not the one that `policy/generation.py` would draw, and it may change with what else the server works on. It gives
no log-probabilities of given texts here: losses and rewards are read from weights, where these are.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedllm_data.errors import ConfigError, JudgeError, ServedModelError
from fedllm_data.wording.catalogue import plural_words, words
from fedllm_eval.judging.endpoint import Endpoint
from fedllm_eval.judging.request import AnswerRequest, Judgment
from fedllm_eval.policy.generation import Answer, Conversation, Progress, conversation_key

__all__ = ["ServedPolicy"]


@dataclass
class ServedPolicy:
    """A model or an adapter behind an endpoint, by its name there."""

    endpoint: Endpoint
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the server says of it: `root`, `parent`, `owned_by`, as far as it does."""
    base: str | None = None
    """The base's name, as the server or the user tells it."""
    revision: str | None = None
    """In the user's words."""
    system: str | None = None
    """System message of conversations that have none."""
    stop: tuple[str, ...] = ()
    keep_going: bool = False
    """Whether a conversation that is not answered counts as an empty answer, rather than ending the run."""
    _failures: Counter[str] = field(default_factory=Counter, repr=False)
    _named: Counter[str] = field(default_factory=Counter, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """Its name at the endpoint."""
        return self.endpoint.model

    def describe(self) -> dict[str, Any]:
        """Return what a results file says of it: no address and no key, and no digest, for nobody saw its weights."""
        return {
            "name": self.name,
            "revision": self.revision,
            "base": self.base,
            "base_revision": None,
            "base_digest": None,
            "adapter_sha256": None,
            "served": {**self.facts, "system": self.system, "stop": list(self.stop), "body": dict(self.endpoint.body)},
        }

    def identity(self) -> dict[str, Any]:
        """Return what settles its answers, as far as anybody can tell: its names, its revision and how it is asked.

        The base's name and how much the server can hold do not: answers that were paid for stay good.
        """
        weights = {name: self.facts.get(name) for name in ("root", "parent")}
        asked = {"system": self.system, "stop": list(self.stop), "body": dict(self.endpoint.body)}
        return {"served": self.name, "revision": self.revision, **weights, **asked}

    def answer(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Progress | None = None,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Return one answer for each conversation; arguments are those of `policy.generation.generate`.

        `on_answer` is called as soon as an answer is there, one call at a time, so that what was paid for is kept. An
        answer has 0 tokens where the server does not count them.

        Raises:
            ConfigError: if a setting makes no sense or a conversation is empty; before anything is asked.
            ServedModelError: if the server cannot be asked any further, or left a conversation without an answer.
        """
        if max_new_tokens < 1 or not temperature >= 0 or not 0 < top_p <= 1:
            raise ConfigError(
                f"max_new_tokens {max_new_tokens}, temperature {temperature}, top_p {top_p}: at least 1; 0 or more; "
                "above 0 and at most 1"
            )
        keys = [conversation_key(conversation, index) for index, conversation in enumerate(conversations)]
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        asked = sorted(first.values())
        more: dict[str, Any] = {"stop": list(self.stop)} if self.stop else {}
        if temperature > 0:
            more |= {"top_p": top_p, "seed": seed}
        requests = [
            AnswerRequest(
                conversation=self._with_system(conversations[at]),
                temperature=temperature,
                max_tokens=max_new_tokens,
                more=more,
            )
            for at in asked
        ]
        times = Counter(keys)
        answers: dict[str, Answer] = {}
        failures: dict[int, str] = {}
        num_done = 0

        def finish(at: int, judgment: Judgment) -> None:
            nonlocal num_done
            position = asked[at]
            with self._lock:
                num_done += times[keys[position]]
                if judgment.failure is None:
                    self._named[judgment.model] += 1
                    answer = Answer(judgment.text.strip(), judgment.completion_tokens or 0, not judgment.cut)
                    answers[keys[position]] = answer
                    if on_answer is not None:
                        on_answer(position, answer)
                else:
                    failures[position] = judgment.failure
                    self._failures[judgment.failure] += 1
                if progress is not None:
                    progress(num_done, len(keys))

        try:
            self.endpoint.ask(requests, finish)
        except JudgeError as error:
            raise ServedModelError(
                f"{error}. {len(answers)} of {len(asked)} answers are there and kept; mend the cause and run again to "
                "go on"
            ) from error
        if failures and not self.keep_going:
            position, reason = min(failures.items())
            raise ServedModelError(
                f"served model {self.name!r} left {len(failures)} of {len(asked)} conversations without an answer "
                f"(conversation {position}: {reason}); the other answers are kept: run again to go on, or count these "
                "as empty answers by --served failed=empty"
            )
        return [answers.get(key, Answer("", 0, False)) for key in keys]

    def take_notes(self) -> tuple[str, ...]:
        """Return what a reader of a result must know, one sentence each without a full stop, and forget it."""
        named = sorted(name for name in self._named if name != self.name)
        notes = [
            words(
                "answered by {name} on a server: its weights are what the server says they are, and sampled answers"
                " follow its random numbers",
                name=repr(self.name),
            )
        ]
        if named:
            notes.append(words("the server calls it {names} in its answers", names=", ".join(named)))
        if self._failures:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in self._failures.most_common())
            notes.append(
                plural_words(
                    "{num} conversation was not answered and counts as empty: {reasons}",
                    "{num} conversations were not answered and count as empty: {reasons}",
                    self._failures.total(),
                    reasons=reasons,
                )
            )
        self._failures.clear()
        self._named.clear()
        return tuple(notes)

    def _with_system(self, conversation: Conversation) -> tuple[Mapping[str, str], ...]:
        if self.system is None or conversation[0]["role"] == "system":
            return tuple(conversation)
        return ({"role": "system", "content": self.system}, *conversation)
