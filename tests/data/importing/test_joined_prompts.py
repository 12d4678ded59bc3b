"""A prompt stated twice, beside the answers and before them: what precedes is kept, what contradicts is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.importer import row_of

DRAWN = settings(max_examples=150, derandomize=True, deadline=None, database=None)
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}


def turn(role, content):
    return {"role": role, "content": content}


def pair(prompt, before, columns=None):
    fields = {"who": "a", "chosen": [*before, GOOD], "rejected": [*before, BAD]}
    return row_of(fields if prompt is None else {**fields, "prompt": prompt}, "preference", "who", columns)


@st.composite
def contexts(draw, prefix=""):
    """A prompt of one to four user turns, no text twice, with a system message or without."""
    num_turns = 2 * draw(st.integers(0, 3)) + 1
    turns = [turn(("user", "assistant")[index % 2], f"{prefix}{index}") for index in range(num_turns)]
    return [turn("system", f"{prefix}system"), *turns] if draw(st.booleans()) else turns


@DRAWN
@given(contexts(), st.data())
def test_a_prompt_in_two_parts_that_meet_or_overlap_is_kept_whole(context, data):
    end = data.draw(st.integers(1, len(context)))
    start = data.draw(st.integers(0, end))
    row = pair(context[:end], context[start:])
    assert row["prompt"] == context
    assert (row["chosen"], row["rejected"]) == ([GOOD], [BAD])


@DRAWN
@given(contexts(), st.data())
def test_a_prompt_that_the_answers_repeat_with_more_is_theirs(context, data):
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    assert pair(context[start:end], context)["prompt"] == context


@DRAWN
@given(contexts("a"), contexts("b"))
def test_prompts_that_share_nothing_contradict_each_other(one, other):
    assert "prompt: contradicts" in pair(one, other)
    assert pair(one, other, {"prompt": ""})["prompt"] == other


@DRAWN
@given(contexts(), st.data())
def test_one_changed_turn_is_a_contradiction(context, data):
    place = data.draw(st.integers(0, len(context) - 1))
    changed = [*context[:place], {**context[place], "content": "changed"}, *context[place + 1 :]]
    assert "prompt: contradicts" in pair(changed, context)


def test_a_system_message_and_earlier_turns_of_the_prompt_do_not_vanish():
    system, first, reply, last = (
        turn("system", "Be kind"),
        turn("user", "1"),
        turn("assistant", "2"),
        turn("user", "3"),
    )
    assert pair([system, last], [last])["prompt"] == [system, last]
    assert pair([system], [last])["prompt"] == [system, last]
    assert pair([first, reply, last], [last])["prompt"] == [first, reply, last]
    assert pair([first, reply], [last])["prompt"] == [first, reply, last]
    assert pair([first], [reply, last])["prompt"] == [first, reply, last]


@pytest.mark.parametrize(
    "prompt", ["3", " 3\n", [{"role": "user", "content": "3"}], [{"from": "human", "value": "3"}]]
)
def test_a_prompt_that_says_the_same_may_be_written_otherwise(prompt):
    before = [turn("user", "1"), turn("assistant", "2"), turn("user", "3")]
    assert pair(prompt, before)["prompt"] == before


def test_no_prompt_is_needed_where_the_answers_hold_it():
    before = [turn("user", "1")]
    for prompt in (None, ""):
        assert pair(prompt, before)["prompt"] == before


def test_a_system_message_that_differs_from_the_column_system_is_refused():
    fields = {"who": "a", "system": "x", "prompt": [turn("system", "y"), turn("user", "q")]}
    fields |= {"chosen": "good", "rejected": "bad"}
    assert "system: differs" in row_of(fields, "preference", "who")
    row = row_of(fields, "preference", "who", {"system": ""})
    assert row["prompt"] == fields["prompt"]
