"""One conversation in every form that public files have gives the same messages; what no row can hold is named."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.importer import row_of
from fedllm_data.importing.import_notes import ImportNotes
from fedllm_data.schema import row_problem
from tests.data.sources.fuzzing import READ, faulty

DRAWN = settings(max_examples=60, derandomize=True, deadline=None, database=None)
HI, HELLO, BYE = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
)
ODD_PLACES = ("client_id", "messages", "prompt", "chosen", "rejected", "contains a NUL")
NAMES = {
    "user": ["user", "human", "Human", "USER", "prompter"],
    "assistant": ["assistant", "gpt", "GPT", "chatgpt", "bing", "bard", "model", "Assistant", "bot"],
    "system": ["system", "System", "developer"],
}


def messages_of(value, **settings):
    row = row_of({"who": "a", "messages": value}, "sft", "who", **settings)
    return row if isinstance(row, str) else row["messages"]


@st.composite
def conversations(draw):
    """One to three exchanges of texts without marks of turns, with a system message or without."""
    text = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    text = text.filter(lambda words: words.strip() and ":" not in words)
    turns = [
        {"role": role, "content": draw(text)} for _ in range(draw(st.integers(1, 3))) for role in ("user", "assistant")
    ]
    return [{"role": "system", "content": draw(text)}, *turns] if draw(st.booleans()) else turns


@DRAWN
@given(conversations(), st.data())
def test_every_form_of_a_conversation_gives_the_same_messages(turns, data):
    def named(turn):
        return data.draw(st.sampled_from(NAMES[turn["role"]]))

    shared = [{"from": named(turn), "value": turn["content"], "weight": None} for turn in turns]
    columns = {"from": [turn["from"] for turn in shared], "value": [turn["value"] for turn in shared]}
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    texts = [{"role": named(turn), "text": turn["content"]} for turn in turns]
    array = repr(np.array(turns, dtype=object).tolist()).replace("}, {", "}\n {")
    for value in (turns, shared, columns, parts, texts, json.dumps(turns), json.dumps(shared), repr(turns), array):
        assert messages_of(value) == turns
    for name in ("conversations", "conversation", "dialogue"):
        assert row_of({"who": "a", name: shared}, "sft", "who")["messages"] == turns
    trl = {"who": "a", "prompt": turns[:-1], "completion": turns[-1:]}
    assert row_of(trl, "sft", "who")["messages"] == turns
    stored = {"who": "a", "prompt": json.dumps(turns[:-1]), "completion": repr(turns[-1:])}
    assert row_of(stored, "sft", "who")["messages"] == turns
    pair = {"who": "a", "prompt": turns[:-1], "chosen": shared[-1], "rejected": {"from": "gpt", "value": "no"}}
    row = row_of(pair, "preference", "who")
    assert [*row["prompt"], *row["chosen"]] == turns


@DRAWN
@given(conversations())
def test_texts_with_marked_turns_are_read_as_they_were_written(turns):
    turns = [{**turn, "content": turn["content"].strip()} for turn in turns if turn["role"] != "system"]
    marks = {
        "user": ("\n\nHuman:", "### Human:", "\n\n\nUSER:", "<|im_end|>\n<|im_start|>user\n"),
        "assistant": ("\n\nAssistant:", "### Assistant:", "\n\n\nASSISTANT:", "<|im_end|>\n<|im_start|>assistant\n"),
    }
    for style in range(4):
        text = "".join(f"{marks[turn['role']][style]} {turn['content']}" for turn in turns).removeprefix(
            "<|im_end|>\n"
        )
        assert messages_of(text) == turns
        pair = {"who": "a", "chosen": text, "rejected": text + " not"}
        row = row_of(pair, "preference", "who")
        assert [*row["prompt"], *row["chosen"]] == turns
        assert row["rejected"] == [{"role": "assistant", "content": turns[-1]["content"] + " not"}]


@READ
@given(
    faulty(
        st.fixed_dictionaries(
            {
                "who": st.just("a"),
                "messages": st.just([HI, {**HELLO, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
                "prompt": st.sampled_from(["Hi", [HI], [{"from": "human", "value": "Hi"}]]),
                "chosen": st.sampled_from(["x", [HI, HELLO], {"from": "gpt", "value": "x"}, "\n\nHuman: x"]),
                "rejected": st.sampled_from(["y", [HI, BYE], [HELLO], "\n\nHuman: x\n\nAssistant: y"]),
                "instruction": st.sampled_from(["Hi", [HI], None]),
                "input": st.sampled_from(["", "more", None]),
                "output": st.sampled_from(["Hello", [HELLO]]),
                "system": st.sampled_from([None, "Be kind"]),
                "tools": st.sampled_from([None, "[]", [{"name": "f"}], '[{"name": "f"}]']),
            }
        )
    ),
    st.sampled_from(["sft", "preference"]),
)
def test_an_odd_record_is_a_row_or_a_reason_and_no_column_goes_unnamed(record, task):
    notes = ImportNotes(["who"])
    row = row_of(record, task, "who", notes=notes)
    assert isinstance(row, str) or row_problem(row, task) is None or row_problem(row, task).startswith(ODD_PLACES)
    facts = notes.facts()
    read = {column for columns in facts["columns_by_target"].values() for column in columns}
    assert set(record) <= read | set(facts["other_columns_read"]) | set(facts["unused_columns"])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ([HI, BYE, HELLO], ["Hi\n\nBye", "Hello"]),
        ([HI, HELLO, HELLO], ["Hi", "Hello\n\nHello"]),
        ([HI, HELLO, BYE], ["Hi", "Hello"]),
        ([HI, HELLO, BYE, BYE], ["Hi", "Hello"]),
        (
            [{"role": "developer", "content": "d"}, {"role": "system", "content": "s"}, HI, HELLO],
            ["d\n\ns", "Hi", "Hello"],
        ),
        ([{"role": "system", "content": ""}, HI, HELLO], ["Hi", "Hello"]),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, HELLO], ["a\nb", "Hello"]),
        ([{"input": "Hi", "output": "Hello"}, {"input": "Bye", "output": "!"}], ["Hi", "Hello", "Bye", "!"]),
        (["Hi", "Hello", "Bye"], ["Hi", "Hello"]),
        (
            [{"from": "human", "value": "Hi", "role": None}, {"from": None, "role": "model", "content": "x"}],
            ["Hi", "x"],
        ),
    ],
)
def test_turns_are_joined_and_unanswered_ones_left_out(value, wanted):
    assert [turn["content"] for turn in messages_of(value)] == wanted


def test_what_was_changed_is_counted_by_row():
    notes = ImportNotes(["who"])
    for value in ([HI, BYE, HELLO], [HI, BYE, HELLO, BYE], [HI, HELLO], [BYE]):
        row_of({"who": "a", "messages": value}, "sft", "who", notes=notes)
    assert notes.facts()["changed_rows"] == {"merged_turns": 2, "unanswered_turns": 1}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([HI], "messages: holds no message of an assistant"),
        (
            [{"role": "narrator", "content": "x"}, HI, HELLO],
            "messages[0]: role 'narrator' is not known; say what it means",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, HELLO],
            "a part of type 'image_url'",
        ),
        ([{"role": "user", "content": None}, HELLO], "messages[0]: content is null"),
        ([{"role": "user", "content": 7}, HELLO], "messages[0]: content must be text, got int"),
        ([HI, {"role": "assistant", "content": " "}], "messages[1]: content is empty"),
        ([{"role": "user"}, HELLO], "messages[0]: must have role and content"),
        ([{"content": "Hi"}, HELLO], "messages[0]: must have role and content"),
        ([{"role": "user", "from": "gpt", "content": "x"}, HELLO], "messages[0]: says two things"),
        ([{"role": "user", "content": "x", "value": "y"}, HELLO], "messages[0]: says two things"),
        ([], "messages: is an empty list"),
        ([HI, 7], "messages[1]: must be a message with role and content, got int"),
        ("What is up?", "neither JSON nor a Python literal"),
        (7, "messages: must be a list of messages, got int"),
    ],
)
def test_what_no_row_can_hold_is_named(value, words):
    assert words in messages_of(value)


def test_roles_of_ones_own_are_given_by_name():
    value = [{"role": "Customer", "content": "Hi"}, {"role": "agent", "content": "Hello"}]
    assert "--roles Customer=user" in messages_of(value)
    assert messages_of(value, roles={"customer": "user", "agent": "assistant"}) == [HI, HELLO]


def test_keys_of_messages_that_say_something_are_named():
    notes = ImportNotes(["who"])
    value = [{**HI, "name": None}, {**HELLO, "weight": 0, "tool_calls": [], "reasoning_content": "hm"}]
    row_of({"who": "a", "messages": value}, "sft", "who", notes=notes)
    assert notes.facts()["unused_message_keys"] == {"reasoning_content": 1, "weight": 1}


def test_dialogues_with_line_ends_of_windows_are_read():
    assert messages_of("\r\n\r\nHuman: Hi\r\n\r\nAssistant: Hello") == [HI, HELLO]


def test_an_answer_that_shows_messages_stays_text():
    shown = json.dumps([HELLO])
    row = row_of({"who": "a", "instruction": "Show me one", "response": shown}, "sft", "who")
    assert row["messages"][1]["content"] == shown
    pair = {"who": "a", "prompt": "Show me one", "chosen": shown, "rejected": "No"}
    assert row_of(pair, "preference", "who")["chosen"] == [{"role": "assistant", "content": shown}]
    example = "Human: Hi\n\nAssistant: Hello"
    row = row_of({"who": "a", "instruction": example, "response": "Yes"}, "sft", "who")
    assert row["messages"][0]["content"] == example
