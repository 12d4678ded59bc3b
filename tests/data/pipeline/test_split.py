"""The split rule: proportions, whole clients, whole conversations, and what happens when everything is shared."""

from collections import defaultdict
from itertools import product
from random import Random

import duckdb
import pyarrow as pa
import pytest

from fedllm_data.pipeline.facts import facts_of
from fedllm_data.pipeline.salt import hash_client_id
from fedllm_data.pipeline.split import assign_splits, draw


def seeds(few, many):
    """`many` seeds, of which `make test` takes a few."""
    return [pytest.param(seed, marks=() if seed < few else pytest.mark.slow) for seed in range(many)]


def assign(rows, seed=0, keep_all=False):
    """Assign splits to rows, each (client, opening) or (client, opening, prompt), the client None for a public row.

    Returns the list of splits and the counts.
    """
    clients = [row[0] or "public" for row in rows]
    openings, prompts = [row[1] for row in rows], [row[-1] for row in rows]
    table = pa.table(
        {
            "ordinal": list(range(len(rows))),
            "client_id": clients,
            "opening": openings,
            "is_group": [bool(row[1] and row[1].startswith("group")) for row in rows],
            "prompt": prompts,
            "client_draw": [draw(seed, "client", client) for client in clients],
            "opening_draw": [draw(seed, "opening", opening) for opening in openings],
            "prompt_draw": [draw(seed, "prompt", prompt) for prompt in prompts],
            "is_public": [row[0] is None for row in rows],
        }
    )
    with duckdb.connect() as connection:
        connection.register("kept", table)
        counts = assign_splits(connection, "kept", "assigned", keep_all)
        return [
            split for (split,) in connection.execute("SELECT split FROM assigned ORDER BY ordinal").fetchall()
        ], counts


def split_of(rows, seed=0):
    return assign(rows, seed)[0]


def by_client(rows, splits):
    result = defaultdict(list)
    for row, split in zip(rows, splits, strict=True):
        result[row[0]].append(split)
    return result


PRIVATE = [(f"c{client:03d}", f"o{client}-{row}") for client in range(400) for row in range(10)]


def test_about_a_tenth_of_the_clients_is_unseen_and_15_percent_of_the_other_rows_are_test():
    splits = split_of(PRIVATE)
    clients = by_client(PRIVATE, splits)
    unseen = [client for client, parts in clients.items() if "unseen" in parts]
    assert all(set(clients[client]) == {"unseen"} for client in unseen)
    assert 20 <= len(unseen) <= 60  # 40 expected, standard deviation 6
    # 9 of 10 conversations can be drawn, at 0.15, and one is given where none was (0.85^9 = 0.23): 1.58 of 10.
    assert 0.14 <= splits.count("test") / (splits.count("test") + splits.count("train")) <= 0.18


def test_every_client_with_two_conversations_has_train_and_test_rows():
    rows = [(f"c{client}", f"o{client}-{row}") for client in range(100) for row in range(2)]
    for parts in by_client(rows, split_of(rows)).values():
        assert sorted(parts) in (["test", "train"], ["unseen", "unseen"])


def test_adding_a_client_moves_no_other():
    before = dict(zip(PRIVATE, split_of(PRIVATE), strict=True))
    rows = [*PRIVATE, ("new", "o-new-1"), ("new", "o-new-2")]
    after = dict(zip(rows, split_of(rows), strict=True))
    assert {row: after[row] for row in PRIVATE} == before


def test_the_order_of_the_rows_changes_nothing():
    before = dict(zip(PRIVATE, split_of(PRIVATE), strict=True))
    assert dict(zip(PRIVATE[::-1], split_of(PRIVATE[::-1]), strict=True)) == before


