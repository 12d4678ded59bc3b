"""OASST messages to rows: paths, pairs, moderation, and trees that are cut, shuffled or doubled."""

import gzip
import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.errors import HubError, SourceError
from fedllm_data.pipeline.salt import hash_client_id
from fedllm_data.source import Rejected, SourceRow
from fedllm_data.sources import SOURCES
from fedllm_data.sources.oasst import FED_OASST2, FED_OASST2_PA
from tests.data.sources.fuzzing import builds_soundly, fuzz


def message(message_id, parent, user, text, **changes):
    role = changes.pop("role", "assistant" if message_id[0] == "a" else "prompter")
    fields = {"message_id": message_id, "parent_id": parent, "user_id": user, "text": text, "role": role}
    return {**fields, "lang": "en", "rank": None, "deleted": False, "review_result": True, **changes}


# p1 (ann) -> a1 (rank 0), a2 (rank 1), a3 (rank 2);  a1 -> p2 (bob) -> a4 (rank 1), a5 (rank 0)
TREE = [
    message("p1", None, "ann", "one?"),
    message("a1", "p1", "x", "one!", rank=0),
    message("a2", "p1", "y", "uno!", rank=1),
    message("a3", "p1", "z", "eins!", rank=2),
    message("p2", "a1", "bob", "two?"),
    message("a4", "p2", "x", "two!", rank=1),
    message("a5", "p2", "y", "dos!", rank=0),
]


@pytest.fixture
def read(tmp_path):
    def items(messages, name="fed-oasst", **options):
        path = tmp_path / "messages.jsonl"
        path.write_text("".join(m if isinstance(m, str) else json.dumps(m) + "\n" for m in messages))
        found = list(SOURCES[name].read(path, 0, options))
        rows = [item.row for item in found if isinstance(item, SourceRow)]
        return rows, {item.line: item.reason for item in found if isinstance(item, Rejected)}

    return items


def test_a_row_is_the_path_to_a_reply_and_its_client_the_prompter(read):
    rows, rejected = read(TREE)
    assert {(row["client_id"], " ".join(turn["content"] for turn in row["messages"])) for row in rows} == {
        ("ann", "one? one!"),
        ("ann", "one? uno!"),
        ("ann", "one? eins!"),
        ("bob", "one? one! two? two!"),
        ("bob", "one? one! two? dos!"),
    }
    assert [turn["role"] for turn in rows[-1]["messages"]] == ["user", "assistant", "user", "assistant"]
    assert rejected == {}


