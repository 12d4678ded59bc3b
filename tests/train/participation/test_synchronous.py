"""The synchronous cohort: replies come out in the order of the client ids, and what comes early waits on disk."""

import re
from dataclasses import replace

import pytest

from fedllm_data.errors import WorkerError
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.participation.synchronous import SynchronousCohort, in_client_order


def answer(client_id, message=b"m", reason=None, step=0):
    return Reply(step=step, client_id=client_id, message=message, reason=reason, num_rows=1)


def test_early_messages_wait_on_disk_and_come_out_in_client_order(tmp_path):
    arrivals = [answer("c", b"3"), answer("b", None, "why"), answer("d", b"4"), answer("a", b"1")]
    ordered, waiting_messages = [], []
    for reply in in_client_order(iter(arrivals), ["a", "b", "c", "d"], tmp_path):
        waiting_messages.append(len(list(tmp_path.iterdir())))
        ordered.append(reply)
    assert [reply.client_id for reply in ordered] == ["a", "b", "c", "d"]
    assert [(reply.message, reply.reason) for reply in ordered] == [
        (b"1", None),
        (None, "why"),
        (b"3", None),
        (b"4", None),
    ]
    assert waiting_messages[0] == 2  # c and d lie on disk while a is folded
    assert not list(tmp_path.iterdir())


class Shuffled:
    """An engine that answers each task, in some order of its own."""

    def __init__(self, order):
        self._order, self._done = order, []
        self.asked = []

    def submit(self, tasks):
        self.asked = list(tasks)
        self._done = sorted(
            (answer(task.client_id, task.message, step=task.step) for task in self.asked), key=self._order
        )

    def take(self):
        return self._done.pop(0) if self._done else None


def test_a_cohort_is_asked_whole_and_its_replies_are_seen_in_one_order(tmp_path):
    clients = [f"c{number}" for number in range(9)]
    rule = {"cohort_size": 4, "rule": "uniform", "seed": 3, "spool": tmp_path}
    seen = []
    for order in (
        lambda reply: reply.client_id,
        lambda reply: reply.client_id[::-1],
        lambda reply: -ord(reply.client_id[1]),
    ):
        engine = Shuffled(order)
        participation = SynchronousCohort(client_ids=clients, **rule)
        replies = participation.replies(
            engine,
            7,
            lambda client_id: Task(
                run="key", step=7, client_id=client_id, seed=0, learning_rate=1.0, message=client_id.encode()
            ),
        )
        seen.append([(reply.client_id, reply.message) for reply in replies])
        assert [task.client_id for task in engine.asked] == sample_cohort(clients, 4, seed=3, round_index=7)
    assert seen[0] == seen[1] == seen[2] == [(each, each.encode()) for each, _ in seen[0]]
    assert len(seen[0]) == 4


class Careless(Shuffled):
    """An engine whose replies are changed before they are taken."""

    def __init__(self, change):
        super().__init__(lambda reply: reply.client_id)
        self._change = change

    def submit(self, tasks):
        super().submit(tasks)
        self._done = self._change(self._done)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda done: done[1:], "no reply of client 'c0' (1 missing of 3)"),
        (lambda done: done[:1], "no reply of client 'c1' (2 missing of 3)"),
        (lambda done: [*done, done[0]], "a reply of client 'c0' for step 0, which is not asked for"),
        (lambda done: [answer("zoe"), *done], "a reply of client 'zoe' for step 0, which is not asked for"),
        (lambda done: [replace(done[0], step=7), *done[1:]], "a reply of client 'c0' for step 7, which is not"),
        (lambda done: [replace(done[0], message=None), *done[1:]], "neither message nor reason"),
    ],
    ids=["first lost", "last lost", "twice", "stranger", "late", "nothing"],
)
def test_an_engine_that_gives_no_single_reply_a_task_is_told_which(tmp_path, change, message):
    rule = {"cohort_size": 3, "rule": "all", "seed": 3, "spool": tmp_path}
    participation = SynchronousCohort(client_ids=["c0", "c1", "c2"], **rule)

    def ask(client_id):
        return Task(run="key", step=0, client_id=client_id, seed=0, learning_rate=1.0, message=b"m")

    with pytest.raises(WorkerError, match=re.escape(message)):
        list(participation.replies(Careless(change), 0, ask))
