"""What is left of a run at sites for others to read: results of both ends, and profiles of the sites' clients."""

import json

import pytest

from fedllm_data.clients import load_clients
from fedllm_data.codebook.making import make_codebook
from fedllm_data.errors import ConfigError
from fedllm_data.profile_files import profile_clients, read_profiles
from fedllm_eval.comparing.compared_methods import run_of
from fedllm_eval.results import read_results
from fedllm_train.engines.remote.messages import ProfileJob
from fedllm_train.engines.remote.organisation import Organisation
from fedllm_train.engines.remote.policy import Policy
from fedllm_train.engines.remote.site_profiles import site_profiles, write_site_profiles


class Scored:
    """As much of a scored run as is looked at."""

    def __init__(self, folder):
        self.folder, self.results = folder, read_results(folder)


def test_both_ends_of_a_run_have_results_and_the_start_cost_nothing(remote, tmp_path):
    remote.there(tmp_path / "run", num_rounds=1)
    ends = [Scored(tmp_path / "run" / name) for name in ("start_scores", "scores")]
    assert [run_of(each) for each in ends] == [None, tmp_path / "run"]
    losses = [each.results.summary["splits"]["test"]["scores"]["heldout_loss"]["mean"] for each in ends]
    assert losses[1] < losses[0]


@pytest.fixture(scope="module")
def book(remote):
    return make_codebook(load_clients(str(remote.places / "sft")), min_rows=1)


def profiles_of(remote, book, ids, **limits):
    site = Organisation(data=str(remote.places / "sft"), model="base")
    policy = Policy(clients=tuple(ids), **{"profile": True, **limits})
    return site_profiles("0" * 64, ProfileJob(), json.dumps(book.to_json()).encode(), site, policy)


def test_profiles_that_sites_send_are_those_of_one_place(remote, book, tmp_path):
    clients = load_clients(str(remote.places / "sft"))
    for number, ids in enumerate(remote.parts_of(clients, 3).values()):
        result, body = profiles_of(remote, book, ids)
        assert result.reason is None
        own = {client_id: clients.sizes[client_id] for client_id in ids}
        assert write_site_profiles(body, tmp_path / "sites", own, f"site{number}") == len(ids)
    profile_clients(remote.places / "sft", tmp_path / "whole", book, split="train")
    assert read_profiles(tmp_path / "sites") == read_profiles(tmp_path / "whole")


def test_profiles_of_others_or_of_too_many_rows_are_refused(remote, book, tmp_path):
    one, other = list(load_clients(str(remote.places / "sft")))[:2]
    _, body = profiles_of(remote, book, [one])
    with pytest.raises(ConfigError, match="a client that it does not have"):
        write_site_profiles(body, tmp_path / "out", {other: 100}, "site")
    with pytest.raises(ConfigError, match="for a client with 1"):
        write_site_profiles(body, tmp_path / "out", {one: 1}, "site")
    renamed = {"../" + name: text for name, text in json.loads(body).items()}
    for odd in (json.dumps(renamed).encode(), b"[]", b"\x80", json.dumps({"profile-1.json": "{}"}).encode()):
        with pytest.raises(ConfigError, match="site 'site' sent"):
            write_site_profiles(odd, tmp_path / "out", {one: 100}, "site")
    assert not (tmp_path / "out").exists()


def test_a_site_sends_profiles_only_where_its_policy_says_so(remote, book):
    one = next(iter(load_clients(str(remote.places / "sft"))))
    result, body = profiles_of(remote, book, [one], profile=False)
    assert (result.reason, body) == ("this organisation sends no profiles", b"")


def test_the_digest_of_a_base_is_that_of_the_revision(monkeypatch, tmp_path):
    from fedllm_eval.policy import base_identity

    asked = []
    monkeypatch.setattr(base_identity, "snapshot_folder", lambda name, revision=None: asked.append((name, revision)))
    Organisation(data="d", model="org/base", revision="abc").base_digest()
    assert asked == [("org/base", "abc")]
