"""Ids and numbers kept sorted on disk: the same as lists and dicts, whatever the chunks, in memory or in files."""

import pickle
from collections import Counter
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data import disk_block
from fedllm_data.client_index import sorted_ids, values_of, without
from fedllm_data.clients_table import counts_of_split, labels_of, places_of, table_of_clients
from fedllm_data.disk_block import Block
from fedllm_data.repo import open_repo
from fedllm_data.row_counts import count_rows, row_counts

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@pytest.fixture(params=[0, 1 << 20], ids=["in files", "in memory"])
def anywhere(request, monkeypatch):
    monkeypatch.setattr(disk_block, "IN_MEMORY_BYTES", request.param)


def chunked(column, cuts):
    places = sorted({0, len(column), *(cut % (len(column) + 1) for cut in cuts)})
    return [pa.array(column[begin:end], pa.string()) for begin, end in pairwise(places)]


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, max_size=30), st.lists(st.integers(0, 99), max_size=4), TEXTS, st.booleans())
def test_counts_are_those_of_a_counter_however_the_column_is_cut(column, cuts, other, in_files):
    column = sorted(column)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_block, "IN_MEMORY_BYTES", 0 if in_files else 1 << 20)
        sizes = count_rows(chunked(column, cuts))
        expected = dict(sorted(Counter(column).items()))
        assert sizes == expected
        assert list(sizes.items()) == list(expected.items())
        assert list(sizes.values()) == list(expected.values())
        assert (other in sizes, sizes.get(other)) == (other in expected, expected.get(other))
        assert sizes.ids == list(expected)
        assert sizes.ids.first_from(other) == sum(each < other for each in expected)
        assert [column[slice(*sizes.span(place))] for place in range(len(sizes))] == [
            [client_id] * count for client_id, count in expected.items()
        ]
        again = pickle.loads(pickle.dumps(sizes))
        assert again == sizes
        assert again.ids == sizes.ids


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | TEXTS, min_size=1, max_size=12), st.lists(st.integers(0, 99), max_size=3))
def test_the_row_at_which_the_order_breaks_is_named(column, cuts):
    wrong = next(
        (
            place
            for place, value in enumerate(column)
            if value is None or (place and column[place - 1] is not None and value < column[place - 1])
        ),
        None,
    )
    if wrong is None:
        assert count_rows(chunked(column, cuts)) == Counter(column)
        return
    with pytest.raises(ValueError, match=f"not sorted at row {wrong}$"):
        count_rows(chunked(column, cuts))


@pytest.mark.usefixtures("anywhere")
def test_ids_behave_as_a_list_does():
    ids = sorted_ids(["zoe", "ann", "Ömer", "bob"])
    plain = sorted(["zoe", "ann", "Ömer", "bob"])
    assert ids == plain
    assert (ids[0], ids[-1], ids[1:3], ids.index("bob")) == (plain[0], plain[-1], plain[1:3], plain.index("bob"))
    assert ids != plain[:3]
    assert ids.arrow(1, 4).to_pylist() == plain[1:4]
    assert ids.arrow(2, 2).to_pylist() == []
    assert 3 not in ids
    with pytest.raises(ValueError, match="'eve' is not among the 4 clients"):
        ids.index("eve")
    with pytest.raises(IndexError):
        ids[4]
    assert sorted_ids(ids) is ids


@pytest.mark.usefixtures("anywhere")
def test_counts_behave_as_a_dict_does():
    sizes = row_counts(sorted_ids(["b", "a"]), [3, 4])
    assert sizes | {"b": 9} == {"a": 3, "b": 9}
    assert {"c": 1, "a": 0} | sizes == {"c": 1, "a": 3, "b": 4}
    assert repr(sizes) == "{'a': 3, 'b': 4}"
    with pytest.raises(KeyError):
        sizes["c"]
    assert sizes.counts(1, 2).tolist() == [4]
    assert max(sizes, key=sizes.get) == "b"


def test_many_clients_are_not_all_printed():
    sizes = row_counts(sorted_ids(f"c{number:03d}" for number in range(50)), [1] * 50)
    assert repr(sizes) == "{'c000': 1, 'c001': 1, 'c002': 1, ... 50 clients}"
    assert repr(sizes.ids) == "['c000', 'c001', 'c002', ... 50 clients]"


