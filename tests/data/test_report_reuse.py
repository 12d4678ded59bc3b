import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fedllm_data.report
from fedllm_data.cli import main
from fedllm_data.codebook import read_codebook, write_codebook
from fedllm_data.codebook.making import CodebookSettings, make_codebook
from fedllm_data.features.judges import Judges
from fedllm_data.heterogeneity.quality import ScorerInfo
from fedllm_data.profiles import open_splits
from fedllm_data.report import write_report, write_report_from_profiles
from fedllm_data.report_reuse import REPORT_INPUTS, code_digest, report_inputs, take_report
from fedllm_data.scorers.score_file import read_scores, write_scores


def rows(client_ids, seed):
    rng = np.random.default_rng(seed)
    for client_id in client_ids:
        for index in range(int(rng.integers(3, 9))):
            texts = ["word " * int(rng.integers(1, 20)) + str(index) for _ in range(2)]
            messages = [
                {"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)
            ]
            language = str(rng.choice(["en", "fr"]))
            yield {
                "client_id": client_id,
                "row_id": f"{client_id}-{index}",
                "language": language,
                "messages": messages,
            }


def write_split(folder, split, client_ids, seed=0):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows(client_ids, seed)))
    pq.write_table(table, folder / f"data/{split}-00000-of-00001.parquet")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Reports with few draws; the list holds the name of every dataset that was measured."""
    measured, measure = [], fedllm_data.report.report_from_profiles

    def with_few_draws(*given, **settings):
        measured.append(settings["name"])
        return measure(*given, **settings | {"num_null": 19, "num_bootstrap": 9})

    monkeypatch.setattr(fedllm_data.report, "report_from_profiles", with_few_draws)
    return measured


@pytest.fixture
def small_page(monkeypatch):
    """A page of one line and a figure that follow from the document, since drawing takes most of the time."""

    def write_small(document, profiles, out, language):
        (out / "figures").mkdir(exist_ok=True)
        (out / "report.html").write_text(document["name"])
        (out / "figures/overview.svg").write_text(document["summary"])

    monkeypatch.setattr("fedllm_data.reporting.write_page.write_page", write_small)


def make_repo(tmp_path):
    """A client repo with the report that a build leaves in it."""
    folder = tmp_path / "fed-test"
    for seed, (split, client_ids) in enumerate({"train": "abcdef", "unseen": "xy", "public": ["public"]}.items()):
        write_split(folder, split, client_ids, seed)
    (folder / "build.json").write_text(json.dumps({"name": "fed-test", "filters": {"min_rows": 2}}))
    write_report(folder, folder, name="fed-test")
    return folder


@pytest.fixture
def repo(tmp_path, small_page):
    """The same with a page of one line."""
    return make_repo(tmp_path)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report(repo, out, *more):
    assert main(["report", str(repo), "--out", str(out), *map(str, more)]) == 0


def test_the_report_of_a_build_is_taken_and_is_what_would_be_computed(tmp_path, few_draws, capsys):
    repo = make_repo(tmp_path)
    few_draws.clear()
    report(repo, tmp_path / "taken")
    assert few_draws == []
    said = capsys.readouterr().out
    assert f"report: {tmp_path / 'taken' / 'report.html'}" in said
    assert f"taken from {repo}: it was made of the same rows, settings and versions (--again recomputes it)" in said
    report(repo, tmp_path / "computed", "--again")
    assert len(few_draws) == 1
    assert "taken" not in capsys.readouterr().out.replace(str(tmp_path), "")
    assert contents(tmp_path / "taken") == contents(tmp_path / "computed")
    assert {"report.html", "heterogeneity.json", "codebook.json", "figures/overview.svg", REPORT_INPUTS} <= set(
        contents(tmp_path / "taken")
    )


def test_a_report_that_was_taken_or_computed_before_is_taken_from_the_output_folder(repo, tmp_path, few_draws, capsys):
    report(repo, tmp_path / "out", "--seed", 7)
    before = contents(tmp_path / "out")
    few_draws.clear()
    report(repo, tmp_path / "out", "--seed", 7)
    assert few_draws == []
    assert f"taken from {tmp_path / 'out'}" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before


def test_json_of_a_report_that_is_taken_is_the_document(repo, tmp_path, capsys):
    report(repo, tmp_path / "out", "--json")
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out" / "heterogeneity.json").read_text())


def test_the_report_in_the_repo_itself_stays_and_its_card_is_written(repo, few_draws, monkeypatch):
    cards = []
    monkeypatch.setattr("fedllm_data.cards.card.write_card", lambda folder, document: cards.append(document["name"]))
    before = contents(repo)
    few_draws.clear()
    report(repo, repo)
    assert (few_draws, cards) == ([], ["fed-test"])
    assert contents(repo) == before


def change_a_row(repo):
    path = repo / "data/train-00000-of-00001.parquet"
    table = pq.read_table(path).to_pylist()
    table[3]["messages"][1]["content"] += " more"
    pq.write_table(pa.Table.from_pylist(table), path)


def change_a_split(repo):
    write_split(repo, "test", "abc", seed=5)


def change_a_public_row(repo):
    write_split(repo, "public", ["public"], seed=9)


def change_the_filter(repo):
    (repo / "build.json").write_text(json.dumps({"name": "fed-test", "filters": {"min_rows": 3}}))


def change_the_page(repo):
    path = repo / "report.html"
    path.write_text(path.read_text().replace("fed-test", "another"))


def change_the_document(repo):
    path = repo / "heterogeneity.json"
    path.write_text(path.read_text().replace("0.", "1.", 1))


def remove_a_figure(repo):
    (repo / "figures/overview.svg").unlink()


def break_the_record(repo):
    (repo / REPORT_INPUTS).write_text("[]")


def remove_the_record(repo):
    (repo / REPORT_INPUTS).unlink()


@pytest.mark.parametrize(
    "change",
    [
        change_a_row,
        change_a_split,
        change_a_public_row,
        change_the_filter,
        change_the_page,
        change_the_document,
        remove_a_figure,
        break_the_record,
        remove_the_record,
    ],
)
def test_whatever_changes_in_the_repo_the_report_is_computed(change, repo, tmp_path, few_draws):
    change(repo)
    few_draws.clear()
    report(repo, tmp_path / "out")
    assert len(few_draws) == 1
    write_report(repo, tmp_path / "again", name="fed-test")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


@pytest.mark.parametrize("settings", [["--seed", "1"], ["--split", "train"]])
def test_other_settings_are_computed(settings, repo, tmp_path, few_draws):
    few_draws.clear()
    report(repo, tmp_path / "out", *settings)
    assert len(few_draws) == 1


def test_another_name_of_the_folder_is_another_report(repo, tmp_path, few_draws):
    repo.rename(tmp_path / "renamed")
    few_draws.clear()
    report(tmp_path / "renamed", tmp_path / "out")
    assert len(few_draws) == 1
    assert json.loads((tmp_path / "out" / "heterogeneity.json").read_text())["name"] == "renamed"


def test_a_codebook_that_is_given_counts_as_what_it_is(repo, tmp_path, few_draws):
    other = make_codebook(open_splits(repo)[0], CodebookSettings(max_clusters=2, seed=3))
    write_codebook(other, tmp_path / "other.json")
    few_draws.clear()
    report(repo, tmp_path / "one", "--codebook", tmp_path / "other.json")
    report(repo, tmp_path / "one", "--codebook", tmp_path / "other.json")
    assert len(few_draws) == 1  # the second is taken
    report(repo, tmp_path / "two", "--codebook", repo / "codebook.json")
    assert len(few_draws) == 2  # the build was given none
    assert read_codebook(tmp_path / "one" / "codebook.json").digest == other.digest


@pytest.mark.parametrize("part", ["code_digest", "library_versions"])
def test_another_version_of_the_code_or_a_library_computes(part, repo, tmp_path, few_draws, monkeypatch):
    monkeypatch.setattr(f"fedllm_data.report_reuse.{part}", lambda: "another")
    few_draws.clear()
    report(repo, tmp_path / "out")
    assert len(few_draws) == 1


def test_the_digest_of_the_code_follows_every_file_and_no_compiled_one(tmp_path):
    digests = []
    for index, name in enumerate(("one.py", "one.py", "page.jinja", "part/two.py", "__pycache__/one.pyc")):
        folder = tmp_path / str(index)
        if index:
            shutil.copytree(tmp_path / str(index - 1), folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"line {index}")
        digests.append(code_digest(folder))
    assert len(set(digests)) == 4
    assert digests[3] == digests[4]


def test_reports_with_scores_and_of_profiles_leave_no_inputs_and_are_never_taken(repo, tmp_path, few_draws):
    ids = [row["row_id"] for path in repo.glob("data/*.parquet") for row in pq.read_table(path).to_pylist()]
    scores = tmp_path / "scores.parquet"
    kind = ScorerInfo("kind", revision="1", unit="ratio")
    write_scores(scores, ids, {"kind": np.linspace(0, 1, len(ids))}, [kind])
    report(repo, tmp_path / "out")
    write_report(repo, tmp_path / "out", judges=Judges(files=(read_scores(scores),)))
    assert not (tmp_path / "out" / REPORT_INPUTS).exists()
    few_draws.clear()
    report(repo, tmp_path / "out", "--scores", scores)
    assert len(few_draws) == 1
    assert "kind" in (tmp_path / "out" / "heterogeneity.json").read_text()
    report(repo, tmp_path / "other")
    book = repo / "codebook.json"
    assert main(["profile", str(repo), "--codebook", str(book), "--out", str(tmp_path / "sent")]) == 0
    write_report_from_profiles(tmp_path / "sent", tmp_path / "other", read_codebook(book))
    assert not (tmp_path / "other" / REPORT_INPUTS).exists()


def test_files_of_an_earlier_report_go_and_those_of_others_stay(repo, tmp_path):
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "heterogeneity.json").write_text(json.dumps({"axes": {"preference": {}, "overview": {}}}))
    for name in ("preference.svg", "preference.png", "mine.svg", "mine.png"):
        (out / "figures" / name).write_text("earlier")
    report(repo, out)
    assert not {"figures/preference.svg", "figures/preference.png"} & set(contents(out))
    assert {"figures/mine.svg", "figures/mine.png", "figures/overview.svg"} <= set(contents(out))


def test_a_record_that_names_another_file_is_not_followed(repo, tmp_path, few_draws):
    secret = tmp_path / "secret.svg"
    secret.write_text("mine")
    record = json.loads((repo / REPORT_INPUTS).read_text())
    record["files"]["figures/../../secret.svg"] = "0" * 64
    (repo / REPORT_INPUTS).write_text(json.dumps(record))
    few_draws.clear()
    report(repo, tmp_path / "out")
    assert len(few_draws) == 1


def test_rows_that_change_while_they_are_measured_leave_no_inputs(repo, tmp_path, monkeypatch):
    measure = fedllm_data.report.report_from_profiles

    def and_change(*given, **settings):
        change_a_row(repo)
        return measure(*given, **settings)

    monkeypatch.setattr(fedllm_data.report, "report_from_profiles", and_change)
    write_report(repo, tmp_path / "out")
    assert not (tmp_path / "out" / REPORT_INPUTS).exists()


def test_a_file_in_the_place_of_the_folder_is_refused_as_before(repo, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert main(["report", str(repo), "--out", str(tmp_path / "out")]) == 2
    assert "is a file: give a folder for the report" in capsys.readouterr().err
    assert take_report(repo, tmp_path / "out") is None


def test_inputs_are_the_same_from_wherever_the_folder_is_named(repo, monkeypatch):
    monkeypatch.chdir(repo)
    assert report_inputs(Path()) == report_inputs(repo) == report_inputs(Path(os.path.relpath(repo)))
