"""Drawn machines and a host that answers at once, for tests of the clock and of the rules that go by it."""

from hypothesis import strategies as st

from fedllm_eval.machines.machine import Machine, Windows
from fedllm_train.engines.engine import InProcessEngine, Reply, Task
from fedllm_train.engines.simulated import SimulatedEngine
from fedllm_train.participation.clock import Clock

STEPS = 10


class Quick:
    """Answers at once; the length of a message follows from client and step. Counts its visits."""

    def __init__(self):
        self.visits = []

    def visit(self, task):
        self.visits.append((task.client_id, task.step))
        message = bytes(100 + 37 * (len(task.client_id) + task.step) % 50)
        facts = {"num_steps": task.num_steps or STEPS, "seconds": 0.5, "train_loss": 1.0}
        return Reply(step=task.step, client_id=task.client_id, message=message, num_rows=3, facts=facts)


@st.composite
def machine_tables(draw, *, min_size=1, drop_outs=(0.0, 0.3, 0.9), with_windows=True):
    """Client ids with their machines."""
    number = draw(st.integers(min_size, 9))
    table = {}
    for index in range(number):
        windows = None
        if with_windows and draw(st.booleans()):
            opens, closes = sorted(draw(st.sets(st.integers(0, 40), min_size=2, max_size=2)))
            windows = Windows(((float(opens), float(closes)),), 41.0)
        table[f"c{index}"] = Machine(
            download_mbit=draw(st.sampled_from([0.001, 0.01, 1.0])),
            upload_mbit=draw(st.sampled_from([0.0005, 0.01, 1.0])),
            latency_ms=draw(st.sampled_from([0.0, 20.0, 600.0])),
            flops=draw(st.sampled_from([1.0, 10.0, 1000.0])),
            drop_out=draw(st.sampled_from(drop_outs)),
            windows=windows,
        )
    return table


def clock_of(table, **changes):
    settings = {"seed": 3, "flops_of": lambda client_id, steps: 2.0 * steps, "steps_of": lambda client_id: STEPS}
    return Clock(machine_of=table.__getitem__, **settings | changes)


def simulated(table, *, host=None, **changes):
    return SimulatedEngine(InProcessEngine(host or Quick()), clock_of(table), **changes)


def asking(step, asked=None):
    """What makes a client's task in a step; notes in `asked` who was."""

    def ask(client_id):
        if asked is not None:
            asked.append((client_id, step))
        return Task(run="key", step=step, client_id=client_id, seed=0, learning_rate=1.0, message=bytes(64))

    return ask
