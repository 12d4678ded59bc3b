"""The subcommands that all three commands have: `env` for a bug report, and `completion` for a shell."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fedllm_data.command_line.completion import SHELLS, completion_script
from fedllm_data.command_line.environment import environment_lines, environment_record
from fedllm_data.command_line.one_line_parser import OneLineParser, add_command

__all__ = ["add_shared_commands"]

_HOW = {
    "bash": "{program} completion bash > ~/.local/share/bash-completion/completions/{program}",
    "zsh": "{program} completion zsh > ~/.zfunc/_{program}",
    "fish": "{program} completion fish > ~/.config/fish/completions/{program}.fish",
}


def add_shared_commands(
    commands: Any,
    program: str,
    make_parser: Callable[[], OneLineParser],
    choices: Callable[[], Mapping[str, Iterable[str]]] = dict,
) -> None:
    """Add `env` and `completion` to the subcommands.

    Args:
        commands: what `add_subparsers` returned.
        program: the command's name.
        make_parser: makes the whole parser of the command, to be completed.
        choices: words for arguments whose parser does not know them, by "subcommand argument".
    """
    environment = add_command(commands, "env", does="show versions and settings of this machine, for a bug report")
    environment.add_argument("--gpu", action="store_true", help="ask torch for the devices as well, which imports it")
    environment.add_argument("--json", action="store_true", help="print JSON instead of lines")
    environment.set_defaults(command=_show_environment)

    completion = add_command(
        commands,
        "completion",
        does="print a script that completes this command in a shell",
        shown=tuple((f"For {shell}, for good", how.format(program=program)) for shell, how in _HOW.items()),
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    completion.set_defaults(
        command=lambda arguments: print(completion_script(make_parser(), arguments.shell, choices()))
    )


def _show_environment(arguments: argparse.Namespace) -> None:
    record = environment_record(gpu=arguments.gpu)
    print(json.dumps(record, indent=2) if arguments.json else "\n".join(environment_lines(record)))
