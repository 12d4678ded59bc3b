"""The argument parser of the three console commands: one spelling of flags, and one line for what is wrong.

Flags are written with dashes; underscores mean the same. Nothing is abbreviated: a beginning of a flag is refused like
any other misspelt flag, with what was probably meant. Every subcommand has `--config` (`settings_file.py`),
`--version`, and `--dry-run` where it writes or publishes. Imports the standard library only.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any, NoReturn

from fedllm_data.command_line.examples import examples
from fedllm_data.command_line.settings_file import apply_settings, given_file
from fedllm_data.command_line.spelling import dashed
from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError

__all__ = ["NEEDED", "DashedHelp", "OneLineParser", "ShowVersion", "add_command", "check_choice"]

NEEDED = "needed"
"""Title of the group of flags that must be given, which is shown first."""
_EVERYWHERE = "this command"


class DashedHelp(argparse.HelpFormatter):
    """Shows each flag with its metavar once, breaks lines at spaces alone, and leaves examples as they are.

    A flag or a name with dashes is never split over two lines.
    """

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return "\n".join(indent + line for line in self._split_lines(text, width - len(indent)))

    def short_usage(self, actions: Sequence[argparse.Action]) -> str:
        """Return what must be given, in lines as wide as the help."""
        flags = [self._format_action_invocation(each) for each in actions if each.required and each.option_strings]
        words = [self._format_args(each, each.dest.upper()) for each in actions if not each.option_strings]
        parts = [self._prog, *flags, "[flags]", *words]
        # A flag and its value stay in one line; a NUL stands for the space between them meanwhile.
        lines = wrap(" ".join(part.replace(" ", "\0") for part in parts), self._width - 7, break_on_hyphens=False)
        return "\n       ".join(lines).replace("\0", " ").replace("%", "%%")

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = [each for each in action.option_strings if "_" not in each]
        if not shown:
            return super()._format_action_invocation(action)
        if action.nargs == 0:
            return ", ".join(shown)
        return f"{', '.join(shown)} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, like every other error."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Take what `ArgumentParser` takes; abbreviations are off."""
        usual: dict[str, Any] = {"allow_abbrev": False, "formatter_class": DashedHelp}
        super().__init__(*arguments, **(usual | settings))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read flags in either spelling and a file of settings; refuse a misspelt flag before what is missing."""
        words = dashed(sys.argv[1:] if args is None else args)
        self._refuse_misspelt(words)
        if (path := given_file(words)) is not None and "--config" in self._option_string_actions:
            try:
                apply_settings(path, words, self._actions, self._mutually_exclusive_groups)
            except ConfigError as error:
                self.exit(2, f"{self.prog.split()[0]}: error: {error}\n")
        return super().parse_known_args(words, namespace)

    def format_help(self) -> str:
        """Return the help: what must be given first, what every command has last."""
        order = ["positional arguments", NEEDED, None, "options", _EVERYWHERE]
        titles = [group.title for group in self._action_groups]
        if _EVERYWHERE in titles:
            self._action_groups.sort(key=lambda group: order.index(group.title if group.title in order else None))
            self.usage = DashedHelp(self.prog).short_usage(self._actions)
        return super().format_help()

    def every_argument(self, command: str = "") -> Iterator[tuple[str, argparse.Action]]:
        """Yield each flag and argument with the subcommand that it belongs to, "" for the command itself."""
        for action in self._actions:
            if action.nargs != argparse.PARSER:
                yield command, action
                continue
            for name, parser in dict(action.choices or {}).items():
                yield from parser.every_argument(name)

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        ends = "" if message.endswith("?") else ";"
        self.exit(2, f"{self.prog.split()[0]}: error: {message}{ends} see {self.prog} --help\n")

    def _refuse_misspelt(self, words: Sequence[str]) -> None:
        for word in words:
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                return  # the rest belongs to a subcommand, or is no flag whatever it looks like
            flag = word.partition("=")[0]
            if not flag.startswith("--") or flag in self._option_string_actions or " " in word:
                continue
            hint = did_you_mean(flag, self._option_string_actions).rstrip()
            self.error(f"{flag} is no flag of {self.prog}" + (f"; {hint}" if hint else ""))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.nargs == argparse.PARSER and action.choices is not None and value not in action.choices:
            names = list(action.choices)
            hint = did_you_mean(value, names).rstrip()
            self.error(f"there is no command {value!r}; " + (hint or f"choose from {', '.join(names)}"))
        check_choice(action, value)


def add_command(
    commands: Any, name: str, *, does: str, writes: bool = False, shown: Sequence[tuple[str, str]] = ()
) -> OneLineParser:
    """Add a subcommand, with the flags that every subcommand has.

    Args:
        commands: what `add_subparsers` returned.
        name: of the subcommand.
        does: what it does, the end of a sentence.
        writes: whether it writes or publishes something, so that `--dry-run` means something.
        shown: what for, and the command, of each example.

    >>> parser = OneLineParser(prog="fedllm-data")
    >>> build = add_command(parser.add_subparsers(), "build", does="build a corpus", writes=True)
    >>> parser.parse_args(["build", "--dry-run"]).dry_run
    True
    """
    parser: OneLineParser = commands.add_parser(
        name,
        help=does,
        description=f"{does[:1].upper()}{does[1:]}.",
        epilog=examples(*shown) if shown else None,
        add_help=False,
    )
    everywhere = parser.add_argument_group(_EVERYWHERE)
    everywhere.add_argument("--config", metavar="FILE.yaml", help="settings of a file; flags override it")
    if writes:
        everywhere.add_argument(
            "--dry-run", action="store_true", help="check everything, say what would be read and written, and leave"
        )
    everywhere.add_argument("--version", action=ShowVersion)
    everywhere.add_argument("-h", "--help", action="help", help="show this and leave")
    return parser


def check_choice(action: argparse.Action, value: Any) -> None:
    """Refuse a value that is none of a flag's choices, with what it may stand for.

    Raises:
        argparse.ArgumentError: naming the choices.

    >>> flag = argparse.ArgumentParser().add_argument("--rule", choices=("iid", "dirichlet"))
    >>> check_choice(flag, "dirchlet")
    Traceback (most recent call last):
    argparse.ArgumentError: argument --rule: invalid choice: 'dirchlet'; did you mean dirichlet? (choose from iid, ...)
    """
    if action.choices is None or value in action.choices:
        return
    names = [str(each) for each in action.choices]
    hint = did_you_mean(str(value), names).rstrip()
    raise argparse.ArgumentError(
        action, f"invalid choice: {value!r}{f'; {hint}' if hint else ''} (choose from {', '.join(names)})"
    )


class ShowVersion(argparse.Action):
    """The flag `--version` of a command: prints its name and the version of the distribution, and leaves."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        """Take no value; `parser.add_argument("--version", action=ShowVersion)` is all there is to say."""
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and leave."""
        from importlib.metadata import version

        print(f"{parser.prog.split()[0]} {version('fedllm-commons')}")
        parser.exit()
