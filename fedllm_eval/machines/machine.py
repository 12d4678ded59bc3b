"""One client's line and device, and how long a visit takes there.

Symbols: a visit downloads D bytes, does F floating-point operations and uploads U bytes on a machine with latency l,
lines of d and u bits a second and f operations a second. It takes

    (l + 8 D / d) + F / f + (l + 8 U / u)    seconds.

A machine may be open only at times (idle, charging, on Wi-Fi; a factory's shift): windows within a period that
repeats, as in FedScale's traces (Lai et al. 2022, arXiv 2105.11367). Nothing here draws or waits.
"""

import math
from dataclasses import dataclass

from fedllm_data.errors import ConfigError

__all__ = ["Machine", "VisitSeconds", "Windows", "sending_seconds", "visit_seconds"]


@dataclass(frozen=True)
class Windows:
    """When a machine may be asked to work: intervals of a period that repeats for ever, in seconds."""

    intervals: tuple[tuple[float, float], ...]
    """(start, end) of each, sorted, apart from one another, within the period."""
    period: float

    def __post_init__(self) -> None:
        """Refuse windows that overlap, are empty or leave the period.

        Raises:
            ConfigError: with the interval.
        """
        if not (math.isfinite(self.period) and self.period > 0 and self.intervals):
            raise ConfigError(f"windows {self.intervals} of period {self.period}; give a positive period and a window")
        before = 0.0
        for start, end in self.intervals:
            if not before <= start < end <= self.period:
                raise ConfigError(
                    f"the window {start:g} to {end:g} overlaps another, is empty or leaves the period of "
                    f"{self.period:g} s; list windows in order"
                )
            before = end

    def opens(self, at: float) -> float:
        """Return the first moment from `at` on at which the machine is open; `at` itself where it is.

        >>> Windows(((0.0, 10.0), (50.0, 60.0)), period=100.0).opens(20.0)
        50.0
        """
        turn, index = self._window(at)
        return max(at, turn * self.period + self.intervals[index][0])

    def closes(self, at: float) -> float:
        """Return when the window that holds `at`, or the next one, ends; infinite for a machine that is always open.

        Windows that touch, also across the end of the period, are one.

        >>> Windows(((0.0, 10.0), (50.0, 60.0)), period=100.0).closes(55.0)
        60.0
        """
        if sum(end - start for start, end in self.intervals) >= self.period:
            return math.inf
        turn, index = self._window(at)
        end = self.intervals[index][1]
        while True:
            index += 1
            if index == len(self.intervals):
                if end < self.period:
                    break
                index, turn, end = 0, turn + 1, 0.0
            if self.intervals[index][0] > end:
                break
            end = self.intervals[index][1]
        return turn * self.period + end

    def _window(self, at: float) -> tuple[float, int]:
        """The turn of the period and the number of the window that holds a moment, or of the next one.

        A moment that `opens` returned may be rounded to just before its window: it counts as within.
        """
        turn, within = divmod(at, self.period)
        for index, (_, end) in enumerate(self.intervals):
            if within < end:
                return turn, index
        return turn + 1, 0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A client's line and device; None where a fact is not known."""

    download_mbit: float | None = None
    """What its line takes in, in 10^6 bits a second."""
    upload_mbit: float | None = None
    """What its line gives out."""
    latency_ms: float = 0.0
    """What every message waits for besides its bytes, in milliseconds: about a ping, since it is asked for or
    confirmed."""
    flops: float | None = None
    """Floating-point operations a second that it reaches in training, not its peak."""
    memory_gb: float | None = None
    """For training, in 10^9 bytes."""
    watts: float | None = None
    """What it draws while it trains."""
    drop_out: float = 0.0
    """Probability that a visit is lost."""
    windows: Windows | None = None
    """When it is open; None means always."""
    profile: str = ""
    """The profile it was made from, if any."""

    def __post_init__(self) -> None:
        """Refuse numbers that no machine has.

        Raises:
            ConfigError: naming the number.
        """
        for name in ("download_mbit", "upload_mbit", "flops", "memory_gb", "watts"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; give a positive number")
        if not (math.isfinite(self.latency_ms) and self.latency_ms >= 0):
            raise ConfigError(f"latency_ms is {self.latency_ms}; give a number of milliseconds from 0 on")
        if not 0 <= self.drop_out < 1:
            raise ConfigError(f"'drop_out' is {self.drop_out}; give a probability from 0 to below 1")


@dataclass(frozen=True)
class VisitSeconds:
    """How long the three parts of a visit take."""

    download: float
    compute: float
    upload: float

    @property
    def total(self) -> float:
        """The visit's length."""
        return self.download + self.compute + self.upload


def visit_seconds(
    machine: Machine, *, download_bytes: int, flops: float, upload_bytes: int, client_id: str
) -> VisitSeconds:
    """Return how long a visit takes on a machine that is open all the while.

    Args:
        machine: the client's.
        download_bytes: length of the server's message.
        flops: operations of the client's training.
        upload_bytes: length of the client's message.
        client_id: the client, for the error.

    Raises:
        ConfigError: if a line or the speed is not known.

    >>> machine = Machine(download_mbit=8.0, upload_mbit=4.0, latency_ms=100.0, flops=1e9)
    >>> visit_seconds(machine, download_bytes=10**6, flops=2e9, upload_bytes=10**6, client_id="ann")
    VisitSeconds(download=1.1, compute=2.0, upload=2.1)
    """
    for name in ("download_mbit", "upload_mbit", "flops"):
        if getattr(machine, name) is None:
            raise ConfigError(
                f"client {client_id!r} has no {name}, so how long its visit takes is not known; add it to the client "
                "table, or give a profile that has it"
            )
    assert machine.download_mbit is not None
    assert machine.upload_mbit is not None
    assert machine.flops is not None
    latency = machine.latency_ms / 1000
    return VisitSeconds(
        download=latency + 8e-6 * download_bytes / machine.download_mbit,
        compute=flops / machine.flops,
        upload=latency + 8e-6 * upload_bytes / machine.upload_mbit,
    )


def sending_seconds(download_bytes: float, upload_bytes: float, *, download_mbit: float, upload_mbit: float) -> float:
    """Return how long bytes take over a line whose latency nobody stated.

    Args:
        download_bytes: what came down.
        upload_bytes: what went up.
        download_mbit: what the line takes in, in 10^6 bits a second.
        upload_mbit: what it gives out.

    >>> sending_seconds(10**6, 10**6, download_mbit=8.0, upload_mbit=4.0)
    3.0
    """
    return 8e-6 * (download_bytes / download_mbit + upload_bytes / upload_mbit)
