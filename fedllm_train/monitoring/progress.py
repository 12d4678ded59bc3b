"""How far a run is, and how long the rest should take: a bar on a terminal, lines otherwise; both on stderr."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fedllm_train.engines.engine import Reply
from fedllm_train.monitoring.observer import Observer, Record
from fedllm_train.monitoring.time_left import TimeLeft, duration_text

__all__ = ["RoundProgress", "StepProgress"]

QUIET_SECONDS = 30
"""A round that takes longer says in between how far it is, this often."""


class _Bar:
    """A progress bar on a terminal; lines on stderr elsewhere."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare for `total` steps."""
        self._total = total
        self._clock = clock
        self._left = TimeLeft(clock)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> Self:
        """Show the bar, and count time from now on."""
        self.begin()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.stop()

    def begin(self) -> None:
        """Count time from now on: what came before was loading."""
        self._left = TimeLeft(self._clock)

    def say(self, line: str) -> None:
        """Write a line, above the bar where there is one."""
        if self._bar is None:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    @contextmanager
    def warnings(self, name: str) -> Iterator[None]:
        """Write warnings of a logger and those below it as lines above the bar, for as long as this is open."""
        handler = _LineHandler(self.say)
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def _time_left(self, done: int) -> str:
        """Note that a step is done, and return how long the others should take, as the end of a line."""
        seconds = self._left.after_step(self._total - done)
        return f"; about {duration_text(seconds)} left" if done < self._total else ""

    def _show(self, done: int, description: str, line: str | None) -> None:
        """Move the bar, or write the line where there is no bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=description)
        elif line is not None:
            self.say(line)


class _LineHandler(logging.Handler):
    """Passes the text of warnings on."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say a warning."""
        self._say(f"warning: {record.getMessage()}")


class RoundProgress(_Bar, Observer):
    """Shows each round's record as it comes, and within a long round how many clients are done."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare for `total` rounds."""
        super().__init__(total, clock)
        self.cohort_size = 1
        """Clients of a round; with Poisson sampling on average."""
        self._num_seen = self._num_rounds = 0
        self._said = clock()
        self._last = "starting"

    def saw(self, reply: Reply, problem: str | None) -> None:
        """Show that a client is done."""
        self._num_seen += 1
        begun = max(self._num_rounds, reply.step)  # an update may have been asked for in an earlier round
        seconds = self._left.within_step(self._num_seen / self.cohort_size, self._total - begun)
        if seconds is None:  # more came than a round has on average, so nothing can be told
            return
        left = f"about {duration_text(seconds)} left"
        done = f"{self._num_seen} of {self.cohort_size} clients"
        line = None
        if self._clock() - self._said >= QUIET_SECONDS and self._num_seen < self.cohort_size:
            line = f"round {begun + 1}/{self._total}: {done}; {left}"
            self._said = self._clock()
        self._show(begun, f"{self._last}; {done}; {left}", line)

    def recorded(self, record: Record) -> None:
        """Show one finished round."""
        done = record["round_index"] + 1
        untold = "loss not told" if record.get("clients") else "nothing trained"
        loss = untold if record["train_loss"] is None else f"loss {record['train_loss']:.4f}"
        if "eval" in record:
            score = record["eval"].get(record["eval_score"])
            shown = "no finite value" if score is None else f"{score['mean']:.4f} over {score['num_clients']} clients"
            loss += f", {record['eval_score']} {shown}"
        loss += _wire_words(record.get("wire", {}))
        left = self._time_left(done)
        if record.get("monitor", {}).get("stop"):
            left = f"; stopped, round {record['monitor']['best_round'] + 1} was best"
        for each in record["left_out"]:
            self.say(f"round {done}: client {each['client_id']!r} left out: {each['reason']}")
        if "clock_seconds" in record:
            loss += f", {duration_text(record['clock_seconds'])} simulated"
        self._num_seen, self._num_rounds, self._said, self._last = 0, done, self._clock(), loss
        self._show(done, loss + left, f"round {done}/{self._total}: {loss}, {record['seconds']:.1f} s{left}")


def _wire_words(wire: Mapping[str, float | None]) -> str:
    """How a round's messages were packed, as the end of a line; empty where values travelled whole.

    >>> _wire_words({"bits_per_value": 1.134, "relative_error": 0.7561, "download_relative_error": 0.0})
    ', 1.13 bits a value up (off by 0.76)'
    """
    words = ""
    for way, prefix in (("up", ""), ("down", "download_")):
        bits, error = wire.get(f"{prefix}bits_per_value"), wire.get(f"{prefix}relative_error")
        if bits is not None and error != 0:
            words += f", {bits:.3g} bits a value {way}" + ("" if error is None else f" (off by {error:.2g})")
    return words


class StepProgress(_Bar):
    """Shows the steps of a plain training loop, one line in fifty."""

    def advance(self, step: int, num_steps: int, loss: float) -> None:
        """Show one finished step."""
        said = f"loss {loss:.4f}{self._time_left(step)}"
        line = f"step {step}/{num_steps}: {said}" if step % 50 == 0 or step == num_steps else None
        self._show(step, said, line)
