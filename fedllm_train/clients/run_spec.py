"""What a client's machine must know of a run, and nothing else: from it, and from its own rows, a host is made.

Everything in it is resolved: the steps of a visit, the method and its settings, TRL's and PEFT's configs, where the
base model is and which bits it has. A machine with another base, tokenizer, chat template, starting adapter or other
packages would train something else, so the digests and versions are compared before it trains (`check_same`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, adapter_sha256
from fedllm_train.clients.local_work import LocalWork
from fedllm_train.clients.objectives import ClientArgs
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.models.policy import PolicySource, StartingPolicy
from fedllm_train.models.tokenizer import tokenizer_record
from fedllm_train.privacy.row_privacy import RowPrivacy
from fedllm_train.run_files.open_run import package_versions
from fedllm_train.strategies import strategy_class
from fedllm_train.strategy import Federation

__all__ = ["RunSpec", "check_same", "most_steps", "policy_digests"]


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A run, for a client's machine."""

    strategy: str
    federation: Federation
    """What the method's client rule may know of the federation; it names no client but through their ranks."""
    seed: int
    """The run seed."""
    wire: WireSettings
    client_args: ClientArgs
    """TRL's settings."""
    work: LocalWork
    loss_on: str
    """SFT's loss on the assistant's tokens, or on all."""
    reference_cache: bool
    """Whether what the reference says of a client's rows is kept."""
    kernel: str
    """How the loss is computed: `trl` or `plain`."""
    policy: PolicySource = field(repr=False)
    """What a host loads: base model, PEFT's settings, starting adapter, seed."""
    template_date: str | None
    """The day that the chat template takes for today, where it asks."""
    digests: Mapping[str, str | None]
    """From `policy_digests`."""
    rows: RowPrivacy | None = None
    """How visits are private to rows; None where they are not."""
    versions: Mapping[str, str] = field(default_factory=package_versions)


def policy_digests(policy: StartingPolicy, start_adapter: Adapter) -> dict[str, str | None]:
    """Return the digests of what a run starts from; the base's is None if it was made in memory.

    Args:
        policy: base model, adapter and tokenizer.
        start_adapter: the adapter's tensors, or those of the whole model where all its weights are trained.
    """
    tokenizer = tokenizer_record(policy.tokenizer)
    return {
        "base model": policy.base_weights,
        "tokenizer": tokenizer["sha256"],
        "chat template": tokenizer["chat_template_sha256"],
        "starting adapter": adapter_sha256(start_adapter),
    }


def most_steps(spec: RunSpec) -> int | None:
    """Return the optimizer steps that one visit takes at most; None where they follow from a client's rows.

    Args:
        spec: the run's spec.

    Returns:
        The method's own passes and its training after the last round included.
    """
    if spec.work.rule != "steps":
        return None
    strategy = strategy_class(spec.strategy)(spec.federation)
    in_a_round = spec.work.num_steps(1) * getattr(strategy, "fits_per_visit", 1)
    return max(in_a_round, getattr(spec.federation.settings, "personal_steps", 0))


def check_same(spec: RunSpec, digests: Mapping[str, str | None]) -> None:
    """Refuse a machine that would train something other than the run's other machines.

    Args:
        spec: the run's spec.
        digests: what this machine has, from `policy_digests`.

    Raises:
        ConfigError: naming what differs.
    """
    ours, theirs = {**digests, **package_versions()}, {**spec.digests, **spec.versions}
    for name in sorted(theirs):
        if ours.get(name) != theirs[name]:
            raise ConfigError(
                f"this machine's {name} is {ours.get(name)} and the run's is {theirs[name]}, so it would train "
                "something else; bring the run's own here"
            )
