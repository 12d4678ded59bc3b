"""How far a run is: a progress bar on a terminal, one line a round otherwise; both on stderr."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["RoundProgress", "StepProgress"]


class _Bar:
    """A progress bar on a terminal; lines on stderr elsewhere."""

    def __init__(self, total: int) -> None:
        """Prepare for `total` steps."""
        self._total = total
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("starting", total=total)

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

    @contextmanager
    def warnings(self, name: str) -> Iterator[None]:
        """Write warnings of a logger and those below it as lines above the bar, for as long as this is open."""
        handler = _LineHandler(self._say)
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def _show(self, done: int, description: str, line: str | None) -> None:
        """Move the bar, or write the line where there is no bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=description)
        elif line is not None:
            self._say(line)

    def _say(self, line: str) -> None:
        if self._bar is None:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        else:
            self._bar.console.print(line, markup=False, highlight=False)


class _LineHandler(logging.Handler):
    """Passes the text of warnings on."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say a warning."""
        self._say(f"warning: {record.getMessage()}")


class RoundProgress(_Bar):
    """Shows each round's record as it comes."""

    def advance(self, record: dict[str, Any]) -> None:
        """Show one finished round."""
        done = record["round_index"] + 1
        loss = "nothing trained" if record["train_loss"] is None else f"loss {record['train_loss']:.4f}"
        if "eval" in record:
            score = record["eval"].get(record["eval_score"])
            shown = "no finite value" if score is None else f"{score['mean']:.4f} over {score['num_clients']} clients"
            loss += f", {record['eval_score']} {shown}"
        if record.get("monitor", {}).get("stop"):
            loss += f"; stopped, round {record['monitor']['best_round'] + 1} was best"
        for each in record["left_out"]:
            self._say(f"round {done}: client {each['client_id']!r} left out: {each['reason']}")
        self._show(done, loss, f"round {done}/{self._total}: {loss}, {record['seconds']:.1f} s")


class StepProgress(_Bar):
    """Shows the steps of a plain training loop, one line in fifty."""

    def advance(self, step: int, num_steps: int, loss: float) -> None:
        """Show one finished step."""
        line = f"step {step}/{num_steps}: loss {loss:.4f}" if step % 50 == 0 or step == num_steps else None
        self._show(step, f"loss {loss:.4f}", line)
