"""Buffered asynchronous rounds: FedBuff (Nguyen et al. 2022, arXiv 2106.06639, Algorithm 1).

Some clients train at any time (`concurrency`). Whenever one is done another is asked, from the server's newest state,
and the server makes a step whenever `buffer_size` updates have come. So an update may be some steps old: the
aggregation applies it as a change and gives it less weight (`aggregation/staleness.py`).

A client is asked at most once for a step, and gives at most one update to a step. Lost clients do not fill the buffer;
where nobody is left to ask, a step is made of what has come. Imports no torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedllm_data.client_index import without
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.engines.simulated import SimulatedEngine
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.participation.participation_contract import TurnTaking, kept_back
from fedllm_train.participation.step_replies import StepReplies, give_up_stale
from fedllm_train.seeds import stream_seed

__all__ = ["BufferedClients"]


@dataclass(frozen=True, kw_only=True)
class BufferedClients:
    """Keeps clients under way, and takes what comes."""

    client_ids: Sequence[str]
    """Clients that may take part."""
    buffer_size: int
    """Updates that make a server step."""
    concurrency: int
    """Clients under way at any time; fewer where not as many are free."""
    rule: str
    """How the next clients are drawn: uniform or weighted."""
    seed: int
    """What they are drawn from."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows of each client, for the rule weighted."""
    max_staleness: int | None = None
    """How many steps old an update may be; None for any."""
    spool: Path | None = None
    """An existing folder for messages that wait; None keeps them in memory."""
    turns: TurnTaking | None = None
    """Who may not come yet, where a guarantee of privacy says how often."""

    def replies(self, engine: SimulatedEngine, step: int, ask: Callable[[str], Task]) -> Iterator[Reply]:
        """Yield the replies that make a step, in the order of the client ids.

        Args:
            engine: carries the tasks, on a clock; what was under way after the step before still is.
            step: the server step, from 0.
            ask: makes the task of a client, from the server's newest state.
        """
        gathered = StepReplies(self.spool)
        replied: set[str] = set()

        def take(reply: Reply) -> int:
            replied.add(reply.client_id)
            gathered.add(reply)
            return int(reply.message is not None)

        for stale in give_up_stale(engine, step, self.max_staleness):
            take(stale)
        num_updates = num_draws = 0
        while num_updates < self.buffer_size:
            # What arrives at one moment is taken before anybody is asked at that moment.
            reply = engine.take_until(engine.now)
            if reply is None:
                asked = self._next(engine, step, replied, num_draws)
                num_draws += bool(asked)
                engine.submit(ask(client_id) for client_id in asked)
                reply = engine.take()
            if reply is None:
                break
            num_updates += take(reply)
        yield from gathered.in_client_order()

    def _next(self, engine: SimulatedEngine, step: int, replied: set[str], num_draws: int) -> list[str]:
        """Who is asked now; the first to be asked for a step are drawn like a cohort."""
        busy = {each.client_id for each in engine.under_way()}
        room = self.concurrency - len(busy)
        if room <= 0:
            return []
        free = without(self.client_ids, busy | replied | kept_back(self.turns, step))
        size = min(room, len(free))
        if not size:
            return []
        seed = self.seed if not num_draws else stream_seed(self.seed, "next clients", round_index=num_draws)
        return sample_cohort(free, size, seed=seed, round_index=step, rule=self.rule, sizes=self.sizes)
