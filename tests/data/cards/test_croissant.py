"""Croissant metadata of a client repo: what it says of files, rows, terms and people; mlcroissant reads it."""

import json
from hashlib import sha256

import pytest

from fedllm_data.build import build
from fedllm_data.cards.card import write_card
from fedllm_data.cards.croissant import CROISSANT_FILE, croissant_of
from fedllm_data.errors import SchemaError
from fedllm_data.importer import import_files
from fedllm_data.partition.make import partition
from fedllm_data.partition.rules import PartitionRule
from fedllm_data.repo import open_repo
from fedllm_data.schema import SCHEMAS
from fedllm_data.sources import SOURCES
from tests.data.sources import alignment_files as files
from tests.data.sources import industry_files as fields

REQUIRED = {"@context", "@type", "conformsTo", "name", "description", "url", "distribution", "recordSet"}
RAI = {
    "rai:dataCollection",
    "rai:dataCollectionType",
    "rai:dataCollectionMissingData",
    "rai:dataPreprocessingProtocol",
    "rai:dataUseCases",
    "rai:dataReleaseMaintenancePlan",
}
OF_PEOPLE = {"rai:annotatorDemographics", "rai:dataBiases", "rai:personalSensitiveInformation"}


@pytest.fixture
def repo(tmp_path):
    """A repo of complaints, every company with a few."""
    records = [fields.complaint(f"BANK {n % 4}", " ".join(f"w{n * 40 + m}" for m in range(40)), n) for n in range(48)]
    path = files.write_lines(tmp_path / "rows.jsonl", [*records, {"Company": "x"}])
    build(SOURCES["fed-complaints"], tmp_path / "repo", source_path=path)
    return tmp_path / "repo"


def metadata_of(folder):
    return json.loads((folder / CROISSANT_FILE).read_text(encoding="utf-8"))


def ids_in(value):
    """Every `@id` that is defined (beside an `@type`) and every one that is referred to (alone)."""
    defined, referred = [], []
    if isinstance(value, dict):
        if "@id" in value:
            (defined if "@type" in value else referred).append(value["@id"])
        for key, inner in value.items():
            if key != "@context":
                more = ids_in(inner)
                defined += more[0]
                referred += more[1]
    elif isinstance(value, list):
        for inner in value:
            more = ids_in(inner)
            defined += more[0]
            referred += more[1]
    return defined, referred


def assert_well_formed(metadata, folder, task):
    """What the standard asks of a file, as far as it can be checked without its library."""
    assert metadata.keys() >= REQUIRED | RAI
    assert metadata["@type"] == "sc:Dataset"
    assert metadata["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    assert metadata["url"].startswith("https://")
    defined, referred = ids_in(metadata)
    assert len(defined) == len(set(defined))
    assert set(referred) <= set(defined)
    known = metadata["@context"].keys() | {"@context", "@type", "@id"}
    prefixes = {key for key in metadata if ":" in key}
    assert {key.partition(":")[0] for key in prefixes} <= known
    objects = [item for item in metadata["distribution"] if item["@type"] == "cr:FileObject"]
    assert {item["contentUrl"] for item in objects} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")
    }
    for item in objects:
        content = (folder / item["contentUrl"]).read_bytes()
        assert item["sha256"] == sha256(content).hexdigest()
        assert item["contentSize"] == f"{len(content)} B"
    for records in metadata["recordSet"][1:]:
        assert [field["name"] for field in records["field"]] == SCHEMAS[task].names
    assert all(value for key, value in metadata.items() if key.startswith("rai:"))


def test_a_build_says_where_its_rows_come_from_and_under_which_terms(repo):
    metadata, source = metadata_of(repo), SOURCES["fed-complaints"]
    assert_well_formed(metadata, repo, "sft")
    assert metadata["name"] == "fed-complaints"
    assert metadata["license"] == source.licence_url
    assert metadata["creditText"] == source.attribution
    assert metadata["citeAs"] == source.citation
    assert metadata["isBasedOn"] == f"https://huggingface.co/datasets/{source.upstream}"
    assert metadata["inLanguage"] == ["en"]
    assert metadata.keys() >= OF_PEOPLE
    assert "1 upstream rows could not be used" in metadata["rai:dataCollectionMissingData"]
    assert metadata["rai:dataLimitations"] == list(source.limits)
    assert "rai:dataAnnotationProtocol" not in metadata


