from itertools import product

import pytest

from fedllm_data.heterogeneity.axes import AXES
from fedllm_data.reporting.report_words import VERDICT_WORDS, method_words


def said(name, verdict):
    return method_words(name, {"verdict": verdict, "means": AXES[name].reading.means if name in AXES else ""})


@pytest.mark.parametrize(("name", "verdict"), list(product(AXES, VERDICT_WORDS)))
def test_every_axis_says_in_sentences_what_each_verdict_means_for_a_method(name, verdict):
    text = said(name, verdict)
    assert len(text.split()) >= 15
    assert text[0].isupper()
    assert text.endswith(".")
    assert ("no reason for or against any method" in text) == (verdict == "not enough data")
    assert ("by chance; with few clients or rows" in text) == (verdict == "no more than chance")


@pytest.mark.parametrize("verdict", list(VERDICT_WORDS))
def test_no_two_axes_say_the_same(verdict):
    assert len({said(name, verdict) for name in AXES}) == len(AXES)


def test_an_axis_of_somebody_elses_is_told_by_its_own_words_or_in_general():
    assert method_words("topics", {"verdict": "more than chance", "means": "Cluster the clients."}) == (
        "Cluster the clients."
    )
    assert said("topics", "no more than chance").startswith("A method that adapts to this axis has nothing")
    assert said("topics", "not enough data").startswith("There is not enough data.")
