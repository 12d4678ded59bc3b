"""Completion of subcommands, flags and their choices in a shell: a script that shtab writes from a command's parser.

The script holds all words itself: nothing of ours is started, let alone imported, while somebody types.
"""

from collections.abc import Iterable, Mapping

from fedllm_data.command_line.one_line_parser import OneLineParser
from fedllm_data.errors import ConfigError

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh", "fish")


def completion_script(parser: OneLineParser, shell: str, choices: Mapping[str, Iterable[str]] | None = None) -> str:
    """Return a script that completes a command.

    Args:
        parser: of the command; its flags learn what they can be completed with.
        shell: one of `SHELLS`.
        choices: words for arguments whose parser does not know them, by "subcommand argument".

    Raises:
        ConfigError: if shtab is not installed.

    >>> parser = OneLineParser(prog="fedllm-demo")
    >>> _ = parser.add_argument("--seed", type=int)
    >>> "--seed" in completion_script(parser, "bash")
    True
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ConfigError("completion needs shtab; pip install 'fedllm-commons[completion]'") from error
    for command, action in parser.every_argument():
        metavar = str(action.metavar or "")
        if words := (choices or {}).get(f"{command} {action.dest}"):
            action.choices = list(words)
        elif metavar.startswith(("DIR", "RUN")):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif metavar.startswith("FILE") or metavar == "PLACE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))