@pytest.mark.parametrize("seed", seeds(2, 5))
def test_a_shared_opening_never_straddles_train_and_a_held_out_split(seed):
    # Neighbouring clients share every other conversation.
    rows = [(f"c{c}", f"o{(c + row) // 2 if row % 2 else 1000 * c + row}") for c in range(60) for row in range(6)]
    sides = defaultdict(set)
    for (_, opening), split in zip(rows, split_of(rows, seed), strict=True):
        if split is not None:
            sides[opening].add("train" if split == "train" else "held")
    assert all(len(side) == 1 for side in sides.values())
    assert "train" in set().union(*sides.values())


def test_sharing_does_not_make_most_clients_unseen():
    rows = [(f"c{c}", f"tree{c // 4}") for c in range(400)]  # four clients to a conversation, one row each
    splits = split_of(rows)
    assert 0 < splits.count("unseen") <= 60
    assert splits.count("test") == 0
    assert splits.count("train") == 400 - splits.count("unseen")


def splits_of_prompts(rows, splits):
    result = defaultdict(set)
    for row, split in zip(rows, splits, strict=True):
        result[row[-1]] |= {split} - {None}
    return result


def judged(num_clients, num_prompts, per_prompt):
    """Prompts that `per_prompt` clients drawn by lot judge, each prompt an opening of its own."""
    lots = Random(0)
    return [
        (f"c{client}", f"p{prompt}")
        for prompt in range(num_prompts)
        for client in sorted(lots.sample(range(num_clients), per_prompt))
    ]


def greetings(num_clients):
    """Clients of whom every twelfth says "hi" and every fortieth "hello", mostly and some only that."""
    rows = []
    for client in range(num_clients):
        words = "hi" if client % 12 == 0 else "hello" if client % 40 == 1 else None
        if words:
            rows.append((f"c{client}", words, words if client % 5 else f"{words} and {client}"))
        if client % 10:
            rows += [(f"c{client}", f"o{client}-{row}") for row in range(5 + client % 20)]
    return rows


@pytest.mark.parametrize("seed", seeds(1, 3))
@pytest.mark.parametrize(
    ("rows", "least_train", "test"),
    [
        # 90 % of the rows x 75 % train = 0.68, and more: prompts drawn for unseen that no unseen client has train.
        pytest.param(judged(1012, 1078, 16), 0.66, (0.11, 0.19), id="1,012 annotators, 16 a prompt"),
        pytest.param(judged(1000, 3000, 6), 0.66, (0.11, 0.19), id="1,000 annotators, 6 a prompt"),
        pytest.param(judged(9, 500, 1), 0.70, (0.10, 0.20), id="9 raters, one a segment"),
        pytest.param(judged(9, 500, 3), 0.66, (0.10, 0.20), id="9 raters, three a segment"),
        pytest.param(judged(9, 500, 9), 0.60, (0.10, 0.20), id="9 raters, all of them"),
        pytest.param(judged(12, 500, 12), 0.60, (0.10, 0.20), id="12 raters, all of them"),
        pytest.param(greetings(13_000), 0.66, (0.10, 0.22), id="13,000 people who say hi"),
    ],
)
def test_prompts_that_many_share_leave_most_rows_to_train(rows, least_train, test, seed):
    splits, counts = assign(rows, seed)
    assert all(len(found) <= 1 for found in splits_of_prompts(rows, splits).values())
    assert splits.count("train") >= least_train * len(rows)
    assert test[0] <= splits.count("test") / (splits.count("train") + splits.count("test")) <= test[1]
    clients = by_client(rows, splits)
    unseen = [client for client, found in clients.items() if "unseen" in found]
    assert all(set(clients[client]) <= {"unseen", None} for client in unseen)
    assert all("train" in found for client, found in clients.items() if client not in unseen)
    if len(clients) >= 10:
        assert 0.06 <= len(unseen) / len(clients) <= (0.14 if len(clients) > 100 else 0.2)
    assert counts["num_unseen_rows_dropped"] + counts["num_test_rows_dropped"] == splits.count(None)


