"""RealHumanEval logs to conversations: nested logs, unanswered questions, Python literals that are none."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.source import Rejected, SourceRow
from fedllm_data.sources.realhumaneval import FED_REALHUMANEVAL
from tests.data.sources.fuzzing import builds_soundly, fuzz

COLUMNS = ("request", "response", "copy_events", "logprobs", "programmer_id", "timestamp", "model", "task_name")


def log(*texts, programmer="63", **changes):
    """A logged answer: user, assistant, user, ..., and the answer last; a list of texts is several questions."""
    turns, role = [], "user"
    for text in texts[:-1]:
        turns += [{"content": part, "role": role} for part in ([text] if isinstance(text, str) else text)]
        role = "assistant" if role == "user" else "user"
    fields = {"request": repr(turns), "response": texts[-1], "copy_events": "[]", "logprobs": "{}"}
    return {
        **fields,
        "programmer_id": programmer,
        "timestamp": "0.0",
        "model": "GPT-4o (chat)",
        "task_name": "t",
    } | changes


def write(path, logs):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(logs)
    return path


@pytest.fixture
def read(tmp_path):
    def items(logs):
        found = list(FED_REALHUMANEVAL.read(write(tmp_path / "chat_data.csv", logs), 0, {}))
        rows = [item.row for item in found if isinstance(item, SourceRow)]
        return rows, {item.line: item.reason for item in found if isinstance(item, Rejected)}

    return items


def texts_of(row):
    return [message["content"] for message in row["messages"]]


def test_a_chat_that_was_logged_after_every_answer_is_one_row(read):
    rows, rejected = read([log("a", "b"), log("a", "b", "c", "d"), log("a", "b", "c", "d", "e", "f")])
    assert [texts_of(row) for row in rows] == [["a", "b", "c", "d", "e", "f"]]
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"] * 3
    assert (rows[0]["client_id"], rows[0]["language"]) == ("63", "en")
    assert rejected == dict.fromkeys((2, 3), "a longer log of this chat holds the same turns")


def test_the_order_of_the_logs_and_another_programmers_same_words_change_nothing(read):
    rows, rejected = read([log("a", "b", "c", "d"), log("a", "b", programmer="7"), log("a", "b")])
    assert [(row["client_id"], texts_of(row)) for row in rows] == [("63", ["a", "b", "c", "d"]), ("7", ["a", "b"])]
    assert set(rejected) == {4}


def test_chats_that_part_ways_are_rows_of_their_own(read):
    rows, rejected = read([log("a", "b"), log("a", "b", "c", "d"), log("a", "b", "x", "y"), log("a", "other")])
    assert [texts_of(row) for row in rows] == [["a", "b", "c", "d"], ["a", "b", "x", "y"], ["a", "other"]]
    assert len({row["row_id"] for row in rows}) == 3
    assert set(rejected) == {2}


def test_a_log_that_comes_twice_is_a_row_once(read):
    rows, rejected = read([log("a", "b"), log("a", "b")])
    assert len(rows) == 1
    assert rejected == {3: "repeats an earlier log of this chat"}


def test_questions_in_a_row_become_one_message_and_the_same_words_stand_once(read):
    rows, _ = read([log(["why?", "why?", "in python"], "b", ["c", "c"], "d")])
    assert texts_of(rows[0]) == ["why?\n\nin python", "b", "c", "d"]


def test_a_chat_goes_on_from_the_log_whose_questions_were_joined(read):
    rows, rejected = read([log(["a", "a2"], "b"), log(["a", "a2"], "b", "c", "d")])
    assert [texts_of(row) for row in rows] == [["a\n\na2", "b", "c", "d"]]
    assert set(rejected) == {2}


def test_texts_keep_quotes_backslashes_and_line_ends(read):
    text = "re.sub(r'\\d+', \"\\n\", x)\n```\n\ty = 'é'\n```"
    rows, _ = read([log(text, text)])
    assert texts_of(rows[0]) == [text, text]


def test_requests_that_are_no_message_lists_are_listed_and_never_run(read):
    bad = [
        "__import__('os').abort()",
        "{}",
        "[",
        "[]",
        "[1]",
        "[{'role': 'user'}]",
        "[{'role': 'system', 'content': 'x'}]",
        "[{'role': 'user', 'content': None}]",
        "[{'role': 'user', 'content': 'x'}, {'role': 'assistant', 'content': 'y'}]",
        "[{'role': 'user', 'content': '\\x00'}]",
        "[" * 5000,
    ]
    rows, rejected = read([log("a", "b"), *(log("a", "b", request=request) for request in bad)])
    assert len(rows) == 1
    assert [rejected[line] for line in range(3, 14)] == [
        "request: is not a list in Python's notation",
        "request: is not a list in Python's notation",
        "request: is not a list in Python's notation",
        "request: holds no message",
        "request: a message is no mapping with role and content",
        "request: a message is no mapping with role and content",
        "request: role 'system' is neither user nor assistant",
        "request: must be text, got NoneType",
        "request: does not end with a question",
        "request: contains a NUL character",
        "request: is not a list in Python's notation",
    ]


def test_empty_answers_are_listed(read):
    rows, rejected = read([log("a", " \n"), log("a", "b")])
    assert [texts_of(row) for row in rows] == [["a", "b"]]
    assert rejected == {2: "response: is empty"}


def test_json_rows_with_lists_and_numbers_are_read_too(tmp_path):
    path = tmp_path / "chat.jsonl"
    fields = {"request": [{"role": "user", "content": "a"}], "response": "b", "programmer_id": 7}
    path.write_text(json.dumps(fields) + "\n" + json.dumps({**fields, "programmer_id": None}))
    rejected, row = FED_REALHUMANEVAL.read(path, 0, {})
    assert rejected == Rejected("chat.jsonl", 2, "programmer_id: must be text, got NoneType")
    assert (row.row["client_id"], texts_of(row.row)) == ("7", ["a", "b"])


def test_on_the_hub_the_chats_alone_are_read(tmp_path, loopback_hub, monkeypatch):
    from huggingface_hub import HfApi

    loopback_hub.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    (tmp_path / "files" / "chat").mkdir(parents=True)
    write(tmp_path / "files" / "chat" / "chat_data.csv", [log("a", "b"), log("c", "d")])
    (tmp_path / "files" / "autocomplete_data.csv").write_text("programmer_id\n1\n")
    HfApi().create_repo("org/logs", repo_type="dataset")
    commit = HfApi().upload_folder(repo_id="org/logs", repo_type="dataset", folder_path=tmp_path / "files").oid
    options = {"hub_id": "org/logs", "revision": commit}
    items = list(FED_REALHUMANEVAL.read(None, 0, options))
    assert [(item.file, texts_of(item.row)) for item in items] == [
        ("org/logs/chat/chat_data.csv", ["a", "b"]),
        ("org/logs/chat/chat_data.csv", ["c", "d"]),
    ]
    loopback_hub.clear()


TEXTS = st.one_of(st.sampled_from(["a", "b", "", " ", "\ud800", "\0", "'", "\\"]), st.text(max_size=5))
ODD = st.one_of(st.none(), st.integers(), st.booleans(), TEXTS, st.lists(TEXTS, max_size=2))
TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "user", "assistant", "system"]), "content": st.sampled_from(["a", "b", "", " "])}
)
REQUESTS = st.lists(st.one_of(TURNS, TURNS, TURNS, ODD), max_size=5)
LOGS = st.fixed_dictionaries(
    {},
    optional={
        "request": st.one_of(REQUESTS, REQUESTS.map(repr), st.just("[{'role': 'user', 'content': 'a'}]"), ODD),
        "response": st.one_of(st.sampled_from(["a", "b"]), ODD),
        "programmer_id": st.one_of(st.sampled_from(["1", "2"]), ODD, st.just(10**400)),
    },
)


@given(st.lists(LOGS, max_size=8))
@fuzz(5, 25)
def test_fuzzed_logs_give_a_row_or_a_reason_each(tmp_path, logs):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(fields) + "\n" for fields in logs))
    items = list(FED_REALHUMANEVAL.read(path, 0, {}))
    assert sorted(item.line for item in items) == list(range(1, len(logs) + 1))
    assert builds_soundly(FED_REALHUMANEVAL, path, tmp_path / "repo")


@pytest.mark.slow
def test_the_real_logs_give_their_known_counts(tmp_path, shared_data):
    result = build(
        FED_REALHUMANEVAL, tmp_path / "repo", source_path=shared_data / "sft" / "realhumaneval", unfiltered=True
    )
    # 1,055 logged answers: 652 whose chat a longer log holds, 2 without a question, and the 401 ends of the chats.
    assert sum(result.num_rows.values()) == 401
    assert result.facts["clients"]["num_clients"] == 107
    assert result.facts["rejected_reasons"] == {
        "a longer log of this chat holds the same turns": 652,
        "request: holds no message": 2,
    }
    assert check_repo(tmp_path / "repo") == []
