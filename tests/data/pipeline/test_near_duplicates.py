"""Near-duplicates against brute force, in any order, in chains, in crowds, in scripts without spaces."""

import random

import duckdb
import pyarrow as pa
import pytest

from fedllm_data.pipeline.banding import signatures
from fedllm_data.pipeline.near_duplicates import remove_near_duplicates
from fedllm_data.pipeline.shingles import similarity

WORDS = [f"{a}{b}{c}" for a in "bdfklmnprst" for b in "aeiou" for c in ("n", "rin", "s", "stel", "")]
DONE = ("num_near_duplicates_in_client", "num_near_duplicates_across_clients")


def remaining(rows, threshold=0.8, task="sft", across_clients=True):
    """Rows (row id, client, parts) -> ids of those that stay, and (removed within, removed across)."""
    roles = {"sft": [("messages", 2)], "preference": [("prompt", 1), ("chosen", 1), ("rejected", 1)]}[task]
    with duckdb.connect() as connection:
        columns = {name: [] for name, _ in roles}
        for _, _, parts in rows:
            texts = iter(parts)
            for name, size in roles:
                columns[name].append([{"role": "user", "content": next(texts)} for _ in range(size)])
        ordinals = pa.array(range(len(rows)), pa.int64())
        table = pa.table({"ordinal": ordinals, **columns})
        facts = pa.table(
            {"ordinal": ordinals, "order_key": [row[0] for row in rows], "client_id": [row[1] for row in rows]}
        )
        batches = [signatures([row[2] for row in rows[i : i + 100]], threshold) for i in range(0, len(rows), 100)]
        signed = pa.concat_tables(batches).add_column(0, "ordinal", ordinals)
        for name, made in (("rows", table), ("signatures", signed), ("facts", facts)):
            connection.register("made", made)
            connection.execute(f"CREATE TABLE {name} AS FROM made")
        connection.execute("CREATE TABLE distinct_rows AS SELECT *, client_id = 'public' AS is_public FROM facts")
        counts = remove_near_duplicates(connection, threshold, task, across_clients=across_clients)
        kept = [
            row[0] for row in connection.execute("SELECT order_key FROM distinct_rows ORDER BY order_key").fetchall()
        ]
    return kept, tuple(counts[name] for name in DONE)


def test_similarity_is_the_least_jaccard_of_the_parts():
    # abcdefg: abcde bcdef cdefg; abcdefh: abcde bcdef cdefh; 2 of 4 in common.
    assert similarity(("abcdefg", "x"), ("ABCDEFH", "X ")) == 2 / 4
    assert similarity(("same text", "hi"), ("same text", "ho")) == 0
    assert similarity(("ａｂｃ  d", "é"), ("abc d", "e\u0301")) == 1


def test_an_edit_is_near_and_counts_by_whose_row_it_repeats():
    text = "How do I keep rice from sticking to the bottom of the pan?"
    rows = [
        ("1", "ann", (text, "Stir it.")),
        ("2", "ann", (text + "?", "Stir it.")),
        ("3", "bob", (text, "Stir it. ")),
    ]
    assert remaining(rows) == (["1"], (1, 1))
    assert remaining(rows, across_clients=False) == (["1", "3"], (1, 0))
    # The lower row id stays, whoever's it is, and a client's row before a public one.
    assert remaining([("0", "public", rows[0][2]), rows[1]])[0] == ["2"]


def test_one_part_alone_makes_no_near_duplicate():
    question = "Is the earth really round, or does it only look so from far away?"
    assert remaining([("1", "a", (question, "Yes.")), ("2", "a", (question, "No."))])[0] == ["1", "2"]
    assert remaining([("1", "a", (question, "Yes.")), ("2", "a", ("Do cats sleep?", "Yes."))])[0] == ["1", "2"]
    pair = (question, "Yes, it is an oblate spheroid.", "No, it is as flat as a pancake.")
    swapped = (pair[0], pair[2], pair[1])
    assert remaining([("1", "a", pair), ("2", "a", swapped)], task="preference")[0] == ["1", "2"]
    assert remaining([("1", "a", pair), ("2", "b", pair)], task="preference") == (["1"], (0, 1))


