"""The folder `cards/` shows every corpus's card and a run's as today's code writes them."""

import re

import pytest
from huggingface_hub import DatasetCard, ModelCard

from fedllm_data.cards.croissant import croissant_text
from fedllm_data.sources import SOURCES
from tests.cards.filled_schemas import FILLED
from tests.cards.make_cards import CARDS, REAL_FILES, built_contents, card_text, kept_contents, real_folder, run_card

MAKE = "it is out of date; run `make cards`, and where a source has changed `python -m tests.cards.make_cards --build`"
OF_SOURCE = ("name", "task", "summary", "client", "licence", "terms", "gate", "attribution", "citation", "upstream")


def test_every_corpus_has_a_card_and_every_card_a_corpus():
    assert {path.stem for path in CARDS.glob("datasets/*.md")} == SOURCES.keys(), MAKE
    assert {path.stem for path in CARDS.glob("datasets/contents/*.json")} == SOURCES.keys(), MAKE


def test_every_corpus_is_shown_by_generated_rows_real_files_or_filled_schemas():
    generated = {name for name, source in SOURCES.items() if source.upstream == "generated"}
    assert generated | REAL_FILES.keys() | FILLED.keys() == SOURCES.keys()
    assert not generated & REAL_FILES.keys()
    assert not generated & FILLED.keys()
    assert not REAL_FILES.keys() & FILLED.keys()


@pytest.mark.parametrize("name", SOURCES)
def test_a_card_is_what_is_rendered_today(name):
    assert (CARDS / "datasets" / f"{name}.md").read_text(encoding="utf-8") == card_text(name, kept_contents(name)), (
        MAKE
    )


@pytest.mark.parametrize("name", SOURCES)
def test_the_croissant_metadata_beside_a_card_is_what_is_written_today(name):
    text = (CARDS / "datasets" / f"{name}.croissant.json").read_text(encoding="utf-8")
    assert text == croissant_text(kept_contents(name).facts), MAKE


def test_every_croissant_file_has_a_corpus():
    assert {path.name for path in CARDS.glob("datasets/*.json")} == {f"{name}.croissant.json" for name in SOURCES}


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_card_says_of_its_source_is_what_the_source_says_today(name):
    facts, source = kept_contents(name).facts, SOURCES[name]
    assert {key: facts[key] for key in OF_SOURCE} == {key: getattr(source, key) for key in OF_SOURCE}, MAKE
    assert set(source.limits) <= set(facts["limits"]), MAKE
    preset = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(source.filters).items()}
    assert {key: facts["filters"][key] for key in preset} == preset, MAKE


@pytest.mark.parametrize("name", SOURCES)
def test_the_hub_reads_the_card_and_what_was_made_up_says_so(name):
    text = (CARDS / "datasets" / f"{name}.md").read_text(encoding="utf-8")
    assert DatasetCard(text).data.pretty_name == name
    assert ("**An example.**" in text) is (name in FILLED)
    assert ("Not measured yet" in text) is (name in FILLED)


@pytest.mark.parametrize("path", sorted(CARDS.glob("datasets/contents/*.json")), ids=lambda path: path.stem)
def test_what_is_kept_of_a_corpus_names_nobody(path):
    contents = kept_contents(path.stem)
    assert "clients" not in (contents.report or {})
    assert not re.search(r"/(home|tmp|root|Users)/", path.read_text(encoding="utf-8"))
    if path.stem in REAL_FILES:  # ids of OASST, RealHumanEval and Stack Exchange: UUIDs, numbers, user names
        assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-", path.read_text(encoding="utf-8"))


def test_the_card_of_a_run_is_what_is_rendered_today(tmp_path):
    runs = sorted(path.parent for path in CARDS.glob("runs/*/config.yaml"))
    assert runs, "no run is shown; take the quickstart's: python -m tests.cards.make_cards --from quickstart/runs/sft"
    for run in runs:
        text = (run / "README.md").read_text(encoding="utf-8")
        assert text == run_card(run, tmp_path), MAKE
        assert ModelCard(text).data.library_name == "peft"


def test_the_readme_names_the_templates_where_they_are():
    text = (CARDS / "README.md").read_text(encoding="utf-8")
    templates = re.findall(r"`(fedllm_\w+/[\w/.]+\.jinja)`", text)
    assert len(templates) >= 2
    assert all((CARDS.parent / template).is_file() for template in templates)
    assert all(f"[{name}](datasets/{name}.md)" in text for name in SOURCES)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_a_new_build_gives_the_same_card(name, tmp_path):
    contents = built_contents(name, tmp_path)
    if contents is None:
        pytest.skip(f"no real files at {real_folder()}; set FEDLLM_SHARED_DATA")
    assert card_text(name, contents) == card_text(name, kept_contents(name)), MAKE