def test_a_template_divides_its_rows_by_the_whole_prompt():
    rows = [(f"c{c}", "summarise:", f"summarise: {c} {row // 2}") for c in range(50) for row in range(20)]
    splits, counts = assign(rows)
    assert counts["num_template_openings"] == 1
    assert all(len(found) == 1 for found in splits_of_prompts(rows, splits).values())
    # Nobody shares a prompt, so nothing is dropped, and the shares are those of clients that share nothing.
    assert None not in splits
    assert 0.10 <= splits.count("test") / 1000 <= 0.20
    assert 3 <= sum("unseen" in found for found in by_client(rows, splits).values()) <= 8


def test_a_prompt_that_is_all_somebody_has_trains():
    rows = [(f"c{c}", "hi") for c in range(200)]
    splits, counts = assign(rows)
    assert set(splits) == {"train"}
    assert counts["num_clients_left_to_train"] > 0


def test_rare_sharing_drops_the_other_clients_rows_with_the_very_prompt():
    # 300 conversations of two clients each, with a turn they share and a turn each has alone.
    rows = []
    for tree in range(300):
        for client in (f"c{tree % 100}", f"c{(tree * 7 + 1) % 100}"):
            rows += [(client, f"t{tree}", f"t{tree}"), (client, f"t{tree}", f"t{tree} {client}")]
    splits, counts = assign(rows)
    found = splits_of_prompts(rows, splits)
    assert all(len(sides) <= 1 for sides in found.values())
    unseen = {row[0] for row, split in zip(rows, splits, strict=True) if split == "unseen"}
    held = {row[1] for row in rows if row[0] in unseen}
    for (client, opening, prompt), split in zip(rows, splits, strict=True):
        if opening in held and client not in unseen:
            assert split == (None if prompt == opening else "test")
    assert counts["num_test_rows_dropped"] == splits.count(None) > 0


def test_templates_do_not_depend_on_the_order_of_the_rows():
    rows = greetings(600)
    one, other = assign(rows), assign(rows[::-1])
    assert one == (other[0][::-1], other[1])


def test_public_rows_of_a_template_keep_clear_of_held_out_prompts():
    rows = [(f"c{c}", "s", f"s{row}") for c in range(30) for row in range(40)]
    rows += [(None, "s", f"s{row}") for row in range(50)]
    splits = split_of(rows)
    public = {row[-1] for row, split in zip(rows, splits, strict=True) if split == "public"}
    held = {row[-1] for row, split in zip(rows, splits, strict=True) if split in ("test", "unseen")}
    assert public.isdisjoint(held)
    assert {f"s{row}" for row in range(40, 50)} <= public


def test_one_client_with_one_row_trains():
    assert split_of([("ann", "o")]) == ["train"]


def test_few_clients_that_share_everything_all_train():
    assert split_of([(f"c{c}", "o") for c in range(5)]) == ["train"] * 5


def test_ten_clients_have_an_unseen_one_among_them():
    for seed in range(10):
        rows = [(f"c{c}", f"o{c}-{row}") for c in range(10) for row in range(4)]
        assert "unseen" in split_of(rows, seed)


def test_public_rows_in_held_out_conversations_are_dropped():
    rows = [*PRIVATE, *((None, opening) for _, opening in PRIVATE), (None, "elsewhere")]
    splits = split_of(rows)
    of_client, of_public = splits[: len(PRIVATE)], splits[len(PRIVATE) : -1]
    assert of_public == ["public" if split == "train" else None for split in of_client]
    assert splits[-1] == "public"


def test_draws_are_uniform_and_independent_of_one_another():
    draws = [draw(0, "client", str(i)) for i in range(2_000)]
    assert abs(sum(draws) / 2_000 - 0.5) < 4 * (1 / 12 / 2_000) ** 0.5
    assert draw(0, "client", "a") != draw(0, "opening", "a") != draw(1, "opening", "a")


