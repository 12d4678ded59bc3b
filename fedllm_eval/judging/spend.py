"""What a judge or a served policy may cost: calls, tokens and money, reserved before a call and settled after it.

A call reserves the most that it can use: the limit of its answer's length, times the answers asked for, and for the
prompt its length in bytes, because no tokenizer in use makes more tokens than bytes. A server's chat template may put
a system prompt of its own before it, which only the usage of an answer tells: under a limit of tokens or cost the
first call therefore goes alone, and what it used above its length in bytes is added to every later reserve. So a limit
is not passed, however many calls run side by side, but where the first call alone passes it; near the limit a run
stops a little early. A limit holds for one judge object: a run resumed by
another command starts counting from zero, but pays for nothing twice.
"""

import math
import threading
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging.request import ChatRequest
from fedllm_eval.texts import text_bytes

__all__ = ["Spend", "Usage"]

MILLION = 1_000_000
MESSAGE_TOKENS = 16
"""What chat formats add to a request beside its text; generous."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one or more calls."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Spend:
    """Limits, and how much of them was used; None is no limit."""

    max_calls: int | None = None
    """HTTP requests sent, repeated ones included."""
    max_tokens: int | None = None
    """Prompt and completion together."""
    max_cost: float | None = None
    """In the currency of the prices."""
    prompt_price: float = 0.0
    """For a million prompt tokens."""
    completion_price: float = 0.0
    """For a million completion tokens."""
    role: str = "judge"
    """Who is asked, for errors."""
    calls: int = 0
    used: Usage = field(default_factory=Usage)
    _overhead: int | None = field(default=None, repr=False)
    """Prompt tokens of a call above its length in bytes, the most that was seen; None before the first answer."""
    _reserved: Usage = field(default_factory=Usage, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        """Check the limits."""
        for name in ("max_calls", "max_tokens", "max_cost", "prompt_price", "completion_price"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"{self.role}: {name} is {value}; it must be 0 or more")
        if self.max_cost is not None and not (self.prompt_price > 0 or self.completion_price > 0):
            raise ConfigError(
                f"{self.role}: max_cost {self.max_cost} needs prices; give prompt_price and completion_price, each "
                "for a million tokens"
            )

    @property
    def _is_limited(self) -> bool:
        return self.max_tokens is not None or self.max_cost is not None

    @property
    def cost(self) -> float:
        """What was spent, in the currency of the prices."""
        return self._cost(self.used)

    def reserve(self, request: ChatRequest, completion_tokens: int | None = None) -> Usage | None:
        """Set aside the most that a call can use.

        Args:
            request: what is asked.
            completion_tokens: the most that comes back, where it is not the request's `max_tokens`.

        Returns:
            The reserve; None if it is not known yet, since the first call under a limit is still under way.

        Raises:
            JudgeError: if a limit does not allow it.

        >>> from fedllm_eval.judging.request import JudgeRequest
        >>> spend = Spend(max_calls=1)
        >>> _ = spend.reserve(JudgeRequest(system="", user="hi", max_tokens=10))
        >>> spend.reserve(JudgeRequest(system="", user="hi", max_tokens=10))
        Traceback (most recent call last):
        fedllm_data.errors.JudgeError: the judge's limit of 1 calls is reached
        """
        most_back = request.max_tokens if completion_tokens is None else completion_tokens
        with self._lock:
            if self._overhead is None and _total(self._reserved) and self._is_limited:
                return None
            overhead = MESSAGE_TOKENS if self._overhead is None else self._overhead
            num_bytes = sum(len(text_bytes(message["content"])) for message in request.messages())
            num_more = max(0, len(request.messages()) - 2)
            most = Usage(num_bytes + overhead + MESSAGE_TOKENS * num_more, most_back)
            if self.max_calls is not None and self.calls >= self.max_calls:
                raise JudgeError(f"the {self.role}'s limit of {self.max_calls} calls is reached")
            after = _sum(self.used, self._reserved, most)
            tokens = after.prompt_tokens + after.completion_tokens
            if self.max_tokens is not None and tokens > self.max_tokens:
                raise JudgeError(
                    f"the {self.role}'s limit of {self.max_tokens} tokens does not allow another call: "
                    f"{_total(self.used)} are used, {_total(self._reserved)} reserved by calls under way, and the "
                    f"next may take {_total(most)}"
                )
            if self.max_cost is not None and self._cost(after) > self.max_cost:
                raise JudgeError(
                    f"the {self.role}'s limit of {self.max_cost:g} does not allow another call: {self.cost:.4g} is "
                    f"spent and the next call may take {self._cost(most):.4g}"
                )
            self.calls += 1
            self._reserved = _sum(self._reserved, most)
        return most

    def settle(self, reserved: Usage, used: Usage) -> None:
        """Replace what a call had reserved by what it used; the reserve itself where nobody can tell."""
        with self._lock:
            if used.prompt_tokens:
                above = used.prompt_tokens - reserved.prompt_tokens
                self._overhead = max(self._overhead or 0, MESSAGE_TOKENS, (self._overhead or MESSAGE_TOKENS) + above)
            self._reserved = Usage(
                self._reserved.prompt_tokens - reserved.prompt_tokens,
                self._reserved.completion_tokens - reserved.completion_tokens,
            )
            self.used = _sum(self.used, used)

    def describe(self) -> dict[str, float | int | None]:
        """Return what was used, for a results file."""
        return {
            "calls": self.calls,
            "prompt_tokens": self.used.prompt_tokens,
            "completion_tokens": self.used.completion_tokens,
            "cost": self.cost if self.prompt_price or self.completion_price else None,
        }

    def _cost(self, usage: Usage) -> float:
        price = usage.prompt_tokens * self.prompt_price + usage.completion_tokens * self.completion_price
        return price / MILLION


def _sum(*parts: Usage) -> Usage:
    return Usage(sum(part.prompt_tokens for part in parts), sum(part.completion_tokens for part in parts))


def _total(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens
