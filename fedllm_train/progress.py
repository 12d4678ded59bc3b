"""How far a run is: a progress bar on a terminal, one line a round otherwise. On stderr."""

import sys
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["RoundProgress"]


class RoundProgress:
    """Shows each round's record as it comes."""

    def __init__(self, num_rounds: int) -> None:
        """Prepare for a run of `num_rounds` rounds."""
        self._num_rounds = num_rounds
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("starting", total=num_rounds)

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, record: dict[str, Any]) -> None:
        """Show one finished round."""
        done = record["round_index"] + 1
        loss = "nothing trained" if record["train_loss"] is None else f"loss {record['train_loss']:.4f}"
        for each in record["left_out"]:
            self._say(f"round {record['round_index']}: client {each['client_id']!r} left out: {each['reason']}")
        if self._bar is None:
            self._say(f"round {done}/{self._num_rounds}: {loss}, {record['seconds']:.1f} s")
        else:
            self._bar.update(self._task, completed=done, description=loss)

    def _say(self, line: str) -> None:
        if self._bar is None:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        else:
            self._bar.console.print(line, markup=False, highlight=False)
