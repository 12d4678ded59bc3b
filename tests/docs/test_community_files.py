"""What a visitor looks for: how to cite this, how to report a weakness, how people treat one another."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
# The keys of CFF 1.2.0 at the top level; a key that is none of them makes the file invalid.
KEYS = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
    *("license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact"),
    *("repository-code", "title", "type", "url", "version"),
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_is_in_step_with_the_project():
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["title"] == PROJECT["name"]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert CITATION["abstract"] == PROJECT["description"]


def test_the_citation_is_valid_by_cff_1_2():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] in ("software", "dataset")
    assert {"cff-version", "message", "title", "authors"} <= CITATION.keys() <= KEYS
    assert CITATION["authors"] == [{"name": "The fedllm-commons authors"}]
    assert all(isinstance(CITATION[key], str) for key in ("message", "title", "version", "abstract"))


def test_a_release_date_is_that_of_the_changelog():
    """A version that is not released yet has no date."""
    dated = re.search(
        rf"^## \[?{re.escape(PROJECT['version'])}\]?.*?(\d{{4}}-\d{{2}}-\d{{2}})", read("CHANGELOG.md"), re.M
    )
    assert str(CITATION.get("date-released")) == (dated[1] if dated else "None")


def test_a_weakness_can_be_reported_privately():
    text = read("SECURITY.md")
    for words in (
        "security advisories",
        "leak of people's rows",
        "privacy guarantee that does not hold",
        "unpickling",
    ):
        assert words in text
    assert "@" not in text  # no address that nobody reads


def test_the_code_of_conduct_names_its_source_and_licence():
    text = read("CODE_OF_CONDUCT.md")
    assert "Contributor Covenant, version 2.1" in text
    assert "CC BY 4.0" in text
    assert "@" not in text


def test_no_host_is_invented():
    assert "urls" not in PROJECT or PROJECT["urls"]
    for name in ("README.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "CITATION.cff", "mkdocs.yml"):
        hosts = set(re.findall(r"https?://([\w.-]+)", read(name)))
        assert hosts <= {"www.contributor-covenant.org", "creativecommons.org"}, name


def test_every_extra_that_a_reader_can_choose_is_explained():
    """`gguf` is transformers' own need for bases in that format, which no page offers."""
    guide = read("docs/install.md")
    for extra in PROJECT["optional-dependencies"].keys() - {"gguf"}:
        assert f"`{extra}`" in guide, extra


def test_the_guide_to_datasets_names_every_corpus_with_its_licence_and_gate():
    from fedllm_data.sources import SOURCES

    rows = [line for line in read("docs/datasets.md").splitlines() if line.startswith("| `fed-")]
    for source in SOURCES.values():
        (row,) = [row for row in rows if f"`{source.name}`" in row]
        assert source.licence.lower() in row.lower(), source.name
        assert ("gated" in row) == bool(source.gate), source.name
        assert f"`{source.name}`" in read("README.md")


def test_messages_that_troubleshooting_quotes_are_messages_of_ours():
    rows = [line for line in read("docs/troubleshooting.md").splitlines() if line.startswith("| `")]
    quoted = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    assert len(quoted) > 12
    places = [
        path for package in ("fedllm_data", "fedllm_eval", "fedllm_train") for path in (ROOT / package).rglob("*.py")
    ]
    # An f-string may be broken over lines: joined here, as Python joins it.
    code = "\n".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")) for path in places)
    code = re.sub(r"\{[^{}]*\}", "*", code)
    for quote in quoted:
        assert quote in code, quote
