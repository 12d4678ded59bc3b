"""The schemas of public datasets, written by hand: which columns make the row, and which are named as not used."""

import pytest

from fedllm_data import importer
from fedllm_data.importer import row_of
from fedllm_data.importing.import_notes import ImportNotes

HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
SFT = {
    "alpaca": (
        {"instruction": "Translate", "input": "chat", "output": "cat", "text": "Below is"},
        ["Translate\n\nchat", "cat"],
        {"text"},
    ),
    "alpaca without input": ({"instruction": "Say cat", "input": "", "output": "cat"}, ["Say cat", "cat"], set()),
    "alpaca, instruction in input": ({"instruction": "", "input": "Q", "output": "A"}, ["Q", "A"], {"instruction"}),
    "super natural instructions": ({"id": 1, "input": "Q", "output": "A"}, ["Q", "A"], {"id"}),
    "dolly": (
        {"instruction": "Q", "context": "C", "response": "A", "category": "qa"},
        ["Q\n\nC", "A"],
        {"category"},
    ),
    "context of another kind": ({"question": "Q", "answer": "A", "context": "billing"}, ["Q", "A"], {"context"}),
    "open orca": ({"id": 1, "system_prompt": "S", "question": "Q", "response": "A"}, ["S", "Q", "A"], {"id"}),
    "trl, plain": ({"prompt": "The sky is", "completion": " blue."}, ["The sky is", " blue."], set()),
    "trl, conversational": ({"prompt": [HI], "completion": [HELLO]}, ["Hi", "Hello"], set()),
    "aya": ({"inputs": "Q", "targets": "A", "user_id": "b"}, ["Q", "A"], {"user_id"}),
    "lima": ({"conversations": ["Hi", "Hello"], "source": "x"}, ["Hi", "Hello"], {"source"}),
    "hh for sft": ({"prompt": "\n\nHuman: Hi\n\nAssistant:", "response": " Hello"}, ["Hi", " Hello"], set()),
    "gsm8k": ({"question": "Q", "answer": "A"}, ["Q", "A"], set()),
    "ultrachat": (
        {"prompt": "Hi", "prompt_id": "1", "messages": [HI, HELLO]},
        ["Hi", "Hello"],
        {"prompt", "prompt_id"},
    ),
    "open hermes": (
        {
            "conversations": [{"from": "human", "value": "Hi", "weight": None}, {"from": "gpt", "value": "Hello"}],
            "system_prompt": None,
            "source": "x",
        },
        ["Hi", "Hello"],
        {"source", "system_prompt"},
    ),
    "capybara": ({"source": "x", "conversation": [{"input": "Hi", "output": "Hello"}]}, ["Hi", "Hello"], {"source"}),
    "guanaco": ({"text": "### Human: Hi### Assistant: Hello"}, ["Hi", "Hello"], set()),
}


def row_and_unused(fields, task, columns=None):
    notes = ImportNotes(["who", *(columns or {}).values()])
    row = row_of({"who": "a", **fields}, task, "who", columns, notes=notes)
    return row, set(notes.facts()["unused_columns"])


def contents(turns):
    return [turn["content"] for turn in turns]


@pytest.mark.parametrize("name", SFT)
def test_public_instruction_data_needs_no_flags(name):
    fields, wanted, not_used = SFT[name]
    row, unused = row_and_unused(fields, "sft")
    assert contents(row["messages"]) == wanted
    assert unused == not_used


