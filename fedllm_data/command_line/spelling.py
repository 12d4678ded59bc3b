"""How flags and names are spelt: dashes for every flag, and what a misspelt word was probably meant to be.

A flag is `--cohort-size`; `--cohort_size` means the same. In a YAML file and in Python the same setting is
`cohort_size`. Closeness is difflib's (Ratcliff and Obershelp), with case and separators left out of account.
Imports the standard library only.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["alike", "as_flag", "as_name", "dashed", "did_you_mean"]


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


def alike(word: str, known: Iterable[str], at_most: int = 1) -> list[str]:
    """Return the known names that a misspelt word may stand for, the closest first.

    Args:
        word: what was written.
        known: the names that exist.
        at_most: how many to return.

    >>> alike("--strat", ["--seed", "--strategy"]), alike("FedAvg", ["fedavgm", "fedavg"]), alike("x", ["fedavg"])
    (['--strategy'], ['fedavg'], [])
    """
    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_plain(name), name)
    wanted = _plain(word)
    if wanted in plain:
        return [plain[wanted]]
    begun = sorted((each for each in plain if wanted and each.startswith(wanted)), key=len)
    close = difflib.get_close_matches(wanted, plain, n=at_most, cutoff=0.6)
    found = [*begun, *(each for each in close if each not in begun)] if len(wanted) > 2 else close
    return [plain[each] for each in found[:at_most]]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names what a misspelt word may stand for, or nothing; to be put before a remedy.

    >>> did_you_mean("fed-oast", ["fed-oasst", "fed-aya"])
    'did you mean fed-oasst? '
    >>> did_you_mean("zzz", ["fed-oasst"])
    ''
    """
    found = alike(word, known)
    return f"did you mean {found[0]}? " if found else ""


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(" ", "")
