"""The synchronous cohort (McMahan et al. 2017, Algorithm 1): draw a cohort, ask all of it, wait for every reply.

Replies are seen in the order of the client ids whatever the order of arrival, so that sums do not depend on it (design
rule 3); a message that comes early waits on disk, not in memory. Imports no torch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedllm_data.client_index import without
from fedllm_data.errors import WorkerError
from fedllm_train.engines.engine import Engine, Reply, Task, replies_of
from fedllm_train.engines.shelf import NOTHING, Shelf
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.participation.participation_contract import TurnTaking, kept_back

__all__ = ["SynchronousCohort", "asked_all", "in_client_order"]


@dataclass(frozen=True, kw_only=True)
class SynchronousCohort:
    """Asks a cohort and waits for all of it."""

    client_ids: Sequence[str]
    """Clients that may take part."""
    cohort_size: int
    rule: str
    """A name in `cohort_rules.COHORT_RULES`."""
    seed: int
    """What cohorts are drawn from: the run seed, but where a guarantee rests on nobody knowing who took part."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows of each client, for rules that weigh them."""
    always: str | None = None
    """A client that is asked in every round beside the cohort, and is none of `client_ids`."""
    spool: Path | None = None
    """An existing folder for messages that come early; None keeps them in memory."""
    turns: TurnTaking | None = None
    """Who may not come yet, where a guarantee of privacy says how often."""

    def replies(self, engine: Engine, step: int, ask: Callable[[str], Task]) -> Iterator[Reply]:
        """Yield one reply for each client of the cohort, in the order of their ids.

        Args:
            engine: carries the tasks.
            step: the round's index.
            ask: makes the task of a client.

        Raises:
            WorkerError: if the engine gives more or fewer than one reply a task.
        """
        cohort = self.cohort(step)
        if self.always is not None:
            cohort = sorted([*cohort, self.always])
        yield from in_client_order(asked_all(engine, step, cohort, ask), cohort, self.spool)

    def cohort(self, step: int) -> list[str]:
        """Return the clients of a round, sorted.

        With a rule of turns nobody is in it whose turn it is not, and fewer are where not as many are left.
        """
        pool, size = self.client_ids, self.cohort_size
        if self.turns is not None:
            pool = without(self.client_ids, kept_back(self.turns, step))
            size = min(size, len(pool))
            if not size:
                return []
        return sample_cohort(pool, size, seed=self.seed, round_index=step, rule=self.rule, sizes=self.sizes)


def asked_all(engine: Engine, step: int, cohort: Sequence[str], ask: Callable[[str], Task]) -> Iterator[Reply]:
    """Ask some clients, and yield one reply of each in order of arrival.

    Args:
        engine: carries the tasks.
        step: the round's index.
        cohort: whom to ask.
        ask: makes the task of a client.

    Raises:
        WorkerError: if the engine gives more or fewer than one reply a task.
    """
    engine.submit(ask(client_id) for client_id in cohort)
    yield from _checked(replies_of(engine), cohort, step)


def _checked(replies: Iterable[Reply], cohort: Sequence[str], step: int) -> Iterator[Reply]:
    """Yield replies while there is exactly one, with a message or a reason, for each client of the cohort."""
    missing = set(cohort)
    for reply in replies:
        if reply.client_id not in missing or reply.step != step:
            raise WorkerError(
                f"round {step + 1}: the engine gave a reply of client {reply.client_id!r} for step {reply.step}, "
                f"which is not asked for (any more) at step {step}; give one reply a task before take() returns None"
            )
        if reply.message is None and reply.reason is None:
            raise WorkerError(
                f"round {step + 1}: the engine gave a reply of client {reply.client_id!r} with neither message nor "
                "reason; say the reason where there is no message"
            )
        missing.remove(reply.client_id)
        yield reply
    if missing:
        raise WorkerError(
            f"round {step + 1}: the engine gave no reply of client {min(missing)!r} ({len(missing)} missing of "
            f"{len(cohort)}); give one with a reason for a client that is lost"
        )


def in_client_order(replies: Iterable[Reply], cohort: Sequence[str], spool: Path | None) -> Iterator[Reply]:
    """Yield replies in the order of the cohort; the message of one that comes early waits on disk.

    Args:
        replies: one per client of the cohort, in order of arrival.
        cohort: client ids in the order wanted (sorted).
        spool: an existing folder for what waits; left empty. None keeps it in memory.
    """
    position = {client_id: index for index, client_id in enumerate(cohort)}
    shelf = Shelf(spool, name="early")
    waiting: dict[int, tuple[Reply, int]] = {}
    due = 0
    for reply in replies:
        index = position[reply.client_id]
        if index != due:
            number = NOTHING if reply.message is None else shelf.put(reply.message)
            waiting[index] = (replace(reply, message=None), number)
            continue
        yield reply
        due += 1
        while due in waiting:
            early, number = waiting.pop(due)
            yield early if number == NOTHING else replace(early, message=shelf.pick_up(number))
            due += 1
    assert not waiting, "an engine gives one reply a task"
