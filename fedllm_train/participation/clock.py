"""How long a visit takes on its client's machine, and whether the client is lost on the way: a simulated clock.

Nothing waits and nothing is measured: a visit's times follow from the machine (`fedllm_eval/machines/machine.py`), the
lengths of its two messages and the floating-point operations that are planned for it. Symbols: asked at moment a, the
machine is open from b >= a on, and the visit takes d + c + u seconds for download, computing and upload:

    a -- waits for its window -- b -- d -- b + d -- c -- b + d + c -- u -- arrives

With the machine's probability of dropping out the client is lost, at a moment drawn uniformly over d + c + u. If its
window closes before it is done, its work is lost, too (as in FedLLM-Factory and FLASH's traces of phones). Draws come
from (seed, "clock", round, client), so that a resumed run loses the same clients. Imports no torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fedllm_eval.machines.machine import Machine, VisitSeconds, visit_seconds
from fedllm_train.seeds import stream_rng

__all__ = ["Clock", "Ending", "Spent", "TimedVisit"]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a visit ends."""

    at: float
    """When, in seconds of the run's clock."""
    kind: Literal["arrived", "lost", "closed"]
    seconds: VisitSeconds
    """How long its parts take, or would have taken."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was sent and done of a visit by some moment."""

    part: Literal["waiting", "downloading", "training", "uploading"]
    """What the client was doing then."""
    download_bytes: int
    """All of the server's message once it is being sent: the server has paid for it."""
    num_steps: int
    upload_bytes: int


@dataclass(frozen=True, kw_only=True)
class TimedVisit:
    """A visit on the clock, before its upload's length is known."""

    client_id: str
    step: int
    machine: Machine
    asked: float
    begins: float
    """When its machine is open."""
    download_bytes: int
    num_steps: int
    """Optimizer steps that are planned."""
    flops: float
    lost_share: float | None
    """Share of the visit's time after which the client is lost; None if it is not."""

    def seconds(self, upload_bytes: int) -> VisitSeconds:
        """Return how long the parts of the visit take, with an upload of this length."""
        return visit_seconds(
            self.machine,
            download_bytes=self.download_bytes,
            flops=self.flops,
            upload_bytes=upload_bytes,
            client_id=self.client_id,
        )

    def ending(self, upload_bytes: int) -> Ending:
        """Return how and when the visit ends with an upload of this length; never earlier with a longer one."""
        seconds = self.seconds(upload_bytes)
        at, kind = self.begins + seconds.total, "arrived"
        if self.lost_share is not None:
            at, kind = self.begins + self.lost_share * seconds.total, "lost"
        closes = math.inf if self.machine.windows is None else self.machine.windows.closes(self.begins)
        if closes < at:
            at, kind = closes, "closed"
        return Ending(at=at, kind=kind, seconds=seconds)  # type: ignore[arg-type]

    def spent(self, moment: float, upload_bytes: int) -> Spent:
        """Return what was sent and done by a moment, if the visit went on until then.

        Args:
            moment: in seconds of the run's clock.
            upload_bytes: length of the client's message.
        """
        seconds = self.seconds(upload_bytes)
        since = moment - self.begins
        if since < 0:
            return Spent(part="waiting", download_bytes=0, num_steps=0, upload_bytes=0)
        if since < seconds.download:
            return Spent(part="downloading", download_bytes=self.download_bytes, num_steps=0, upload_bytes=0)
        trained = since - seconds.download
        if trained < seconds.compute:
            done = min(self.num_steps, math.floor(self.num_steps * trained / seconds.compute))
            return Spent(part="training", download_bytes=self.download_bytes, num_steps=done, upload_bytes=0)
        latency = self.machine.latency_ms / 1000
        line = max(seconds.upload - latency, 0.0)
        share = (trained - seconds.compute - latency) / line if line > 0 else 0.0
        sent = math.floor(upload_bytes * min(max(share, 0.0), 1.0))
        return Spent(part="uploading", download_bytes=self.download_bytes, num_steps=self.num_steps, upload_bytes=sent)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """From a client and what it is asked to how long that takes."""

    seed: int
    """The run seed."""
    machine_of: Callable[[str], Machine]
    flops_of: Callable[[str, int], float]
    """From a client and the optimizer steps of its visit to the floating-point operations that these take."""
    steps_of: Callable[[str], int]
    """The optimizer steps of a client's visit by the run's rule of local work."""
    upload_bytes_of: Callable[[str], int] = field(default=lambda client_id: 0)
    """How long a client's message is likely to be; how many steps fit before a deadline is worked out with it."""
    fits_per_visit: int = 1
    """How often a client goes through these steps in a visit: twice where it trains an adapter of its own as well."""
    drop_out: float | None = None
    """Probability that a client is lost in a visit, for all clients; None for each machine's own."""
    travels: bool = True
    """Whether messages go over a line; if not, they take no time but the latency."""

    def visit(
        self, client_id: str, step: int, *, asked: float, download_bytes: int, num_steps: int | None = None
    ) -> TimedVisit:
        """Return a visit on the clock.

        Args:
            client_id: the client.
            step: the server step that it is asked for.
            asked: when.
            download_bytes: length of the server's message.
            num_steps: optimizer steps of one pass through them (`fits_per_visit`); by default as many as the rule of
                local work says.

        Raises:
            ConfigError: if the client's line or speed is not known.
        """
        machine = self.machine_of(client_id)
        steps = (self.steps_of(client_id) if num_steps is None else num_steps) * self.fits_per_visit
        rng = stream_rng(self.seed, "clock", round_index=step, client_id=client_id)
        fate, share = rng.random(2).tolist()  # both are always drawn, so that a drop-out rate moves no other draw
        chance = machine.drop_out if self.drop_out is None else self.drop_out
        return TimedVisit(
            client_id=client_id,
            step=step,
            machine=machine,
            asked=asked,
            begins=asked if machine.windows is None else machine.windows.opens(asked),
            download_bytes=download_bytes if self.travels else 0,
            num_steps=steps,
            flops=self.flops_of(client_id, steps),
            lost_share=share if fate < chance else None,
        )

    def steps_that_fit(self, client_id: str, step: int, *, asked: float, download_bytes: int, until: float) -> int:
        """Return how many optimizer steps a client can make so that its message arrives by a moment; 1 at least.

        Args:
            client_id: the client.
            step: the server step that it is asked for.
            asked: when.
            download_bytes: length of the server's message.
            until: the moment.

        Returns:
            From 1 to the steps of the rule of local work. With 1 the message may be late all the same.
        """
        upload_bytes = self.upload_bytes_of(client_id) if self.travels else 0

        def fits(num_steps: int) -> bool:
            visit = self.visit(client_id, step, asked=asked, download_bytes=download_bytes, num_steps=num_steps)
            return visit.begins + visit.seconds(upload_bytes).total <= until

        low, high = 1, self.steps_of(client_id)
        while low < high:  # the largest that fits; time grows with the steps
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low
