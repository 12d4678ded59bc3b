"""Judges: any OpenAI-compatible endpoint, a model in memory or a record, asked once for each thing and never twice.

`make_judge` makes one from plain settings; suites take it as `SuiteOptions.judge`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.errors import ConfigError
from fedllm_eval.judging.endpoint import Endpoint
from fedllm_eval.judging.judge import Judge
from fedllm_eval.judging.local import LocalModel
from fedllm_eval.judging.recorded import Recorded
from fedllm_eval.judging.request import Backend, JudgeRequest, Judgment
from fedllm_eval.judging.spend import Spend

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = [
    "Backend",
    "Endpoint",
    "Judge",
    "JudgeRequest",
    "Judgment",
    "LocalModel",
    "Recorded",
    "Spend",
    "make_judge",
]


def make_judge(
    *,
    url: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    recorded: str | Path | None = None,
    answered_by: str | None = None,
    local: "str | Path | Policy | None" = None,
    cache: str | Path | None = None,
    record: str | Path | None = None,
    max_parallel: int = 4,
    timeout_seconds: float = 180.0,
    max_attempts: int = 6,
    body: Mapping[str, Any] | None = None,
    max_calls: int | None = None,
    max_tokens: int | None = None,
    max_cost: float | None = None,
    prompt_price: float = 0.0,
    completion_price: float = 0.0,
    batch_size: int = 8,
) -> Judge:
    """Make a judge from exactly one of an endpoint, a record and a local model.

    Args:
        url: of an OpenAI-compatible endpoint, up to its version: `https://host/v1`.
        model: the endpoint's model; of a record, whose judgments to take where it holds several judges'.
        api_key_env: environment variable that holds the endpoint's key; None sends none.
        recorded: a JSONL file of judgments, written by `record` or by FastChat.
        answered_by: in FastChat's files, whose answers were judged.
        local: a model, adapter or run (folder or Hub id), or a policy in memory.
        cache: folder of finished judgments; None keeps them in the folder of each suite.
        record: JSONL file that gathers the judgments used, for `recorded` later.
        max_parallel: endpoint calls under way at once.
        timeout_seconds: for one call.
        max_attempts: for one request, with back-off between them.
        body: more fields of the request body; None takes one away.
        max_calls: limit on calls.
        max_tokens: limit on tokens, prompts and completions of all calls.
        max_cost: limit on cost; needs prices.
        prompt_price: of a million prompt tokens.
        completion_price: of a million completion tokens.
        batch_size: of a local model.

    Raises:
        ConfigError: if none or several kinds are asked for, or a setting cannot be honoured.

    >>> make_judge(url="http://127.0.0.1:8000/v1", model="judge", max_calls=100).describe()["kind"]
    'endpoint'
    """
    kinds = {"url": url, "recorded": recorded, "local": local}
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(f"a judge is one of url, recorded and local, got {' and '.join(given) or 'none'}; give one")
    backend: Backend
    if url is not None:
        if model is None:
            raise ConfigError(f"the judge at {url} needs a model name; give model")
        spend = Spend(max_calls, max_tokens, max_cost, prompt_price, completion_price)
        backend = Endpoint(
            url,
            model,
            api_key=_api_key(api_key_env),
            max_parallel=max_parallel,
            timeout_seconds=timeout_seconds,
            max_attempts=max_attempts,
            body=dict(body or {}),
            spend=spend,
        )
    elif recorded is not None:
        backend = Recorded(recorded, model=model, answered_by=answered_by)
    else:
        backend = LocalModel(_load(local), batch_size=batch_size)
    return Judge(backend, _path(cache), _path(record))


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the judge's key was to be in environment variable {variable}, which is empty; set it")
    return key


def _load(local: "str | Path | Policy | None") -> "Policy":
    from fedllm_eval.policy.policies import Policy, load_policy

    assert local is not None
    return local if isinstance(local, Policy) else load_policy(local)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
