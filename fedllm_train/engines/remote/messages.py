"""What a server asks of a worker and what a worker answers: every field with its type and range, unknown ones refused.

One request, one answer, each a frame (`frames.py`). Long work is a *job*: a request hands jobs over and waits a while,
`collect` asks again for what was not ready, so that a pipe that carries one message at a time can also carry a `stop`.
A job is known by what it asks (`job_key`), so that one which is sent again costs no work. Bodies of jobs and results
lie one behind the other in the frame's body, `lengths` says where each ends.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedllm_data.errors import FedLLMError
from fedllm_train.engines.engine import NO_STEP

__all__ = [
    "BEGIN_FIRST",
    "PROTOCOL",
    "Answer",
    "Begin",
    "Collect",
    "Done",
    "Failed",
    "Hello",
    "Job",
    "MessageError",
    "PrivacyFacts",
    "ProfileJob",
    "Ready",
    "Refused",
    "Request",
    "Result",
    "ScoreJob",
    "SiteFacts",
    "SplitFacts",
    "Stop",
    "Stopped",
    "VisitJob",
    "Waiting",
    "Work",
    "cut_body",
    "job_key",
    "one_line",
    "read_answer",
    "read_request",
]

PROTOCOL = 1
"""Version of this file; two ends with different ones do not talk."""

BEGIN_FIRST = "begin first"
"""Why a worker waits that does not know of the run: it was started again, or was at work for another."""

_MAX_STEPS = 1 << 31


class MessageError(FedLLMError):
    """A header is no message of the protocol."""


def _without_surrogates(text: str) -> str:
    text.encode()
    return text


def _one_line(text: str) -> str:
    text.encode()
    return " ".join(text.split())


def _named(text: str) -> str:
    text.encode()
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise ValueError("it holds control characters")
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(_one_line)]
"""One line for a person."""
Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_named)]
RunKey = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
"""It becomes the name of a folder at the worker, so it is nothing but hexadecimal digits."""
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Index = Annotated[int, Field(ge=0, lt=_MAX_STEPS)]
StepOrNone = Annotated[int, Field(ge=NO_STEP, lt=_MAX_STEPS)]
Length = Annotated[int, Field(ge=0, lt=1 << 31)]
Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
"""A whole number that every table can hold."""
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def header(self) -> dict[str, Any]:
        """Return the message as a frame's header."""
        return self.model_dump(mode="json")


class Hello(_Message):
    """Who is there, and what may be known of its clients?"""

    kind: Literal["hello"] = "hello"
    protocol: int = PROTOCOL


class PrivacyFacts(_Message):
    """What a run guarantees its clients, or their rows."""

    unit: Literal["client", "example"] = "client"
    """What epsilon is of."""
    epsilon: float = Field(ge=0)
    client_epsilon: float | None = Field(default=None, ge=0)
    """With unit example: of the client with all of its rows."""
    delta: float = Field(gt=0, lt=1)
    dp_clip: float = Field(gt=0)
    noise_multiplier: float = Field(ge=0)


class Begin(_Message):
    """Get ready for a run; asked again until the worker is ready. Body: the starting adapter's tensors, if any."""

    kind: Literal["begin"] = "begin"
    run: RunKey
    spec: dict[str, Any]
    """From `spec_text.py`."""
    adapter: dict[str, Any] | None = None
    """PEFT's config of the starting adapter; None for a fresh one."""
    clients: list[Name]
    """Those of the worker's clients that the run may ask."""
    data: Name | None = None
    """Digest of the worker's training rows, as it told it: a run does not go on with other rows."""
    num_rounds: Index
    max_steps: Index | None = None
    """Optimizer steps that a visit takes at most, where they do not follow from a client's rows."""
    privacy: PrivacyFacts | None = None
    secure_sum: bool = False
    """Whether the server sees no single update."""
    num_threads: int = Field(ge=1, le=1024)
    """Of torch on the server; a matrix product may be rounded differently on another number."""
    lease_seconds: float = Field(gt=0, le=86_400)
    """A run that is asked nothing for so long is stopped."""
    wait_seconds: Seconds = 0.0


class VisitJob(_Message):
    """A `Task` without its message, which lies in the body."""

    job: Literal["visit"] = "visit"
    step: Index
    client_id: Name
    purpose: Literal["train", "personal"] = "train"
    seed: int = Field(ge=0, lt=1 << 64)
    learning_rate: float = Field(ge=0)
    kept_step: StepOrNone = NO_STEP
    oldest_step: StepOrNone = NO_STEP
    num_steps: Index | None = None


class ScoreJob(_Message):
    """Score the global adapter on held-out rows of some of the worker's clients. Body: the server's state."""

    job: Literal["score"] = "score"
    step: Index
    split: Literal["train", "test", "unseen"]
    clients: list[Name] = Field(min_length=1)
    max_rows_per_client: int | None = Field(default=None, ge=1)
    seed: int = Field(ge=0, lt=1 << 64)


class ProfileJob(_Message):
    """Make the profiles of the worker's clients, as `fedllm-data profile` does. Body: the codebook, if any."""

    job: Literal["profile"] = "profile"
    split: Literal["train", "test", "unseen"] = "train"


Job = Annotated[VisitJob | ScoreJob | ProfileJob, Field(discriminator="job")]


class Work(_Message):
    """Do some jobs. Body: their bodies, one that several jobs have once."""

    kind: Literal["work"] = "work"
    run: RunKey
    jobs: list[Job] = Field(min_length=1)
    lengths: list[Length]
    """Of each body."""
    body_of: list[Index]
    """Which of them each job has."""
    wait_seconds: Seconds = 0.0


