"""Answers of a policy, whoever writes them: the model in memory, or a server that is asked for it."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedllm_eval.policy import generation
from fedllm_eval.policy.generation import Answer, Conversation
from fedllm_eval.served.served_policy import ServedPolicy

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["answer_identity", "write_answers"]


def write_answers(
    policy: "Policy | ServedPolicy", conversations: Sequence[Conversation], *, batch_size: int = 8, **settings: Any
) -> list[Answer]:
    """Return one answer for each conversation.

    Args:
        policy: who answers.
        conversations: as `generate` takes them.
        batch_size: conversations side by side in memory; an endpoint has its own `max_parallel`.
        settings: further ones of `generate` and `ServedPolicy.answer`.

    Raises:
        ConfigError: if a setting makes no sense.
        MetricError: if the model gives values that are not finite.
        ServedModelError: if the server cannot be asked any further, or left a conversation without an answer.
    """
    if isinstance(policy, ServedPolicy):
        return policy.answer(conversations, **settings)
    return generation.generate(policy, conversations, batch_size=batch_size, **settings)


def answer_identity(policy: "Policy | ServedPolicy") -> str:
    """Return a text that tells a policy's answers from those of others."""
    about = policy.identity() if isinstance(policy, ServedPolicy) else policy.describe()
    return json.dumps(about, sort_keys=True)
