"""What the settings of `fedllm-train` are called on a command line, and errors in those words. Imports no torch.

A setting is `cohort_size` in Python and in a file, and `--cohort-size` as a flag; `--cohort_size` works as well. One
has a shorter flag: what a command makes is `--out` in every command of the project, and `output_dir` in a config.
"""

import re
from collections.abc import Collection

from fedllm_data.command_line.spelling import as_flag, as_name

__all__ = ["FORMER", "RENAMED", "flag_of", "in_flags", "name_of"]

RENAMED = {"output_dir": "out"}
"""Setting -> its flag, where the two differ."""
FORMER = {name.replace("_", "-"): flag for name, flag in RENAMED.items()}
"""Earlier name of a flag -> its name now."""

_FLAG = re.compile(r"(?<![\w-])--([a-z0-9]+(?:_[a-z0-9]+)+)")
_NAME = re.compile(r"(?<!column )(?<![\w./'\"=-])[a-z0-9]+(?:_[a-z0-9]+)+(?![\w(/'\"]|\.\w)")


def flag_of(name: str) -> str:
    """Return the flag of a setting.

    >>> flag_of("cohort_size"), flag_of("output_dir")
    ('--cohort-size', '--out')
    """
    return as_flag(name, RENAMED)


def name_of(flag: str) -> str:
    """Return the setting that a flag sets.

    >>> name_of("--lora-r=8"), name_of("--out"), name_of("--output_dir")
    ('lora_r', 'output_dir', 'output_dir')
    """
    return as_name(flag, RENAMED)


def in_flags(message: str, known: Collection[str] = ()) -> str:
    """Return an error of a config in the words of a command line.

    A name behind the word "column" is one of a table.

    Args:
        message: the error, which names settings as Python does.
        known: settings whose bare names become flags; none where a name may be a key of a `--config` file.

    >>> in_flags("cohort_size is 9; set local_steps=1 or set_up", {"cohort_size", "local_steps"})
    '--cohort-size is 9; set --local-steps=1 or set_up'
    >>> in_flags("cohort_size is 9; leave --uniform_weights out")
    'cohort_size is 9; leave --uniform-weights out'
    >>> in_flags("m.csv, line 2, column drop_out holds 'x'", {"drop_out"})
    "m.csv, line 2, column drop_out holds 'x'"
    """
    message = _FLAG.sub(lambda found: flag_of(found[1]), message)
    return _NAME.sub(lambda found: flag_of(found[0]) if found[0] in known else found[0], message)
