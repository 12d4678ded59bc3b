"""Texts asked for at once get the labels that py3langid gives one after another."""

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from fedllm_data.pipeline.langid_batches import BatchIdentifier
from fedllm_data.pipeline.language_detection import DETECTOR, DETECTORS

THRESHOLD = 0.5
SENTENCES = [
    "What is the best way to learn to cook rice so that it does not stick?",
    "¿Cuál es la mejor manera de aprender a cocinar arroz?",
    "КАК ЛУЧШЕ ВСЕГО НАУЧИТЬСЯ ВАРИТЬ РИС",
    "怎样才能学会煮出不粘锅的米饭？",
    "ご飯がくっつかないように炊くには",
    "ما هي أفضل طريقة لتعلم طهي الأرز",
    "Hvordan lærer man bedst at koge ris",
    "Srpski i hrvatski su slični jezici",
]


@lru_cache(maxsize=1)
def identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def assert_same_answers(texts: list[str]) -> None:
    batched = BatchIdentifier(identifier(), THRESHOLD).classify(texts)
    single = [identifier().classify(text) for text in texts]
    assert [label for label, _ in batched] == [label for label, _ in single]
    assert [chance >= THRESHOLD for _, chance in batched] == [chance >= THRESHOLD for _, chance in single]
    assert [chance for _, chance in batched] == pytest.approx([chance for _, chance in single], abs=2e-4)


def test_real_sentences_at_every_length():
    assert_same_answers([text[:stop] for text in SENTENCES for stop in range(len(text) + 1)])


def test_texts_without_a_feature_and_odd_bytes():
    odd = ["", "\0", "\ud800", "\U0010ffff", "é" * 3_000, "A", "ǅ", "\n"]
    assert_same_answers((odd + SENTENCES) * 4)
    assert_same_answers([""] * 40)


def test_more_texts_than_a_batch_keep_their_order():
    texts = [f"{SENTENCES[index % len(SENTENCES)]} {index}" for index in range(1_100)]
    found = BatchIdentifier(identifier(), THRESHOLD).classify(texts)
    assert len(found) == 1_100
    assert [label for label, _ in found[1_000:]] == [identifier().classify(text)[0] for text in texts[1_000:]]


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.text(st.characters(codec=None), max_size=10),
            st.text("abcdefghij éßçñ", max_size=40),
            st.lists(st.sampled_from(" ".join(SENTENCES).split()), max_size=12).map(" ".join),
        ),
        min_size=32,
        max_size=80,
    )
)
def test_drawn_texts(texts):
    assert_same_answers(texts)


def test_a_build_names_the_detector_that_labels():
    assert DETECTOR.split()[0] in DETECTORS
