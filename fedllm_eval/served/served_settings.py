"""Where a policy is served, under which name, and how it is asked: plain settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError

__all__ = ["ServedSettings"]


@dataclass(frozen=True, kw_only=True)
class ServedSettings:
    """An endpoint and the names that it serves the policy and its base under."""

    url: str
    """An OpenAI-compatible endpoint, up to its version: `http://host:8000/v1`."""
    model: str
    """The policy's name there, such as that of an adapter given to vLLM by `--lora-modules`."""
    base_model: str | None = None
    """The base's name there; needed where the base answers as well."""
    revision: str | None = None
    """Which weights stand behind the name, in the user's words; answers under another revision are asked for again."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key; None sends none."""
    system: str | None = None
    """System message of conversations that have none."""
    stop: Sequence[str] = ()
    """Texts that end an answer, beside the model's own end of turn."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request body; a field that is None is left out of it."""
    check: bool = True
    """Whether the names must be among those that the server lists."""
    failed: Literal["stop", "empty"] = "stop"
    """What becomes of a conversation that the endpoint refuses or fails to answer: the run stops once all others are
    answered, or it counts as an empty answer and a note says so."""
    max_parallel: int = 8
    """Conversations under way at once."""
    timeout_seconds: float = 600.0
    """For one call."""
    max_attempts: int = 6
    """For one conversation, with back-off between them."""
    backoff_seconds: float = 1.0
    """Before the second attempt; doubles with each."""
    max_calls: int | None = None
    max_tokens: int | None = None
    """Limit on the tokens of all calls, prompts and answers."""
    max_cost: float | None = None
    """Limit on the cost of all calls; needs prices."""
    prompt_price: float = 0.0
    """For a million prompt tokens."""
    completion_price: float = 0.0
    """For a million tokens of answers."""

    def __post_init__(self) -> None:
        """Check what can be checked without asking the endpoint."""
        for name in ("url", "model"):
            if not isinstance(value := getattr(self, name), str) or not value.strip():
                raise ConfigError(f"served: {name} is {value!r}; give a text such as {_EXAMPLES[name]}")
        if self.failed not in ("stop", "empty"):
            raise ConfigError(f"served: failed is {self.failed!r}; it is stop or empty")
        if self.base_model == self.model:
            raise ConfigError(
                f"served: model and base_model are both {self.model!r}; an adapter is served under a name of its own"
            )
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if not isinstance(self.body, Mapping):
            raise ConfigError(f'served: body is {self.body!r}; it is a JSON object such as {{"top_k": 20}}')

    @classmethod
    def from_texts(cls, given: Mapping[str, Any]) -> "ServedSettings":
        """Return settings from names and values, as `--served` gives them.

        Raises:
            ConfigError: if there is no setting of some name, or url or model is missing.

        >>> ServedSettings.from_texts({"url": "http://127.0.0.1:8000/v1", "model": "tuned"}).model
        'tuned'
        """
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"a served model has no setting {name!r}; {did_you_mean(name, known)}its settings are "
                    f"{', '.join(known)}"
                )
        for name, example in _EXAMPLES.items():
            if name not in given:
                raise ConfigError(f"a served model needs {name}; give it by --served {name}={example}")
        # A name made of digits was read as a number.
        texts = {name: str(given[name]) for name in ("model", "base_model", "revision") if given.get(name) is not None}
        return cls(**{**given, **texts})


_EXAMPLES = {"url": "http://host:8000/v1", "model": "NAME"}
