"""What a run says of itself: its rounds, and how long is left, from the first client on and after a resume too."""

import pytest

from fedllm_train.engines.engine import Reply
from fedllm_train.monitoring.progress import QUIET_SECONDS, RoundProgress, StepProgress
from fedllm_train.monitoring.time_left import TimeLeft


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def record(index, loss=0.5, **more):
    return {"round_index": index, "train_loss": loss, "seconds": 2.0, "left_out": [], **more}


def reply(step, client_id="ann"):
    return Reply(step=step, client_id=client_id, num_rows=1)


def test_each_round_says_how_long_the_others_should_take(clock, capsys):
    progress = RoundProgress(4, clock)
    with progress:
        for index, seconds in enumerate((30, 10, 20, 5)):  # the first one also loads
            clock.now += seconds
            progress.recorded(record(index))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("; ")[2] for line in lines] == [
        "about 90 s left",  # 3 of 30 s
        "about 20 s left",  # 2 of 10 s
        "about 15 s left",  # 1 of (10 + 20) / 2
        "",
    ]
    assert lines[-1] == "round 4/4: loss 0.5000, 2.0 s"


def test_a_resumed_run_counts_the_rounds_that_it_makes_itself(clock, capsys):
    progress = RoundProgress(100, clock)
    with progress:
        clock.now += 10
        progress.recorded(record(97))
        clock.now += 4
        progress.recorded(record(98))
    # Were the 97 earlier rounds counted, the first estimate would be about 2 x 10 / 98 s.
    assert [line.partition("; ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "about 20 s left",
        "about 4 s left",
    ]


def test_a_long_round_says_in_between_how_far_it_is(clock, capsys):
    progress = RoundProgress(2, clock)
    progress.cohort_size = 4
    with progress:
        for _ in range(3):
            clock.now += QUIET_SECONDS - 10
            progress.saw(reply(0), None)
        clock.now += QUIET_SECONDS - 10
        progress.saw(reply(0), None)
        progress.recorded(record(0))
    lines = capsys.readouterr().err.splitlines()
    # After two clients, 40 s: 20 s a client, and 2 + 4 of them are left.
    assert lines == ["round 1/2: 2 of 4 clients; about 2 min left", "round 1/2: loss 0.5000, 2.0 s; about 80 s left"]


def test_more_clients_than_expected_and_a_stopped_run_say_nothing_of_the_time(clock, capsys):
    progress = RoundProgress(9, clock)
    progress.cohort_size = 1  # Poisson sampling may bring more
    with progress:
        for _ in range(3):
            clock.now += 100
            progress.saw(reply(0), None)
        progress.recorded(record(0, None, monitor={"stop": True, "best_round": 0}))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "round 1/9: nothing trained, 2.0 s; stopped, round 1 was best"


def test_clients_that_were_left_out_are_named(clock, capsys):
    with RoundProgress(1, clock) as progress:
        progress.recorded(record(0, left_out=[{"client_id": "bob", "reason": "no rows"}]))
    assert capsys.readouterr().err.splitlines()[0] == "round 1: client 'bob' left out: no rows"


def test_on_a_terminal_there_is_a_bar_that_ends_with_the_loss(clock, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with RoundProgress(2, clock) as progress:
        progress.saw(reply(0), None)
        for index in range(2):
            clock.now += 7
            progress.recorded(record(index))
    shown = capsys.readouterr().err
    assert "loss 0.5000" in shown
    assert "2/2" in shown
    assert "round 1/2:" not in shown


def test_steps_of_a_plain_loop_say_it_every_fifty(clock, capsys):
    with StepProgress(120, clock) as progress:
        for step in range(1, 121):
            clock.now += 1
            progress.advance(step, 120, 2.0)
    assert capsys.readouterr().err.splitlines() == [
        "step 50/120: loss 2.0000; about 70 s left",
        "step 100/120: loss 2.0000; about 20 s left",
        "step 120/120: loss 2.0000",
    ]


def test_only_the_newest_steps_count():
    now = iter([0.0, *range(1, 41), *range(140, 2140, 100)])
    left = TimeLeft(lambda: float(next(now)))
    for _ in range(40):  # 1 s each
        left.after_step(1)
    assert left.after_step(1) == pytest.approx((19 + 100) / 20)