def test_pairs_are_all_replies_of_different_rank_the_better_first(read):
    rows, rejected = read(TREE, "fed-oasst-pa")
    # ann: C(3, 2) = 3 pairs; bob: 1, and a5 beats a4 although it comes later.
    assert [(r["client_id"], r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows] == [
        ("ann", "one!", "uno!"),
        ("ann", "one!", "eins!"),
        ("ann", "uno!", "eins!"),
        ("bob", "dos!", "two!"),
    ]
    assert [turn["content"] for turn in rows[-1]["prompt"]] == ["one?", "one!", "two?"]
    assert rejected == {}


def test_equal_and_missing_ranks_make_no_pair_and_are_listed(read):
    rows, rejected = read(
        [*TREE[:3], {**TREE[3], "rank": 1}, {**TREE[3], "message_id": "a9", "rank": None}], "fed-oasst-pa"
    )
    assert len(rows) == 2
    assert rejected == {4: "has the same rank as the reply in line 3", 5: "has no rank"}
    rows, rejected = read(TREE[:2], "fed-oasst-pa")
    assert rows == []
    assert rejected == {
        1: "no two replies to this prompt have different ranks",
        2: "is the only ranked reply to its prompt",
    }


@pytest.mark.parametrize("name", ["fed-oasst", "fed-oasst-pa"])
def test_the_order_of_the_messages_changes_no_row(read, name):
    rows, _ = read(TREE, name)
    for seed in range(3):
        shuffled = random.Random(seed).sample(TREE, len(TREE))
        assert sorted(map(repr, read(shuffled, name)[0])) == sorted(map(repr, rows))


def test_a_cut_tree_loses_what_hangs_below_and_says_so(read):
    rows, rejected = read([m for m in TREE if m["message_id"] != "a1"])
    assert len(rows) == 2
    assert rejected == {
        4: "parent_id: the parent is not among the messages",
        5: "an earlier message of its conversation is missing",
        6: "an earlier message of its conversation is missing",
    }


def test_messages_in_a_circle_are_listed(read):
    circle = [message("p8", "a8", "ann", "x"), message("a8", "p8", "x", "y")]
    rows, rejected = read([*TREE, *circle])
    assert len(rows) == 5
    assert set(rejected) == {8, 9}


def test_of_a_repeated_id_the_first_message_counts(read):
    rows, rejected = read([*TREE, {**TREE[1], "text": "another"}])
    assert len(rows) == 5
    assert rejected == {8: "message_id: repeats an earlier message"}


def test_removed_messages_and_what_follows_them_go_unless_unfiltered(read):
    tree = [TREE[0], {**TREE[1], "deleted": True}, {**TREE[2], "review_result": False}, *TREE[3:]]
    rows, rejected = read(tree)
    assert [row["messages"][-1]["content"] for row in rows] == ["eins!"]
    assert set(rejected) == {2, 3, 5, 6, 7}
    assert "was deleted upstream" in rejected[2]
    assert "an earlier message" in rejected[7]
    assert len(read(tree, unfiltered="true")[0]) == 5


def test_prompts_without_an_answer_and_answers_without_a_prompt_are_listed(read):
    orphan = message("a0", None, "x", "nobody asked")
    second = message("a7", "a1", "x", "me again")
    rows, rejected = read([TREE[0], orphan, message("p9", None, "cy", "anyone?"), TREE[1], second])
    assert len(rows) == 1
    assert rejected == {
        2: "answers no prompter's message",
        3: "nobody answered this prompt",
        5: "answers no prompter's message",
    }


def test_broken_lines_are_listed_and_the_rest_is_read(read):
    bad = [
        json.dumps(TREE[0])[:30] + "\n",
        {k: v for k, v in TREE[1].items() if k != "text"},
        {**TREE[1], "text": None},
        {**TREE[1], "text": " "},
        {**TREE[1], "role": "judge"},
        {**TREE[1], "rank": "best"},
        {**TREE[1], "text": "\ud800"},
    ]
    rows, rejected = read([*TREE, *bad])
    assert len(rows) == 5
    assert [rejected[line] for line in range(9, 15)] == [
        "text: the column is missing",
        "text: must be text, got NoneType",
        "text: is empty",
        "role: 'judge' is neither prompter nor assistant",
        "rank: must be a whole number or null, got 'best'",
        "text: is not valid text",
    ]
    assert "is not JSON" in rejected[8]


def test_languages_are_the_primary_part_and_models_are_kept(read):
    tree = [{**TREE[0], "lang": "pt-BR"}, {**TREE[1], "model_name": "m"}, TREE[2]]
    rows, _ = read(tree, "fed-oasst-pa")
    assert (rows[0]["language"], rows[0]["chosen_model"], rows[0]["rejected_model"]) == ("pt", "m", None)


def test_a_folder_of_parquet_and_gzipped_files_is_one_source(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "messages"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(TREE[:4]), folder / "b.parquet")
    (folder / "a.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(m) + "\n" for m in TREE[4:]).encode()))
    result = build(SOURCES["fed-oasst"], tmp_path / "repo", source_path=folder, unfiltered=True)
    assert sum(result.num_rows.values()) == 5
    assert [item["name"] for item in result.facts["source_files"]] == ["a.jsonl.gz", "b.parquet"]
    assert result.facts["revision"].startswith("local copy")


def test_a_corpus_on_the_hub_is_streamed_at_its_commit(tmp_path, loopback_hub, monkeypatch):
    import datasets.config
    from huggingface_hub import HfApi

    loopback_hub.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    monkeypatch.setattr(datasets.config, "USE_PARQUET_EXPORT", False)
    for name, messages in (("train", TREE), ("validation", TREE[:2])):
        renamed = [{**m, "message_id": f"{m['message_id']}{name}"} for m in messages]
        renamed = [{**m, "parent_id": m["parent_id"] and f"{m['parent_id']}{name}"} for m in renamed]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(m) + "\n" for m in renamed))
    HfApi().create_repo("org/messages", repo_type="dataset")
    commit = (
        HfApi()
        .upload_folder(repo_id="org/messages", repo_type="dataset", folder_path=tmp_path, path_in_repo="data")
        .oid
    )
    options = {"hub_id": "org/messages", "revision": commit}
    result = build(SOURCES["fed-oasst"], tmp_path / "repo", options=options, unfiltered=True)
    assert sum(result.num_rows.values()) == 6  # five of the first tree, one of the second
    assert (result.facts["upstream"], result.facts["revision"]) == ("org/messages", commit)
    options["hub_id"] = "org/absent"
    with pytest.raises(HubError, match="org/absent"):
        build(SOURCES["fed-oasst"], tmp_path / "other", options=options)
    loopback_hub.clear()


