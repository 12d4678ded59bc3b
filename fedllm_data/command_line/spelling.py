"""How flags are spelt: with dashes, in every command.

A flag is `--cohort-size`; `--cohort_size` means the same. In a YAML file and in Python the same setting is
`cohort_size`. Imports the standard library only.
"""

from collections.abc import Mapping, Sequence

__all__ = ["as_flag", "as_name", "dashed"]


def dashed(argv: Sequence[str], former: Mapping[str, str] | None = None) -> list[str]:
    """Return a command line whose flags have dashes; values are left alone, and so is what follows `--`.

    Args:
        argv: the words of a command line.
        former: earlier name of a flag -> its name now, both with dashes and without the two in front.

    >>> dashed(["--num_rounds=3", "--output_dir", "a_b", "--", "--x_y"], {"output-dir": "out"})
    ['--num-rounds=3', '--out', 'a_b', '--', '--x_y']
    """
    former = former or {}
    spelt: list[str] = []
    for position, word in enumerate(argv):
        if word == "--":
            return [*spelt, *argv[position:]]
        flag, equals, value = word.partition("=")
        if word.startswith("--") and " " not in flag:
            name = flag[2:].replace("_", "-")
            word = f"--{former.get(name, name)}{equals}{value}"
        spelt.append(word)
    return spelt


def as_flag(name: str, renamed: Mapping[str, str] | None = None) -> str:
    """Return the flag of a setting.

    Args:
        name: of the setting, as Python has it.
        renamed: setting -> name of its flag, where the two differ.

    >>> as_flag("cohort_size"), as_flag("output_dir", {"output_dir": "out"})
    ('--cohort-size', '--out')
    """
    return "--" + (renamed or {}).get(name, name).replace("_", "-")


def as_name(flag: str, renamed: Mapping[str, str] | None = None) -> str:
    """Return the setting that a flag sets, in Python's spelling; the opposite of `as_flag`.

    Args:
        flag: such as `--cohort-size` or `--cohort-size=3`.
        renamed: setting -> name of its flag, where the two differ.

    >>> as_name("--cohort-size=3"), as_name("--out", {"output_dir": "out"})
    ('cohort_size', 'output_dir')
    """
    name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
    return {short: setting for setting, short in (renamed or {}).items()}.get(name, name)
