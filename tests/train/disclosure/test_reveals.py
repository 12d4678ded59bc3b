"""The page "what does this run give away, and to whom": it follows from the run's own folder alone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedllm_data.errors import ConfigError
from fedllm_data.wording.catalogue import in_language
from fedllm_train.cli import main
from fedllm_train.disclosure.disclosure_command import find_audit
from fedllm_train.disclosure.disclosure_page import render_disclosure
from fedllm_train.disclosure.promises import promise
from fedllm_train.disclosure.readers import readers, summary_of
from fedllm_train.disclosure.run_facts import read_run_facts
from fedllm_train.run_files import publish_run
from tests.train.conftest import make_trainer


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("plain") / "run"
    make_trainer(run, cohort_size=2, num_rounds=2).train()
    return run


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    pytest.importorskip("dp_accounting")
    run = tmp_path_factory.mktemp("private") / "run"
    privacy = {"dp_clip": 0.5, "dp_noise_multiplier": 1.5, "dp_delta": 1e-3}
    make_trainer(run, cohort_size=2, num_rounds=2, cohort_rule="poisson", **privacy).train()
    return run


def changed(run, folder, **federated):
    """A copy of a run's settings and rounds with other settings, as a later version would write them."""
    folder.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["federated"] |= federated
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "rounds.jsonl").write_text((run / "rounds.jsonl").read_text())
    return folder


def said(run, **options):
    return {one.key: one for one in readers(read_run_facts(run), **options)}


def test_a_run_without_protection_says_so_to_each_reader(plain_run):
    facts = read_run_facts(plain_run)
    found = said(plain_run)
    rounds = [json.loads(line) for line in (plain_run / "rounds.jsonl").read_text().splitlines()]
    visits = [visit for record in rounds for visit in record["clients"]]
    assert f"Every single update: {len(visits)} updates in 2 rounds" in found["server"].sees[0]
    people = len({visit["client_id"] for visit in visits})
    assert any(f"{people} of {facts.num_clients} clients" in sentence for sentence in found["server"].sees)
    rows = [visit["num_rows"] for visit in visits]
    assert any(f"from {min(rows)} to {max(rows)}" in sentence for sentence in found["server"].sees)
    assert found["server"].protects == [
        "Nothing: the server is trusted with single updates, which tell something of their rows."
    ]
    # Two clients a round: each has the other's update by subtraction.
    assert any("each can take its own update off" in sentence for sentence in found["partners"].sees)
    assert any("No promise" in sentence for sentence in found["partners"].protects)
    assert any("Nothing keeps one bad partner" in sentence for sentence in found["partners"].protects)
    assert found["public"].measured == ["Nothing was measured: no audit was given (fedllm-eval audit)."]
    assert "simulated its clients" in summary_of(facts)[0]


def test_a_private_run_states_its_own_promise_in_numbers(private_run):
    facts = read_run_facts(private_run)
    record = yaml.safe_load((private_run / "config.yaml").read_text())["privacy"]
    sentence = promise(facts, "client")
    assert f"Epsilon {record['epsilon']:.2f} at delta 0.001 for one client" in sentence
    found = said(private_run)
    assert sentence in found["partners"].protects
    assert sentence in found["public"].protects
    # The promise is not to the server, which adds the noise and keeps its secret.
    assert sentence not in found["server"].protects
    assert any("privacy_secret" in one for one in found["server"].sees)
    assert any("rounds.jsonl stays with the server" in one for one in found["public"].protects)
    assert any("Kept back" in one and "privacy_secret" in one for one in found["public"].hidden)
    assert not any("its own update off" in one for one in found["partners"].sees)
    assert any("norm 0.5 at most" in one for one in found["partners"].protects)
    (private_run / "privacy_secret").rename(private_run.parent / "kept")
    try:
        assert not any("privacy_secret" in one for one in said(private_run)["server"].sees)
    finally:
        (private_run.parent / "kept").rename(private_run / "privacy_secret")


@pytest.mark.parametrize("name", ["plain_run", "private_run"])
@pytest.mark.parametrize("has_scores", [False, True])
def test_what_is_said_to_be_pushed_is_what_publishing_pushes(name, has_scores, request, monkeypatch, tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(name), run)
    if has_scores:
        (run / "scores").mkdir()
        (run / "scores" / "results.json").write_text("{}")
    pushed = {}

    def push(folder, repo_id, **options):
        pushed.update(names={path.name for path in folder.iterdir()}, private=options["private"])
        raise InterruptedError("the test has what it wants")

    monkeypatch.setattr(publish_run, "push_folder", push)
    monkeypatch.setattr(publish_run, "copy_unnamed", lambda scores, place: shutil.copytree(scores, place))
    with pytest.raises(InterruptedError):
        publish_run.publish_run(run, "org/name")
    facts = read_run_facts(run)
    assert set(facts.pushed) == pushed["names"]
    assert facts.new_repo_is_private is pushed["private"]
    assert not set(facts.kept_back) & pushed["names"]
    left = {path.name for path in run.iterdir()} - pushed["names"] - set(facts.kept_back)
    assert left <= {"adapter", ".lock", "best", ".work"}


