"""A synchronous cohort whose updates are only ever summed: the four exchanges of a secure sum around its visits.

Keys and shares are asked for first, then updates, as ever, then what opens their sum (`privacy/secure_sum/`). A client
that is lost at any of them is left out, and the round goes on without it while enough are left. Vectors are added as
they arrive: sums modulo 2^b do not depend on the order. What is yielded has no message any more. Imports no torch.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fedllm_train.engines.engine import Engine, Purpose, Reply, Task
from fedllm_train.participation.synchronous import SynchronousCohort, asked_all
from fedllm_train.privacy.secure_sum.exchanges import joined
from fedllm_train.privacy.secure_sum.round_sums import RoundSums
from fedllm_train.privacy.secure_sum.server_side import SumServer

__all__ = ["SecureCohort"]


@dataclass(frozen=True, kw_only=True)
class SecureCohort:
    """Asks a cohort for what makes its sum."""

    clients: SynchronousCohort
    """Who is asked."""
    sums: RoundSums
    """Begun for each step before it asks."""
    run_key: str
    charge: Callable[[int, int], None]
    """Called with the bytes of a round's exchanges down and up, beside its messages."""

    def replies(self, engine: Engine, step: int, ask: Callable[[str], Task]) -> Iterator[Reply]:
        """Yield one reply for each client of the cohort, in the order of their ids, when the sum is open or given up.

        Args:
            engine: carries the tasks.
            step: the round's index.
            ask: makes the task of a client's visit.

        Raises:
            WorkerError: if the engine gives more or fewer than one reply a task.
        """
        cohort, server = self.clients.cohort(step), self.sums.server
        assert server is not None, "the aggregation began the round"
        out = {client_id: reply for client_id, reply in self._before(engine, step, cohort, server)}
        visited: list[Reply] = []
        if self.sums.reason is None:
            visited = list(self._visits(engine, step, ask, server))
            if self.sums.goes_on(server.arrived):
                self._unmask(engine, step, server)
        else:
            reason = f"the round was given up: {self.sums.reason}"
            out |= {
                client_id: Reply(step=step, client_id=client_id, reason=reason, facts=_NOTHING_DONE)
                for client_id in cohort
                if client_id not in out
            }
        self.sums.open()
        self.charge(self.sums.exchanged_down, self.sums.exchanged_up)
        yield from heapq.merge(
            (out[client_id] for client_id in sorted(out)),
            sorted(visited, key=_by_id),
            key=_by_id,
        )

    def _before(
        self, engine: Engine, step: int, cohort: Sequence[str], server: SumServer
    ) -> Iterator[tuple[str, Reply]]:
        """Exchange keys and shares; yield those who are lost."""
        if not self.sums.goes_on(cohort):
            return
        yield from self._exchange(engine, step, "keys", cohort, server.keys_request(), server.take_keys)
        self.sums.pinned()
        if not self.sums.goes_on(server.with_keys):
            return
        yield from self._exchange(
            engine, step, "shares", server.with_keys, server.shares_request(), server.take_shares
        )
        self.sums.goes_on(server.with_shares)

    def _exchange(
        self,
        engine: Engine,
        step: int,
        purpose: Purpose,
        asked: Sequence[str],
        question: bytes,
        take: Callable[[str, bytes], str | None],
    ) -> Iterator[tuple[str, Reply]]:
        """Ask all for the same, and yield those whose answers cannot be used."""
        for reply in asked_all(engine, step, asked, lambda name: self._task(step, purpose, name, question)):
            problem = reply.reason
            if reply.message is not None:
                self.sums.exchanged_up += len(reply.message)
                problem = take(reply.client_id, reply.message)
            if problem is not None:
                kind = reply.kind if reply.message is None else "refused"
                yield (
                    reply.client_id,
                    Reply(step=step, client_id=reply.client_id, reason=problem, kind=kind, facts=_NOTHING_DONE),
                )

    def _visits(self, engine: Engine, step: int, ask: Callable[[str], Task], server: SumServer) -> Iterator[Reply]:
        """Ask for updates, and add their masked vectors."""
        header = server.train_header()

        def headed(client_id: str) -> Task:
            task = ask(client_id)
            message = joined(header, task.message)
            self.sums.exchanged_down += len(message) - len(task.message)
            return replace(task, message=message)

        for reply in asked_all(engine, step, server.with_shares, headed):
            if reply.message is None:
                yield reply
                continue
            problem = server.take_vector(reply.client_id, reply.message, self.sums.size)
            sent = len(reply.message) if reply.upload_bytes is None else reply.upload_bytes
            if problem is None:
                yield replace(reply, message=b"", upload_bytes=sent)
            else:
                yield replace(reply, message=None, reason=problem, kind="refused", upload_bytes=sent)

    def _unmask(self, engine: Engine, step: int, server: SumServer) -> None:
        """Ask those who arrived for what opens the sum; who does not answer is in it all the same."""

        def question(client_id: str) -> Task:
            return self._task(step, "unmask", client_id, server.unmask_request(client_id))

        for reply in asked_all(engine, step, server.arrived, question):
            if reply.message is not None:
                self.sums.exchanged_up += len(reply.message)
                server.take_open(reply.client_id, reply.message)

    def _task(self, step: int, purpose: Purpose, client_id: str, question: bytes) -> Task:
        self.sums.exchanged_down += len(question)
        return Task(
            run=self.run_key,
            step=step,
            client_id=client_id,
            purpose=purpose,
            seed=0,
            learning_rate=0.0,
            message=question,
        )


_NOTHING_DONE = {"num_steps": 0, "seconds": 0.0}
"""Facts of a client that made no visit."""


def _by_id(reply: Reply) -> str:
    return reply.client_id
