"""A round with a deadline: ask more clients than are needed, and take those that come first.

As in Bonawitz et al. 2019 (arXiv 1902.01046): a round ends when `wanted` updates have arrived, or at its deadline, or
when nobody is left to wait for. Whoever is under way then is late: given up at once, or, with `late="apply"`, left to
finish; its update is then used, as a change, in the round in which it comes. A client that is still under way is not
asked again. Fewer updates than `min_clients` make no server step, and the round's time has passed all the same.

It halves a round and favours clients on fast machines: `left_out` names the others. Imports no torch.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedllm_data.client_index import without
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.engines.simulated import SimulatedEngine
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.participation.participation_contract import TurnTaking, kept_back
from fedllm_train.participation.step_replies import StepReplies, give_up_stale

__all__ = ["DeadlineCohort"]


@dataclass(frozen=True, kw_only=True)
class DeadlineCohort:
    """Asks more clients than it needs, and waits for the first of them."""

    client_ids: Sequence[str]
    """Clients that may take part."""
    wanted: int
    """Updates that end a round."""
    asked: int
    """Clients that are asked in a round; fewer where not as many are free."""
    deadline_seconds: float | None
    """Simulated seconds after which a round ends; None waits for as long as it takes."""
    rule: str
    """A name in `cohort_rules.COHORT_RULES`."""
    seed: int
    """What cohorts are drawn from."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows of each client, for rules that weigh them."""
    keeps_late: bool = False
    """Whether clients that are late finish, and their updates are used."""
    max_staleness: int | None = None
    """How many steps old an update may be; None for any."""
    is_partial: bool = False
    """Whether clients make as many steps as fit before the deadline."""
    spool: Path | None = None
    """An existing folder for messages that wait; None keeps them in memory."""
    turns: TurnTaking | None = None
    """Who may not come yet, where a guarantee of privacy says how often."""

    def replies(self, engine: SimulatedEngine, step: int, ask: Callable[[str], Task]) -> Iterator[Reply]:
        """Yield the replies of a round, the late ones among them, in the order of the client ids.

        Args:
            engine: carries the tasks, on a clock.
            step: the round's index.
            ask: makes the task of a client.
        """
        gathered = StepReplies(self.spool)
        gathered.add_all(give_up_stale(engine, step, self.max_staleness))
        end = math.inf if self.deadline_seconds is None else engine.now + self.deadline_seconds
        engine.submit(self._task(engine, step, ask, client_id, end) for client_id in self._cohort(engine, step))
        num_punctual = 0
        while num_punctual < self.wanted and (reply := engine.take_until(end)) is not None:
            gathered.add(reply)
            num_punctual += reply.message is not None and reply.step == step
        if num_punctual < self.wanted and engine.under_way():
            engine.wait_until(end)
        if not self.keeps_late:
            gathered.add_all(engine.stop("the round ended"))
        yield from gathered.in_client_order()

    def _cohort(self, engine: SimulatedEngine, step: int) -> list[str]:
        """Who is asked: nobody who is still under way."""
        busy = {each.client_id for each in engine.under_way()}
        free = without(self.client_ids, busy | kept_back(self.turns, step))
        size = min(self.asked, len(free))
        if not size:
            return []
        return sample_cohort(free, size, seed=self.seed, round_index=step, rule=self.rule, sizes=self.sizes)

    def _task(
        self, engine: SimulatedEngine, step: int, ask: Callable[[str], Task], client_id: str, end: float
    ) -> Task:
        task = ask(client_id)
        if not self.is_partial:
            return task
        fitting = engine.clock.steps_that_fit(
            client_id, step, asked=engine.now, download_bytes=len(task.message), until=end
        )
        return replace(task, num_steps=fitting)
