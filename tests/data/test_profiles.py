import datasets
import pytest

from fedllm_data.clients import ClientDataset
from fedllm_data.codebook.making import make_codebook
from fedllm_data.errors import ReportError
from fedllm_data.features.judges import find_judges
from fedllm_data.heterogeneity.profile import ClientProfile, merge_profiles
from fedllm_data.profiles import client_profiles, merge_small_clients, profile_datasets
from fedllm_data.sources import SOURCES


def _rows(corpus: str) -> list[dict]:
    options = {"num_clients": "8", "mean_rows": "8"} | ({"public_rows": "0"} if corpus == "fed-synth" else {})
    return [item.row for item in SOURCES[corpus].read(None, 3, options)]


def _clients(rows: list[dict]) -> ClientDataset:
    return ClientDataset.from_dataset(datasets.Dataset.from_list(rows))


@pytest.mark.parametrize("corpus", ["fed-synth", "fed-synth-pa"])
def test_a_client_that_is_the_union_of_two_leaves_the_sum_of_their_profiles(corpus):
    rows = _rows(corpus)
    ids = sorted({row["client_id"] for row in rows})
    book = make_codebook(_clients(rows))
    settings = {"codebook": book, "judges": find_judges(book)}
    apart = client_profiles([_clients(rows)], **settings)
    union = [row | {"client_id": ids[0]} if row["client_id"] in ids[:2] else row for row in rows]

    (together,) = [one for one in client_profiles([_clients(union)], **settings) if one.client_id == ids[0]]
    merged = merge_profiles([one for one in apart if one.client_id in ids[:2]], client_id=ids[0])

    assert merged.num_rows == together.num_rows
    assert set(merged.counts) == set(together.counts)
    assert set(merged.vectors) == set(together.vectors)
    for name, table in together.counts.items():
        assert merged.counts[name] == table, name
    for name, vector in together.vectors.items():
        assert merged.vectors[name].tolist() == vector.tolist(), name
    assert merged == together


def test_small_clients_are_merged_and_the_rest_stays():
    profiles = [ClientProfile(client_id, "book", rows, {"rows": {"all": rows}}) for client_id, rows in _SIZES.items()]
    found = merge_small_clients(profiles, 5)
    assert [(profile.client_id, profile.num_rows) for profile in found] == [("", 6), ("a", 5), ("b", 9)]
    assert found[0].counts == {"rows": {"all": 6}}
    assert merge_small_clients(found, 5) == found
    assert merge_small_clients(profiles, 1) == profiles


_SIZES = {"a": 5, "b": 9, "c": 2, "d": 4}


def test_what_is_merged_and_still_small_is_left_out():
    profiles = [ClientProfile("a", "book", 9, {}), ClientProfile("b", "book", 2, {})]
    assert [profile.client_id for profile in merge_small_clients(profiles, 5)] == ["a"]
    assert merge_small_clients(profiles[1:], 5) == []


def test_the_codebook_is_named_and_its_min_rows_holds():
    rows = _rows("fed-synth")
    sizes = _clients(rows).sizes
    book = make_codebook(_clients(rows), min_rows=sorted(sizes.values())[2])
    found = profile_datasets([_clients(rows)], book, judges=find_judges(book))
    assert {profile.codebook for profile in found.profiles} == {book.digest}
    assert len(found.clients) == 6
    assert found.num_merged_rows == sum(sorted(sizes.values())[:2])
    assert (found.task, found.splits) == ("sft", ("train",))


def test_no_split_is_refused():
    book = make_codebook(_clients(_rows("fed-synth")))
    with pytest.raises(ReportError, match="no split to report on"):
        profile_datasets([], book)
