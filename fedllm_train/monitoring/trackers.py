"""A run in a tracker: one run with a point a round, not one run per client.

A tracker is a class of three methods over the package's public API; it is given plain numbers by name, and the round.
A resumed run continues the tracker's run that it began: `tracker.json` in the run folder keeps its identity.
"""

import importlib
import importlib.util
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_folder import TENSORBOARD, TRACKER_FILE
from fedllm_train.run_files.run_writing import write_json

__all__ = ["TRACKERS", "Tracker", "check_tracker", "open_tracker", "round_metrics", "tracked"]

PROJECT = "fedllm-commons"
_APART = ("clients", "left_out")


class Tracker(Protocol):
    """One run in a tracker."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Add the numbers of a round."""

    def finish(self) -> None:
        """Write what is still in memory."""


class TensorBoard:
    """Event files in the run folder, `tensorboard/`."""

    package = "tensorboard"

    def __init__(self, run: Path, config: dict[str, Any], identity: str, first_round: int) -> None:
        """Open the event file; points of rounds that are made again are purged."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / TENSORBOARD), purge_step=first_round or None)
        if not first_round:
            self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```")

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Add one point to every curve."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        """Close the event file."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases."""

    package = "wandb"

    def __init__(self, run: Path, config: dict[str, Any], identity: str, first_round: int) -> None:
        """Begin the run, or go on with it."""
        self._run = importlib.import_module("wandb").init(
            project=PROJECT, name=run.name, id=identity, resume="allow", config=config, dir=str(run)
        )

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Add the numbers of a round."""
        self._run.log(metrics, step=step)

    def finish(self) -> None:
        """End the run."""
        self._run.finish()


class Trackio:
    """A run of Trackio, which keeps it on this machine."""

    package = "trackio"

    def __init__(self, run: Path, config: dict[str, Any], identity: str, first_round: int) -> None:
        """Begin the run, or go on with it; its name is what Trackio knows it by."""
        self._trackio = importlib.import_module("trackio")
        self._trackio.init(project=PROJECT, name=f"{run.name}-{identity}", config=config, resume="allow")

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Add the numbers of a round."""
        self._trackio.log(metrics, step=step)

    def finish(self) -> None:
        """End the run."""
        self._trackio.finish()


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}
"""Name -> tracker."""


def check_tracker(name: str) -> None:
    """Refuse a tracker that is unknown or not installed.

    Raises:
        ConfigError: with what to install.

    >>> check_tracker("none")
    """
    if name == "none":
        return
    if name not in TRACKERS:
        hint = did_you_mean(name, TRACKERS)
        raise ConfigError(f"report_to {name!r} is unknown; {hint}choose from none, {', '.join(TRACKERS)}")
    package = TRACKERS[name].package
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"report_to is {name!r} and {package} is not installed; pip install {package}")


@contextmanager
def tracked(
    name: str, run: Path, config: dict[str, Any], *, first_round: int
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function to call with each round's record while a tracker is open; without a tracker it does nothing.

    Args:
        name: a name in `TRACKERS`, or "none".
        run: the run folder.
        config: the resolved settings.
        first_round: the round that comes next.
    """
    tracker = open_tracker(name, run, config, first_round=first_round)
    try:
        if tracker is None:
            yield lambda record: None
        else:
            yield lambda record: tracker.log(round_metrics(record), record["round_index"])
    finally:
        if tracker is not None:
            tracker.finish()


def open_tracker(name: str, run: Path, config: dict[str, Any], *, first_round: int) -> Tracker | None:
    """Return the tracker of a run, or None if none is asked for.

    Args:
        name: a name in `TRACKERS`, or "none".
        run: the run folder.
        config: the resolved settings.
        first_round: the round that comes next.
    """
    if name == "none":
        return None
    path = run / TRACKER_FILE
    if not first_round or not path.exists():
        write_json(path, {"identity": uuid.uuid4().hex[:8]})
    return TRACKERS[name](run, config, json.loads(path.read_text())["identity"], first_round)


def round_metrics(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a round's record by name; the clients' own as means weighted by rows.

    >>> record = {"round_index": 0, "train_loss": 2.0, "ledger": {"upload_bytes": 9}, "left_out": [{}],
    ...           "clients": [{"client_id": "a", "num_rows": 1, "accuracy": 1.0},
    ...                       {"client_id": "b", "num_rows": 3, "accuracy": 0.0}]}
    >>> round_metrics(record)
    {'train_loss': 2.0, 'ledger/upload_bytes': 9.0, 'clients/accuracy': 0.25, 'num_clients': 2.0, 'num_left_out': 1.0}
    """
    metrics = _numbers({key: value for key, value in record.items() if key not in (*_APART, "round_index")})
    visits = record["clients"]
    names = [name for name in (visits[0] if visits else {}) if name not in ("client_id", "num_rows", "train_loss")]
    for name in names:
        have = [visit for visit in visits if isinstance(visit.get(name), int | float)]
        num_rows = sum(visit["num_rows"] for visit in have)
        if num_rows:
            metrics[f"clients/{name}"] = sum(visit["num_rows"] * visit[name] for visit in have) / num_rows
    return metrics | {"num_clients": float(len(visits)), "num_left_out": float(len(record["left_out"]))}


def _numbers(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    numbers = {}
    for name, value in record.items():
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            numbers[f"{prefix}{name}"] = float(value)
    return numbers
