"""Upstream's language marks as ISO 639 codes, the detector on texts of known language, and when the two agree."""

import os
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.pipeline.language_detection import DETECTOR, detect_languages, language_code, languages_agree


@pytest.mark.parametrize(
    ("marks", "code"),
    [
        (
            "en EN eng English ENGLISH en-US en_us en_GB.UTF-8|English (US)|American English|Inglés|english language",
            "en",
        ),
        ("pt pt-BR por Portuguese|Brazilian Portuguese|Português", "pt"),
        ("zh zho chi cmn zh-Hans zh_TW zh-CN|Simplified Chinese|Traditional Chinese|Chinese (Simplified)|中文", "zh"),
        ("ar ara arb ar-EG|Standard Arabic|Modern Standard Arabic|العربية", "ar"),
        ("uk uk_UA ukr uk-UA|Ukrainian", "uk"),
        ("fa fas per pes prs|Iranian Persian|Farsi", "fa"),
        ("ms msa zsm|Standard Malay", "ms"),
        ("ne npi|Nepali", "ne"),
        ("mg plt|Plateau Malagasy", "mg"),
        ("he iw heb|Hebrew", "he"),
        ("id in ind|Indonesian", "id"),
        ("no nor|Norwegian", "no"),
        ("nb nob|Norwegian Bokmål", "nb"),
        ("tl tgl|Tagalog", "tl"),
        ("fil|Filipino", "fil"),
        ("te tel|Telugu", "te"),
    ],
)
def test_every_form_of_a_language_gives_its_shortest_code(marks, code):
    words, *names = marks.split("|")
    assert {mark: language_code(mark) for mark in [*words.split(), *names]} == dict.fromkeys(
        [*words.split(), *names], code
    )


def test_varieties_that_are_not_the_main_one_keep_their_own_code():
    codes = ["ary", "arz", "acq", "ars", "yue", "wuu", "ckb", "ceb", "min", "pbt", "nso"]
    assert [language_code(code) for code in codes] == codes
    assert [language_code(name) for name in ("Moroccan Arabic", "Egyptian Arabic", "Cantonese")] == [
        "ary",
        "arz",
        "yue",
    ]


@pytest.mark.parametrize(
    "mark",
    [None, "", "  ", "und", "Undetermined", "unknown", "Unknown", "none", "nan", float("nan"), 3, b"en", ["en"], {},
     "mul", "zxx", "xx", "un", "code", "a", "-", "en|fr|de", "12", "x" * 81, "\ud800", "\0", "🙂", "en\0", "i-"],
)  # fmt: skip
def test_a_mark_that_names_no_language_is_undetermined(mark):
    assert language_code(mark) == "und"


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(st.one_of(st.text(max_size=20), st.text("abcdefghijklmnopqrstuvwxyz-_", max_size=9), st.characters(codec=None)))
def test_any_text_gives_a_code_that_stays_as_it_is(text):
    code = language_code(text)
    assert re.fullmatch("[a-z]{2,3}", code)
    assert language_code(code) == code


TEXTS = {
    "en": "What is the best way to learn to cook rice so that it does not stick?",
    "es": "¿Cuál es la mejor manera de aprender a cocinar arroz sin que se pegue?",
    "pt": "Qual é a melhor maneira de aprender a cozinhar arroz sem que ele grude na panela?",
    "fr": "Quelle est la meilleure façon d'apprendre à cuire le riz sans qu'il colle ?",
    "it": "Qual è il modo migliore per imparare a cuocere il riso senza che si attacchi?",
    "de": "Wie lernt man am besten, Reis so zu kochen, dass er nicht klebt?",
    "ru": "Как лучше всего научиться варить рис, чтобы он не слипался?",
    "zh": "怎样才能学会煮出不粘锅的米饭？",
    "ja": "ご飯がくっつかないように炊くにはどうすればいいですか？",
    "ko": "밥이 달라붙지 않게 짓는 가장 좋은 방법은 무엇인가요?",
    "ar": "ما هي أفضل طريقة لتعلم طهي الأرز حتى لا يلتصق؟",
    "te": "అన్నం అంటుకోకుండా వండటం నేర్చుకోవడానికి ఉత్తమ మార్గం ఏమిటి?",
    "hi": "चावल को बिना चिपके पकाना सीखने का सबसे अच्छा तरीका क्या है?",
}


def test_the_detector_tells_languages_apart_without_a_network(monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    assert detect_languages(list(TEXTS.values())) == list(TEXTS)
    assert DETECTOR.startswith("py3langid 0.")


@pytest.mark.parametrize(
    "text",
    ["", " ", "12 + 30 = 42", "?!", "ok", "Hello", "🙂🙂", "https://example.org/how-does-this-work-in-english",
     "```python\n# how does this work in the English language?\n", "`what is the best way to do this thing?`",
     "\ud800", "x = f(y)", "qzx wvk jjp"],
)  # fmt: skip
def test_the_detector_keeps_silent_where_there_is_too_little_to_go_by(text):
    assert detect_languages([text]) == [None]


def test_code_and_addresses_do_not_speak_for_the_person():
    code = "```python\n# the quick brown fox jumps over the lazy dog and this is a comment\n```"
    question = "Perché questo codice non funziona come dovrebbe?"
    assert detect_languages([f"{code}\n{question} https://example.org/{'the-answer-is-in-here/' * 9}"]) == ["it"]
    assert detect_languages(["`" * 100_000, "``` " * 50_000 + question]) == [None, None]


def test_codes_of_one_macro_language_agree():
    for codes in ("no nb nn", "sr hr bs", "id ms min", "zh yue wuu", "ar ary arz acq ars", "tl fil", "fa prs", "en"):
        assert all(languages_agree(first, second) for first in codes.split() for second in codes.split())
    for first, second in map(str.split, ("no da", "es pt", "hi ur", "zh ja", "ar fa", "und en", "ru uk")):
        assert not languages_agree(first, second)


DATA = Path(os.environ.get("FEDLLM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "sft" / "tatoeba").is_dir(), reason=f"no Tatoeba sentences under {DATA}")
@pytest.mark.parametrize(
    ("file", "column", "code"), [("ara", 1, "ar"), ("cmn", 1, "zh"), ("kor", 1, "ko"), ("cmn", 0, "en")]
)
def test_short_sentences_are_told_right_where_the_detector_dares(file, column, code):
    lines = (DATA / "sft" / "tatoeba" / f"{file}.txt").read_text(encoding="utf-8").rstrip().split("\n")[::7]
    answers = [answer for answer in detect_languages([line.split("\t")[column] for line in lines]) if answer]
    assert len(answers) / len(lines) > 0.85
    assert sum(languages_agree(answer, code) for answer in answers) / len(answers) > 0.99
