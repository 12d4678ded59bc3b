"""The command reference of the site: the `--help` of every command, as the installed parsers print it.

    python -m docs.making.command_pages          (prints all pages; the site makes them at build time)

Nothing is kept that could go out of date: the parsers are asked. Subcommands are found in the help of their program.
"""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

__all__ = ["COMMAND_PAGES", "command_page", "help_of", "subcommands_of"]

COMMAND_PAGES = {
    "fedllm-data": "commands/fedllm-data.md",
    "fedllm-train": "commands/fedllm-train.md",
    "fedllm-eval": "commands/fedllm-eval.md",
}
_COLUMNS = "100"


def help_of(program: str, words: Sequence[str] = ()) -> str:
    """Return what a command prints when it is asked for help.

    Args:
        program: `fedllm-data`, `fedllm-train` or `fedllm-eval`.
        words: its subcommand, and what is below that.

    >>> help_of("fedllm-eval", ["list"]).startswith("usage: fedllm-eval list")
    True
    """
    printed = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": _COLUMNS, "NO_COLOR": "1"}), contextlib.redirect_stdout(printed):
        with contextlib.suppress(SystemExit):
            _main_of(program)([*words, "--help"])
    return printed.getvalue()


def subcommands_of(program: str, words: Sequence[str] = ()) -> list[str]:
    """Return the subcommands that a command's help lists, in its order.

    >>> subcommands_of("fedllm-eval")[0]
    'run'
    """
    lines = help_of(program, words).splitlines()
    starts = [index for index, line in enumerate(lines) if re.match(r"^  COMMAND\b", line)]
    if not starts:
        return []
    found = []
    for line in lines[starts[0] + 1 :]:
        if not line.startswith("    "):
            break
        if match := re.match(r"^    ([a-z][\w-]*)(?: |$)", line):
            found.append(match[1])
    return found


def command_page(program: str) -> str:
    """Return the reference of one program as Markdown."""
    parts = [
        f"# {program}",
        "Made from the program's own `--help` when the site was built. `--version` says which version is installed.",
        _block(help_of(program)),
    ]
    for words in _below(program, ()):
        parts += [f"## {' '.join(words)}", _block(help_of(program, words))]
    return "\n\n".join(parts) + "\n"


def _below(program: str, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name in subcommands_of(program, words):
        yield (*words, name)
        yield from _below(program, (*words, name))


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def _main_of(program: str) -> Callable[[list[str]], int]:
    import fedllm_data.cli
    import fedllm_eval.cli
    import fedllm_train.cli

    return {
        "fedllm-data": fedllm_data.cli.main,
        "fedllm-train": fedllm_train.cli.main,
        "fedllm-eval": fedllm_eval.cli.main,
    }[program]


if __name__ == "__main__":
    for each in COMMAND_PAGES:
        print(command_page(each))
