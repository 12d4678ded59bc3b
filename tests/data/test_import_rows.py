"""What an import makes of rows that belong together: verdicts on one item, turns of one ticket, rows of one person."""

import json
from collections import defaultdict
from random import Random

import pytest

from fedllm_data.build_words import row_lines
from fedllm_data.check import check_repo
from fedllm_data.cli import main
from fedllm_data.clients import load_clients
from fedllm_data.importer import import_files
from fedllm_data.pipeline.facts import prompt_of
from fedllm_data.pipeline.salt import hash_client_id
from fedllm_data.source import Filters
from fedllm_data.sources import SOURCES

SALT = b"s" * 32


def make(tmp_path, folder, rows, task="sft", **settings):
    (tmp_path / f"{folder}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    settings = {"client_column": "who", "name": "corpus"} | settings
    result = import_files([tmp_path / f"{folder}.jsonl"], tmp_path / folder, task=task, **settings)
    assert check_repo(tmp_path / folder) == []
    return result, {split: load_clients(tmp_path / folder, split).rows.to_list() for split in result.num_rows}


def verdicts(num_items, raters, agree=lambda rater, item: True):
    sides = [{"chosen": "good", "rejected": "bad"}, {"chosen": "bad", "rejected": "good"}]
    return [
        {"who": rater, "prompt": f"item {item}", **sides[not agree(rater, item)]}
        for rater in raters
        for item in range(num_items)
    ]


def test_verdicts_that_agree_are_all_kept(tmp_path):
    # 20 items x 2 raters = 40 rows, all kept; with ann's first verdict twice, 41 rows, of which one is a repetition.
    rows = verdicts(20, ["ann", "bob"])
    result, splits = make(tmp_path, "agree", [*rows, rows[0]], "preference")
    assert sum(result.num_rows.values()) == 40
    counts = result.facts["counts"]
    assert (counts["num_duplicates_in_client"], counts["num_duplicates_across_clients_kept"]) == (1, 20)
    assert {row["client_id"] for rows in splits.values() for row in rows} == {"ann", "bob"}


def test_agreement_is_counted_as_it_was_given(tmp_path):
    # Of 24 items a and b agree on every second: 12 of 24 items with one verdict, 12 with two.
    rows = verdicts(24, ["a", "b"], lambda rater, item: rater == "a" or item % 2 == 0)
    _, splits = make(tmp_path, "half", rows, "preference")
    chosen = defaultdict(set)
    for row in (row for rows in splits.values() for row in rows):
        chosen[row["prompt"][0]["content"]].add((row["client_id"], row["chosen"][0]["content"]))
    assert all(len(given) == 2 for given in chosen.values())
    assert sum(len({answer for _, answer in given}) == 1 for given in chosen.values()) == 12


@pytest.mark.parametrize("similarity", [None, 0.8])
def test_demonstrations_are_shared_only_where_that_is_said(tmp_path, similarity):
    rows = [
        {"who": who, "instruction": f"Say this sentence about {i} of the things.", "response": "As you wish, here."}
        for who in ("ann", "bob")
        for i in ("apples", "pears", "plums", "cherries")
    ]
    filters = Filters(near_duplicates=similarity)
    for shared, kept in ((None, 4), (False, 4), (True, 8)):
        result, _ = make(tmp_path, f"shared-{shared}", rows, filters=filters, shared_items=shared)
        assert sum(result.num_rows.values()) == kept
    assert "one of them was kept" in row_lines(make(tmp_path, "again", rows)[0].facts)[0]


def test_the_summary_says_what_was_decided_for_the_rows(tmp_path, capsys):
    rows = [row | {"language": ("Go", "Rust")[i % 2]} for i, row in enumerate(verdicts(6, ["ann", "bob"]))]
    (tmp_path / "v.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    command = ["import", str(tmp_path / "v.jsonl"), "--task", "preference", "--client-column", "who", "--no-report"]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    said = capsys.readouterr().out
    assert "duplicates across clients kept: 6" in said
    assert "each is a verdict of its own" in said
    assert "column 'language' was not used as the language: most of its values ('Go', 'Rust') are none" in said
    assert main([*command, "--no-shared-items", "--out", str(tmp_path / "two")]) == 0
    assert "one of them was kept; --shared-items keeps all" in capsys.readouterr().out


def test_corpora_whose_clients_judge_keep_verdicts_that_agree():
    # In the others the client asked, or was generated: whoever ranked the answers is no client.
    judged = {"fed-chatbot-pa", "fed-prism", "fed-community-alignment", "fed-collective-alignment", "fed-mqm"}
    judged |= {"fed-summaries-pa", "fed-multipref-pa", "fed-dices-pa"}
    assert {name for name, source in SOURCES.items() if source.clients_share_items} == judged


def tickets(num_tickets, num_turns, who):
    return [
        {"who": who(ticket), "thread_id": ticket, "instruction": f"{ticket}: turn {turn}", "response": "Done."}
        for ticket in range(num_tickets)
        for turn in range(num_turns)
    ]


def splits_of_groups(splits):
    found = defaultdict(set)
    for split, rows in splits.items():
        for row in rows:
            found[row["messages"][0]["content"].partition(":")[0]].add(split)
    return found


def test_turns_of_a_ticket_lie_in_one_split(tmp_path):
    rows = tickets(60, 5, lambda ticket: f"agent {ticket % 12}")
    result, splits = make(tmp_path, "tickets", rows, columns={"group": "thread_id"})
    found = splits_of_groups(splits)
    assert len(found) == 60
    assert all(len(sides) == 1 for sides in found.values())
    assert sum(result.num_rows.values()) == 300
    assert {"train", "test", "unseen"} == set(splits)
    assert result.facts["split_counts"]["num_groups"] == 60
    assert "groups: 60, each whole in one split" in row_lines(result.facts)
    # Without the target each turn is on its own, and nearly every test ticket trains, too.
    _, loose = make(tmp_path, "loose", rows)
    assert any(sides >= {"train", "test"} for sides in splits_of_groups(loose).values())


@pytest.mark.parametrize("unfiltered", [False, True])
def test_tickets_that_several_agents_answer_lie_in_one_split(tmp_path, unfiltered):
    lots = Random(0)
    rows = [
        row | {"who": f"agent {row['thread_id'] % 10 + 10 * lots.randrange(2)}"}
        for row in tickets(60, 5, lambda ticket: "")
    ]
    result, splits = make(tmp_path, "tickets", rows, columns={"group": "thread_id"}, unfiltered=unfiltered)
    assert all(len(sides) == 1 for sides in splits_of_groups(splits).values())
    dropped = result.facts["split_counts"]["num_test_rows_dropped"]
    assert sum(result.num_rows.values()) == 300 - dropped
    assert dropped == 0 or not unfiltered


def people(task, ids, row_numbers=range(6)):
    for who in ids:
        for number in row_numbers:
            if task == "sft":
                yield {"who": who, "instruction": f"{who} asks {number}", "response": "Yes."}
            else:
                yield {"who": who, "prompt": f"{who} asks {number}", "chosen": "Yes.", "rejected": "No."}


@pytest.mark.parametrize("seed", [0, 1])
def test_neither_salt_nor_task_nor_fewer_rows_move_a_person(tmp_path, seed):
    ids = [f"person {i}" for i in range(120)]
    _, sft = make(tmp_path, "sft", people("sft", ids), seed=seed)
    fewer = people("preference", ids[::2], range(2, 9))
    _, pairs = make(tmp_path, "pairs", fewer, "preference", seed=seed, salt=SALT, name="other")
    unseen = {row["client_id"] for row in sft["unseen"]}
    assert 4 <= len(unseen) <= 22  # 12 expected, standard deviation 3.3
    expected = {hash_client_id(who, SALT) for who in unseen & set(ids[::2])}
    assert {row["client_id"] for row in pairs["unseen"]} == expected
    prompts = {
        (task, split): {prompt_of(row, task) for row in rows}
        for task, splits in (("sft", sft), ("preference", pairs))
        for split, rows in splits.items()
    }
    for one, other in (("sft", "preference"), ("preference", "sft")):
        assert not prompts[one, "unseen"] & (prompts[other, "train"] | prompts[other, "test"])


@pytest.mark.parametrize("settings", [{}, {"unfiltered": True}])
def test_a_salt_changes_ids_and_nothing_else(tmp_path, settings):
    lots = Random(1)
    rows = [
        {
            "who": f"p{lots.randrange(40)}",
            "instruction": f"Q{lots.randrange(150)}",
            "response": f"A{lots.randrange(3)}",
        }
        for _ in range(400)
    ]
    settings = settings or {"filters": Filters(max_rows=6, max_clients=30, near_duplicates=0.9)}
    texts = []
    for name, salt in (("plain", None), ("salted", SALT), ("other", b"o" * 32)):
        _, splits = make(tmp_path, name, rows, salt=salt, **settings)
        hashed = (lambda who: who) if salt is None else (lambda who, salt=salt: hash_client_id(who, salt))
        by_id = {hashed(f"p{i}"): f"p{i}" for i in range(40)}
        texts.append(
            {
                split: sorted((by_id[row["client_id"]], str(row["messages"])) for row in found)
                for split, found in splits.items()
            }
        )
    assert texts[0] == texts[1] == texts[2]


def test_the_record_tells_salts_apart_and_nothing_of_them(tmp_path):
    facts = [
        make(tmp_path, f"repo-{i}", people("sft", ["ann", "bob"]), salt=salt)[0].facts["client_ids"]
        for i, salt in enumerate((None, SALT, SALT, b"o" * 32))
    ]
    assert facts[0] == {"hashed": False, "salt_fingerprint": None}
    assert facts[1] == facts[2] != facts[3]
    assert facts[1]["hashed"]
    assert SALT.hex() not in facts[1]["salt_fingerprint"]