def test_an_option_that_is_neither_true_nor_false_is_an_error(read):
    with pytest.raises(SourceError, match="give true or false"):
        read(TREE, unfiltered="maybe")


def nested(messages, root):
    """The tree of a message, as the files of trees hold it: without parents."""
    (message,) = (m for m in messages if m["message_id"] == root)
    replies = [nested(messages, m["message_id"]) for m in messages if m["parent_id"] == root]
    return {**{name: value for name, value in message.items() if name != "parent_id"}, "replies": replies}


@pytest.mark.parametrize("name", ["fed-oasst", "fed-oasst-pa"])
def test_a_file_of_trees_gives_the_rows_of_its_messages(read, name):
    tree = {"message_tree_id": "p1", "tree_state": "ready_for_export", "prompt": nested(TREE, "p1")}
    assert sorted(map(repr, read([tree], name)[0])) == sorted(map(repr, read(TREE, name)[0]))


def test_what_is_no_message_in_a_tree_is_listed_with_its_line(tmp_path):
    tree = nested(TREE, "p1")
    tree["replies"] = [3, {**tree["replies"][0], "replies": "none"}]
    path = tmp_path / "trees.jsonl"
    path.write_text(json.dumps({"prompt": tree}) + "\n" + json.dumps({"prompt": None}))
    found = list(SOURCES["fed-oasst"].read(path, 0, {}))
    assert [(item.line, item.reason) for item in found if isinstance(item, Rejected)] == [
        (1, "a message of the tree is a int, not an object"),
        (1, "replies: must be a list, got str"),
        (2, "a message of the tree is a NoneType, not an object"),
    ]
    assert [item.row["messages"][-1]["content"] for item in found if isinstance(item, SourceRow)] == ["one!"]


def test_a_tree_of_three_hundred_levels_is_read(read):
    texts = [message(f"{'pa'[i % 2]}{i}", None, "ann", f"text {i}") for i in range(300)]
    for parent, reply in pairwise(texts):
        parent["replies"] = [reply]
    rows, rejected = read([{"prompt": texts[0]}])
    assert len(rows) == 150
    assert rejected == {}
    assert max(len(row["messages"]) for row in rows) == 300


def test_the_second_release_differs_in_name_and_pinned_commit_alone(tmp_path):
    path = tmp_path / "messages.jsonl"
    path.write_text("".join(json.dumps(m) + "\n" for m in TREE))
    for source, name in ((FED_OASST2, "fed-oasst"), (FED_OASST2_PA, "fed-oasst-pa")):
        assert source.upstream == "OpenAssistant/oasst2" != SOURCES[name].upstream
        assert source.revision != SOURCES[name].revision
        assert list(source.read(path, 0, {})) == list(SOURCES[name].read(path, 0, {}))


IDS = st.sampled_from(["p1", "p2", "a1", "a2", "", "\ud800", None, 3])
TEXTS = st.sampled_from(["one", "two", "", " ", "\ud800", "\0", None, 7, "x" * 300])
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "message_id": IDS,
        "parent_id": st.one_of(IDS, st.none(), st.just(["p1"])),
        "user_id": st.one_of(st.sampled_from(["ann", "bob"]), TEXTS),
        "text": TEXTS,
        "role": st.sampled_from(["prompter", "prompter", "assistant", "judge", None]),
        "lang": st.sampled_from(["en", "pt-BR", "", None, 3, "zz-" * 40]),
        "rank": st.sampled_from([0, 1, 2, 0.0, 1.5, None, "0", 10**30, float("nan"), float("inf"), True]),
        "deleted": st.sampled_from([True, False, None, "no"]),
        "review_result": st.sampled_from([True, False, None]),
        "model_name": st.sampled_from(["m", None, 3, "\ud800"]),
        "replies": st.sampled_from([[], None, "x", [3]]),
    },
)


