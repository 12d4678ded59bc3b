"""From settings to policies that answer: the server is asked first whether it serves those names."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedllm_data.did_you_mean import alike
from fedllm_data.errors import ConfigError, JudgeError, ServedModelError
from fedllm_eval.judging.api_key import api_key
from fedllm_eval.judging.endpoint import Endpoint, NotThere
from fedllm_eval.judging.reply import Passing, read_answer
from fedllm_eval.judging.spend import Spend
from fedllm_eval.served.served_policy import ServedPolicy
from fedllm_eval.served.served_settings import ServedSettings

__all__ = ["Served", "connect", "make_endpoint"]

ROLE = "served model"
FACTS = ("root", "parent", "owned_by", "max_model_len")
"""What servers say of a model in their lists; `created` is the time of asking with some."""
MAX_LISTED = 12


@dataclass(frozen=True)
class Served:
    """The policy and, where it was named, its base."""

    policy: ServedPolicy
    base: ServedPolicy | None = None

    def get(self, label: str) -> ServedPolicy:
        """Return who answers under a label of the evaluation, `policy` or `base`.

        Raises:
            ConfigError: if the base was not named.
        """
        if label == "policy":
            return self.policy
        if self.base is None:
            raise ConfigError(
                "the base is to answer as well, and no name was given for it; give the name that the server has for "
                "it by --served base_model=NAME"
            )
        return self.base


def connect(settings: ServedSettings) -> Served:
    """Return the served policies once the server has said that it has them.

    Raises:
        ConfigError: if a setting cannot be honoured, or the server lists other names.
        ServedModelError: if the server cannot be reached or refuses the key.
    """
    spend = Spend(
        settings.max_calls,
        settings.max_tokens,
        settings.max_cost,
        settings.prompt_price,
        settings.completion_price,
        role=ROLE,
    )
    endpoint = make_endpoint(settings, settings.model, spend)
    listed = _listed(endpoint) if settings.check else None
    policy = _policy(settings, endpoint, listed)
    if settings.base_model is None:
        return Served(policy)
    return Served(policy, _policy(settings, make_endpoint(settings, settings.base_model, spend), listed))


def make_endpoint(settings: ServedSettings, model: str, spend: Spend) -> Endpoint:
    """Return the endpoint that is asked for a model.

    Raises:
        ConfigError: if a setting cannot be honoured.
    """
    return Endpoint(
        settings.url,
        model,
        api_key=api_key(settings.api_key_env, ROLE),
        max_parallel=settings.max_parallel,
        timeout_seconds=settings.timeout_seconds,
        max_attempts=settings.max_attempts,
        backoff_seconds=settings.backoff_seconds,
        body=dict(settings.body),
        spend=spend,
        role=ROLE,
        read=read_answer,
    )


def _policy(
    settings: ServedSettings, endpoint: Endpoint, listed: Mapping[str, Mapping[str, Any]] | None
) -> ServedPolicy:
    facts: dict[str, Any] = {}
    if listed is not None:
        if endpoint.model not in listed:
            raise ConfigError(_not_served(endpoint, list(listed)))
        entry = listed[endpoint.model]
        facts = {name: entry[name] for name in FACTS if isinstance(entry.get(name), str | int)}
    base = None
    if endpoint.model == settings.model:
        base = settings.base_model or facts.get("parent")
    return ServedPolicy(
        endpoint,
        facts,
        base=base,
        revision=settings.revision,
        system=settings.system,
        stop=tuple(settings.stop),
        keep_going=settings.failed == "empty",
    )


def _listed(endpoint: Endpoint) -> dict[str, Mapping[str, Any]] | None:
    """Model name -> what the server says of it; None where it keeps no list."""
    for attempt in range(endpoint.max_attempts):
        try:
            return _read_list(endpoint.send("models"))
        except NotThere:
            return None
        except JudgeError as error:
            raise ServedModelError(str(error)) from error
        except Passing as error:
            failure = str(error)
            if attempt + 1 < endpoint.max_attempts:
                time.sleep(max(endpoint.backoff_seconds * 2**attempt, error.retry_after or 0.0))
    raise ServedModelError(
        f"the server at {endpoint.address} does not say which models it serves: {failure}; check the url and that it "
        "runs, or do not ask for the list by --served check=false"
    )


def _read_list(reply: bytes) -> dict[str, Mapping[str, Any]] | None:
    try:
        entries = json.loads(reply)["data"]
        return {entry["id"]: entry for entry in entries if isinstance(entry["id"], str)}
    except (ValueError, KeyError, TypeError):
        return None


def _not_served(endpoint: Endpoint, names: Sequence[str]) -> str:
    near = alike(endpoint.model, names)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    shown = ", ".join(names[:MAX_LISTED]) or "none"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return (
        f"the server at {endpoint.address} lists no model {endpoint.model!r}{hint}; it "
        f"serves {shown}{more}; give one of these names, or --served check=false where it loads models that it does "
        "not list"
    )
