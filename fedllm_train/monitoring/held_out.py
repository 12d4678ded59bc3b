"""Evaluation in the loop: the global adapter scored on held-out rows of a fixed sample of clients.

After every `eval_every` rounds and after the last, the scores go into the round's record, the adapter is kept in
`best/` if no earlier one was better, and the run ends when that has not happened for a while. What it remembers is
part of the run's state (`RunState.monitor`), so a run that is killed ends in the same round with the same adapter.
Scoring draws nothing at random and trains nothing: the adapters of a run are the same with and without it.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError, MetricError, ResumeError
from fedllm_data.in_place import fill_folder
from fedllm_eval.per_client import evaluate_policy
from fedllm_eval.plain_json import without_nan
from fedllm_eval.policy.models import usable_length
from fedllm_eval.policy.run_folder import BEST, CHECKPOINTS
from fedllm_eval.scores import SCORES, ClientScores
from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.adapters.base_shift import PART
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.adapters.shifted_model import shifted
from fedllm_train.clients.objectives import ClientArgs
from fedllm_train.config import FederatedConfig
from fedllm_train.messages import codec
from fedllm_train.models.policy import StartingPolicy
from fedllm_train.monitoring.evaluation_settings import EvaluationSettings, check_eval_score
from fedllm_train.monitoring.observer import Observer, Record, Step
from fedllm_train.run_files.earlier import warn_of_shared
from fedllm_train.run_files.run_writing import may_be_replaced
from fedllm_train.run_files.sealed import read_sealed, write_sealed

__all__ = [
    "DEFAULT_SCORE",
    "HeldOut",
    "after_score",
    "forget_best",
    "held_out_clients",
    "load_best",
    "scored_state",
    "should_stop",
    "shown_scores",
]

DEFAULT_SCORE = {"sft": "heldout_loss", "preference": "implicit_reward_loss"}
"""Task -> the score that says which round is best, where none is named."""
_BEST_STATE = Path(CHECKPOINTS, "best.safetensors")
"""The server's state that `best/` was made of."""
_SHOWN = ("mean", "ci_low", "ci_high", "worst_decile", "num_clients", "num_items")


class HeldOut(Observer):
    """Scores the server's state every `eval_every` rounds, on the model that trains."""

    def __init__(
        self,
        config: FederatedConfig,
        clients: ClientDataset,
        policy: StartingPolicy,
        args: ClientArgs,
        *,
        start: Parts,
        save: Callable[[Parts, Path], None],
        run: Path,
    ) -> None:
        """Prepare to score.

        Args:
            config: the settings of the federation.
            clients: held-out rows, from `held_out_clients`.
            policy: whose model holds the adapter that is scored.
            args: the clients' TRL settings: batch size, longest sequence, DPO's beta.
            start: the server's state before round 0; with preference rows it is the reference.
            save: writes a server's adapter into a folder as PEFT does.
            run: the run folder.
        """
        self._config, self._clients, self._policy, self._args = config, clients, policy, args
        self._start, self._save, self._run = start, save, run
        self._score = config.eval_score or DEFAULT_SCORE[clients.task]

    def stepped(self, step: Step) -> Record:
        """Score the adapter of a round, if that is due, and keep the best one."""
        done = step.index + 1
        if done % self._config.eval_every and done != self._config.num_rounds:
            return {}
        started = time.perf_counter()
        scores = self.score(step.after)
        seconds = round(time.perf_counter() - started, 3)
        value = scores.get(self._score, {}).get("mean")
        monitor = after_score(
            step.monitor,
            step.index,
            value,
            higher_is_better=SCORES[self._score].higher_is_better,
            patience=self._config.early_stopping_patience,
        )
        if monitor["best_round"] == step.index:
            # Before the checkpoint: a run killed in between makes this round again, and these files with it.
            (self._run / _BEST_STATE).parent.mkdir(exist_ok=True)
            write_sealed(self._run / _BEST_STATE, codec.encode(step.after))
            with fill_folder(self._run / BEST, check=may_be_replaced) as best:
                self._save(step.after, best)
        return {"eval": scores, "eval_score": self._score, "eval_seconds": seconds, "monitor": monitor}

    def score(self, server: Parts) -> dict[str, Any]:
        """Return the scores of a server's adapter: mean over clients with its interval, worst decile, counts."""
        try:
            summary = scored_state(
                self._policy.model,
                self._policy.tokenizer,
                self._args,
                self._clients,
                states=(server, self._start),
                max_clients=self._config.eval_clients,
                max_rows_per_client=self._config.eval_rows_per_client,
                seed=self._config.seed,
            ).summary()
        except MetricError as error:  # an adapter that gives no finite number is no better than any other
            return {"split": self._clients.split, "problem": str(error)}
        return {"split": self._clients.split, **shown_scores(summary)}


