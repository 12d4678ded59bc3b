"""What a misspelt word was probably meant to be.

Closeness is difflib's (Ratcliff and Obershelp); case, dashes, underscores and spaces are left out of account. Imports
the standard library only: flags, settings, corpora, columns and metrics all ask here.
"""

import difflib
import re
from collections.abc import Iterable

__all__ = ["alike", "did_you_mean"]


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
    begun = sorted((each for each in plain if each.startswith(wanted)), key=len)
    begun += [each for each, name in plain.items() if _last_part(name) == wanted and each not in begun]
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


def _last_part(name: str) -> str:
    """What follows the last slash, or the last separator: heldout_loss is also known as loss."""
    return _plain(re.split("/" if "/" in name else "[-_ ]", name)[-1])


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(" ", "")
