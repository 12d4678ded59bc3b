"""A roster is the same whether it is made of clients or of their repo, and reads rows in neither case."""

import pytest

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.errors import SchemaError
from fedllm_data.repo import open_repo
from fedllm_data.roster import roster_of, roster_of_repo
from fedllm_data.sources import SOURCES


@pytest.fixture(scope="module")
def synth_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "clients"
    build(SOURCES["fed-synth"], folder, options={"num_clients": "30", "mean_rows": "8"})
    return folder


@pytest.mark.parametrize("split", ["train", "test", "unseen"])
def test_a_repo_and_its_clients_have_one_roster(synth_folder, split):
    of_clients, of_repo = roster_of(load_clients(synth_folder, split)), roster_of_repo(open_repo(synth_folder), split)
    assert dict(of_repo.sizes) == dict(of_clients.sizes)
    assert list(of_repo) == sorted(of_repo)
    assert len(of_repo) == len(of_clients)
    assert of_repo.table.equals(of_clients.table)
    assert of_repo.languages == of_clients.languages
    for name in ("name", "split", "task", "revision"):
        assert getattr(of_repo, name) == getattr(of_clients, name)


def test_the_language_is_that_of_most_of_a_clients_rows(synth_folder):
    clients = load_clients(synth_folder)
    roster = roster_of(clients)
    rows = dict(zip(clients.table["client_id"].to_pylist(), clients.table["languages"].to_pylist(), strict=True))
    for client_id, language in roster.languages.items():
        counts = {each["language"]: each["num_rows"] for each in rows[client_id]}
        assert counts[language] == max(counts.values())


def test_a_split_that_is_not_there_is_named(synth_folder):
    with pytest.raises(SchemaError, match="no split 'nosuch'"):
        roster_of_repo(open_repo(synth_folder), "nosuch")