def shown_scores(summary: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a round's record holds of each score: mean over clients, interval, worst decile and counts."""
    return dict(without_nan({name: {key: values[key] for key in _SHOWN} for name, values in summary.items()}))


def scored_state(
    model: Any,
    tokenizer: Any,
    args: ClientArgs,
    clients: ClientDataset,
    *,
    states: tuple[Parts, Parts],
    **sample: Any,
) -> ClientScores:
    """Score a server's state on held-out rows, on the model that trains.

    Args:
        model: whose adapter is replaced while it is scored.
        tokenizer: the model's.
        args: the clients' TRL settings: batch size, longest sequence, DPO's beta.
        clients: held-out rows.
        states: the server's state, and that before round 0, which preference rows are measured against.
        sample: `max_clients`, `max_rows_per_client` and `seed` of `evaluate_policy`.

    Raises:
        MetricError: if the model gives values that are not finite.
    """
    # A process whose clients train elsewhere never moved its model; a quantised one must not be asked again.
    if next(model.parameters()).device.type != args.device.type:
        model.to(args.device)
    longest = usable_length(model) if args.max_length is None else args.max_length
    positions = getattr(model.config, "max_position_embeddings", None) or longest
    return evaluate_policy(
        _Held(model, tokenizer, states[0]),
        clients,
        reference=_Held(model, tokenizer, states[1]),
        beta=getattr(args, "beta", None) or 0.1,
        batch_size=args.per_device_eval_batch_size,
        max_length=min(longest, positions),
        **sample,
    )


@dataclass(frozen=True)
class _Held:
    """A server's state as a policy that `fedllm_eval` scores; it is in the model only while it is scored."""

    model: Any
    tokenizer: Any
    server: Parts
    name: str = "global adapter"

    @contextmanager
    def active(self) -> Iterator[Any]:
        """Put the adapter, and what the method added to the base, into the model."""
        LiveAdapter(self.model).load(self.server["adapter"])
        with shifted(self.model, self.server.get(PART)):
            yield self.model

    def describe(self) -> dict[str, str | None]:
        """Return its name."""
        return {"name": self.name}


def held_out_clients(config: EvaluationSettings, clients: ClientDataset, given: ClientDataset | None) -> ClientDataset:
    """Return the clients that are scored during the run.

    Args:
        config: the settings of the federation, with `eval_every`.
        clients: the training clients.
        given: held-out clients from the caller; by default the split `eval_split` of the training clients' repo.

    Raises:
        ConfigError: if there are none, or `eval_score` cannot be computed on their rows.
        SchemaError: if the repo has no such split.
    """
    is_own = given is not None
    if given is None and clients.revision is None:
        raise ConfigError(
            "eval_every is given, but the clients were made in memory and have no held-out split; pass eval_dataset="
        )
    if given is None:
        revision = None if Path(clients.name).is_dir() else clients.revision
        given = load_clients(clients.name, split=config.eval_split, revision=revision)
    if given.task != clients.task:
        raise ConfigError(
            f"eval_dataset holds {given.task} rows and the clients {clients.task} rows; give the same kind"
        )
    check_eval_score(config.eval_score, given.task)
    if is_own:
        warn_of_shared(given, clients)
    return given


def after_score(
    monitor: Mapping[str, Any], round_index: int, value: float | None, *, higher_is_better: bool, patience: int | None
) -> dict[str, Any]:
    """Return what is remembered after one more score.

    Args:
        monitor: what was remembered before; empty at first.
        round_index: the round whose adapter was scored.
        value: the adapter's score; None if it has no finite one.
        higher_is_better: the direction of the score.
        patience: stop after this many scores in a row that are no better than the best; None never stops.

    >>> first = after_score({}, 4, 1.5, higher_is_better=False, patience=1)
    >>> first
    {'best_round': 4, 'best_value': 1.5, 'num_no_better': 0, 'stop': False}
    >>> after_score(first, 9, 1.5, higher_is_better=False, patience=1)
    {'best_round': 4, 'best_value': 1.5, 'num_no_better': 1, 'stop': True}
    """
    best = monitor.get("best_value")
    if value is not None and (best is None or (value > best if higher_is_better else value < best)):
        return {"best_round": round_index, "best_value": value, "num_no_better": 0, "stop": False}
    num_no_better = monitor.get("num_no_better", 0) + 1
    return {
        "best_round": monitor.get("best_round"),
        "best_value": best,
        "num_no_better": num_no_better,
        "stop": patience is not None and num_no_better >= patience,
    }


def load_best(run: Path) -> Parts:
    """Return the server's state after the best round.

    Raises:
        ConfigError: if no round had a score.
        ResumeError: if the file was damaged.
    """
    if not (run / _BEST_STATE).exists():
        raise ConfigError(f"load_best is on, but no adapter of {run} could be scored; resume without it")
    content = read_sealed(run / _BEST_STATE)
    if content is None:
        raise ResumeError(
            f"{run / _BEST_STATE}, the state of the best round, was damaged on disk; start afresh in another "
            "output_dir"
        )
    return codec.decode(content)


def forget_best(run: Path) -> None:
    """Remove what a run that starts afresh must not find."""
    (run / _BEST_STATE).unlink(missing_ok=True)
    shutil.rmtree(run / BEST, ignore_errors=True)


def should_stop(monitor: dict[str, Any]) -> bool:
    """Return whether the run is over before its last round."""
    return bool(monitor.get("stop"))
