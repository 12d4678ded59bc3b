"""What the corpora by field promise alike: nothing is lost, nothing is too odd, the Hub and a local copy agree."""

from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.source import Filters, Rejected, SourceRow
from fedllm_data.sources import SOURCES
from fedllm_data.sources.dices import FED_DICES_PA
from tests.data.sources import alignment_files as files
from tests.data.sources import fuzzing
from tests.data.sources import industry_files as fields

MAKERS = {
    "fed-summaries-pa": fields.summary_comparison,
    "fed-multipref-pa": fields.multipref_comparison,
    "fed-dices-pa": fields.rating,
    "fed-hansard": fields.speech,
    "fed-complaints": fields.complaint,
    "fed-cases": fields.case,
}
OPTIONS = {"fed-dices-pa": {"pool": "990"}}
ON_THE_HUB = {
    "fed-summaries-pa": "comparisons/train/0000.parquet",
    "fed-multipref-pa": "data/train-00000-of-00001.parquet",
    "fed-hansard": "data/train-00000-of-00002.parquet",
    "fed-complaints": "has-text/train-00000-of-00003.parquet",
    "fed-cases": "part-00001-bd7b5d85-c000.gz.parquet",
}
"""Where upstream keeps its rows; DICES is no dataset of the Hub."""
EACH = pytest.mark.parametrize("name", MAKERS)
PEOPLE = st.sampled_from(["ann", "bob", "Zoë", "", " ", None, 7, 7.0, "x" * 300, "\ud800"])
RECORDS = {
    "fed-summaries-pa": st.builds(fields.summary_comparison, worker=PEOPLE, post=fuzzing.TEXTS),
    "fed-multipref-pa": st.builds(
        lambda people, text: fields.multipref_comparison(normal=[fields.annotation(who) for who in people], text=text),
        st.lists(PEOPLE, max_size=3),
        fuzzing.TEXTS,
    ),
    "fed-dices-pa": st.builds(
        fields.rating, PEOPLE, PEOPLE, st.sampled_from(["Yes", "No", "Unsure", "yes ", ""]), response=fuzzing.TEXTS
    ),
    "fed-hansard": st.builds(fields.speech, PEOPLE, fuzzing.TEXTS, minor_heading=fuzzing.TEXTS),
    "fed-complaints": st.builds(fields.complaint, PEOPLE, fuzzing.TEXTS, st.integers(0, 3)),
    "fed-cases": st.builds(
        lambda name, court, texts: fields.case(name, court, [fields.opinion(text) for text in texts]),
        fuzzing.TEXTS,
        PEOPLE,
        st.lists(fuzzing.TEXTS, max_size=3),
    ),
}


@EACH
@fuzzing.READ
@given(data=st.data())
def test_no_record_is_lost_and_none_is_too_odd_to_read(name, data):
    records = data.draw(st.lists(fuzzing.faulty(RECORDS[name]), max_size=5))
    with TemporaryDirectory() as place:
        path = fuzzing.write_records(place, records)
        items = list(SOURCES[name].read(path, 0, OPTIONS.get(name, {})))
    assert {item.line for item in items} == set(range(1, len(records) + 1))
    if SOURCES[name].is_row_per_record:
        assert len(items) == len(records)
    assert all(item.reason for item in items if isinstance(item, Rejected))


@EACH
@fuzzing.BUILD
@given(data=st.data())
def test_odd_records_never_make_an_unsound_repo(tmp_path_factory, name, data):
    records = data.draw(st.lists(fuzzing.faulty(RECORDS[name]), min_size=1, max_size=8))
    with TemporaryDirectory() as place:
        path = fuzzing.write_records(place, records)
        out = tmp_path_factory.mktemp("built") / "repo"
        unfiltered = data.draw(st.booleans())
        files.assert_builds_or_says_why_not(SOURCES[name], path, out, OPTIONS.get(name, {}), unfiltered)


