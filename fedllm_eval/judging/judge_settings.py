"""Which judge is asked, and how: plain settings, and the judge that they make."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.judging.api_key import api_key
from fedllm_eval.judging.endpoint import Endpoint
from fedllm_eval.judging.judge import Judge
from fedllm_eval.judging.local_judge import LocalModel
from fedllm_eval.judging.recorded import Recorded
from fedllm_eval.judging.request import Backend
from fedllm_eval.judging.spend import Spend

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["JudgeSettings", "make_judge"]


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """A judge: exactly one of an endpoint (`url`), a record (`recorded`) and a local model (`local`)."""

    url: str | None = None
    """An OpenAI-compatible endpoint, up to its version: `https://host/v1`."""
    model: str | None = None
    """The endpoint's model. For a record that holds the judgments of several judges: whose to take."""
    api_key_env: str | None = None
    """Environment variable that holds the endpoint's key; None sends none."""
    recorded: str | Path | None = None
    """JSONL file of judgments, written through `record` or by FastChat."""
    answered_by: str | None = None
    """In FastChat's files: whose answers were judged."""
    local: "str | Path | Policy | None" = None
    """A model, adapter or run (folder or Hub id), or a policy in memory."""
    cache: str | Path | None = None
    """Folder of finished judgments; None keeps them in the folder of each suite."""
    record: str | Path | None = None
    """JSONL file that gathers the judgments used, for `recorded` later."""
    max_parallel: int = 4
    """Endpoint calls under way at once."""
    timeout_seconds: float = 180.0
    """For one call."""
    max_attempts: int = 6
    """For one request, with back-off between them."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request body; a field that is None is left out of it."""
    max_calls: int | None = None
    max_tokens: int | None = None
    """Limit on the tokens of all calls, prompts and completions."""
    max_cost: float | None = None
    """Limit on the cost of all calls; needs prices."""
    prompt_price: float = 0.0
    """For a million prompt tokens."""
    completion_price: float = 0.0
    """For a million completion tokens."""
    batch_size: int = 8
    """Judgments that a local model writes side by side."""

    @classmethod
    def from_texts(cls, given: Mapping[str, Any]) -> "JudgeSettings":
        """Return settings from names and values, as `--judge` gives them.

        Raises:
            ConfigError: if a judge has no setting of some name.

        >>> JudgeSettings.from_texts({"recorded": "said.jsonl"}).recorded
        'said.jsonl'
        """
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"a judge has no setting {name!r}; {did_you_mean(name, known)}its settings are {', '.join(known)}"
                )
        return cls(**given)


def make_judge(settings: JudgeSettings) -> Judge:
    """Make a judge.

    Raises:
        ConfigError: if none or several kinds of judge are asked for, or a setting cannot be honoured.

    >>> settings = JudgeSettings(url="http://127.0.0.1:8000/v1", model="judge", max_calls=100)
    >>> make_judge(settings).describe()["kind"]
    'endpoint'
    """
    given = [name for name in ("url", "recorded", "local") if getattr(settings, name) is not None]
    if len(given) != 1:
        raise ConfigError(f"a judge is one of url, recorded and local, got {' and '.join(given) or 'none'}; give one")
    backend: Backend
    if settings.url is not None:
        backend = _endpoint(settings.url, settings)
    elif settings.recorded is not None:
        backend = Recorded(settings.recorded, model=settings.model, answered_by=settings.answered_by)
    else:
        backend = LocalModel(_load(settings.local), batch_size=settings.batch_size)
    return Judge(backend, _path(settings.cache), _path(settings.record))


def _endpoint(url: str, settings: JudgeSettings) -> Endpoint:
    if settings.model is None:
        raise ConfigError(f"the judge at {url} needs a model name; give model")
    spend = Spend(
        settings.max_calls,
        settings.max_tokens,
        settings.max_cost,
        settings.prompt_price,
        settings.completion_price,
    )
    return Endpoint(
        url,
        settings.model,
        api_key=api_key(settings.api_key_env, "judge"),
        max_parallel=settings.max_parallel,
        timeout_seconds=settings.timeout_seconds,
        max_attempts=settings.max_attempts,
        body=dict(settings.body or {}),
        spend=spend,
    )


def _load(local: "str | Path | Policy | None") -> "Policy":
    from fedllm_eval.policy.policies import Policy, load_policy

    assert local is not None
    return local if isinstance(local, Policy) else load_policy(local)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
