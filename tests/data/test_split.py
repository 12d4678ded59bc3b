"""The split rule: proportions, whole clients, whole conversations, and what happens when everything is shared."""

from collections import defaultdict

import duckdb
import pyarrow as pa
import pytest

from fedllm_data.split import assign_splits, draw


def split_of(rows, seed=0):
    """Assign splits to (client, opening) pairs, or (None, opening) for public rows; return the list of splits."""
    table = pa.table(
        {
            "ordinal": list(range(len(rows))),
            "client_id": [client or "public" for client, _ in rows],
            "opening": [opening for _, opening in rows],
            "client_draw": [draw(seed, "client", client or "public") for client, _ in rows],
            "opening_draw": [draw(seed, "opening", opening) for _, opening in rows],
            "content_draw": [draw(seed, "content", str(index)) for index in range(len(rows))],
            "is_public": [client is None for client, _ in rows],
        }
    )
    with duckdb.connect() as connection:
        connection.register("kept", table)
        assign_splits(connection, "kept", "assigned")
        return [split for (split,) in connection.execute("SELECT split FROM assigned ORDER BY ordinal").fetchall()]


def by_client(rows, splits):
    result = defaultdict(list)
    for (client, _), split in zip(rows, splits, strict=True):
        result[client].append(split)
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


@pytest.mark.parametrize("seed", range(5))
def test_a_shared_opening_never_straddles_train_and_a_held_out_split(seed):
    # Neighbouring clients share every other conversation.
    rows = [(f"c{c}", f"o{(c + row) // 2 if row % 2 else 1000 * c + row}") for c in range(60) for row in range(6)]
    sides = defaultdict(set)
    for (_, opening), split in zip(rows, split_of(rows, seed), strict=True):
        sides[opening].add("train" if split == "train" else "held")
    assert all(len(side) == 1 for side in sides.values())
    assert "train" in set().union(*sides.values())


def test_sharing_does_not_make_most_clients_unseen():
    rows = [(f"c{c}", f"tree{c // 4}") for c in range(400)]  # four clients to a conversation, one row each
    splits = split_of(rows)
    assert 0 < splits.count("unseen") <= 60
    assert splits.count("test") == 0
    assert splits.count("train") == 400 - splits.count("unseen")


def test_a_template_opening_is_split_by_row():
    rows = [(f"c{c}", "summarise:") for c in range(50) for _ in range(10)]
    splits = split_of(rows)
    assert {"train", "test", "unseen"} == set(splits)
    assert splits.count("train") > 300


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