class Collect(_Message):
    """Return what is ready of jobs that were handed over before."""

    kind: Literal["collect"] = "collect"
    run: RunKey
    keys: list[Key]
    wait_seconds: Seconds = 0.0


class Stop(_Message):
    """End what is under way for a run within one optimizer step."""

    kind: Literal["stop"] = "stop"
    run: RunKey
    is_finished: bool = False
    """Whether the run will ask nothing more, so that nothing needs to be kept for it."""


class SplitFacts(_Message):
    """What may be known of a split's clients without their rows."""

    task: Literal["sft", "preference"]
    digest: Name | None
    """Of the data, so that a run does not go on with other rows."""
    rows: dict[Name, Annotated[int, Field(ge=1, lt=_MAX_STEPS)]]
    """Rows of each client."""


Cell = Annotated[str, Field(max_length=500), AfterValidator(_without_surrogates)] | bool | Whole | float | None


class SiteFacts(_Message):
    """Answer to `hello`."""

    kind: Literal["site"] = "site"
    protocol: int
    versions: dict[Name, Text]
    splits: dict[Literal["train", "test", "unseen"], SplitFacts]
    table: dict[Name, list[Cell]] = {}
    """The columns of the clients table that the site lets go, one value for each client of `ids`."""
    ids: list[Name] = []
    policy: dict[Name, Cell] = {}
    """What of the site's policy a server should know before it asks."""


class Ready(_Message):
    """Answer to `begin`: the run can start."""

    kind: Literal["ready"] = "ready"
    digests: dict[Name, Text | None]


class Waiting(_Message):
    """Answer to `begin`: not yet; ask again."""

    kind: Literal["waiting"] = "waiting"
    reason: Text
    needs_approval: bool = False
    """Whether it is people who have not let the run begin."""


Fact = Annotated[str, Field(max_length=500), AfterValidator(_without_surrogates)] | bool | Whole | float | None


class Result(_Message):
    """What became of a job; its message or file lies in the body."""

    key: Key
    reason: Text | None = None
    """Why there is none; None where there is one."""
    has_body: bool = False
    num_rows: Index = 0
    facts: dict[Annotated[str, Field(min_length=1, max_length=200)], Fact] = Field(default={}, max_length=500)
    scores: dict[Name, list[Cell]] | None = None
    """Columns of the per-client table of a `ScoreJob`."""
    num_withheld: Index = 0
    """Clients with fewer rows than the site's minimum, whose scores are not told."""


class Done(_Message):
    """Answer to `work` and `collect`. Body: the bodies of the results."""

    kind: Literal["done"] = "done"
    results: list[Result]
    lengths: list[Length]
    pending: list[Key] = []
    """Under way."""
    unknown: list[Key] = []
    """Asked for, and not here: hand the jobs over again."""


class Stopped(_Message):
    """Answer to `stop`."""

    kind: Literal["stopped"] = "stopped"


class Refused(_Message):
    """The site's policy or this version does not do what was asked; asking again does not help."""

    kind: Literal["refused"] = "refused"
    reason: Text


class Failed(_Message):
    """It was tried and did not work."""

    kind: Literal["failed"] = "failed"
    reason: Text


Request = Hello | Begin | Work | Collect | Stop
Answer = SiteFacts | Ready | Waiting | Done | Stopped | Refused | Failed
_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])


def read_request(header: Mapping[str, Any]) -> Request:
    """Return the request that a header is.

    Raises:
        MessageError: naming the first field that is wrong.

    >>> read_request({"kind": "hello", "protocol": 1})
    Hello(kind='hello', protocol=1)
    >>> read_request({"kind": "hello", "protocol": "1"})
    Traceback (most recent call last):
    fedllm_train.engines.remote.messages.MessageError: hello.protocol: Input should be a valid integer
    """
    return _read(_REQUEST, header)


def read_answer(header: Mapping[str, Any]) -> Answer:
    """Return the answer that a header is.

    Raises:
        MessageError: naming the first field that is wrong.
    """
    return _read(_ANSWER, header)


def _read(adapter: TypeAdapter[Any], header: Mapping[str, Any]) -> Any:
    try:
        return adapter.validate_python(dict(header))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:60] for part in first["loc"])
        raise MessageError(f"{place or 'the header'}: {first['msg']}"[:500]) from None


def job_key(run: str, job: VisitJob | ScoreJob | ProfileJob, body: bytes | memoryview) -> str:
    """Return by what a job is known at both ends: the SHA-256 of everything that it asks."""
    text = json.dumps([run, job.header()], sort_keys=True)
    return sha256(text.encode() + b"\0" + sha256(body).digest()).hexdigest()


def cut_body(body: bytes | bytearray, lengths: Sequence[int]) -> list[memoryview]:
    """Return the pieces of a frame's body, without copying them.

    Raises:
        MessageError: if the lengths do not add up to the body's.

    >>> [bytes(piece) for piece in cut_body(b"abcde", [2, 0, 3])]
    [b'ab', b'', b'cde']
    """
    if sum(lengths) != len(body):
        raise MessageError(f"lengths add up to {sum(lengths):,} and the body has {len(body):,} bytes")
    view, start, pieces = memoryview(body), 0, []
    for length in lengths:
        pieces.append(view[start : start + length])
        start += length
    return pieces


def one_line(reason: object) -> str:
    r"""Return a reason as one short line that names no path.

    >>> one_line(ValueError("cannot open /home/ann/rows.parquet\nbecause"))
    'cannot open rows.parquet because'
    """
    text = " ".join(str(reason).split())
    return re.sub(r"(?:[A-Za-z]:\\|/)(?:[^\s'\",;:]+[/\\])+", "", text)[:1000]