def test_settings_of_other_protections_are_read_where_they_are(plain_run, tmp_path):
    summed = changed(plain_run, tmp_path / "a", secure_sum=True, secure_sum_bits=32, robust_sum="none")
    server = said(summed)["server"]
    assert "the sum of the updates, and no single one; from 2 to 2 clients" in server.sees[0]
    assert any("follows the protocol" in one for one in server.protects)
    assert "Any single update." in server.hidden
    # Whoever cannot be looked at bounds itself, whatever clip the settings name.
    clipped = changed(plain_run, tmp_path / "c", secure_sum=True, secure_sum_skellam=True, dp_clip=0.5)
    assert "nobody can look at a single update" in said(clipped)["partners"].protects[-1]
    robust = changed(plain_run, tmp_path / "b", robust_sum="krum", wire="int8", secure_sum=False)
    assert any("robust sum krum; it hides nothing" in one for one in said(robust)["partners"].protects)
    assert any("packed by int8" in one and "hides nothing" in one for one in said(robust)["server"].protects)
    assert "Every single update" in said(robust)["server"].sees[0]


def test_example_level_noise_protects_from_the_server_too(private_run, tmp_path):
    run = changed(private_run, tmp_path / "example", dp_unit="example")
    assert any("adds in its visit" in one for one in said(run)["server"].protects)
    assert not any(one.startswith("Not the noise") for one in said(run)["server"].protects)
    # The clip is that of rows: it does not bound what a bad partner sends.
    assert any("Nothing keeps one bad partner" in one for one in said(run)["partners"].protects)


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [
        (0.0, "more than 1-fold"),
        (1.0, "right at most 73.1 % of the time"),
        (3.0, "more than 20.1-fold"),
        (9.9, "99.995 %"),
        (10.1, "promises next to nothing"),
        (5000.0, "promises next to nothing"),
    ],
)
def test_a_promise_in_plain_words(private_run, tmp_path, epsilon, expected):
    run = changed(private_run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["privacy"]["epsilon"] = epsilon
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert expected in promise(read_run_facts(run), "client")
    assert " 100.0 %" not in promise(read_run_facts(run), "client")


def test_a_run_at_sites_says_that_rows_stayed_there(plain_run, tmp_path):
    run = changed(plain_run, tmp_path / "run")
    (run / "sites.json").write_text("{}")
    assert "stayed at the sites" in summary_of(read_run_facts(run))[0]
    server = said(run)["server"]
    assert any("Flower's server" in one for one in server.sees)
    assert any("worker.yaml" in one for one in server.unknown)


def test_the_page_in_both_languages_holds_every_sentence_and_no_client(plain_run):
    facts = read_run_facts(plain_run)
    page = render_disclosure(facts)
    for language in ("en", "ja"):
        with in_language(language):
            sentences = [one for reader in readers(facts) for one in (*reader.sees, *reader.protects)]
        # An apostrophe is escaped on the page.
        assert all(one.replace("'", "&#39;") in page for one in sentences)
    with in_language("ja"):
        assert not [one for reader in readers(facts) for one in reader.sees if re.search(r"\bthe\b", one)]
    lines = (plain_run / "rounds.jsonl").read_text().splitlines()
    ids = {visit["client_id"] for line in lines for visit in json.loads(line)["clients"]}
    assert not [client for client in ids if f">{client}<" in page or f" {client} " in page]


def test_the_command_writes_the_page_and_reads_an_audit_of_this_run(plain_run, tmp_path, capsys):
    membership = {"attacks": {"loss": {"auc": 0.71}, "calibrated": {"auc": 0.83}}}
    audit = {"policy": {"name": str(plain_run), "adapter_sha256": None}, "membership": membership}
    audit |= {"canaries": None, "one_run": None, "verdicts": []}
    other = {**audit, "policy": {"name": "elsewhere", "adapter_sha256": "0" * 64}}
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "audits.json").write_text(json.dumps({"runs": {"other": other, "this": audit}}))
    out = tmp_path / "out"
    flags = ["reveals", str(plain_run), "--audit", str(tmp_path / "audit"), "--out", str(out)]
    assert main([*flags, "--dry-run"]) == 0
    assert not out.exists()
    assert main(flags) == 0
    assert "The server: " in capsys.readouterr().out
    record = json.loads((out / "given_away.json").read_text())
    assert "AUC 0.83" in record["readers"][1]["measured"][0]
    assert "AUC 0.83" in (out / "given_away.html").read_text()
    assert main([*flags, "--json", "--language", "ja"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["strategy"] == "fedavg"
    (tmp_path / "audit" / "audits.json").write_text(json.dumps({"runs": {"other": other}}))
    assert main(flags) == 2
    assert "is of other runs than" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="holds no audit"):
        find_audit(tmp_path / "nothing", plain_run)
    for broken in ("[]", '{"runs": 3}', "{", '{"policy": {}}'):
        (tmp_path / "audit" / "audits.json").write_text(broken)
        with pytest.raises(ConfigError, match="is no audit"):
            find_audit(tmp_path / "audit", plain_run)


def test_what_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("format: 2\n")
    for run, named in ((tmp_path, "lacks its section"), (tmp_path / "none", "not a run folder")):
        assert main(["reveals", str(run), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert named in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_without_rounds_is_refused(plain_run, tmp_path):
    run = changed(plain_run, tmp_path / "run")
    (run / "rounds.jsonl").unlink()
    with pytest.raises(ConfigError, match="no readable rounds"):
        read_run_facts(run)


def test_the_command_imports_no_torch(plain_run, tmp_path):
    code = (
        "import sys; from fedllm_train.cli import main; "
        f"assert main(['reveals', {str(plain_run)!r}, '--out', {str(tmp_path / 'out')!r}]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def test_the_folder_of_something_else_is_left_alone(plain_run, tmp_path, capsys):
    Path(tmp_path, "out").mkdir()
    Path(tmp_path, "out", "thesis.txt").write_text("mine")
    assert main(["reveals", str(plain_run), "--out", str(tmp_path / "out")]) == 2
    assert Path(tmp_path, "out", "thesis.txt").read_text() == "mine"
