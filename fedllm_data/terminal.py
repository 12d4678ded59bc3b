"""What the three console commands share: one line for bad input, and libraries that keep quiet where nobody watches.

Imports the standard library only, so that `--help` answers at once.
"""

import io
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fedllm_data.errors import FedLLMError

__all__ = ["quiet_libraries", "row_progress", "run_command"]

_EXTRAS = ("torch", "transformers", "trl", "peft", "accelerate", "safetensors", "tokenizers")
"""What the extra `train` brings."""
_UNREAD = 141
"""What a shell tells of a program that its reader left: 128 and the number of the signal SIGPIPE."""


def run_command(
    program: str, work: Callable[[], None], *, when_interrupted: str, spell: Callable[[str], str] = str
) -> int:
    """Do a command's work and return its exit code: 0 when it was done, 2 with one line on stderr for bad input.

    A reader of standard output that leaves early, such as `head`, is no error: nothing is said, and the code is 141.

    Args:
        program: the command's name, with which the line begins.
        work: does the work, and raises a project error for bad input.
        when_interrupted: what to tell who pressed Ctrl-C.
        spell: puts an error into the words of the command line, such as flags for the names of settings.

    >>> run_command("fedllm-data", lambda: None, when_interrupted="nothing was written")
    0
    """
    quiet_libraries()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold bytes that no encoding knows; stderr shows them escaped, and so does stdout.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        work()
        sys.stdout.flush()
    except FedLLMError as error:
        return _fail(program, spell(" ".join(str(error).split())))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRAS:
            raise
        return _fail(program, f"{error.name} is not installed; pip install 'fedllm-commons[train]'")
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return _UNREAD
        place = f" {error.filename}" if error.filename else ""
        return _fail(program, f"{error.strerror or error}{place}; check path, space and rights")
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted; {when_interrupted}\n")
        return 130
    return 0


def quiet_libraries() -> None:
    """Switch the libraries' own progress bars off where stderr is no terminal: there they would fill a log.

    Must be called before huggingface_hub or datasets is imported, because they read these variables then; a value that
    is set already stays.

    >>> quiet_libraries()
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def row_progress() -> Iterator[Callable[[str, int], None]]:
    """Yield a function that shows a step and a count of rows.

    On a terminal it is one line that counts; otherwise, once the work has taken two seconds, a line every two seconds.

    >>> with row_progress() as progress:
    ...     progress("read", 1)
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns: tuple[Any, ...] = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda step, count: bar.update(task, description=f"{step}: {count:,} rows")
        return
    start = time.monotonic()
    last: dict[str, float] = {}

    def show(step: str, count: int) -> None:
        if time.monotonic() - last.get(step, start if step == "read" or not last else float("-inf")) >= 2:
            last[step] = time.monotonic()
            print(f"{step}: {count:,} rows", file=sys.stderr)

    yield show


def _is_unread() -> bool:
    """Whether whoever read standard output has left, as `head` does; what is still to be written then goes nowhere."""
    place = sys.stdout.fileno()
    watched = select.poll()
    watched.register(place, select.POLLOUT)
    is_unread = any(event & select.POLLERR for _, event in watched.poll(0))
    if is_unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), place)
    return is_unread


def _fail(program: str, message: str) -> int:
    sys.stderr.write(f"{program}: error: {message}\n")
    return 2
