"""What training changed in a policy: abilities of the base on the same items, and the distance from the base.

Abilities are items of a suite that was run on both policies, paired by `item_id`. The distance is KL(policy ||
reference) estimated on answers that the policy samples at temperature 1, scored token by token under both; beside it
stands how much worse the policy became on texts that neither wrote (`scoring/forgetting.py` says why that is no KL).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.scoring.forgetting import Forgetting, SequenceKL, forgetting, loss_increase, sequence_kl
from fedllm_eval.scoring.intervals import Interval

if TYPE_CHECKING:
    from fedllm_eval.policy.generation import Conversation, Progress
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.suites import SuiteResult

__all__ = ["kl_to_reference", "suite_change", "text_loss_increase"]


def suite_change(before: "SuiteResult", after: "SuiteResult", *, higher_is_better: bool = True) -> Forgetting:
    """Return how the item scores of a suite changed from one policy to another.

    Args:
        before: the base's result.
        after: the trained policy's result.
        higher_is_better: whether a higher item score is better.

    Returns:
        The change over items that have a score under both; negative where ability was lost.

    Raises:
        MetricError: if suites or versions differ, or no item has a score under both.
    """
    if (before.suite, before.version) != (after.suite, after.version):
        raise MetricError(
            f"{before.suite} {before.version} against {after.suite} {after.version}: scores of different suites or "
            "versions are not compared; run both policies with one version"
        )
    earlier, later = _scored(before), _scored(after)
    both = [item for item in earlier if item in later]
    if not both:
        raise MetricError(f"{before.suite}: no item has a score under both policies; run both on the same items")
    return forgetting(
        [earlier[item] for item in both], [later[item] for item in both], higher_is_better=higher_is_better
    )


def kl_to_reference(
    policy: "Policy",
    reference: "Policy",
    conversations: Sequence["Conversation"],
    *,
    max_new_tokens: int = 128,
    seed: int = 0,
    batch_size: int = 8,
    estimator: Literal["k1", "k3"] = "k1",
    progress: "Progress | None" = None,
) -> SequenceKL:
    """Estimate KL(policy || reference) over the first tokens of answers.

    Args:
        policy: who writes the answers, sampled at temperature 1 over the whole vocabulary.
        reference: who they are scored against; it reads with the same tokenizer.
        conversations: what is answered; equal ones are sampled once.
        max_new_tokens: only this many first tokens of an answer count.
        seed: seeds sampling.
        batch_size: conversations side by side.
        estimator: as in `scoring.forgetting.sequence_kl`.
        progress: called while answers are sampled.

    Returns:
        Nats per answer of at most `max_new_tokens` tokens, and per token.

    Raises:
        ConfigError: if the vocabularies differ, or a setting makes no sense.
        MetricError: if there is no conversation, or a model gives values that are not finite.
    """
    from fedllm_eval.policy.generation import generate
    from fedllm_eval.policy.models import sequence_logps

    if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ConfigError(
            f"reference {reference.name!r} has another vocabulary than policy {policy.name!r}; name a reference on "
            "the same base model"
        )
    sampled: dict[int, tuple[list[int], list[int]]] = {}

    def keep(position: int, prompt_ids: list[int], answer_ids: list[int]) -> None:
        sampled[position] = (prompt_ids + answer_ids, [0] * len(prompt_ids) + [1] * len(answer_ids))

    generate(
        policy,
        conversations,
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        on_tokens=keep,
    )
    sequences = [sampled[position] for position in sorted(sampled)]
    with policy.active() as model:
        own_N, num_tokens_N = sequence_logps(model, sequences, batch_size)
    with reference.active() as model:
        other_N, _ = sequence_logps(model, sequences, batch_size)
    return sequence_kl(own_N, other_N, num_tokens_N, estimator=estimator)


def text_loss_increase(
    policy: "Policy",
    reference: "Policy",
    rows: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 8,
    max_length: int | None = None,
) -> Interval:
    """Return how many nats per token the policy is worse than the reference on held-out conversations.

    Args:
        policy: the trained policy.
        reference: such as its base.
        rows: rows of the `sft` format that neither was trained on, such as general text for forgetting.
        batch_size: sequences a batch holds at most.
        max_length: tokens a conversation keeps; by default what the model holds, at most 1,024.

    Returns:
        Difference of losses per answer token with its interval over rows: positive where the policy is worse.

    Raises:
        ConfigError: if the length is not usable.
        MetricError: if no row keeps an answer token.
    """
    from fedllm_eval.policy.models import message_losses, usable_length

    rows = list(rows)
    options: dict[str, Any] = {"batch_size": batch_size, "max_length": usable_length(policy.model, max_length)}
    with policy.active() as model:
        own = message_losses(model, policy.tokenizer, rows, **options)
    with reference.active() as model:
        other = message_losses(model, policy.tokenizer, rows, **options)
    kept_N = np.flatnonzero(own.num_tokens_N > 0)
    return loss_increase(-own.nll_sum_N[kept_N], -other.nll_sum_N[kept_N], own.num_tokens_N[kept_N])


def _scored(result: "SuiteResult") -> dict[str, float]:
    pairs = zip(result.items["item_id"].to_pylist(), result.items["score"].to_pylist(), strict=True)
    return {item: score for item, score in pairs if score is not None and np.isfinite(score)}
