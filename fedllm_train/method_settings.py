"""Settings that several methods share; a setting that one method alone reads is in its file. Imports no torch."""

from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.settings import Settings, check_at_least_one

__all__ = [
    "AdaptiveSettings",
    "FinalStepsSettings",
    "LayerSettings",
    "MeanSettings",
    "MomentSettings",
    "PersonalSettings",
    "RankSettings",
    "ServerStepSettings",
]


@dataclass(frozen=True, kw_only=True)
class MeanSettings(Settings):
    """Methods whose server takes a mean over clients."""

    uniform_weights: bool | None = field(
        default=None,
        metadata={
            "help": "Whether every client counts alike in the server's mean, whatever its rows; as the method's "
            "source has it if not given (fedllm-train methods)."
        },
    )


@dataclass(frozen=True, kw_only=True)
class PersonalSettings(Settings):
    """Methods whose clients end with adapters of their own."""

    personal_clients: str = field(
        default="visited",
        metadata={
            "help": "With methods whose clients end with adapters of their own: whose are made after the last round: "
            "visited (whoever took part in a round), all, or a number (of those visited, drawn with the run seed)."
        },
    )

    def check(self) -> None:
        """Refuse anything but a rule or a number of clients."""
        given = self.personal_clients
        if given not in ("visited", "all") and not (given.isascii() and given.isdecimal() and int(given) > 0):
            raise ConfigError(f"personal_clients is {given!r}; it must be visited, all or a number")


@dataclass(frozen=True, kw_only=True)
class FinalStepsSettings(Settings):
    """Methods whose clients train once more after the last round."""

    personal_steps: int = field(
        default=10, metadata={"help": "With fedavg_ft and feddpa: steps of a client's training after the last round."}
    )

    def check(self) -> None:
        """Refuse a count below one."""
        check_at_least_one(self, "personal_steps")


@dataclass(frozen=True, kw_only=True)
class RankSettings(Settings):
    """Methods whose clients may have LoRA adapters of different ranks."""

    client_ranks: str | None = field(
        default=None,
        metadata={
            "help": "LoRA rank of each client, at most lora_r: 4,8,16 (fewest rows, lowest rank), random:4,8,16, "
            "memory:4,8,16 (the largest that fits the memory_gb of client_table) or column:NAME of the clients table; "
            "for methods with mixed ranks."
        },
    )


@dataclass(frozen=True, kw_only=True)
class LayerSettings(Settings):
    """Methods whose server takes the mean of each tensor by itself, so that clients may leave some out."""

    client_layers: str | None = field(
        default=None,
        metadata={
            "help": "Let clients with little memory train the adapters of the last layers alone: memory (as many as "
            "fit the memory_gb of client_table) or column:NAME of the clients table."
        },
    )


@dataclass(frozen=True, kw_only=True)
class ServerStepSettings(LayerSettings, MeanSettings):
    """Methods whose server takes a step along the mean change."""

    server_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Step of the server; 1 with fedavgm and 0.001 (FedLLM-Bench's) with the adaptive methods."},
    )
    server_momentum: float | None = field(
        default=None,
        metadata={"help": "Share of the server's momentum kept (beta1); 0.9 if not given, 0 with fedadagrad."},
    )
    benchmark_rules: bool = field(
        default=False,
        metadata={"help": "Follow FedLLM-Bench's released code where it differs from the method's paper."},
    )

    def check(self) -> None:
        """Refuse rates that make no step or let the momentum grow."""
        if self.server_learning_rate is not None and self.server_learning_rate <= 0:
            raise ConfigError(f"server_learning_rate is {self.server_learning_rate}; it must be positive")
        if self.server_momentum is not None and not 0 <= self.server_momentum < 1:
            raise ConfigError(f"server_momentum is {self.server_momentum}; it must lie in [0, 1)")

    def server_rate(self, default: float) -> float:
        """Return the server's learning rate, or a method's own default."""
        return default if self.server_learning_rate is None else self.server_learning_rate

    def momentum(self, default: float) -> float:
        """Return the share of the server's momentum kept, or a method's own default."""
        return default if self.server_momentum is None else self.server_momentum


@dataclass(frozen=True, kw_only=True)
class AdaptiveSettings(ServerStepSettings):
    """Methods whose server scales its step by a second moment."""

    server_tau: float = field(
        default=1e-3,
        metadata={"help": "With the adaptive methods: added to the root of the second moment."},
    )

    def check(self) -> None:
        """Refuse a tau that divides by zero."""
        if self.server_tau <= 0:
            raise ConfigError(f"server_tau is {self.server_tau}; it must be positive")


@dataclass(frozen=True, kw_only=True)
class MomentSettings(AdaptiveSettings):
    """Methods whose second moment is a moving average."""

    server_beta2: float = field(
        default=0.99, metadata={"help": "With fedadam and fedyogi: share of the second moment kept."}
    )

    def check(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.server_beta2 < 1:
            raise ConfigError(f"server_beta2 is {self.server_beta2}; it must lie in [0, 1)")