def test_short_texts_must_be_equal_and_texts_without_spaces_are_compared():
    short = [("1", "a", ("hi", "ho")), ("2", "a", ("hi", "hu")), ("3", "a", ("HI ", "ho"))]
    assert remaining(short, threshold=0.5) == (["1", "2"], (1, 0))
    chinese = "怎样才能学会煮出不粘锅的米饭而且每一次都煮得又香又软呢请告诉我详细的步骤和需要注意的地方"
    other = "今天的天气非常好我们一起去公园散步吧顺便可以买一些水果和面包回来给孩子们吃大家都会很高兴的"
    rows = [("1", "a", (chinese, "好")), ("2", "a", (chinese + "吗", "好")), ("3", "a", (other, "好"))]
    assert remaining(rows) == (["1", "3"], (1, 0))


def test_in_a_chain_the_link_that_stays_is_compared_and_not_the_one_that_went():
    rng = random.Random(1)
    first = " ".join(rng.choices(WORDS, k=60))
    second = first.replace(" ".join(first.split()[:6]), "zz xx yy")
    third = second.replace(" ".join(second.split()[-8:]), "qq ww vv")
    rows = [("1", "a", (first, "x")), ("2", "a", (second, "x")), ("3", "a", (third, "x"))]
    assert similarity(*[row[2] for row in rows[:2]]) >= 0.8
    assert similarity(*[row[2] for row in rows[1:]]) >= 0.8
    assert similarity(rows[0][2], rows[2][2]) < 0.8
    # 2 goes for 1; 3 is near 2 alone, which is gone, so it stays.
    assert remaining(rows)[0] == ["1", "3"]


def shingle_sets(parts):
    """Written anew, with sets of strings in place of arrays of hashes."""
    texts = [" ".join(text.lower().split()) for text in parts]
    return [{text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in texts]


def brute_similarity(first, second):
    return min(len(one & two) / len(one | two) for one, two in zip(first, second, strict=True))


def edited_rows(num_rows, seed):
    rng = random.Random(seed)
    bases = [rng.choices(WORDS, k=rng.randint(20, 80)) for _ in range(num_rows // 4)]
    rows = []
    for index in range(num_rows):
        words = list(rng.choice(bases))
        for _ in range(rng.randint(0, 6)):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        rows.append((f"{index:04d}", rng.choice("abc"), (" ".join(words), "The answer is the same.")))
    return rows


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_near_pairs_are_found_and_only_those_are_removed(threshold):
    rows = edited_rows(400, seed=int(threshold * 10))
    kept = set(remaining(rows, threshold)[0])
    sets = [shingle_sets(parts) for _, _, parts in rows]
    missed = 0
    for index, (row_id, _, _) in enumerate(rows):
        best = max((brute_similarity(sets[index], sets[i]) for i in range(index) if rows[i][0] in kept), default=0)
        if row_id not in kept:
            assert best >= threshold
        missed += row_id in kept and best >= threshold + 0.05
    num_removed = len(rows) - len(kept)
    assert num_removed > 30
    assert num_removed / (num_removed + missed) >= 0.95


def test_the_order_of_arrival_changes_nothing():
    rows = edited_rows(200, seed=3)
    shuffled = random.Random(4).sample(rows, len(rows))
    assert remaining(rows) == remaining(shuffled)


def test_five_thousand_rows_of_one_template_are_one():
    """A comparison of every pair would take minutes; so would buckets that all rows share."""
    template = "Write a short poem about the sea, the wind and the long way home, number {}"
    near = [(f"{i:04d}", "a", (template.format(i), "Here it is.")) for i in range(5_000)]
    assert remaining(near) == (["0000"], (4_999, 0))
    # Alike enough to meet in buckets, too different in the answer to go.
    rng = random.Random(5)
    far = [(row_id, "a", (parts[0], " ".join(rng.choices(WORDS, k=4)))) for row_id, _, parts in near[:1_500]]
    assert len(remaining(far)[0]) > 1_400


@pytest.mark.parametrize("rows", [[], [("1", "a", ("x", "y"))]])
def test_nothing_to_compare_removes_nothing(rows):
    if not rows:
        assert signatures([], 0.8).num_rows == 0
    else:
        assert remaining(rows) == (["1"], (0, 0))