@st.composite
def trees(draw):
    """Changed copies of a sound tree's messages, some of them nested."""
    messages = [{**TREE[draw(st.integers(0, 6))], **draw(MESSAGES)} for _ in range(draw(st.integers(0, 8)))]
    if draw(st.booleans()):
        messages.append({"prompt": {**draw(st.sampled_from(messages or [{}])), "replies": list(messages)}})
    return messages


@given(trees())
@fuzz(5, 20)
def test_fuzzed_messages_are_in_a_row_or_rejected(tmp_path, messages):
    path = tmp_path / "messages.jsonl"
    path.write_text("".join(json.dumps(m) + "\n" for m in messages))
    for name in ("fed-oasst", "fed-oasst-pa"):
        items = list(SOURCES[name].read(path, 0, {}))
        lines = {item.line for item in items}
        used = {m["content"] for item in items if isinstance(item, SourceRow) for m in texts_of(item.row)}
        for line, fields in enumerate(messages, start=1):
            assert line in lines or fields["text"] in used or name == "fed-oasst-pa"
        assert builds_soundly(SOURCES[name], path, tmp_path / name)


def texts_of(row):
    return [*row.get("messages", ()), *row.get("prompt", ()), *row.get("chosen", ()), *row.get("rejected", ())]


@pytest.mark.slow
def test_the_english_validation_split_gives_its_known_counts(tmp_path, shared_data):
    path = shared_data / "sft" / "oasst1" / "en-validation.jsonl"
    for name, num_rows, num_clients in (("fed-oasst", 1_241, 395), ("fed-oasst-pa", 1_026, 358)):
        result = build(SOURCES[name], tmp_path / name, source_path=path, unfiltered=True)
        assert sum(result.num_rows.values()) == num_rows
        assert result.facts["clients"]["num_clients"] == num_clients
        assert load_clients(tmp_path / name).task == SOURCES[name].task


@fuzz(10, 30)
@given(st.data())
@pytest.mark.parametrize("name", ["fed-oasst", "fed-oasst-pa"])
def test_every_message_is_in_a_row_or_rejected(read, name, data):
    messages = []
    for index in range(data.draw(st.integers(1, 9))):
        role = data.draw(st.sampled_from(["prompter", "assistant"]))
        parent = data.draw(st.sampled_from([None, "gone", *(m["message_id"] for m in messages)]))
        rank = data.draw(st.sampled_from([None, 0, 1]))
        deleted = data.draw(st.integers(0, 9)) == 0
        changes = {"role": role, "rank": rank, "deleted": deleted}
        messages.append(message(f"m{index}", parent, "ann", f"text{index}.", **changes))
    rows, rejected = read(messages, name)
    said = json.dumps(rows)
    lost = [line for line, m in enumerate(messages, start=1) if m["text"] not in said and line not in rejected]
    assert lost == []


@pytest.mark.slow
def test_salt_and_task_hold_out_the_same_people_of_the_english_validation_split(tmp_path, shared_data):
    path, salt = shared_data / "sft" / "oasst1" / "en-validation.jsonl", b"s" * 32
    people = {}
    for name, key in (("fed-oasst", None), ("fed-oasst", salt), ("fed-oasst-pa", salt)):
        result = build(SOURCES[name], tmp_path / f"{name}-{key is None}", source_path=path, salt=key)
        people[name, key] = {
            split: {
                client_id if key else hash_client_id(client_id, salt)
                for client_id in load_clients(result.folder, split)
            }
            for split in result.num_rows
        }
    assert people["fed-oasst", None] == people["fed-oasst", salt]
    # Prompters share trees, so the rule of shared conversations decides too; `pipeline/split.py` states what holds.
    sft, pairs = people["fed-oasst", None], people["fed-oasst-pa", salt]
    assert (len(sft["unseen"]), len(pairs["unseen"])) == (35, 20)
    assert not pairs["unseen"] & (sft["train"] | sft["test"])
    assert len(sft["unseen"] & pairs["train"]) == 5