@pytest.mark.parametrize("seed", seeds(10, 60))
def test_any_corpus_trains_and_shares_no_prompt(seed):
    lots = Random(seed)
    num_clients, num_openings = lots.randint(1, 40), lots.randint(1, 60)
    rows = []
    for _ in range(lots.randint(1, 300)):
        client = None if lots.random() < 0.1 else f"c{int(num_clients * lots.random() ** 2)}"
        opening = f"o{int(num_openings * lots.random() ** 3)}"
        rows.append((client, opening, lots.choice([opening, f"{opening} {lots.randint(0, 3)}"])))
    rows.append(("c0", "o0", "o0"))
    splits = split_of(rows, seed)
    of_clients = [(row, split) for row, split in zip(rows, splits, strict=True) if row[0] is not None]
    of_prompts = splits_of_prompts([row for row, _ in of_clients], [split for _, split in of_clients])
    assert all(len(found) <= 1 for found in of_prompts.values())
    for row, split in zip(rows, splits, strict=True):
        if row[0] is None:
            held = of_prompts.get(row[-1], set()) & {"test", "unseen"}
            assert split in (("public", None) if not held else (None,))
    for found in by_client(*zip(*of_clients, strict=True)).values():
        assert set(found) - {None} == {"unseen"} or "train" in found
    assert "train" in splits


SHARED = [(f"r{(segment + shift) % 9}", f"s{segment}") for segment in range(500) for shift in range(3)]


def prompts_by_split(rows, splits):
    found = defaultdict(set)
    for row, split in zip(rows, splits, strict=True):
        found[split].add(row[-1])
    return found


def test_where_all_rows_are_to_be_kept_none_is_dropped_and_no_prompt_shared():
    loners = [(f"x{client}", f"x{client}-{row}") for client in range(20) for row in range(4)]
    pairs = [(f"y{client}", f"y{client // 2}-{row}") for client in range(6) for row in range(5)]
    rows = [*SHARED, *loners, *pairs]
    dropped, counts = assign(rows)
    assert dropped.count(None) > 0
    splits, counts = assign(rows, keep_all=True)
    assert None not in splits
    assert counts["is_grouped"] == 1
    assert counts["num_unseen_rows_dropped"] == counts["num_test_rows_dropped"] == 0
    found = prompts_by_split(rows, splits)
    assert not found["train"] & found["test"]
    assert not found["unseen"] & (found["train"] | found["test"])
    clients = by_client(rows, splits)
    unseen = {client for client, parts in clients.items() if "unseen" in parts}
    assert all(set(clients[client]) == {"unseen"} for client in unseen)
    # 35 clients, so 3 at most; the nine raters hang together, and the two of a pair go together.
    assert 1 <= len(unseen) <= 3
    assert not any(client.startswith("r") for client in unseen)
    assert all((f"y{2 * n}" in unseen) == (f"y{2 * n + 1}" in unseen) for n in range(3))
    assert all("train" in parts for client, parts in clients.items() if client not in unseen)
    assert 0.1 < splits.count("test") / len(splits) < 0.25


def test_where_all_clients_hang_together_none_is_unseen_rather_than_a_row_lost():
    splits, counts = assign(SHARED, keep_all=True)
    assert set(splits) == {"train", "test"}
    assert counts["num_clients_drawn_unseen"] == 0


def test_keeping_all_rows_changes_nothing_where_none_would_be_dropped():
    splits, counts = assign(PRIVATE, keep_all=True)
    assert (splits, "is_grouped" in counts) == (split_of(PRIVATE), False)


def in_groups(seed):
    """Rows (client, group, prompt): clients share groups, and groups share prompts; some rows have no group."""
    lots = Random(seed)
    num_clients, num_groups = lots.randint(1, 40), lots.randint(1, 60)
    rows = [("c0", "group0", "p0")]
    for _ in range(lots.randint(1, 300)):
        client = f"c{int(num_clients * lots.random() ** 2)}"
        group = int(num_groups * lots.random() ** lots.choice([1, 3]))
        prompt = lots.choice(["hello", f"p{group} {lots.randint(0, 3)}", f"p{lots.randint(0, 400)}"])
        rows.append((client, f"group{group}", prompt) if lots.random() < 0.9 else (client, prompt, prompt))
    return rows


