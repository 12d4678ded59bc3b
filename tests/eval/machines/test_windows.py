"""When a machine is open: moments that were rounded to just before a window, and windows that touch."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_eval.machines.machine import Windows


@st.composite
def windows(draw):
    period = draw(st.sampled_from([0.3, 100.0, 72.62916750842027, 86400.0, 604800.0]))
    shares = draw(st.lists(st.integers(0, 1000), min_size=2, max_size=8, unique=True).map(sorted))
    ends = [period * share / 1000 for share in shares]
    return Windows(tuple(zip(ends[::2], ends[1::2], strict=False)), period)


@given(windows(), st.floats(0, 1e6))
@settings(max_examples=200, deadline=None)
def test_a_machine_closes_after_it_opens_and_not_later_than_its_windows_are_long(each, moment):
    opens = each.opens(moment)
    assert moment <= opens <= moment + 2 * each.period
    closes = each.closes(opens)
    assert opens <= closes
    if closes < math.inf:
        assert closes - opens <= 2 * sum(end - start for start, end in each.intervals) + 1e-6


def test_a_moment_rounded_to_just_before_its_window_closes_with_that_window():
    """Found by drawing: opens() gave a moment whose remainder was below the start of the second window."""
    each = Windows(
        ((5.9760798078389215, 7.71479161902683), (43.928437496891846, 72.09575193546497)), 72.62916750842027
    )
    opens = each.opens(81076.64603354955)
    assert math.isclose(each.closes(opens) - opens, 72.09575193546497 - 43.928437496891846, rel_tol=1e-6)
