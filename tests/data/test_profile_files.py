import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.codebook.making import make_codebook
from fedllm_data.errors import ClientNotFoundError, ReportError
from fedllm_data.heterogeneity.profile import ClientProfile
from fedllm_data.profile_files import profile_clients, read_profiles, write_profiles
from fedllm_data.profiles import ProfileSet, open_splits
from fedllm_data.report import (
    heterogeneity_report,
    report_from_profiles,
    write_report,
    write_report_from_profiles,
)
from fedllm_data.sources import SOURCES

FEW = {"num_null": 19, "num_bootstrap": 9}
OPTIONS = {"num_clients": "30", "mean_rows": "8"}


@pytest.fixture(scope="module", params=["fed-synth", "fed-synth-pa"])
def repo(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles") / request.param
    build(SOURCES[request.param], folder, options=OPTIONS)
    return folder


@pytest.fixture(scope="module")
def book(repo):
    return make_codebook(load_clients(repo))


def _ids(repo) -> list[str]:
    return sorted({client_id for split in ("train", "test", "unseen") for client_id in load_clients(repo, split)})


def _same_place(document: dict) -> dict:
    return document | {"name": None, "revision": None}


def test_a_federated_report_is_the_pooled_one_to_the_last_digit(repo, book, tmp_path):
    pooled = write_report(repo, tmp_path / "pooled", codebook=book, name="fed")
    ids = _ids(repo)
    for part in (ids[::3], ids[1::3], ids[2::3]):  # three places, each with some of the clients
        profile_clients(repo, tmp_path / "profiles", book, clients=part)

    federated = write_report_from_profiles(tmp_path / "profiles", tmp_path / "federated", book, name="fed")

    assert json.dumps(_same_place(federated)) == json.dumps(_same_place(pooled))
    assert len(ids) == pooled["num_clients"] == len(list((tmp_path / "profiles").iterdir()))
    for path in (tmp_path / "pooled").rglob("*"):
        other = tmp_path / "federated" / path.relative_to(tmp_path / "pooled")
        if path.is_file() and path.name not in ("heterogeneity.json", "report.html", "report_inputs.json"):
            assert path.read_bytes() == other.read_bytes(), path.name


def test_small_clients_are_merged_alike_where_the_report_is_pooled(repo, book, tmp_path):
    book = replace(book, min_rows=7)
    datasets, min_client_rows = open_splits(repo)
    pooled = heterogeneity_report(datasets, min_client_rows=min_client_rows, codebook=book, **FEW).to_json()
    written = profile_clients(repo, tmp_path, book)
    federated = report_from_profiles(read_profiles(tmp_path), book, name="fed", **FEW).to_json()
    assert json.dumps(_same_place(federated)) == json.dumps(_same_place(pooled))
    assert pooled["num_clients"] == len(written.clients) < len(_ids(repo))
    assert pooled["config"]["min_rows"] == 7
    assert pooled["config"]["num_merged_rows"] == written.num_merged_rows > 0
    assert pooled["num_rows"] == sum(profile.num_rows for profile in written.profiles)
    assert "" not in pooled["clients"]["client_id"]


def test_a_profile_holds_no_text_of_any_row(repo, book, tmp_path):
    profile_clients(repo, tmp_path, book)
    words = set()
    for row in load_clients(repo).rows:
        turns = row.get("messages") or [*row["prompt"], *row["chosen"], *row["rejected"]]
        words |= {word for turn in turns for word in turn["content"].split() if len(word) > 4}
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert len(words) > 100
    assert {word for word in words if f'"{word}"' in text or f" {word} " in text} == set()
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 60_000


def test_no_client_id_names_a_file(tmp_path):
    ids = ("../../up", "a/b", "CON", "x" * 256, "é\u202e")
    some = ProfileSet(tuple(ClientProfile(i, "book", 1, {}) for i in sorted(ids)), "sft", ("train",))
    write_profiles(some, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(names) == 5
    assert all(len(name) == len("profile-.json") + 24 and name.isascii() for name in names)
    assert read_profiles(tmp_path / "out") == some


def test_a_profile_of_the_same_client_is_replaced(tmp_path):
    for rows in (1, 2):
        write_profiles(ProfileSet((ClientProfile("a", "book", rows, {}),), "sft", ("train",)), tmp_path)
    assert [profile.num_rows for profile in read_profiles(tmp_path).profiles] == [2]


def test_small_clients_of_several_places_are_merged(tmp_path):
    for place, rows in (("one", 5), ("two", 6)):
        merged = ClientProfile("", "book", rows, {"rows": {"all": rows}}, {"sum": np.array([rows])})
        splits = ("train",) if place == "one" else ("unseen",)
        found = ProfileSet((merged, ClientProfile(place, "book", 9, {})), "sft", splits, rows)
        write_profiles(found, tmp_path / place)
        for path in (tmp_path / place).iterdir():
            (tmp_path / "all").mkdir(exist_ok=True)
            path.rename(tmp_path / "all" / path.name)
    read = read_profiles(tmp_path / "all")
    assert [(profile.client_id, profile.num_rows) for profile in read.profiles] == [("", 11), ("one", 9), ("two", 9)]
    assert read.profiles[0].vectors["sum"].tolist() == [11]
    assert (read.splits, read.min_client_rows, read.num_merged_rows) == (("train", "unseen"), 5, 11)


def test_rows_of_small_clients_are_not_counted_twice(tmp_path):
    for rows in (5, 5, 6):
        found = ProfileSet((ClientProfile("", "book", rows, {}),), "sft", ("train",))
        if rows == 6:
            with pytest.raises(ReportError, match="holds a profile of other small clients, profile-merged-"):
                write_profiles(found, tmp_path)
        else:
            write_profiles(found, tmp_path)
    assert read_profiles(tmp_path).profiles[0].num_rows == 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nonsense", "is no profile"),
        ("[]", "is no profile"),
        ("{}", "is no profile"),
        ('{"format": "fedllm-profile", "version": 1}', "profile has version 1, this release reads version"),
        ('{"format": "other"}', "is no profile .*'other'"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, words):
    (tmp_path / "profile-x.json").write_text(content)
    with pytest.raises(ReportError, match=f"profile-x.json.*{words}"):
        read_profiles(tmp_path)


def test_profiles_that_do_not_go_together_are_refused(tmp_path):
    def write(client_id: str, book: str = "book", task: str = "sft") -> Path:
        write_profiles(ProfileSet((ClientProfile(client_id, book, 1, {}),), task, ("train",)), tmp_path)  # type: ignore
        return max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)

    write("a")
    other = write("b", book="another")
    with pytest.raises(ReportError, match="holds profiles of the codebooks another and book: use one for all"):
        read_profiles(tmp_path)
    other.unlink()
    other = write("c", task="preference")
    with pytest.raises(ReportError, match="mixes profiles of preference and sft rows"):
        read_profiles(tmp_path)
    other.unlink()
    copy = tmp_path / "profile-copy.json"
    copy.write_text(write("a").read_text())
    with pytest.raises(ReportError, match="holds two profiles of client 'a': keep one"):
        read_profiles(tmp_path)


def test_a_report_needs_the_codebook_of_its_profiles(repo, book, tmp_path):
    profile_clients(repo, tmp_path, book, clients=_ids(repo)[:2])
    with pytest.raises(ReportError, match=f"has profiles of codebook {book.digest}, the one given is"):
        write_report_from_profiles(tmp_path, tmp_path / "out", replace(book, fourier_seed=9))


def test_clients_that_cannot_be_profiled_are_refused(repo, book, tmp_path):
    with pytest.raises(ClientNotFoundError, match="no client 'nobody' in"):
        profile_clients(repo, tmp_path, book, clients=["nobody"])
    with pytest.raises(ReportError, match="have fewer than 1000 rows in all"):
        profile_clients(repo, tmp_path, replace(book, min_rows=1000), clients=_ids(repo)[:1])
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="profiles cannot be written to"):
        profile_clients(repo, tmp_path / "file", book, clients=_ids(repo)[:1])
