"""The settings of a federation: what TRL has no word for.

Everything about a client's own training stays in TRL's `SFTConfig` or `DPOConfig`, everything about the adapter in
PEFT's `LoraConfig`. Imports no torch: the command's `--help` is made from this file.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_type_hints

from fedllm_data.errors import ConfigError
from fedllm_train.config_checks import (
    check_compression,
    check_core_frame,
    check_evaluation,
    check_local_work,
    check_personal_clients,
    check_privacy,
)
from fedllm_train.field_types import plain_value
from fedllm_train.given import records_given

__all__ = ["FederatedConfig", "RunInput"]

_AT_LEAST_ONE = (
    *("num_rounds", "cohort_size", "local_steps", "min_clients", "eval_every", "eval_clients"),
    *("eval_rows_per_client", "early_stopping_patience", "keep_checkpoints", "keep_every", "num_processes"),
    "personal_steps",
)


@records_given
@dataclass(frozen=True, kw_only=True)
class FederatedConfig:
    """Settings of the federation: how many rounds, who takes part, how the server learns."""

    output_dir: str = field(metadata={"help": "The run folder; must not hold another run unless resuming."})
    strategy: str = field(
        default="fedavg",
        metadata={"help": "The algorithm; fedllm-train methods lists them. module:Class names one of your own."},
    )
    num_rounds: int = field(default=100, metadata={"help": "Server steps."})
    cohort_rule: str = field(
        default="uniform",
        metadata={
            "help": "Who takes part in a round: uniform; weighted (by rows, without replacement); fixed "
            "(cohort_clients); all; poisson (each on its own, cohort_size on average); fedllm-bench (as its code "
            "draws them)."
        },
    )
    cohort_size: int = field(default=10, metadata={"help": "Clients sampled per round."})
    cohort_clients: str | None = field(
        default=None, metadata={"help": "With cohort_rule fixed: the ids of the clients, joined by commas."}
    )
    local_steps: int = field(default=10, metadata={"help": "Optimizer steps of a client in a round."})
    local_epochs: float | None = field(
        default=None, metadata={"help": "In place of local_steps: passes of a client over its rows in a round."}
    )
    expected_epochs: float | None = field(
        default=None,
        metadata={
            "help": "In place of local_steps: passes over its rows that a client is expected to make in the whole "
            "run (FedLLM-Bench's dynamic steps)."
        },
    )
    round_rows: Literal["all", "fedllm-bench"] = field(
        default="all",
        metadata={"help": "Rows a visit trains on: all, or as many as its steps take, drawn as FedLLM-Bench does."},
    )
    seed: int = field(default=0, metadata={"help": "Run seed, from which every random stream derives."})
    min_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate that the cosine over rounds falls to; a twentieth of learning_rate if not given, "
            "as in FedLLM-Bench."
        },
    )
    local_client: str | None = field(default=None, metadata={"help": "With strategy local: the client to train."})
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
    full_finetuning: bool = field(
        default=False, metadata={"help": "Train and send all weights of the model, without an adapter."}
    )
    prox_mu: float = field(
        default=0.01, metadata={"help": "With fedprox: weight of the proximal term (FedLLM-Bench's value)."}
    )
    server_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Step of the server; 1 with fedavgm and 0.001 (FedLLM-Bench's) with the adaptive methods."},
    )
    server_momentum: float | None = field(
        default=None,
        metadata={"help": "Share of the server's momentum kept (beta1); 0.9 if not given, 0 with fedadagrad."},
    )
    server_beta2: float = field(
        default=0.99, metadata={"help": "With fedadam and fedyogi: share of the second moment kept."}
    )
    server_tau: float = field(
        default=1e-3,
        metadata={"help": "With the adaptive methods: added to the root of the second moment."},
    )
    benchmark_rules: bool = field(
        default=False,
        metadata={"help": "Follow FedLLM-Bench's released code where it differs from the method's paper."},
    )
    client_ranks: str | None = field(
        default=None,
        metadata={
            "help": "LoRA rank of each client, at most lora_r: 4,8,16 (fewest rows, lowest rank), random:4,8,16 or "
            "column:NAME of the clients table; for methods with mixed ranks."
        },
    )
    hetlora_prune: float = field(
        default=0.0, metadata={"help": "With hetlora: weight of the penalty on the tail ranks; 0 prunes nothing."}
    )
    lora_fair_lambda: float = field(
        default=0.01, metadata={"help": "With lora_fair: weight of the correction's norm (the paper's value)."}
    )
    lora_fair_similarity: Literal["cosine", "frobenius"] = field(
        default="cosine", metadata={"help": "With lora_fair: what the corrected product is compared by."}
    )
    core_frame: Literal["gradient", "random"] = field(
        default="gradient",
        metadata={
            "help": "With fed_sb: where the frozen factors come from: gradient (the clients' first full fine-tuning "
            "step, a round of its own) or random (the run seed; nothing of them is sent)."
        },
    )
    personal_steps: int = field(
        default=10, metadata={"help": "With fedavg_ft and feddpa: steps of a client's training after the last round."}
    )
    personal_clients: str = field(
        default="visited",
        metadata={
            "help": "With methods whose clients end with adapters of their own: whose are made after the last round: "
            "visited (whoever took part in a round), all, or a number (of those visited, drawn with the run seed)."
        },
    )
    ditto_lambda: float = field(
        default=0.1, metadata={"help": "With ditto: how strongly personal adapters are pulled to the global one."}
    )
    feddpa_mix: float = field(
        default=0.5, metadata={"help": "With feddpa: weight of the local adapter's output, the rest the global one's."}
    )
    feddpa_when: Literal["during", "after"] = field(
        default="during", metadata={"help": "With feddpa: train local adapters during the rounds or once after them."}
    )
    min_cluster_clients: int = field(
        default=2, metadata={"help": "With language_clusters: languages of fewer clients share one group."}
    )
    uniform_weights: bool | None = field(
        default=None,
        metadata={
            "help": "Whether every client counts alike in the server's mean, whatever its rows; as the method's "
            "source has it if not given (fedllm-train methods)."
        },
    )
    dp_clip: float | None = field(
        default=None,
        metadata={
            "help": "Differential privacy of clients: shorten each update to this norm and add noise to their sum; "
            "with cohort_rule poisson or all."
        },
    )
    dp_noise_multiplier: float | None = field(
        default=None,
        metadata={"help": "With dp_clip: standard deviation of the noise on the sum, in multiples of dp_clip."},
    )
    dp_epsilon: float | None = field(
        default=None,
        metadata={"help": "With dp_clip, in place of dp_noise_multiplier: the epsilon that all rounds may spend."},
    )
    dp_delta: float | None = field(
        default=None,
        metadata={"help": "With dp_clip: the delta of the guarantee; well below 1 / number of clients."},
    )
    upload_codec: str = field(
        default="none",
        metadata={"help": "How clients pack their adapter's change: none (whole values), topk, int8 or int4."},
    )
    topk_fraction: float = field(
        default=0.1, metadata={"help": "With upload_codec topk: share of values sent, those of the largest size."}
    )
    error_feedback: bool = field(
        default=False,
        metadata={"help": "With upload_codec topk: clients keep what they did not send and add it the next time."},
    )
    max_update_norm: float | None = field(
        default=None, metadata={"help": "Leave out a client whose update's Euclidean norm is larger."}
    )
    min_clients: int = field(
        default=1, metadata={"help": "Make no server step in a round with fewer usable updates than this."}
    )
    loss_on: Literal["assistant", "all"] = field(
        default="assistant",
        metadata={"help": "SFT loss on the assistant's tokens only, or on all that the chat template writes."},
    )
    eval_every: int | None = field(
        default=None, metadata={"help": "Score the global adapter on held-out rows after every so many rounds."}
    )
    eval_clients: int = field(
        default=20, metadata={"help": "With eval_every: clients scored at most, the same ones every time."}
    )
    eval_rows_per_client: int | None = field(
        default=None, metadata={"help": "With eval_every: rows scored of each client at most; all if not given."}
    )
    eval_split: str = field(default="test", metadata={"help": "With eval_every: the split scored."})
    eval_score: str | None = field(
        default=None,
        metadata={
            "help": "With eval_every: what decides which adapter is best; heldout_loss for SFT and "
            "implicit_reward_loss for preference training if not given."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "With eval_every: stop after so many scores in a row that are no better than the best."},
    )
    load_best: bool = field(
        default=False, metadata={"help": "With eval_every: finish with the best adapter, not with the last."}
    )
    keep_checkpoints: int = field(default=2, metadata={"help": "Newest checkpoints kept in the run folder."})
    keep_every: int | None = field(
        default=None, metadata={"help": "Keep the checkpoint of every so many rounds too, for good."}
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

    def __post_init__(self) -> None:
        """Refuse values that make no sense, before anything is loaded."""
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not (name == "strategy" and isinstance(value, type)):  # the trainer looks up a class's name
                object.__setattr__(self, name, plain_value(name, value, hint))
        if not self.output_dir:
            raise ConfigError("output_dir is not given; name the run folder")
        for name in _AT_LEAST_ONE:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        check_local_work(self)
        check_evaluation(self)
        check_privacy(self)
        check_compression(self)
        check_core_frame(self)
        check_personal_clients(self)
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must not be negative")
        if self.min_learning_rate is not None and self.min_learning_rate < 0:
            raise ConfigError(f"min_learning_rate is {self.min_learning_rate}; it must not be negative")
        if self.loss_on not in ("assistant", "all"):
            raise ConfigError(f"loss_on is {self.loss_on!r}; it must be assistant or all")
        if self.prox_mu < 0:
            raise ConfigError(f"prox_mu is {self.prox_mu}; it must not be negative")
        if not 0 <= self.feddpa_mix <= 1:
            raise ConfigError(f"feddpa_mix is {self.feddpa_mix}; it is the local adapter's share, from 0 to 1")
        if self.feddpa_when not in ("during", "after"):
            raise ConfigError(f"feddpa_when is {self.feddpa_when!r}; it must be during or after")
        for name in ("hetlora_prune", "lora_fair_lambda"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.lora_fair_similarity not in ("cosine", "frobenius"):
            raise ConfigError(f"lora_fair_similarity is {self.lora_fair_similarity!r}; it must be cosine or frobenius")
        if self.ditto_lambda < 0:
            raise ConfigError(f"ditto_lambda is {self.ditto_lambda}; it must not be negative")
        if self.server_learning_rate is not None and self.server_learning_rate <= 0:
            raise ConfigError(f"server_learning_rate is {self.server_learning_rate}; it must be positive")
        for name in ("server_momentum", "server_beta2"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                raise ConfigError(f"{name} is {value}; it must lie in [0, 1)")
        if self.server_tau <= 0:
            raise ConfigError(f"server_tau is {self.server_tau}; it must be positive")
        if self.max_update_norm is not None and self.max_update_norm <= 0:
            raise ConfigError(f"max_update_norm is {self.max_update_norm}; it must be positive")
        for each in fields(self):
            if isinstance(value := getattr(self, each.name), float) and not math.isfinite(value):
                raise ConfigError(f"{each.name} is {value}; it must be a finite number")

    def server_rate(self, default: float) -> float:
        """Return the server's learning rate, or a method's own default."""
        return default if self.server_learning_rate is None else self.server_learning_rate

    def momentum(self, default: float) -> float:
        """Return the share of the server's momentum kept, or a method's own default."""
        return default if self.server_momentum is None else self.server_momentum


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """What a run of the command starts from."""

    data: str = field(metadata={"help": "Client repo: a folder or a Hub dataset id."})
    model: str = field(metadata={"help": "Base model: a folder or a Hub model id."})
    data_revision: str | None = field(default=None, metadata={"help": "Commit or tag of the dataset on the Hub."})
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "Start from this adapter (run folder, PEFT folder or Hub id); DPO's reference is then the base "
            "with it."
        },
    )
    peft_type: Literal["lora", "dora", "rslora", "ia3", "ln_tuning", "prompt_tuning", "prefix_tuning"] = field(
        default="lora", metadata={"help": "Kind of adapter; --lora_* flags are for the first three."}
    )
    num_virtual_tokens: int = field(
        default=20, metadata={"help": "With peft_type prompt_tuning and prefix_tuning: virtual tokens trained."}
    )
    resume: bool = field(
        default=False, metadata={"help": "Go on where a checkpoint is; start afresh where there is none."}
    )
