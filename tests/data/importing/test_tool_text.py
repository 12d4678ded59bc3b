"""Tool calls: the text they become is what Qwen's own chat templates make of the structure, character by character."""

import json
from importlib.resources import files

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.check import check_repo
from fedllm_data.clients import load_clients
from fedllm_data.importer import import_files, row_of
from fedllm_data.importing.import_notes import ImportNotes

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}},
]


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


ONE_CALL = [
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "content": "", "tool_calls": [call("weather", city="Zürich")]},
    {"role": "tool", "content": "20 °C"},
    {"role": "assistant", "content": "It is 20 °C."},
]
TWO_CALLS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather and time?"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [call("weather", city="Bern", days=2), call("time")],
    },
    {"role": "tool", "content": "snow"},
    {"role": "tool", "content": "12:00"},
    {"role": "assistant", "content": "Snow, at noon."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "You are welcome."},
]


def render(template, messages, tools=None):
    from transformers.utils.chat_template_utils import render_jinja_template

    source = (files("trl") / "chat_templates" / template).read_text(encoding="utf-8")
    (rendered, *_), _ = render_jinja_template([messages], tools=tools, chat_template=source)
    return rendered


@pytest.mark.parametrize("messages", [ONE_CALL, TWO_CALLS], ids=["one call", "two calls"])
@pytest.mark.parametrize("template", ["qwen2_5.jinja", "qwen3.jinja", "qwen3_instruct_2507.jinja"])
def test_the_text_is_what_the_templates_of_qwen_write(template, messages):
    pytest.importorskip("trl")
    # Qwen 2.5 greets with a system message of its own where there is none; with ours there is one.
    messages = messages if messages[0]["role"] == "system" else [{"role": "system", "content": "Hm."}, *messages]
    row = row_of({"who": "a", "messages": messages, "tools": TOOLS}, "sft", "who")
    assert {turn["role"] for turn in row["messages"]} == {"system", "user", "assistant"}
    assert render(template, row["messages"]) == render(template, messages, TOOLS)


def test_qwen_3_writes_tools_without_a_system_message_alike():
    pytest.importorskip("trl")
    row = row_of({"who": "a", "messages": ONE_CALL, "tools": json.dumps(TOOLS)}, "sft", "who")
    assert render("qwen3.jinja", row["messages"]) == render("qwen3.jinja", ONE_CALL, TOOLS)


WANTED = [
    {"role": "user", "content": "Weather in Zürich?"},
    {
        "role": "assistant",
        "content": '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>',
    },
    {"role": "user", "content": "<tool_response>\n20 °C\n</tool_response>"},
    {"role": "assistant", "content": "It is 20 °C."},
]
ASKED, _, _, TOLD = ONE_CALL
AS_TEXT = {"name": "weather", "arguments": '{"city": "Zürich"}'}
FORMS = {
    "openai": [
        ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": AS_TEXT}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "20 °C"},
        TOLD,
    ],
    "openai, of old": [
        ASKED,
        {"role": "assistant", "content": None, "function_call": AS_TEXT},
        {"role": "function", "name": "weather", "content": "20 °C"},
        TOLD,
    ],
    "call without content": [
        ASKED,
        {"role": "assistant", "tool_calls": [call("weather", city="Zürich")]},
        {"role": "tool", "content": [{"type": "text", "text": "20 °C"}]},
        TOLD,
    ],
    "sharegpt": [
        {"from": "human", "value": "Weather in Zürich?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Zürich"}}'},
        {"from": "observation", "value": "20 °C"},
        {"from": "gpt", "value": "It is 20 °C."},
    ],
    "hermes": [
        {"from": "human", "value": "Weather in Zürich?"},
        {"from": "gpt", "value": WANTED[1]["content"]},
        {"from": "tool", "value": WANTED[2]["content"]},
        {"from": "gpt", "value": "It is 20 °C."},
    ],
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_call_gives_the_same_text(name):
    assert row_of({"who": "a", "messages": FORMS[name]}, "sft", "who")["messages"] == WANTED
    assert row_of({"who": "a", "messages": json.dumps(FORMS[name])}, "sft", "who")["messages"] == WANTED


