"""Settings of runs at sites: what needs rows at the server is refused before a model is loaded; how runs are scored.

Scores agree with those of one machine up to rounding, since clients are scored apart.
"""

import json
import re
from pathlib import Path

import pytest

from fedllm_data.errors import ConfigError, ResumeError
from fedllm_train.cli import main
from fedllm_train.engines.engine_choice import socket_sites

SCORED = {"eval_every": 1, "num_rounds": 2, "cohort_size": 4}


@pytest.mark.parametrize(
    ("changes", "policy", "words"),
    [
        ({"strategy": "centralized"}, {}, "trains on rows in one place"),
        ({"strategy": "local"}, {}, "trains on rows in one place"),
        ({"num_processes": 2}, {}, "num_processes is 2"),
        ({"strategy": "language_clusters"}, {"columns": ()}, "main_language under columns"),
        ({"eval_every": 1}, {"scores": False}, "sends no scores by its policy"),
    ],
)
def test_what_needs_rows_at_the_server_is_refused_before_a_model_is_loaded(
    remote, tmp_path, monkeypatch, changes, policy, words
):
    def load(*arguments, **named):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("fedllm_train.loaded_run.load_starting_policy", load)
    with pytest.raises(ConfigError, match=words):
        remote.there(tmp_path / "run", policy=policy, **changes)


def test_scores_at_sites_are_those_of_one_machine_up_to_rounding(kit, remote, tmp_path):
    remote.here(tmp_path / "here", **SCORED)
    remote.there(tmp_path / "there", policy={"min_rows": 1}, **SCORED)
    here, there = (kit.records_of(tmp_path / run) for run in ("here", "there"))
    assert len(here) == len(there) == SCORED["num_rounds"]
    for mine, theirs in zip(here, there, strict=True):
        assert mine["eval"].keys() == theirs["eval"].keys()
        for name, shown in mine["eval"].items():
            expected = shown if name == "split" else pytest.approx(shown, rel=1e-4, nan_ok=True)
            assert theirs["eval"][name] == expected


def test_evaluate_says_where_the_rows_and_the_scores_are(remote, tmp_path):
    trainer, _ = remote.there(tmp_path / "run", num_rounds=1)
    with pytest.raises(ConfigError, match=r"at their sites \(site0, site1\).*scores"):
        trainer.evaluate()


def test_a_run_does_not_go_on_with_other_sites(remote, tmp_path):
    remote.there(tmp_path / "run", num_rounds=1)
    before = json.loads((tmp_path / "run" / "sites.json").read_text())
    assert sorted(before) == ["site0", "site1"]
    with pytest.raises(ResumeError, match=r"data\.revision|site"):
        remote.there(tmp_path / "run", num_rounds=1, num_sites=3, resume=True)
    assert json.loads((tmp_path / "run" / "sites.json").read_text()) == before


def test_a_runs_own_config_begins_it_again_and_the_command_says_how_sites_are_reached(remote, tmp_path):
    from fedllm_train.flags import parse_our_flags

    remote.there(tmp_path / "run", num_rounds=1)
    (tmp_path / "sites.yaml").write_text("sites: {a: a.sock}\n")
    words = ["--config", str(tmp_path / "run" / "config.yaml"), "--out", str(tmp_path / "again")]
    flags = parse_our_flags("sft", [*words, "--engine", "sockets", "--deployment", str(tmp_path / "sites.yaml")])
    assert (flags.run.data, flags.federated.num_rounds) == (None, 1)
    with pytest.raises(ConfigError, match="--data"):
        parse_our_flags("sft", words)


ODD_SITES = {
    "nothing": ("", "names no sites"),
    "another key": ("sites: {a: x}\nsecret: 1", "has 'secret', which no deployment has"),
    "a number for a name": ("sites: {1: x}", "1 is no name of a site"),
    "an empty name": ("sites: {'': x}", "'' is no name of a site"),
    "half a letter": ('sites: {"a\\ud800": x}', "is no name of a site"),
    "a name of two lines": ('sites: {"a\\nb": x}', "is no name of a site"),
    "no socket": ("sites: {a: }", "None is no socket of a site"),
    "an empty socket": ("sites: {a: ''}", "'' is no socket of a site"),
    "an end in a socket": ('sites: {a: "x\\0y"}', "is no socket of a site"),
    "one name twice": ("sites:\n  a: x\n  a: y", "it names the key 'a' twice (line 3)"),
    "one socket twice": ("sites: {a: x, b: ./x}", "'a' and 'b' have one socket"),
}


@pytest.mark.parametrize(("text", "reason"), ODD_SITES.values(), ids=list(ODD_SITES))
def test_a_file_of_sites_that_is_none_is_refused_by_what_is_wrong(tmp_path, text, reason):
    (tmp_path / "sites.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(reason)):
        socket_sites(tmp_path / "sites.yaml")


def test_sites_are_found_beside_their_file(tmp_path):
    (tmp_path / "sites.yaml").write_text("sites: {north: n.sock, 🏥: /run/h.sock}", encoding="utf-8")
    assert socket_sites(tmp_path / "sites.yaml") == {"north": tmp_path / "n.sock", "🏥": Path("/run/h.sock")}


def test_no_sites_are_not_waited_for(tmp_path, capsys):
    (tmp_path / "sites.yaml").write_text("sites: {north: n.sock}", encoding="utf-8")
    words = ["sites", "list", "--engine", "sockets", "--deployment", str(tmp_path / "sites.yaml")]
    assert main([*words, "--min-sites", "0"]) == 2
    assert "--min-sites is 0; it must be positive" in capsys.readouterr().err