PAIRS = {
    "ultrafeedback binarized": (
        {
            "prompt": "Hi",
            "prompt_id": "1",
            "chosen": [HI, HELLO],
            "rejected": [HI, {**HELLO, "content": "No"}],
            "messages": [HI, HELLO],
            "score_chosen": 7.0,
            "score_rejected": 5.0,
        },
        ["Hi", "Hello", "No"],
        {"prompt_id", "messages", "score_chosen", "score_rejected"},
    ),
    "orca dpo": (
        {"system": "S", "question": "Hi", "chosen": "Hello", "rejected": "No"},
        ["S", "Hi", "Hello", "No"],
        set(),
    ),
    "llama factory, sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        ["Hi", "Hello", "No"],
        set(),
    ),
    "one message each, as text": (
        {
            "prompt": "Hi",
            "chosen": '{"role": "assistant", "content": "Hello"}',
            "rejected": '{"role": "assistant", "content": "No"}',
        },
        ["Hi", "Hello", "No"],
        set(),
    ),
    "alpaca with a pair": (
        {"instruction": "Hi", "input": "you", "chosen": "Hello", "rejected": "No"},
        ["Hi\n\nyou", "Hello", "No"],
        set(),
    ),
    "hh": (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
        ["Hi", "Hello", "No"],
        set(),
    ),
    "hh with its prompt apart": (
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello", "rejected": " No"},
        ["Hi", " Hello", " No"],
        set(),
    ),
    "answers with an unanswered turn": (
        {"chosen": [HI, HELLO, HI], "rejected": [HI, {**HELLO, "content": "No"}, HI]},
        ["Hi", "Hello", "No"],
        set(),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_public_preference_data_needs_no_flags(name):
    fields, wanted, not_used = PAIRS[name]
    row, unused = row_and_unused(fields, "preference")
    assert contents([*row["prompt"], *row["chosen"], *row["rejected"]]) == wanted
    assert unused == not_used


def test_columns_are_joined_and_blank_ones_left_out():
    ticket = {"title": "Broken", "body": "It does not start.", "extra": "", "note": None, "answer": "Try again."}
    row, unused = row_and_unused(ticket, "sft", {"instruction": "title+body+extra+note"})
    assert contents(row["messages"]) == ["Broken\n\nIt does not start.", "Try again."]
    assert unused == set()
    row, unused = row_and_unused({**ticket, "title+body": "both"}, "sft", {"instruction": "title+body"})
    assert contents(row["messages"])[0] == "both"
    assert unused == {"title", "body", "extra", "note"}
    reason, _ = row_and_unused(ticket, "sft", {"instruction": "title+subject"})
    assert "column 'subject' is missing" in reason
    reason, _ = row_and_unused({**ticket, "body": ["x"]}, "sft", {"instruction": "title+body"})
    assert reason == "column 'body': must be text to be joined with others, got list"


def test_a_plus_in_a_name_is_part_of_it():
    row, unused = row_and_unused({"c++": "Q", "answer": "A"}, "sft", {"instruction": "c++"})
    assert contents(row["messages"]) == ["Q", "A"]
    assert unused == set()


def test_a_column_called_messages_that_holds_none_gives_way_to_instruction_and_response():
    row, unused = row_and_unused({"instruction": "Q", "response": "A", "messages": "3"}, "sft")
    assert contents(row["messages"]) == ["Q", "A"]
    assert unused == {"messages"}


def test_an_input_is_left_out_where_it_is_asked_to_be():
    row, unused = row_and_unused({"instruction": "Q", "input": "x", "output": "A"}, "sft", {"input": ""})
    assert contents(row["messages"]) == ["Q", "A"]
    assert unused == {"input"}


MISSING = "'instruction' is missing; the columns are 'who', 'q', 'response'; name it with --columns instruction=COLUMN"
TWO_FORMS = "choose with --columns messages=conversations or instruction=question,response=answer"
OTHER_HI = {**HI, "content": "?"}


@pytest.mark.parametrize(
    ("task", "fields", "words"),
    [
        ("sft", {"q": "Q", "response": "A"}, MISSING),
        ("sft", {"text": "plain"}, "--columns instruction=COLUMN,response=COLUMN or --columns messages=COLUMN"),
        ("sft", {"question": "Q", "output": "x", "answer": "y"}, "--columns response=output or response=answer"),
        ("sft", {"conversations": [HI, HELLO], "question": "Q", "answer": "A"}, TWO_FORMS),
        ("sft", {"messages": None}, "messages: must be a list of messages, got null"),
        ("sft", {"instruction": [HI, HELLO], "response": "A"}, "instruction: ends with assistant, so that"),
        ("sft", {"prompt": [HI], "completion": [HI, HELLO]}, "response (completion): must begin with an assistant"),
        ("sft", {"instruction": "Q", "response": "A", "system": 7}, "system: must be text, got int"),
        ("preference", {"chosen": "x", "rejected": "y"}, "'prompt' is missing"),
        ("preference", {"question": "a", "query": "b", "chosen": "x", "rejected": "y"}, "prompt=question or prompt="),
        ("preference", {"chosen": [HI, HELLO], "rejected": [OTHER_HI, HELLO]}, "differ before their last message"),
        ("preference", {"prompt": "Q", "rejected": "y"}, "column 'chosen' is missing"),
    ],
)
def test_what_is_ambiguous_or_missing_names_the_flag(task, fields, words):
    reason, _ = row_and_unused(fields, task)
    assert words in reason


TURNS = [HI, HELLO]
MAYBE_PLAIN = {
    "plain": ({"messages": TURNS}, {}),
    "with a system message": ({"messages": [{"role": "system", "content": "Be kind"}, *TURNS]}, {}),
    "with a blank system message": ({"messages": [{"role": "system", "content": " "}, *TURNS]}, {}),
    "content before role": ({"messages": [{"content": "Hi", "role": "user"}, HELLO]}, {}),
    "a further key": ({"messages": [{**HI, "weight": 0}, HELLO]}, {}),
    "another role": ({"messages": [{"role": "human", "content": "Hi"}, HELLO]}, {}),
    "a role with a meaning of its own": ({"messages": TURNS}, {"roles": {"user": "assistant", "assistant": "user"}}),
    "two of one role": ({"messages": [HI, HI, HELLO]}, {}),
    "unanswered": ({"messages": [HI, HELLO, HI]}, {}),
    "blank": ({"messages": [{"role": "user", "content": " "}, HELLO]}, {}),
    "NUL": ({"messages": [{"role": "user", "content": "a\0b"}, HELLO]}, {}),
    "no Unicode": ({"messages": [{"role": "user", "content": "\ud800"}, HELLO]}, {}),
    "no messages": ({"messages": []}, {}),
    "JSON": ({"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]'}, {}),
    "a system column": ({"messages": TURNS, "system": "Be kind"}, {}),
    "an empty system column": ({"messages": TURNS, "system": None}, {}),
    "a system prompt": ({"messages": TURNS, "system_prompt": "Be kind"}, {}),
    "tools": ({"messages": TURNS, "tools": [{"name": "clock", "description": "tells the time"}]}, {}),
    "instruction and response beside": ({"messages": TURNS, "instruction": "Q", "response": "A", "output": "B"}, {}),
    "another column is named": ({"messages": TURNS, "q": "Q", "a": "A"}, {"columns": {"instruction": "q"}}),
    "the messages are named": ({"messages": TURNS, "talk": [HI, HELLO, *TURNS]}, {"columns": {"messages": "talk"}}),
    "the messages are left out": ({"messages": TURNS, "question": "Q", "answer": "A"}, {"columns": {"messages": ""}}),
    "a column within one": ({"messages": TURNS, "m": {"l": "fr"}}, {"columns": {"language": "m.l"}}),
    "a group and an id": ({"messages": TURNS, "g": " a ", "i": 7}, {"columns": {"group": "g", "row_id": "i"}}),
    "the messages are the language": ({"messages": TURNS}, {"columns": {"language": "messages"}}),
    "the messages are the client": ({"messages": TURNS}, {"client_column": "messages"}),
    "no client": ({"who": " ", "messages": TURNS}, {}),
}


@pytest.mark.parametrize("name", MAYBE_PLAIN)
def test_messages_that_need_no_reading_make_the_row_that_reading_makes(name, monkeypatch):
    fields, settings = MAYBE_PLAIN[name]
    given = {"client_column": "who", **settings}
    found = []
    for way in (importer.plain_messages, lambda columns, roles: None):
        monkeypatch.setattr(importer, "plain_messages", way)
        notes = ImportNotes(("who", *given.get("columns", {}).values()))
        row = row_of({"who": "ann", "topic": "x", **fields}, "sft", notes=notes, **given)
        found.append((row, list(row) if isinstance(row, dict) else None, notes.facts()))
    assert found[0] == found[1]


def test_plain_messages_are_taken_as_they_are():
    assert row_of({"who": "ann", "messages": TURNS}, "sft", "who")["messages"] is TURNS
    assert row_of({"who": "ann", "messages": TURNS, "system": "S"}, "sft", "who")["messages"] is not TURNS
