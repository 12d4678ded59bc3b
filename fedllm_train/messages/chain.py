"""A chain of packed broadcasts: which changes lead from one version of the adapter to the next, and who can follow.

A version is named by the step whose clients were sent it; before the first there is the version that every client
knows, the starting adapter (`NO_STEP`). A client that has version v is sent the changes after v, one by one and in
order, so that it comes to the bits of a client that missed nothing; or the whole adapter, whichever is shorter.

A change is kept while some version could be reached with it in fewer bytes than the whole takes. Sums of bytes only
grow, so what is dropped is never missed, and all that is kept is about as long as one adapter; clients that are still
under way keep those that they were sent, for a run that is stopped and asks them again. So are the clients bounded
whose version is remembered: those that were asked since the oldest change. Imports no torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.engines.engine import NO_STEP

__all__ = ["Chain", "Change"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """The packed difference between a version and the one before."""

    packed: Adapter
    num_bytes: int
    """Length of a message that carries it alone."""


class Chain:
    """The changes that are kept, and the versions of the clients that could follow them."""

    def __init__(
        self, changes: Mapping[int, Change] | None = None, *, start: int = NO_STEP, versions: Mapping[str, int]
    ) -> None:
        """Go on from what is kept.

        Args:
            changes: step -> the change that made its version, oldest first.
            start: the version that the oldest change starts from.
            versions: client -> its version.
        """
        self.changes = dict(changes or {})
        self.start = start
        self.versions = dict(versions)

    def add(self, step: int, change: Change, *, whole_bytes: int) -> None:
        """Append a change; from now on nobody is sent changes that are longer than the whole, of `whole_bytes`.

        >>> chain = Chain(versions={"ann": 0, "bob": 1, "cyd": -1})
        >>> for step in range(3):
        ...     chain.add(step, Change(packed={}, num_bytes=10), whole_bytes=25)
        >>> chain.start, chain.versions
        (0, {'ann': 0, 'bob': 1})
        """
        self.changes[step] = change
        left = [step for step in self.changes if step > self.start]
        total = sum(self.changes[step].num_bytes for step in left)
        while left and total >= whole_bytes:
            self.start = left.pop(0)
            total -= self.changes[self.start].num_bytes
        self.versions = {client_id: each for client_id, each in self.versions.items() if each >= self.start}

    def prune(self, under_way: Iterable[tuple[int, int]]) -> None:
        """Drop the changes that nobody can be sent any more.

        Args:
            under_way: from and to which version somebody who has not replied was sent changes.

        >>> chain = Chain({step: Change(packed={}, num_bytes=1) for step in range(5)}, start=3, versions={})
        >>> chain.prune([(0, 1)])
        >>> list(chain.changes)
        [1, 4]
        """
        needed = {step for version, last in under_way for step in self.between(version, last)}
        self.changes = {step: each for step, each in self.changes.items() if step > self.start or step in needed}

    def version_of(self, client_id: str) -> int | None:
        """Return the version that a client is known to have, if changes lead on from it; else None.

        >>> chain = Chain(start=4, versions={"ann": 5})
        >>> chain.version_of("ann"), chain.version_of("bob")
        (5, None)
        """
        version = self.versions.get(client_id, NO_STEP)
        return version if version >= self.start else None

    def between(self, version: int, step: int) -> dict[int, Change]:
        """Return the changes that lead from one version to the version of a step, in order."""
        return {each: change for each, change in self.changes.items() if version < each <= step}

    def accepted(self, client_id: str, step: int) -> None:
        """Remember that a client has the version of a step: its reply to that step was accepted."""
        if step >= self.start:
            self.versions[client_id] = step

    def lost(self, client_id: str) -> None:
        """Forget a client's version: nobody knows what it still has."""
        self.versions.pop(client_id, None)
