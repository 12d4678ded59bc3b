"""The catalogue is whole: every message of every page is said in Japanese, with the same places."""

import ast
import re
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

from fedllm_data.wording import recorded
from fedllm_data.wording.catalogue import CATALOGUES, LANGUAGES, catalogue_of, in_language
from fedllm_data.wording.forms import listed, sentences
from fedllm_data.wording.glossary import TERMS, glossary

babel = pytest.importorskip("babel.messages.catalog", reason="needs Babel, of the extra `test`")

ROOT = Path(__file__).parents[3]
PLACES = re.compile(r"\{\w*\}|%\(\w+\)s")
AS_THEY_ARE = re.compile(
    r"fedllm-commons|FedAvg|DPO|SFT|KTO|LoRA|JSON|README|NOTICE|Rényi|Jain|Holm|Vendi|Wasserstein|Jensen|Shannon|"
    r"Hellinger|Fréchet|MMD|ICC|DerSimonian|Laird|Kendall|Bradley|Terry|Lin 1991|AUC|JavaScript|TRL|PEFT|Hub|"
    r"min_client_rows|\{\w*\}|%\(\w+\)s|`[^`]*`|<[^>]*>|https?://\S+|[\w.-]+\.(?:json|html|md|parquet|jsonl)|--[\w-]+"
)


@pytest.fixture(scope="module", params=[language for language in LANGUAGES if language != "en"])
def language(request):
    return request.param


@pytest.fixture(scope="module")
def merged(language):
    from fedllm_data.wording.update import merged

    return merged(language)


def said_of(message):
    return message.string if isinstance(message.string, tuple | list) else (message.string,)


def english_of(message):
    return message.id if isinstance(message.id, tuple | list) else (message.id,)


def test_every_message_is_translated_and_none_is_fuzzy(merged):
    catalogue, _, _ = merged
    assert len(catalogue) > 300
    lacking = [message.id for message in catalogue if message.id and not (all(said_of(message)) and not message.fuzzy)]
    assert lacking == []


def test_the_files_are_what_the_sources_say_and_hold_no_message_that_nobody_says(merged, language):
    _, po, mo = merged
    assert (CATALOGUES / f"{language}.po").read_bytes() == po
    assert (CATALOGUES / f"{language}.mo").read_bytes() == mo


