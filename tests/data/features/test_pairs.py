from dataclasses import replace

import pyarrow as pa

from fedllm_data.codebook import Codebook
from fedllm_data.features.pairs import pair_columns
from fedllm_data.features.token_counts import UNICODE_WORDS

BOOK = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")
ENGLISH, GERMAN = "It is raining, so take an umbrella with you.", "Es regnet, also nimm bitte einen Schirm mit."


def _rows(*triples, language="en", **models):
    def said(role, text):
        return [{"role": role, "content": text}]

    return pa.Table.from_pylist(
        [
            {
                "language": language,
                "prompt": said("user", prompt),
                "chosen": said("assistant", chosen),
                "rejected": said("assistant", rejected),
                **models,
            }
            for prompt, chosen, rejected in triples
        ]
    )


def test_both_sides_are_measured_alike():
    rows = _rows(("Hi", ENGLISH, "I cannot help with that."), chosen_model="one", rejected_model=None)
    columns = pair_columns(rows, UNICODE_WORDS, BOOK)
    assert (columns["chosen_tokens"].tolist(), columns["rejected_tokens"].tolist()) == ([9], [5])
    assert (columns["chosen_refusal"].tolist(), columns["rejected_refusal"].tolist()) == ([0], [1])
    assert (columns["chosen_model"], columns["rejected_model"]) == (["one"], [None])


def test_an_answer_in_another_language_is_told_from_one_that_nobody_knows():
    rows = _rows(("Will it rain?", ENGLISH, GERMAN), ("Will it rain?", "12", ENGLISH))
    columns = pair_columns(rows, UNICODE_WORDS, BOOK)
    assert columns["chosen_in_language"].tolist() == [1, -1]
    assert columns["rejected_in_language"].tolist() == [0, 1]
    undetermined = pair_columns(_rows(("?", ENGLISH, GERMAN), language="und"), UNICODE_WORDS, BOOK)
    assert undetermined["chosen_in_language"].tolist() == [-1]


def test_two_clients_with_opposite_verdicts_share_the_pair_and_not_the_side():
    columns = pair_columns(
        _rows(
            ("Rain?", "Yes.", "No."), ("rain? ", "no.", "YES."), ("Rain?", "Yes.", "Maybe."), ("Snow?", "Yes.", "No.")
        ),
        UNICODE_WORDS,
        BOOK,
    )
    prompts, pairs, sides = columns["prompt_key"], columns["pair_key"], columns["pair_side"].tolist()
    assert prompts[0] == prompts[1] == prompts[2] != prompts[3]
    assert pairs[0] == pairs[1]
    assert len(set(pairs)) == 3  # another answer, and the same answers to another prompt
    assert {sides[0], sides[1]} == {0, 1}


def test_keys_show_no_text_and_depend_on_the_salt():
    rows = _rows(("Rain?", "Yes.", "No."))
    one, two = (pair_columns(rows, UNICODE_WORDS, book) for book in (BOOK, replace(BOOK, prompt_salt="01")))
    for name in ("prompt_key", "pair_key"):
        assert one[name] != two[name]
        assert int(one[name][0], 16) < 2**64