def test_glaive_dialogues_keep_calls_and_results():
    chat = (
        'USER: Weather in Zürich?\n\n\nASSISTANT: <functioncall> {"name": "weather"} <|endoftext|>\n\n\n'
        "FUNCTION RESPONSE: 20 °C\n\n\nASSISTANT: It is 20 °C. <|endoftext|>\n\n\n"
    )
    row = row_of({"who": "a", "system": "SYSTEM: You can call - {}", "chat": chat}, "sft", "who")
    assert row["messages"] == [
        {"role": "system", "content": "You can call - {}"},
        WANTED[0],
        {"role": "assistant", "content": '<functioncall> {"name": "weather"}'},
        *WANTED[2:],
    ]


def test_nulls_with_which_arrow_pads_arguments_are_no_arguments(tmp_path):
    rows = [
        {"who": "a", "messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": calls}], "tools": TOOLS}
        for calls in ([call("weather", city="Zürich")], [call("time", zone="CET")])
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "calls.parquet")
    padded = pq.read_table(tmp_path / "calls.parquet").to_pylist()
    assert padded[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"city": "Zürich", "zone": None}
    import_files([tmp_path / "calls.parquet"], tmp_path / "repo", task="sft", client_column="who", unfiltered=True)
    assert check_repo(tmp_path / "repo") == []
    said = {row["messages"][-1]["content"] for row in load_clients(tmp_path / "repo", "train").rows}
    assert said == {
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>',
        '<tool_call>\n{"name": "time", "arguments": {"zone": "CET"}}\n</tool_call>',
    }


def test_messages_that_datasets_stores_as_json_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [
        {"who": "a", "messages": [*TWO_CALLS[:-2], {"role": "user", "content": f"{index}"}, TOLD], "tools": TOOLS}
        for index in range(3)
    ]
    # A tool whose answer is data, so that no common type fits the messages.
    rows[0]["messages"][3] = {"role": "tool", "content": [{"type": "text", "text": "snow"}]}
    datasets.Dataset.from_list(rows, on_mixed_types="use_json").to_parquet(tmp_path / "rows.parquet")
    assert isinstance(pq.read_table(tmp_path / "rows.parquet")["messages"][0].as_py()[0], str)
    import_files([tmp_path / "rows.parquet"], tmp_path / "repo", task="sft", client_column="who", unfiltered=True)
    stored = [row["messages"] for row in load_clients(tmp_path / "repo", "train").rows]
    wanted = [row_of(row, "sft", "who")["messages"] for row in rows]
    assert sorted(map(str, stored)) == sorted(map(str, wanted))


def test_a_null_that_somebody_wrote_into_json_is_kept():
    value = [ASKED, {"role": "assistant", "content": None, "tool_calls": [call("time", zone=None)]}]
    row = row_of({"who": "a", "messages": value}, "sft", "who")
    assert '{"zone": null}' in row["messages"][1]["content"]


def test_ids_of_calls_have_no_place_and_are_named():
    notes = ImportNotes(["who"])
    row_of({"who": "a", "messages": FORMS["openai"]}, "sft", "who", notes=notes)
    assert notes.facts()["unused_message_keys"] == {"tool_call_id": 1, "tool_calls.id": 1}
    assert notes.facts()["changed_rows"] == {"tools_as_text": 1}


@pytest.mark.parametrize("value", ["hammer, saw", [], None, "", "[]", {"weight": 3}])
def test_a_column_called_tools_that_lists_none_is_left_alone(value):
    fields = {"who": "a", "instruction": "Hi", "response": "Hello", "tools": value}
    notes = ImportNotes(["who"])
    assert len(row_of(fields, "sft", "who", notes=notes)["messages"]) == 2
    assert "tools" in notes.facts()["unused_columns"]


def test_tools_that_the_system_message_lists_already_are_not_said_twice():
    system = {"role": "system", "content": "Call these: <tools>[]</tools>"}
    fields = {"who": "a", "messages": [system, *WANTED], "tools": TOOLS}
    notes = ImportNotes(["who"])
    assert row_of(fields, "sft", "who", notes=notes)["messages"][0] == system
    assert notes.facts()["unused_columns"] == {"tools": 1}


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([{"id": "1"}], "messages[1].tool_calls: a tool call must have a name"),
        ("not json", "messages[1].tool_calls: the tool call is neither JSON nor a Python literal"),
        ([7], "got int"),
    ],
)
def test_calls_that_are_none_are_refused(calls, words):
    value = [ASKED, {"role": "assistant", "content": None, "tool_calls": calls}]
    assert words in row_of({"who": "a", "messages": value}, "sft", "who")
    named = row_of({"who": "a", "instruction": "Q", "response": "A", "t": "saw"}, "sft", "who", {"tools": "t"})
    assert "tools (t): must be a list of tools" in named