def test_no_source_glues_a_message_from_pieces():
    # Babel passes over an f-string as a message, and says so; a page would then show English.
    found = []
    for package in ("fedllm_data", "fedllm_eval", "fedllm_train"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "fedllm_data.wording" not in text:
                continue
            tree = ast.parse(text)
            hidden = {
                id(inner) for outer in ast.walk(tree) if isinstance(outer, ast.JoinedStr) for inner in ast.walk(outer)
            }
            for call in ast.walk(tree):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("words", "plural_words", "marked"):
                    num = 2 if getattr(call.func, "id", "") == "plural_words" else 1
                    # Babel 2.19 does not look inside of f-strings on Python 3.11.
                    found += [f"{path.name}:{call.lineno}"] if id(call) in hidden else []
                    found += [
                        f"{path.name}:{call.lineno}" for given in call.args[:num] if isinstance(given, ast.JoinedStr)
                    ]
    assert found == []


def test_places_are_the_same_in_both_languages(merged):
    catalogue, _, _ = merged
    for message in catalogue:
        if not message.id:
            continue
        wanted = set(PLACES.findall(english_of(message)[-1]))
        for said in said_of(message):
            found = set(PLACES.findall(said))
            assert found == wanted or (len(english_of(message)) == 2 and found | {"{num}", "%(num)s"} >= wanted), (
                message.id
            )


def test_no_sentence_was_left_in_english(merged, language):
    catalogue, _, _ = merged
    for message in catalogue:
        for said in said_of(message) if message.id else ():
            rest = AS_THEY_ARE.sub("", said)
            if len(re.findall(r"[A-Za-z]{2,}", AS_THEY_ARE.sub("", english_of(message)[0]))) > 2:
                assert not said.isascii(), message.id
            # Three English words in a row are a piece of a sentence that nobody translated.
            assert not re.search(r"\b[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}\b", rest), said


def test_a_recorded_sentence_is_found_again_whatever_stands_in_its_places(merged, language):
    catalogue, _, _ = merged
    ambiguous = []
    for message in catalogue:
        for english in english_of(message) if message.id else ():
            places = re.findall(r"\{(\w+)\}", english)
            if (
                "%(" in english
                or not re.search("[A-Za-z]{2}", english)
                or (places and len(re.findall("[A-Za-z]", PLACES.sub("", english))) < 12)
            ):
                continue
            values = {name: f"{7 + position}.5" for position, name in enumerate(places)}
            with in_language(language):
                found = recorded.again(english.format(**values))
            expected = {said.format(**({"num": "1"} | values)) for said in said_of(message)}
            if found not in expected:
                ambiguous.append((english, found))
    assert ambiguous == []


def test_what_nobody_wrote_stays_as_it_is(language):
    with in_language(language):
        for text in ("Go to the market", "fed-synth", "cohort-a and b", "We lost 3 of 4 clients here, sorry"):
            assert recorded.again(text) == text
            assert recorded.is_known(text) == (text == "")


def test_several_sentences_are_said_again_one_by_one(language):
    one, other = TERMS["base"].meaning, TERMS["personal"].meaning
    with in_language(language):
        catalogue = catalogue_of(language)
        assert recorded.again(f"{one} {other}") == catalogue.gettext(one) + catalogue.gettext(other)
        assert recorded.again("length, quality and language") == listed(
            [catalogue.gettext(word) for word in ("length", "quality", "language")]
        )


def test_lists_and_sentences_follow_the_language():
    with in_language("ja"):
        assert listed(["a", "b", "c"]) == "a、b、c"
        assert sentences(["一。", "", "二。"]) == "一。二。"


def test_every_term_has_an_anchor_of_its_own_in_every_language(language):
    with in_language(language):
        anchors, names, meanings = zip(*glossary(), strict=True)
    assert len(set(anchors)) == len(TERMS) == len(set(names))
    assert all(meaning.endswith("。") for meaning in meanings)


OF_COSTS = ("wire", "client_table", "clock", "deadline", "over_selection", "buffered", "staleness", "front")


@pytest.mark.parametrize("key", OF_COSTS)
def test_the_guide_to_words_says_the_same_of_lines_and_costs(key):
    term = TERMS[key]
    meaning = term.meaning[0].lower() + term.meaning[1:].rstrip(".")
    assert f"| {term.name} | {meaning} |" in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def literal_texts(template):
    """The words of a template that stand outside of every translation."""
    environment = Environment(extensions=["jinja2.ext.i18n"], trim_blocks=True, lstrip_blocks=True)
    tree = environment.parse(template)
    source = "".join(
        node.data
        for output in tree.find_all(nodes.Output)
        for node in output.nodes
        if isinstance(node, nodes.TemplateData)
    )
    source = re.sub(r"<(style|script)\b.*?</\1>", " ", source, flags=re.DOTALL)
    spoken = re.findall(r'(?:aria-label|title|alt|placeholder)="([^"]+)"', source)
    return [*re.sub(r"<[^>]*>", "\n", source).split("\n"), *spoken]


IN_ENGLISH_ALONE = {
    "case_page.html.jinja": "fedllm_train/scenarios/case_page.py",
    "federation.html.jinja": "fedllm_train/federation/page.py",
}
"""Template of a page whose contents have one language (a scenario's are those of its YAML file) -> who fills it."""


def test_a_page_in_english_alone_says_so_to_the_browser():
    for template, maker in IN_ENGLISH_ALONE.items():
        text = (ROOT / maker).read_text(encoding="utf-8")
        assert template in text, maker
        assert 'language="en"' in text, maker


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for package in ("fedllm_data", "fedllm_eval", "fedllm_train")
        for path in (ROOT / package).rglob("*.html.jinja")
        if path.name not in IN_ENGLISH_ALONE
    ),
    ids=lambda path: path.name,
)
def test_no_template_says_anything_outside_of_a_translation(path):
    allowed = {"fedllm-commons", "JavaScript", "Language / 言語", "nbsp", "emsp"}
    found = [
        text.strip()
        for text in literal_texts(path.read_text(encoding="utf-8"))
        if re.search(r"[A-Za-z]{2,}", re.sub(r"&\w+;", " ", text)) and text.strip(" ·") not in allowed
    ]
    assert found == []
