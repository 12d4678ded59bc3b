"""A card edited by hand is sound only if the Hub and `datasets` read in it what was meant."""

import shutil

import pytest

from fedllm_data.build import build
from fedllm_data.card_facts import read_front_matter
from fedllm_data.cards.card import write_card
from fedllm_data.cards.card_check import card_problems
from fedllm_data.check import check_repo
from fedllm_data.errors import SchemaError
from fedllm_data.licences import read_licence
from fedllm_data.source import Source, SourceRow

FILES = [
    "clients/clients-00000-of-00001.parquet",
    "data/test-00000-of-00001.parquet",
    "data/train-00000-of-00001.parquet",
]
CARD = """---
language:
- en
- pt
license: cc-by-4.0
configs:
- config_name: default
  default: true
  data_files:
  - split: train
    path: data/train-*.parquet
  - split: test
    path: data/test-*.parquet
- config_name: clients
  data_files:
  - split: train
    path: clients/clients-*.parquet
---

# Words
"""


def test_a_card_as_it_is_written_has_no_problems():
    assert card_problems(CARD, FILES) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("---\n\n# Words", "\n# Words", "is not closed: a line of three dashes must follow"),
        ("---\nlanguage", "language", "the first line must be three dashes"),
        ("license: cc-by-4.0", "license: cc-by-4.0\nlicense: mit", "names the key 'license' twice (line 6)"),
        ("  default: true", "  default: true\n  default: false", "names the key 'default' twice (line 9)"),
        ("license: cc-by-4.0", "license: CC BY 4.0", "is not how the Hub spells it; write cc-by-4.0"),
        ("license: cc-by-4.0", "license: Acme terms", "write license: other, with license_name"),
        ("license: cc-by-4.0", "license:\n- mit\n- cc_by_nc_4.0", "write cc-by-nc-4.0"),
        ("license: cc-by-4.0", "license: [mit", "is no YAML"),
        ("- en\n- pt", "- english", "language: 'english' is no ISO 639 code"),
        ("- en\n- pt", "- no", "write the Norwegian code as 'no'"),
        ("data/test-*.parquet", "data/tset-*.parquet", "'data/tset-*.parquet', and there is no such file"),
        ("data/test-*.parquet", "data/tset-*.parquet", "no config names data/test-00000-of-00001.parquet"),
        ("split: test", "split: train", "names the split 'train' twice"),
        ("split: test", "split: test-set", "names the split 'test-set'; use letters"),
        ("config_name: clients", "config_name: default", "names 'default' twice"),
        ("- config_name: clients", "- config_name: clients\n  default: true", "more than one is the default"),
        ("configs:", "confgis:", "configs: is missing"),
    ],
)
def test_what_is_wrong_is_named(old, new, problem):
    assert old in CARD
    found = card_problems(CARD.replace(old, new), FILES)
    assert any(problem in each for each in found), found
    assert not any("\n" in each for each in found)


@pytest.mark.parametrize(
    "language", ["language: de", "language:\n- 'no'", "language: multilingual", "language: zh-Hans", ""]
)
@pytest.mark.parametrize(
    "licence", ["license: other\nlicense_name: acme", "license:\n- mit\n- odc-by", "license: unknown", ""]
)
def test_other_ways_to_say_it_are_sound(language, licence):
    card = CARD.replace("language:\n- en\n- pt", language).replace("license: cc-by-4.0", licence)
    assert card_problems(card, FILES) == []


def test_a_split_may_have_several_paths():
    assert card_problems(CARD.replace("path: data/test-*.parquet", "path: [data/test-*.parquet]"), FILES) == []
    both = "path:\n    - data/train-*.parquet\n    - data/test-*.parquet"
    card = CARD.replace("  - split: test\n    path: data/test-*.parquet\n", "").replace(
        "path: data/train-*.parquet", both
    )
    assert card_problems(card, FILES) == []


def test_windows_lines_and_a_byte_order_mark_are_read():
    assert card_problems("\ufeff" + CARD.replace("\n", "\r\n"), FILES) == []


def test_front_matter_that_is_a_list_is_refused():
    with pytest.raises(SchemaError, match="no keys and values"):
        read_front_matter("---\n- a\n---\n")


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A client repo under a licence that the Hub does not know."""

    def read(*_):
        for index in range(40):
            turns = [{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": f"{index}!"}]
            yield SourceRow({"client_id": f"c{index % 4}", "row_id": str(index), "messages": turns}, "memory", index)

    folder = tmp_path_factory.mktemp("card") / "repo"
    source = Source(
        name="fed-acme", task="sft", summary="", client="c", licence="Acme Data Terms, no commercial use", revision="",
        licence_url="https://acme.example/terms", attribution="", upstream="generated", citation="",
        read=read, options={},
    )  # fmt: skip
    build(source, folder)
    write_card(folder)
    return folder


def test_a_licence_that_the_hub_does_not_know_is_other_by_name(repo):
    facts = read_front_matter((repo / "README.md").read_text())
    assert (facts["license"], facts["license_name"]) == ("other", "acme-data-terms-no-commercial-use")
    assert facts["license_link"] == "https://acme.example/terms"
    assert read_licence(facts["license_name"]).identifier == "other"
    assert check_repo(repo) == []


def test_check_reads_the_card(repo, tmp_path):
    folder = shutil.copytree(repo, tmp_path / "repo")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: other", "license: other\nlicense: mit"))
    [problem] = check_repo(folder)
    assert problem.startswith("README.md: the front matter names the key 'license' twice")
    card.unlink()
    assert check_repo(folder)[0].startswith("README.md: is missing")
