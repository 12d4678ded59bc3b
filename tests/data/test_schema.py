"""What makes a row valid, fault by fault."""

import pytest

from fedllm_data.schema import MAX_CLIENT_ID_BYTES, make_row_id, row_problem

HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def sft(**changes):
    return {"client_id": "ann", "messages": [HI, HELLO], **changes}


def test_a_row_with_system_message_and_several_turns_is_valid():
    system = {"role": "system", "content": "Be brief."}
    assert row_problem(sft(messages=[system, HI, HELLO, HI, HELLO]), "sft") is None


def test_path_characters_and_html_in_a_client_id_are_just_characters():
    for client_id in ("../../etc/passwd", "<script>alert(1)</script>", "C:\\x", "名前", "a b"):
        assert row_problem(sft(client_id=client_id), "sft") is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_id": None}, "client_id: is missing"),
        ({"client_id": ""}, "client_id: is missing"),
        ({"client_id": 7}, "must be a string"),
        ({"client_id": "x" * 10_000}, f"10000 bytes long, at most {MAX_CLIENT_ID_BYTES}"),
        ({"client_id": "a\nb"}, "control character"),
        ({"client_id": "\ud800"}, "not valid Unicode"),
        ({"messages": None}, "messages: is missing"),
        ({"messages": []}, "messages: is missing"),
        ({"messages": ["Hi"]}, "must be a mapping"),
        ({"messages": [{**HI, "name": None}, HELLO]}, "must be a mapping with role and content"),
        ({"messages": [{"role": "user", "content": None}, HELLO]}, "content must be text, got NoneType"),
        ({"messages": [{"role": "user", "content": " \n"}, HELLO]}, "content is empty"),
        ({"messages": [{"role": "user", "content": "a\0b"}, HELLO]}, "NUL"),
        ({"messages": [{"role": "tool", "content": "x"}, HELLO]}, "'tool' is none of"),
        ({"messages": [HELLO]}, "must begin with a user"),
        ({"messages": [HI, HI, HELLO]}, "messages[1]: roles must alternate, got user after user"),
        ({"messages": [HI, HELLO, {**HI, "role": "system"}, HELLO]}, "[2]: roles must alternate, got system after"),
        ({"messages": [HI]}, "must end with an assistant"),
        ({"messages": [HI, {"role": "assistant", "content": "\udc80"}]}, "not valid Unicode"),
    ],
)
def test_each_fault_of_an_sft_row_is_named(changes, words):
    assert words in row_problem(sft(**changes), "sft")


def test_a_pair_needs_prompt_chosen_and_rejected():
    pair = {"client_id": "ann", "prompt": [HI], "chosen": [HELLO], "rejected": [{**HELLO, "content": "No"}]}
    assert row_problem(pair, "preference") is None
    assert "rejected: is missing" in row_problem({**pair, "rejected": None}, "preference")
    assert "prompt: must end with a user" in row_problem({**pair, "prompt": [HI, HELLO]}, "preference")


def test_row_ids_tell_apart_how_the_parts_are_cut():
    assert make_row_id("s", "ab", "c") != make_row_id("s", "a", "bc") != make_row_id("sa", "bc")
