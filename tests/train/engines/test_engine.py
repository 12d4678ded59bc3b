"""The engine in this process: a task is drawn when it can start, so that one seat holds one message."""

import gc
import weakref

from fedllm_train.engines.engine import InProcessEngine, Reply, Task, replies_of


class EchoHost:
    """Answers with the message of the task."""

    def visit(self, task):
        return Reply(step=task.step, client_id=task.client_id, message=bytes(task.message), num_rows=1)


def task(client_id, message=b"m"):
    return Task(run="key", step=0, client_id=client_id, message=message, learning_rate=1.0, seed=0)


def test_an_engine_with_one_seat_holds_one_message():
    alive = []

    def tasks():
        for number in range(6):
            made = task(f"c{number}", b"%d" % number)
            alive.append(weakref.ref(made))
            yield made
            del made

    engine = InProcessEngine(EchoHost())
    engine.submit(tasks())
    assert not alive  # nothing is drawn before somebody takes
    for number, reply in enumerate(replies_of(engine)):
        gc.collect()
        assert reply.message == b"%d" % number
        assert len(alive) == number + 1
        assert sum(each() is not None for each in alive) <= 1
    assert len(alive) == 6


def test_tasks_that_come_later_are_done_after_those_before_and_then_nothing_is_under_way():
    engine = InProcessEngine(EchoHost())
    assert engine.take() is None
    engine.submit([task("a"), task("b")])
    assert engine.take().client_id == "a"
    engine.submit(iter([]))
    engine.submit([task("c")])
    assert [reply.client_id for reply in replies_of(engine)] == ["b", "c"]
    assert engine.take() is None