@EACH
def test_a_sound_record_gives_a_row_and_its_double_is_removed_by_the_build(tmp_path, name):
    record = MAKERS[name]()
    path = files.write_lines(tmp_path / "upstream.jsonl", [record, record])
    rows, rejected = files.read_all(SOURCES[name], path, **OPTIONS.get(name, {}))
    assert (len(rows), rejected) == (2, {})
    assert rows[0].row == rows[1].row
    result = build(
        SOURCES[name], tmp_path / "repo", source_path=path, options=OPTIONS.get(name, {}), filters=Filters()
    )
    assert check_repo(tmp_path / "repo") == []
    assert result.facts["counts"]["num_duplicates_in_client"] == 1


@EACH
def test_a_record_of_another_schema_is_one_rejected(tmp_path, name):
    path = files.write_lines(tmp_path / "upstream.jsonl", [{}, {"a": 1}, "[1]\n", "{\n"])
    rows, rejected = files.read_all(SOURCES[name], path, **OPTIONS.get(name, {}))
    assert rows == []
    assert {line: len(reasons) for line, reasons in rejected.items()} == {1: 1, 2: 1, 3: 1, 4: 1}


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_the_files_of_the_hub_are_read_as_a_local_copy_is(tmp_path, loopback_hub, monkeypatch, name):
    from huggingface_hub import HfApi

    loopback_hub.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    source = SOURCES[name]
    path = tmp_path / "upstream" / ON_THE_HUB[name]
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([MAKERS[name]()]), path)
    files.write_lines(tmp_path / "upstream" / "README.jsonl", [{"not": "read"}])
    HfApi().create_repo(source.upstream, repo_type="dataset")
    commit = HfApi().upload_folder(repo_id=source.upstream, repo_type="dataset", folder_path=tmp_path / "upstream").oid
    on_hub = list(source.read(None, 0, {"revision": commit}))
    local = list(source.read(tmp_path / "upstream", 0, {}))
    assert all(isinstance(item, SourceRow) for item in on_hub)
    assert [item.row for item in on_hub] == [item.row for item in local]
    assert len(on_hub) == 1


def test_a_repo_of_the_hub_is_built_from_the_commit_that_is_recorded(tmp_path, loopback_hub, monkeypatch):
    from huggingface_hub import HfApi

    loopback_hub.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    path = tmp_path / "upstream" / "part-00000-c000.gz.parquet"
    path.parent.mkdir()
    cases = [fields.case(f"Roe v. {n}", opinions=[fields.opinion(f"Opinion {n}.")], id=n) for n in range(8)]
    pq.write_table(pa.Table.from_pylist(cases), path)
    HfApi().create_repo("org/cases", repo_type="dataset")
    commit = HfApi().upload_folder(repo_id="org/cases", repo_type="dataset", folder_path=path.parent).oid
    result = build(SOURCES["fed-cases"], tmp_path / "repo", options={"hub_id": "org/cases"})
    assert (result.facts["upstream"], result.facts["revision"]) == ("org/cases", commit)
    assert check_repo(tmp_path / "repo") == []


@EACH
def test_every_corpus_states_its_terms_and_where_it_is_read(name):
    source = SOURCES[name]
    for words in (source.licence, source.licence_url, source.attribution, source.terms, source.citation):
        assert words.strip()
    assert len(source.limits) >= 3
    if source is not FED_DICES_PA:
        assert {"hub_id", "revision"} <= source.options.keys()


def test_a_row_of_five_million_characters_is_counted_by_the_filter_on_length(tmp_path):
    cases = [fields.case(f"Roe v. {n}", opinions=[fields.opinion(f"Opinion {n}.")], id=n) for n in range(4)]
    cases.append(fields.case("Long v. Longer", opinions=[fields.opinion("word " * 1_000_000)], id=5))
    path = files.write_lines(tmp_path / "upstream.jsonl", cases)
    result = build(SOURCES["fed-cases"], tmp_path / "repo", source_path=path)
    assert result.facts["counts"]["num_too_long"] == 1
    assert sum(result.num_rows.values()) == 4
