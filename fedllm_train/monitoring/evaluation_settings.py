"""Settings of the scores during a run. Imports no torch."""

from dataclasses import dataclass, field, fields

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.schema import Task
from fedllm_train.given import given_of
from fedllm_train.settings import Settings, check_at_least_one

__all__ = ["EvaluationSettings", "check_eval_score", "check_scored_run"]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Settings):
    """When the global adapter is scored, on what, and what follows from it."""

    eval_every: int | None = field(
        default=None,
        metadata={
            "help": "Rounds between two scorings of the global adapter on held-out rows; the last is always scored."
        },
    )
    eval_clients: int = field(
        default=20, metadata={"help": "With eval_every: score at most this many clients, the same ones every time."}
    )
    eval_rows_per_client: int | None = field(
        default=None,
        metadata={"help": "With eval_every: score at most this many rows of each client; all if not given."},
    )
    eval_split: str = field(default="test", metadata={"help": "With eval_every: the split whose rows are scored."})
    eval_score: str | None = field(
        default=None,
        metadata={
            "help": "With eval_every: what decides which adapter is best; heldout_loss for SFT and "
            "implicit_reward_loss for preference training if not given."
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "With eval_every: stop after this many scores in a row that are no better than the best."},
    )
    load_best: bool = field(
        default=False, metadata={"help": "With eval_every: finish with the best adapter, not with the last."}
    )

    def check(self) -> None:
        """Refuse settings of the scores if nothing is scored.

        Raises:
            ConfigError: naming the setting.
        """
        check_at_least_one(self, "eval_every", "eval_clients", "eval_rows_per_client", "early_stopping_patience")
        if self.eval_every is None:
            for name in (each.name for each in fields(EvaluationSettings)):
                if name in given_of(self) and getattr(self, name) is not False:
                    raise ConfigError(f"{name} is given, and nothing is scored during the run; give eval_every too")

    @property
    def chooses_by_scores(self) -> bool:
        """Whether scores decide when the run ends or which adapter is finished."""
        return self.early_stopping_patience is not None or self.load_best


def check_eval_score(name: str | None, task: Task) -> None:
    """Refuse a score that cannot be computed on rows of a kind.

    Args:
        name: of the score; None for the usual one.
        task: what the rows are for.

    Raises:
        ConfigError: naming the scores that there are.

    >>> check_eval_score("heldout_los", "sft")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: eval_score 'heldout_los' is not a score of sft rows; did you mean heldout_loss? ...
    """
    if name is None:
        return
    from fedllm_eval.scores import SCORES

    known = [each for each, score in SCORES.items() if score.task == task]
    if name not in known:
        raise ConfigError(
            f"eval_score {name!r} is not a score of {task} rows; {did_you_mean(name, known)}choose from "
            f"{', '.join(known)}"
        )


def check_scored_run(title: str, *, has_own: bool) -> None:
    """Refuse to score the global adapter of a method whose clients end with adapters of their own.

    Args:
        title: the method's title.
        has_own: whether its clients end with adapters of their own.

    Raises:
        ConfigError: with what to do instead.
    """
    if has_own:
        raise ConfigError(
            f"eval_every scores the global adapter, and with {title} clients end with adapters of their own, made "
            "after the last round; leave it out and score the run with fedllm-eval"
        )
