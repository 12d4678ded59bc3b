"""When a machine is open, as text and as a FedScale trace, to and from `Windows`.

    22:00-06:00                          every night; several are joined by commas, and the run begins at 00:00
    0-3600,7200-9000/10000               seconds within a period of 10,000
    {"active": [0, 7200], "inactive": [3600, 9000], "finish_time": 10000}      the same as a trace

A trace is read as FedScale reads it (Lai et al. 2022, arXiv 2105.11367; `client_metadata.py`): open from each `active`
to the `inactive` of the same place, by the clock modulo `finish_time`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.machine import Windows

__all__ = ["TRACE", "as_float", "parse_windows", "windows_of", "windows_of_trace", "windows_text"]

TRACE = ("active", "inactive", "finish_time")
"""The keys of a trace."""
_DAY = 86400
_HOURS = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_SECONDS = re.compile(r"([\d.]+(?:e[+-]?\d+)?)-([\d.]+(?:e[+-]?\d+)?)")
_FORMS = "write hours such as 22:00-06:00, or seconds of a period such as 0-3600,7200-9000/10000"


def parse_windows(text: str) -> Windows:
    """Return windows from their text; those past midnight are parted there.

    Raises:
        ConfigError: if it is of neither form, or windows overlap.

    >>> parse_windows("22:00-06:00")
    Windows(intervals=((0.0, 21600.0), (79200.0, 86400.0)), period=86400.0)
    """
    listed, slash, period = text.replace(" ", "").partition("/")
    pieces = listed.split(",")
    if slash:
        found = [_SECONDS.fullmatch(piece) for piece in pieces]
        try:
            spans = [(float(match[1]), float(match[2])) for match in found if match]
            if len(spans) == len(pieces):
                return Windows(tuple(spans), float(period))
        except ValueError:
            pass
        raise ConfigError(f"windows {text!r} cannot be read; {_FORMS}")
    spans = []
    for piece in pieces:
        match = _HOURS.fullmatch(piece)
        if match is None:
            raise ConfigError(f"windows {text!r} cannot be read; {_FORMS}")
        hours = [int(each) for each in match.groups()]
        start, end = 3600.0 * hours[0] + 60 * hours[1], 3600.0 * hours[2] + 60 * hours[3]
        if max(start, end) > _DAY or max(hours[1], hours[3]) > 59:
            raise ConfigError(f"windows {text!r} leave the day; hours go from 00:00 to 24:00")
        spans += (
            [(start, end)] if start < end else [span for span in ((0.0, end), (start, 86400.0)) if span[1] > span[0]]
        )
    return Windows(tuple(sorted(spans)), float(_DAY))


def windows_of_trace(trace: Mapping[str, Any]) -> Windows:
    """Return a trace's windows.

    Args:
        trace: `active` and `inactive`, increasing seconds, and `finish_time`, the period. A device that is open at
            the beginning or the end may lack the first `active` or the last `inactive`.

    Raises:
        ConfigError: if a list is missing or they do not fit together.

    >>> windows_of_trace({"active": [5], "inactive": [2, 9], "finish_time": 10})
    Windows(intervals=((0.0, 2.0), (5.0, 9.0)), period=10.0)
    """
    try:
        active, inactive = ([as_float(each) for each in trace[name]] for name in TRACE[:2])
        finish = as_float(trace["finish_time"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"a trace needs active and inactive, lists of seconds, and finish_time ({error}); add what is missing"
        ) from error
    if inactive and (not active or inactive[0] < active[0]):
        active = [0.0, *active]
    if len(active) == len(inactive) + 1:
        inactive = [*inactive, finish]
    if len(active) != len(inactive):
        raise ConfigError(
            f"a trace has {len(active)} times active and {len(inactive)} inactive, which do not take turns; correct it"
        )
    return Windows(tuple(zip(active, inactive, strict=True)), finish)


def windows_text(windows: Windows) -> str:
    """Return windows as `parse_windows` reads them, to the bit.

    >>> windows_text(Windows(((0.0, 3600.0), (7200.0, 9000.5)), 10000.0))
    '0-3600,7200-9000.5/10000'
    """
    return f"{','.join(f'{_plain(a)}-{_plain(b)}' for a, b in windows.intervals)}/{_plain(windows.period)}"


def windows_of(value: Any) -> Windows:
    """Return windows from whatever a JSON or YAML file states: text, a trace, or `intervals` with a `period`.

    Raises:
        ConfigError: if it is none of these.

    >>> windows_of({"intervals": [[0, 10]], "period": 60})
    Windows(intervals=((0.0, 10.0),), period=60.0)
    """
    if isinstance(value, str):
        return parse_windows(value)
    if isinstance(value, Mapping):
        if "active" in value:
            return windows_of_trace(value)
        intervals, period = value.get("intervals"), value.get("period")
        try:
            if isinstance(intervals, Sequence) and not isinstance(intervals, str):
                spans = tuple((as_float(start), as_float(end)) for start, end in intervals)
                return Windows(spans, as_float(period))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"windows {value!r} cannot be read ({error}); {_FORMS}") from error
    raise ConfigError(f"windows {value!r} cannot be read; {_FORMS}")


def as_float(value: Any) -> float:
    """Return a number as a float; a whole number beyond all floats as an infinite one, which is refused like others.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is text of none.

    >>> as_float(10**400), as_float("12.5")
    (inf, 12.5)
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _plain(value: float) -> str:
    return repr(int(value)) if value.is_integer() else repr(value)