def test_a_folder_that_cannot_be_written_to_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_block, "IN_MEMORY_BYTES", 0)
    block = Block(tmp_path / "missing")
    block.append(b"abc")
    assert block.view.tobytes() == b"abc"


def test_values_are_found_whatever_the_order():
    sizes = row_counts(sorted_ids("abc"), [1, 2, 3])
    assert list(values_of(sizes, sizes.ids)) == [1, 2, 3]
    assert list(values_of(sizes, ["c", "a"])) == [3, 1]


@settings(max_examples=40, deadline=None)
@given(st.sets(TEXTS, max_size=12), st.sets(TEXTS, max_size=6), st.data())
def test_ids_without_some_are_a_list_without_them(all_ids, others, data):
    left_out = others | data.draw(st.sets(st.sampled_from(sorted(all_ids)))) if all_ids else others
    ids = sorted_ids(all_ids)
    expected = without(sorted(all_ids), left_out)
    free = without(ids, left_out)
    assert (list(free), [free[place] for place in range(len(free))], free[::2]) == (expected, expected, expected[::2])
    sizes = row_counts(ids, range(len(ids)))
    assert list(values_of(sizes, free)) == [sizes[client_id] for client_id in expected]


@pytest.fixture
def make_repo(tmp_path):
    def make(ids, **columns):
        rows = {"client_id": ids, "row_id": ids, "language": ["en"] * len(ids)}
        rows["messages"] = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]] * len(ids)
        for folder in ("data", "clients"):
            (tmp_path / folder).mkdir(exist_ok=True)
        pq.write_table(pa.table(rows), tmp_path / "data" / "train-00000-of-00001.parquet")
        table = pa.table({"client_id": ids, **columns})
        pq.write_table(table, tmp_path / "clients" / "clients-00000-of-00001.parquet", row_group_size=3)
        return open_repo(tmp_path)

    return make


@pytest.mark.parametrize("wanted", [["b", "e", "x"], ["a"], [], list("abcdefg")])
@pytest.mark.parametrize("order", ["abcdefg", "gcadebf"])
def test_a_table_is_restricted_as_a_filter_would(make_repo, monkeypatch, wanted, order):
    monkeypatch.setattr("fedllm_data.clients_table.BLOCK", 2)
    repo = make_repo(list(order), number=list(range(7)))
    whole = repo.client_table()
    expected = whole.filter(pc.is_in(whole["client_id"], value_set=pa.array(wanted, pa.string())))
    assert table_of_clients(repo, sorted_ids(wanted)).equals(expected)


@pytest.mark.parametrize("order", ["abcdefg", "gcadebf"])
def test_counts_of_a_split_leave_out_clients_without_rows(make_repo, order):
    counts = dict(zip("abcdefg", [0, 2, 0, 1, 5, 0, 3], strict=True))
    repo = make_repo(list(order), num_train_rows=[counts[client_id] for client_id in order])
    found = counts_of_split(repo, "num_train_rows")
    assert found == {"b": 2, "d": 1, "e": 5, "g": 3}
    assert [found.span(place)[1] for place in range(4)] == [*accumulate(found.values())]


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(TEXTS, st.none() | st.sampled_from(["en", "fr", ""]), max_size=12), st.sets(TEXTS, max_size=8))
def test_labels_are_those_of_a_dict(told, others):
    table = pa.table(
        {"client_id": pa.array(list(told), pa.string()), "of": pa.array(list(told.values()), pa.string())}
    )
    ids = sorted_ids([*told, *others])
    assert labels_of(table, "of", ids, "und") == {client_id: told.get(client_id) or "und" for client_id in ids}
    places = places_of(pa.array([*others, *told], pa.string()), ids)
    assert [ids[place] for place in places] == [*others, *told]


def test_places_of_unknown_and_missing_ids_are_none():
    ids = sorted_ids(["b", "d"])
    assert places_of(pa.array(["a", None, "d", "c", "e"]), ids).tolist() == [-1, -1, 1, -1, -1]
    assert places_of(pa.array([None], pa.string()), ids).tolist() == [-1]
    assert np.asarray(places_of(pa.array([], pa.string()), ids)).size == 0
