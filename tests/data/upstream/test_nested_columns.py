"""Columns within columns."""

import json

from fedllm_data.importer import row_of
from fedllm_data.upstream.nested_columns import nested_columns


def value(fields, name):
    return nested_columns(fields, [name]).get(name, (None, fields.get(name, "none")))[1]


def test_a_name_with_dots_leads_inside_objects_lists_and_text_of_json():
    inside = {"user": {"id": 7}, "tags": ["a", {"b": "c"}]}
    for column in (inside, json.dumps(inside)):
        fields = {"metadata": column}
        assert value(fields, "metadata.user.id") == 7
        assert value(fields, "metadata.tags.1.b") == "c"
        for wrong in ("metadata.user.name", "metadata.tags.2", "metadata.tags.x", "metadata.user.id.x", "other.x"):
            assert value(fields, wrong) == "none"


def test_names_that_hold_dots_themselves_come_first():
    assert value({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert value({"a.b": {"c": 1}, "a": {"b": {"c": 2}}}, "a.b.c") == 1
    assert value({"a.b": {"x": 1}, "a": {"b": {"c": 2}}}, "a.b.c") == 2


def test_a_record_without_such_names_is_handed_on_as_it_is():
    fields = {"who": "ann"}
    assert nested_columns(fields, ["who", "q"]) == {}


def test_client_and_columns_may_be_nested():
    fields = {"metadata": {"user": 7}, "turn": {"q": "Hi", "a": "Hello"}}
    row = row_of(fields, "sft", "metadata.user", {"instruction": "turn.q", "response": "turn.a"})
    assert row["client_id"] == "7"
    assert [message["content"] for message in row["messages"]] == ["Hi", "Hello"]
    assert "column 'metadata.name' is missing" in row_of(fields, "sft", "metadata.name")