@pytest.mark.parametrize("seed", seeds(6, 40))
@pytest.mark.parametrize("keep_all", [False, True])
def test_groups_never_straddle_splits_and_no_prompt_is_shared(seed, keep_all):
    rows = in_groups(seed)
    splits, counts = assign(rows, seed, keep_all)
    for place in (1, 2):
        found = defaultdict(set)
        for row, split in zip(rows, splits, strict=True):
            if split is not None and (place == 2 or row[1].startswith("group")):
                found[row[place]].add(split)
        assert all(len(sides) == 1 for sides in found.values())
    clients = by_client(rows, splits)
    assert all(set(found) - {None} <= {"unseen"} or "train" in found for found in clients.values())
    assert counts["num_unseen_rows_dropped"] + counts["num_test_rows_dropped"] == splits.count(None)
    assert splits.count(None) == 0 or not keep_all
    assert counts["num_groups"] == len({row[1] for row in rows if row[1].startswith("group")})


def test_groups_of_single_clients_are_drawn_as_conversations_are():
    grouped = [
        (f"c{client:03d}", f"group{client}-{row // 2}", f"p{client}-{row}")
        for client, row in product(range(300), range(10))
    ]
    splits, _ = assign(grouped)
    assert None not in splits
    # A client has 5 groups of two rows. Of 4 that can be drawn 0.6 are; where none is (0.85^4 = 0.52), one is given.
    assert 0.19 <= splits.count("test") / (splits.count("test") + splits.count("train")) <= 0.26
    unseen = {row[0] for row, split in zip(grouped, splits, strict=True) if split == "unseen"}
    assert 15 <= len(unseen) <= 45  # 30 expected, standard deviation 5


@pytest.mark.parametrize("seed", seeds(3, 15))
def test_people_are_split_by_their_upstream_id_whatever_the_salt_the_task_and_the_rows(seed):
    """Drawn people with conversations of their own, built twice: other salts, tasks, corpora and parts of the rows."""
    lots = Random(seed)
    ids = [f"{lots.choice('abc')}{lots.getrandbits(30)}@é" for _ in range(lots.randint(10, 60))]
    # Where no draw is low, the lowest of all is unseen: then the people must be the same ones.
    is_any_low = any(draw(seed, "client", who) < 0.1 for who in ids)
    builds = []
    for salt in (None, b"a" * 32, b"b" * 32):
        task = lots.choice(["sft", "preference"])
        part = [who for who in ids if lots.random() < 0.8 or (is_any_low and draw(seed, "client", who) < 0.1)]
        part = part if is_any_low and len(part) >= 2 else ids
        facts = []
        for who in part:
            for number in range(lots.randint(1, 6)):
                turns = [{"role": "user", "content": f"{who} {number}"}, {"role": "assistant", "content": "A"}]
                row = {"client_id": who if salt is None else hash_client_id(who, salt)}
                row |= {"language": "en", "messages": turns, "prompt": turns[:1], "chosen": turns[1:], "rejected": []}
                facts.append(facts_of(row, task, f"corpus of {salt}", seed, upstream_id=who) | {"who": who})
        columns = ("client_id", "opening", "is_group", "prompt", "client_draw", "opening_draw", "prompt_draw")
        table = pa.table({name: [fact[name] for fact in facts] for name in columns})
        table = table.append_column("ordinal", pa.array(range(len(facts))))
        table = table.append_column("is_public", pa.array([False] * len(facts)))
        with duckdb.connect() as connection:
            connection.register("kept", table)
            assign_splits(connection, "kept", "assigned")
            splits = [s for (s,) in connection.execute("SELECT split FROM assigned ORDER BY ordinal").fetchall()]
        sides = defaultdict(set)
        for fact, split in zip(facts, splits, strict=True):
            sides[fact["who"]].add("unseen" if split == "unseen" else "seen")
        assert all(len(side) == 1 for side in sides.values())
        builds.append({who: side.pop() for who, side in sides.items()})
    for one in builds:
        for other in builds:
            assert all(other[who] == side for who, side in one.items() if who in other)
