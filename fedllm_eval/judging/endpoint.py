"""A judge or a served policy behind any OpenAI-compatible endpoint, asked side by side and patiently.

What is sent is `POST {url}/chat/completions`.
Standard library only. A call that fails in passing (no connection, too slow, 408, 409, 425, 429, 5xx, a body that is
no completion) is repeated with exponential back-off; `Retry-After` is honoured, by all calls at once. One that is
refused for what it says (other 4xx) fails alone. The run stops where going on makes no sense: the key is refused, the
address is wrong, the spend is used up, or one request after another fails for good. Redirects are not followed: the
API key would travel along.
"""

import json
import logging
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging.api_key import without_key
from fedllm_eval.judging.reply import Passing, error_codes, is_moderated, read_completion, retry_after
from fedllm_eval.judging.request import ChatRequest, Finish, Judgment
from fedllm_eval.judging.spend import Spend, Usage

__all__ = ["Endpoint", "NotThere"]

logger = logging.getLogger(__name__)

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
HOPELESS = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 407})
OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated")
"""Codes under which endpoints answer 429 or 400, as to a limit of speed or one bad request, to an account that will
not be served again."""
TIMED_OUT = frozenset({408, 504, 524})
"""A gateway gave up waiting; what stands behind it may have answered, and bills that."""
MAX_BODY_BYTES = 8 << 20
MAX_IN_A_ROW = 3
"""Requests that fail for good one after another before the run stops."""


_LIMITS = ("max_tokens", "max_completion_tokens")
"""Fields that limit an answer's length; where both are set, some endpoints follow the newer one, some the older."""
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
"""What an address or a key consists of: no space, line break or letter beyond ASCII."""