def test_splits_are_those_of_the_repo(repo):
    metadata = metadata_of(repo)
    splits = [record["splits/name"] for record in metadata["recordSet"][0]["data"]]
    assert splits == list(json.loads((repo / "build.json").read_text())["splits"])
    assert [item["@id"] for item in metadata["recordSet"][1:]] == [f"rows-{split}" for split in splits]
    assert metadata["recordSet"][1]["dataType"] == "cr:TrainingSplit"


def test_a_list_of_messages_has_role_and_content_below_it(repo):
    messages = metadata_of(repo)["recordSet"][1]["field"][-1]
    assert (messages["name"], messages["isArray"], messages["arrayShape"]) == ("messages", True, "-1")
    assert [part["source"]["transform"] for part in messages["subField"]] == [
        [{"jsonPath": "role"}],
        [{"jsonPath": "content"}],
    ]


def test_generated_rows_say_nothing_of_people_and_preferences_of_people_who_chose(tmp_path):
    build(SOURCES["fed-synth-pa"], tmp_path / "synth")
    metadata = metadata_of(tmp_path / "synth")
    assert_well_formed(metadata, tmp_path / "synth", "preference")
    assert not metadata.keys() & (OF_PEOPLE | {"rai:dataAnnotationProtocol", "isBasedOn"})
    records = [fields.summary_comparison(f"w{n % 3}", f"Post {n}.", (f"a {n}", f"b {n}")) for n in range(24)]
    build(
        SOURCES["fed-summaries-pa"], tmp_path / "pa", source_path=files.write_lines(tmp_path / "rows.jsonl", records)
    )
    metadata = metadata_of(tmp_path / "pa")
    assert_well_formed(metadata, tmp_path / "pa", "preference")
    assert "choice of one person" in metadata["rai:dataAnnotationProtocol"]


def test_imports_partitions_and_cards_have_it_too(tmp_path, repo):
    path = tmp_path / "mine.csv"
    path.write_text("who,instruction,response\n" + "".join(f"p{n % 3},Q {n}?,A {n}.\n" for n in range(24)))
    import_files([path], tmp_path / "mine", task="sft", client_column="who")
    metadata = metadata_of(tmp_path / "mine")
    assert_well_formed(metadata, tmp_path / "mine", "sft")
    assert not metadata.keys() & {"license", "citeAs", "creditText", "usageInfo"}
    partition(repo, tmp_path / "iid", PartitionRule(name="iid"))
    assert_well_formed(metadata_of(tmp_path / "iid"), tmp_path / "iid", "sft")
    (repo / CROISSANT_FILE).unlink()
    before = croissant_of(json.loads((repo / "build.json").read_text()))
    write_card(repo)
    assert metadata_of(repo) == before


def test_a_broken_build_file_is_named(repo):
    facts = json.loads((repo / "build.json").read_text())
    del facts["files"]
    (repo / "build.json").write_text(json.dumps(facts))
    with pytest.raises(SchemaError, match=r"lacks 'files' for croissant\.json"):
        write_card(repo)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib, inside mlcroissant
@pytest.mark.parametrize("name", ["fed-synth", "fed-synth-pa"])
def test_the_library_of_the_standard_accepts_it_and_reads_the_rows(tmp_path, name):
    mlcroissant = pytest.importorskip("mlcroissant", reason="pip install mlcroissant==1.1.1")
    build(SOURCES[name], tmp_path / "repo")
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "repo" / CROISSANT_FILE))
    assert not dataset.metadata.ctx.issues.errors
    repo = open_repo(tmp_path / "repo")
    splits = [str(record["splits/name"]) for record in dataset.records("splits")]
    assert splits == list(json.loads((tmp_path / "repo" / "build.json").read_text())["splits"])
    expected = {row["row_id"]: row for row in repo.load("test")}
    found = list(dataset.records("rows-test"))
    assert len(found) == len(expected)
    lists = ("messages",) if name == "fed-synth" else ("prompt", "chosen", "rejected")
    for record in found:
        row = expected[record["rows-test/row_id"].decode()]
        assert record["rows-test/client_id"].decode() == row["client_id"]
        for column in lists:
            assert [
                {
                    "role": message[f"rows-test/{column}/role"].decode(),
                    "content": message[f"rows-test/{column}/content"].decode(),
                }
                for message in record[f"rows-test/{column}"]
            ] == row[column]
