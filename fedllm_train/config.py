"""The settings of a federation: what TRL has no word for.

Everything about a client's own training stays in TRL's `SFTConfig`, `DPOConfig` or `KTOConfig`, everything about the
adapter in PEFT's `LoraConfig`. Settings live with what they set; here they are joined, under flat names, with the few
that have no owner and with those of the chosen method, which are `FederatedConfig.method`. Imports no torch: the
command's `--help` and its refusals are made from this file.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.aggregation.robust_settings import RobustSettings
from fedllm_train.attacks.attack_settings import AttackSettings
from fedllm_train.clients.local_work import LocalWorkSettings
from fedllm_train.field_types import plain_value
from fedllm_train.given import records_given
from fedllm_train.messages.wire_settings import WireSettings, check_former
from fedllm_train.monitoring.evaluation_settings import EvaluationSettings
from fedllm_train.participation.participation_settings import ParticipationSettings
from fedllm_train.privacy.privacy_settings import PrivacySettings
from fedllm_train.privacy.secure_sum.sum_settings import SecureSumSettings
from fedllm_train.settings import Settings, check_at_least_one
from fedllm_train.strategies import STRATEGIES, settings_class, strategy_name, users_of

__all__ = ["FederatedConfig", "RunInput", "check_name"]


@dataclass(frozen=True, kw_only=True)
class FederatedConfig(
    EvaluationSettings,
    WireSettings,
    PrivacySettings,
    SecureSumSettings,
    RobustSettings,
    AttackSettings,
    LocalWorkSettings,
    ParticipationSettings,
):
    """Settings of the federation: how many rounds, who takes part, how the server learns.

    The settings of the chosen method are given beside the others, by their own names:

    >>> FederatedConfig(output_dir="run", strategy="fedprox", prox_mu=0.1).method.prox_mu
    0.1
    """

    output_dir: str = field(metadata={"help": "The run folder; must not hold another run unless resuming."})
    strategy: str = field(
        default="fedavg",
        metadata={"help": "The algorithm; fedllm-train methods lists them. module:Class names one of your own."},
    )
    method: Any = field(
        default=None, metadata={"help": "The settings of the method; its fields are flags themselves."}
    )
    num_rounds: int = field(default=100, metadata={"help": "Server steps."})
    seed: int = field(default=0, metadata={"help": "Run seed, from which every random stream derives."})
    min_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate that the cosine over rounds falls to; a twentieth of learning_rate if not given, "
            "as in FedLLM-Bench."
        },
    )
    reference_cache: bool = field(
        default=True,
        metadata={
            "help": "DPO, and KTO with apo_zero_unpaired: compute the reference's log-probabilities once a client, "
            "not in every step."
        },
    )
    sft_kernel: Literal["trl", "plain", "auto"] = field(
        default="trl",
        metadata={
            "help": "How SFT's loss is computed: trl (its chunked kernel), plain (the model's own forward; the same "
            "loss up to rounding, faster on CPUs) or auto (plain on CPUs)."
        },
    )
    preference_kernel: Literal["trl", "plain", "auto"] = field(
        default="trl",
        metadata={
            "help": "The same for the log-probabilities of DPO and KTO, where the plain way leaves out the prompts' "
            "logits."
        },
    )
    loss_on: Literal["assistant", "all"] = field(
        default="assistant",
        metadata={"help": "SFT loss on the assistant's tokens only, or on all that the chat template writes."},
    )
    full_finetuning: bool = field(
        default=False, metadata={"help": "Train and send all weights of the model, without an adapter."}
    )
    keep_checkpoints: int = field(default=2, metadata={"help": "Newest checkpoints kept in the run folder."})
    keep_every: int | None = field(
        default=None, metadata={"help": "Also keep the checkpoint of every n-th round, for good."}
    )
    num_processes: int = field(
        default=1, metadata={"help": "Processes that train clients side by side, each with a model of its own."}
    )
    report_to: str = field(
        default="none",
        metadata={"help": "Tracker that gets the rounds as one run: trackio, wandb or tensorboard."},
    )
    preset: str | None = field(
        default=None, metadata={"help": "Begin from a published set-up; fedllm-train presets lists them."}
    )

    def check(self) -> None:
        """Refuse values that make no sense, before anything is loaded."""
        if not self.output_dir:
            raise ConfigError("output_dir is not given; name the run folder")
        check_at_least_one(self, "num_rounds", "keep_checkpoints", "keep_every", "num_processes")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must not be negative")
        if self.min_learning_rate is not None and self.min_learning_rate < 0:
            raise ConfigError(f"min_learning_rate is {self.min_learning_rate}; it must not be negative")
        if self.loss_on not in ("assistant", "all"):
            raise ConfigError(f"loss_on is {self.loss_on!r}; it must be assistant or all")
        if self.eval_every is not None and self.eval_every > self.num_rounds:
            raise ConfigError(
                f"eval_every is {self.eval_every} and the run has {self.num_rounds} rounds, so nothing would be "
                "scored; choose fewer"
            )
        self.check_beside(
            cohort_rule=self.cohort_rule,
            min_clients=self.min_clients,
            chooses_by_scores=self.chooses_by_scores,
            is_sampled=self.participation == "synchronous" and not self.secure_sum_skellam,
        )

    def get(self, name: str) -> Any:
        """Return a setting that not every method has; None where the chosen one has not."""
        return getattr(self.method, name, None)

    def __getattr__(self, name: str) -> Any:
        """Return a setting of the method; called for names that are no field."""
        if name.startswith("_") or name == "method" or self.method is None:
            raise AttributeError(name)
        return getattr(self.method, name)


def check_name(name: str, strategy: str) -> None:
    """Refuse a setting that is none, or that belongs to other methods.

    Args:
        name: of the setting.
        strategy: of the chosen method.

    Raises:
        ConfigError: naming the methods that have it, or the names that are like it.
    """
    check_former(name, name)
    own = [each.name for each in fields(FederatedConfig)]
    of_method = [each.name for each in fields(settings_class(strategy))]
    if name in (*own, *of_method):
        return
    if users := users_of(name):
        named = " or ".join(users[:4]) + (f" or {len(users) - 4} others" if len(users) > 4 else "")
        raise ConfigError(
            f"{name} is given but strategy {strategy!r} does not use it; use strategy {named}, or leave it out"
        )
    every = {each.name for method in STRATEGIES for each in fields(settings_class(method))} | {*own}
    hint = did_you_mean(name, sorted(every - {"method"})).rstrip()
    raise ConfigError(f"FederatedConfig has no {name}; {hint or 'leave it out'}")


def _with_method(named: dict[str, Any]) -> dict[str, Any]:
    """Take the settings of the chosen method together."""
    own = {each.name for each in fields(FederatedConfig)}
    chosen = named.get("strategy", "fedavg")
    strategy = strategy_name(chosen) if isinstance(chosen, type) else plain_value("strategy", chosen, str)
    flat = {name: value for name, value in named.items() if name not in own}
    known = {each.name for each in fields(settings_class(strategy))}
    if twice := sorted(known & own):
        raise ConfigError(f"strategy {strategy!r} has a setting {twice[0]}, as every run has; give it another name")
    for name, value in [*flat.items()]:
        if value is None and name not in known and users_of(name):
            del flat[name]  # None stands for a setting that is left out
        else:
            check_name(name, strategy)
    kind, given = settings_class(strategy), named.get("method")
    if isinstance(given, Settings) and type(given) is not kind:  # a copy with another method
        changed = {each.name: value for each in fields(given) if (value := getattr(given, each.name)) != each.default}
        for name in changed.keys() - flat.keys():
            check_name(name, strategy)
        flat, given = changed | flat, None
    if given is None:
        method = kind(**flat)
    elif type(given) is kind:
        method = replace(given, **flat)
    else:
        raise ConfigError(
            f"method holds the settings of another method than strategy {strategy!r} ({type(given).__qualname__}); "
            "give settings by their own names"
        )
    kept = {name: value for name, value in named.items() if name in own}
    return kept | {"strategy": strategy, "method": method}


records_given(FederatedConfig, prepare=_with_method)


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """What a run of the command starts from."""

    model: str = field(metadata={"help": "Base model: a folder or a Hub model id."})
    data: str | None = field(default=None, metadata={"help": "Client repo: a folder or a Hub dataset id."})
    data_revision: str | None = field(default=None, metadata={"help": "Commit or tag of the dataset on the Hub."})
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "Start from this adapter (run folder, PEFT folder or Hub id); DPO's reference is then the base "
            "with it."
        },
    )
    peft_type: Literal["lora", "dora", "rslora", "ia3", "ln_tuning", "prompt_tuning", "prefix_tuning"] = field(
        default="lora", metadata={"help": "Kind of adapter; --lora-* flags are for the first three."}
    )
    num_virtual_tokens: int = field(
        default=20, metadata={"help": "With peft_type prompt_tuning and prefix_tuning: virtual tokens trained."}
    )
    engine: Literal["process", "ray", "sockets", "flower"] = field(
        default="process",
        metadata={
            "help": "Where clients are visited: here (process), on the machines of a Ray cluster (ray), or at "
            "organisations that have the rows, over unix sockets or Flower; then without data."
        },
    )
    deployment: str | None = field(
        default=None,
        metadata={"help": "With engine flower: the folder of fedllm-train deploy; with sockets: a YAML file."},
    )
    round_deadline: float | None = field(
        default=None,
        metadata={"help": "With sites: seconds that a client has once it is asked; then it is late."},
    )
    min_sites: int | None = field(
        default=None, metadata={"help": "With sites: begin when so many are there (default: all)."}
    )
    num_actors: int | None = field(
        default=None, metadata={"help": "With engine ray: hosts of clients (default: one for each GPU, or each core)."}
    )
    ray_address: str | None = field(
        default=None, metadata={"help": "With engine ray: a cluster to join, such as auto (default: one of its own)."}
    )
    resume: bool = field(
        default=False, metadata={"help": "Go on where a checkpoint is; start afresh where there is none."}
    )
