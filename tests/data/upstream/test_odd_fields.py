"""Values that upstream fields may hold: what counts as a text, an id, an option, and how a reason quotes them."""

import pytest

from fedllm_data.errors import SourceError
from fedllm_data.pipeline.load import kind_of_fault
from fedllm_data.upstream.odd_fields import choice_option, id_of, quoted, text_of

ODD = [None, True, 1.5, [], {}, ["x"], b"x", "", " ", "\n"]


@pytest.mark.parametrize("value", ODD)
def test_what_says_nothing_is_neither_text_nor_id(value):
    assert text_of(value) is None
    assert id_of(value) is None


def test_texts_stay_as_they_are_and_ids_have_one_spelling():
    assert text_of(" x\ud800") == " x\ud800"  # broken Unicode is for row validation to name
    assert (id_of(" x"), id_of(0), id_of(-(10**30))) == ("x", "0", "-1" + "0" * 30)


@pytest.mark.parametrize("value", [*ODD, "it's 'so'", 'a "b"', "x" * 1000, "\ud800\0", 10**30, {"a": ["b"] * 99}])
def test_reasons_that_differ_in_a_quoted_value_count_together(value):
    assert len(quoted(value)) <= 42
    assert kind_of_fault(f"role {quoted(value)} is unknown") == kind_of_fault(f"role {quoted('x')} is unknown")


def test_an_option_takes_its_first_word_unless_told_and_no_other():
    assert choice_option({}, "pairs", ("choices", "scores")) == "choices"
    assert choice_option({"pairs": "scores"}, "pairs", ("choices", "scores")) == "scores"
    with pytest.raises(SourceError, match="option pairs is 'all'; give choices or scores"):
        choice_option({"pairs": "all"}, "pairs", ("choices", "scores"))
