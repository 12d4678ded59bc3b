"""The argument parser of the three console commands: one spelling of flags, and one line for what is wrong.

Flags are written with dashes; underscores mean the same. Nothing is abbreviated: a beginning of a flag is refused like
any other misspelt flag, with what was probably meant. Imports the standard library only.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fedllm_data.command_line.spelling import dashed
from fedllm_data.did_you_mean import did_you_mean

__all__ = ["DashedHelp", "OneLineParser", "ShowVersion", "check_choice"]


class DashedHelp(argparse.HelpFormatter):
    """Shows each flag with its metavar once, and no second spelling of it with underscores."""

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
        """Read flags in either spelling; refuse a misspelt one before anything that is missing."""
        words = dashed(sys.argv[1:] if args is None else args)
        self._refuse_misspelt(words)
        return super().parse_known_args(words, namespace)

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
