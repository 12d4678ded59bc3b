"""The examples at the end of a command's help: what for, and a command that can be pasted and runs.

Imports the standard library only.
"""

import shlex
from collections.abc import Sequence

__all__ = ["commands_in_help", "examples"]

_WIDTH = 78


def examples(*shown: tuple[str, str]) -> str:
    r"""Return the text of some examples; long commands go on in a second line, after a backslash, as shells have it.

    Args:
        shown: what for, and the command, of each.

    >>> print(examples(("List the corpora", "fedllm-data list")))
    examples:
      # List the corpora
      fedllm-data list
    """
    lines = ["examples:"]
    for purpose, command in shown:
        lines += [f"  # {purpose}", *_wrapped(command.split(" "))]
    return "\n".join(lines)


def commands_in_help(text: str) -> list[str]:
    r"""Return the commands of the examples in a help text, each in one line.

    >>> commands_in_help("examples:\n  # Make one\n  fedllm-data build x \\\n    --out y")
    ['fedllm-data build x --out y']
    """
    shown = text.partition("examples:\n")[2].replace(" \\\n", " ")
    return [" ".join(line.split()) for line in shown.splitlines() if line.strip().startswith("fedllm-")]


def _wrapped(words: Sequence[str]) -> list[str]:
    """The words in lines; a flag stays with its value."""
    parts: list[str] = []
    for word in words:
        if parts and not word.startswith("--") and parts[-1].startswith("--") and " " not in parts[-1]:
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    lines = ["  " + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    assert shlex.split(" ".join(words)), "an example is a command"
    return lines