@dataclass
class Endpoint:
    """An endpoint and how it is asked."""

    url: str
    """Up to and including the version, such as `https://host/v1`."""
    model: str
    api_key: str | None = field(default=None, repr=False)
    max_parallel: int = 4
    timeout_seconds: float = 180.0
    """For one call as a whole, not for one packet of it."""
    max_attempts: int = 6
    backoff_seconds: float = 1.0
    """Before the second attempt; doubles with each, times a random number in [0.5, 1]."""
    max_wait_seconds: float = 300.0
    """Longest wait between attempts; an endpoint that asks for more counts as failing."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Added to every request body; None takes a field away (`{"max_tokens": None, "max_completion_tokens": 4096}`)."""
    spend: Spend = field(default_factory=Spend)
    role: str = "judge"
    """Who is asked, for errors."""
    read: Callable[[bytes, str], tuple[Judgment, Usage | None]] = read_completion
    """Reads what comes back, given the model's name."""
    record_file: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        try:
            parts = urllib.parse.urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is no number
            is_address = False
        if not is_address or not _PRINTABLE.fullmatch(self.url):
            raise ConfigError(f"{self.role} url {self.url!r} is no http address; give one such as https://host/v1")
        if parts.username or parts.password:
            raise ConfigError(
                f"the {self.role}'s url holds a password; give the key by an environment variable instead"
            )
        if min(self.max_parallel, self.max_attempts) < 1 or min(self.timeout_seconds, self.max_wait_seconds) <= 0:
            raise ConfigError(
                f"{self.role}: max_parallel {self.max_parallel}, max_attempts {self.max_attempts}, timeout_seconds "
                f"{self.timeout_seconds}, max_wait_seconds {self.max_wait_seconds}: all must be positive"
            )
        if self.api_key is not None and not _PRINTABLE.fullmatch(self.api_key):
            raise ConfigError(
                f"the {self.role}'s key holds a line break, a space or a letter that no key has; set it again"
            )
        if self.body.get("stream") or "messages" in self.body:
            raise ConfigError(
                f"{self.role}: the body sets stream or messages, but answers are read whole and the suite asks; "
                "leave both out"
            )
        self._limits, self._choices = self._completion_limits()
        self._parts = parts._replace(path=parts.path.rstrip("/").removesuffix("/chat/completions"), fragment="")
        # A query may hold a key, so it is sent and never shown.
        self.address = urllib.parse.urlunsplit(self._parts._replace(path=self._path("chat/completions"), query=""))
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if parts.hostname in ("localhost", "127.0.0.1", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._not_before = 0.0
        self._num_answered = 0
        self._in_a_row = 0
        self.num_retries = 0

    def _completion_limits(self) -> tuple[list[str], int]:
        """Names of the fields that limit an answer's length, and answers asked for at once."""
        fields = {"max_tokens": 0, **self.body}
        set_ones = [name for name in _LIMITS if fields.get(name) is not None]
        choices = fields.get("n")
        choices = 1 if choices is None else choices
        for name, value in [("n", choices), *((name, fields[name]) for name in set_ones if name in self.body)]:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{self.role}: the body's {name} is {value!r}; it must be a whole number above 0")
        if not set_ones and (self.spend.max_tokens is not None or self.spend.max_cost is not None):
            raise ConfigError(
                f"{self.role}: the body takes every limit of an answer's length away, so no limit of tokens or cost "
                "can be kept; set max_tokens or max_completion_tokens in it"
            )
        return set_ones, choices

    def identity(self) -> str:
        """Return name and body: the same model at another address judges alike."""
        return json.dumps([self.model, dict(self.body)], sort_keys=True)

    def describe(self) -> dict[str, Any]:
        """Return kind, model and extra body fields; where it stands says nothing about its judgments."""
        return {"kind": "endpoint", "model": self.model, "body": dict(self.body)}

    def usage(self) -> dict[str, Any]:
        """Return calls, tokens, cost and calls repeated."""
        return {**self.spend.describe(), "retries": self.num_retries}

    def ask(self, requests: Sequence[ChatRequest], finish: Finish) -> None:
        """Ask every request, `max_parallel` of them at a time.

        Raises:
            JudgeError: if going on makes no sense; calls under way are waited for and kept.
        """
        self._stop.clear()
        self._in_a_row = 0
        pool = ThreadPoolExecutor(self.max_parallel, thread_name_prefix="judge")
        try:
            futures = [pool.submit(self._judge, at, request, finish) for at, request in enumerate(requests)]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            # After an error or Ctrl-C nothing new begins, but what is under way is paid for and is kept.
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _judge(self, at: int, request: ChatRequest, finish: Finish) -> None:
        if self._stop.is_set():
            return
        try:
            judgment, refused = self._attempts(request)
        except JudgeError:
            self._stop.set()
            raise
        if judgment is None:  # stopped while it waited
            return
        finish(at, judgment)
        with self._lock:
            if judgment.failure is None:
                self._num_answered, self._in_a_row = self._num_answered + 1, 0
            elif not (refused and self._num_answered):
                # An endpoint that answers others is not broken because it refuses what is too long for it.
                self._in_a_row += 1
            hopeless = self._in_a_row >= MAX_IN_A_ROW
        if hopeless:
            self._stop.set()
            raise JudgeError(
                f"{self.role} {self.model!r} at {self.address} failed {MAX_IN_A_ROW} times in a row, last: "
                f"{judgment.failure}"
            )

    def _attempts(self, request: ChatRequest) -> tuple[Judgment | None, bool]:
        """Return the judgment, None if the run was stopped meanwhile; and whether it was refused."""
        failure = ""
        for attempt in range(self.max_attempts):
            if not self._wait_turn():
                return None, False
            if (reserved := self._reserve(request)) is None:
                return None, False
            try:
                judgment, used = self._call(request)
            except Passing as error:
                self.spend.settle(reserved, Usage() if error.unpaid else reserved)
                failure = str(error)
                delay = self.backoff_seconds * 2**attempt * random.uniform(0.5, 1.0)
                delay = max(delay, error.retry_after or 0.0)
                if delay > self.max_wait_seconds:
                    failure += f"; it asks to wait {delay:.0f} s"
                    break
                if attempt + 1 < self.max_attempts:
                    logger.info("judge: %s; asked again in %.1f s", failure, delay)
                    self.put_off(delay, all_calls=error.retry_after is not None)
            except _Refused as error:
                self.spend.settle(reserved, Usage())
                return Judgment(failure=str(error)), True
            except JudgeError:  # refused as a whole: nothing was made and nothing is billed
                self.spend.settle(reserved, Usage())
                raise
            except BaseException:
                self.spend.settle(reserved, reserved)
                raise
            else:
                self.spend.settle(reserved, used or reserved)
                return judgment, judgment.failure is not None
        return Judgment(failure=failure), False

    def _wait_turn(self) -> bool:
        """Wait until no call has been asked to wait; False if the run was stopped meanwhile."""
        while not self._stop.is_set():
            with self._lock:
                delay = self._not_before - time.monotonic()
            if delay <= 0:
                return True
            self._stop.wait(delay)
        return False

    def _reserve(self, request: ChatRequest) -> Usage | None:
        """Set aside what a call may use; None if the run was stopped while the first call taught how much that is."""
        fields = {"max_tokens": request.max_tokens, **self.body}
        # Where nothing limits an answer's length, there is no limit of spend to keep either.
        completion_tokens = max((fields[name] for name in self._limits), default=request.max_tokens)
        while not self._stop.is_set():
            reserved = self.spend.reserve(request, completion_tokens * self._choices)
            if reserved is not None:
                return reserved
            self._stop.wait(0.01)
        return None

    def put_off(self, delay: float, *, all_calls: bool) -> None:
        """Wait before a request is repeated; `all_calls` lets the others wait as well."""
        with self._lock:
            self.num_retries += 1
            if all_calls:
                self._not_before = max(self._not_before, time.monotonic() + delay)
        self._stop.wait(delay)

    def _call(self, request: ChatRequest) -> tuple[Judgment, Usage | None]:
        """Send one chat completion."""
        body = {
            "model": self.model,
            "messages": request.messages(),
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            **request.fields(),
            **self.body,
        }
        data = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        return self.read(self.send("chat/completions", data), self.model)

    def send(self, path: str, data: bytes | None = None) -> bytes:
        """Return what the endpoint answers to one HTTP request, sent once: GET, or POST where there are data.

        Raises:
            JudgeError: if going on makes no sense, such as for a key that is refused.
            Passing: if it failed in passing.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "fedllm-eval"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        url = urllib.parse.urlunsplit(self._parts._replace(path=self._path(path)))
        request = urllib.request.Request(url, data, headers, method="GET" if data is None else "POST")
        try:
            with self._opener.open(request, timeout=self.timeout_seconds) as response:
                return _read(response, time.monotonic() + self.timeout_seconds)
        except urllib.error.HTTPError as error:
            with error:
                raise self._error(error) from None
        except urllib.error.URLError as error:  # the request never left: no connection, no such host
            raise Passing(f"no answer ({type(error).__name__}: {error})", unpaid=True) from error
        except (OSError, HTTPException) as error:
            raise Passing(f"no answer ({type(error).__name__}: {error})") from error

    def _path(self, path: str) -> str:
        return f"{self._parts.path}/{path}"

    def _error(self, error: urllib.error.HTTPError) -> Exception:
        try:
            said = " ".join(_read(error, time.monotonic() + 10).decode("utf-8", "replace").split())
        except (OSError, HTTPException, Passing):
            said = ""
        # Some endpoints say a refused key, or a part of it, back.
        said = without_key(said, self.api_key)
        message = f"HTTP {error.code}" + (f": {said[:200]}" if said else "")
        where = f"{self.role} {self.model!r} at {self.address}"
        # Proxies wrap the code of a 429 in a text; a 400 may quote the request, so there only the code itself counts.
        words = [said] if error.code in PASSING else error_codes(said)
        if any(code in word for word in words for code in OUT_OF_MONEY):
            return JudgeError(
                f"{self.role} {self.model!r} at {self.address} gives {message}; mend the account, then go on"
            )
        if error.code in HOPELESS and not (error.code == 403 and is_moderated(said)):
            kind = NotThere if error.code in (404, 405) else JudgeError
            return kind(f"{where} gives {message}; check address, model name and key")
        if error.code in PASSING or error.code >= 500:
            return Passing(message, retry_after(error.headers.get("Retry-After")), unpaid=error.code not in TIMED_OUT)
        return _Refused(message)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class NotThere(JudgeError):
    """The endpoint has nothing at this path."""


class _Refused(Exception):
    """A request that will be refused however often it is sent."""


def _read(response: Any, deadline: float) -> bytes:
    """Read a body that may come in drops or never end."""
    parts: list[bytes] = []
    while part := response.read1(65_536):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer came too slowly")
        if sum(map(len, parts)) > MAX_BODY_BYTES:
            raise Passing(f"an answer of more than {MAX_BODY_BYTES} bytes")
    left = getattr(response, "length", None)
    if left:
        raise Passing(f"an answer that breaks off {left} bytes before its end")
    return b"".join(parts)
