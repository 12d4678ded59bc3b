import json
from copy import deepcopy
from html.parser import HTMLParser

import pytest

from fedllm_data.errors import ReportError
from fedllm_data.reporting.compare_reports import compare_reports, render_comparison, write_comparison


def _pair(make_document, make_axis, value, other_value, **changes):
    """Two reports of one axis each, with these values."""
    return (
        make_document(axes={"language": make_axis(value)}, name="fed-a", **changes),
        make_document(axes={"language": make_axis(other_value)}, name="fed-b"),
    )


def test_what_exceeds_chance_is_compared_and_the_part_that_is_kept_is_said(make_document, make_axis):
    one, other = _pair(make_document, make_axis, 0.5, 0.3)
    axis = compare_reports(one, other)["axes"]["language"]
    # (0.3 - 0.1) / (0.5 - 0.1) with the null's mean of 0.1 on both sides
    assert axis["kept"] == pytest.approx(0.5)
    assert axis["more"] == "one"  # 0.45 to 0.55 lies above 0.25 to 0.35
    assert axis["sentence"] == (
        "A measure (fraction). fed-a: 0.5 (0.45 to 0.55), beyond chance; fed-b: 0.3 (0.25 to 0.35), beyond chance."
        " Beyond its own chance, fed-a differs more: the intervals lie apart."
        " fed-b has 50% of what exceeds chance in fed-a."
    )


def test_the_same_value_is_no_difference_and_keeps_all(make_document, make_axis):
    comparison = compare_reports(*_pair(make_document, make_axis, 0.5, 0.5))
    assert comparison["axes"]["language"]["kept"] == 1
    assert comparison["summary"] == "No difference between the two is shown in language."


def test_a_higher_value_over_a_higher_chance_is_no_difference(make_document, make_axis):
    one, other = _pair(make_document, make_axis, 0.5, 0.8)
    other["axes"]["language"]["measures"]["spread"]["null_mean"] = 0.4
    assert compare_reports(one, other)["axes"]["language"]["more"] is None


def test_where_low_means_that_clients_differ_the_lower_value_differs_more(make_document, make_axis):
    one, other = _pair(make_document, make_axis, 0.9, 0.2)
    for report in (one, other):
        report["axes"]["language"]["measures"]["spread"] |= {"unequal": "low", "null_mean": 1.0}
    axis = compare_reports(one, other)["axes"]["language"]
    assert axis["more"] == "other"
    assert axis["kept"] == pytest.approx(8)  # (1 - 0.2) / (1 - 0.9)


def test_without_data_or_interval_on_a_side_nothing_is_said_about_more(make_document, make_axis):
    one, other = _pair(make_document, make_axis, 0.5, None)
    assert compare_reports(one, other)["axes"]["language"]["sentence"] == (
        "Fed-b: not enough data: nobody said anything."
    )
    one, other = _pair(make_document, make_axis, 0.5, 0.1)
    other["axes"]["language"]["measures"]["spread"] |= {"low": None, "high": None}
    assert "no interval on one side" in compare_reports(one, other)["axes"]["language"]["sentence"]


@pytest.mark.parametrize(
    ("axis", "config", "refused"),
    [
        ("length", {"tokenizer": "other"}, 'different tokenizers, "unicode-words" and "other"'),
        ("language", {"tokenizer": "other", "codebook": "b2"}, None),
        ("quantity", {"codebook": "b2"}, None),
        ("embedding", {"codebook": "b2"}, 'different codebooks, "a1" and "b2"'),
        ("length", {"codebook": "b2"}, None),
        ("quality", {"codebook": "b2"}, "different scorers"),
        ("quality", {"codebook": "b2", "scorers": ["ifd@1"]}, "different scorers"),
        ("embedding", {}, None),
        ("preference", {"codebook": "b2"}, None),
        ("preference", {"tokenizer": "other"}, "different tokenizers"),
    ],
)
def test_figures_of_different_tokenizers_or_codebooks_are_refused(make_document, make_axis, axis, config, refused):
    one = make_document(axes={axis: make_axis()})
    one["config"]["codebook"] = "a1"
    other = deepcopy(one)
    other["config"] |= config
    found = compare_reports(one, other)["axes"][axis]
    assert found["comparable"] == (refused is None)
    assert (refused or "") in (found["reason"] or "")
    assert bool(found["measures"]) == (refused is None)


def test_what_changed_is_said_in_words(make_document, make_axis):
    one = make_document(axes={"language": make_axis(), "length": make_axis(), "embedding": make_axis()}, name="fed-a")
    other = deepcopy(one) | {"name": "fed-b"}
    other["axes"]["length"]["verdict"] = "no more than chance"
    same = "Both were measured with the same codebook, tokenizer and scorers."
    assert compare_reports(one, other)["changes"] == [
        "Length is beyond chance in fed-a and within it in fed-b.",
        "Language and embedding are beyond chance in both.",
        same,
    ]
    other["config"]["codebook"] = "b2"
    changes = compare_reports(one, other)["changes"]
    assert changes[1] == "Language is beyond chance in both."
    assert changes[2].startswith(
        "They were measured with a different codebook and scorers, so nothing is said of embed"
    )
    assert "`--codebook` and the codebook.json of the other" in changes[2]
    assert all(change in render_comparison(compare_reports(one, other)).replace("&#39;", "'") for change in changes)


def test_scorers_named_alike_are_compared_across_codebooks(make_document, make_axis):
    one = make_document(axes={"quality": make_axis()})
    one["config"] |= {"codebook": {"digest": "a1", "scorers": ["length@1"], "tokenizer": "unicode-words"}}
    other = deepcopy(one)
    other["config"]["codebook"]["digest"] = "b2"
    assert compare_reports(one, other)["axes"]["quality"]["comparable"]


def test_reports_that_share_no_axis_are_refused(make_document, make_axis):
    one, other = (make_document(axes={name: make_axis()}) for name in ("length", "quality"))
    with pytest.raises(ReportError, match="share no axis"):
        compare_reports(one, other)


def test_axes_of_one_side_alone_are_named(make_document, make_axis):
    one = make_document(axes={"length": make_axis(), "quality": make_axis()})
    comparison = compare_reports(one, make_document(axes={"length": make_axis()}))
    assert comparison["only_in_one"] == ["quality"]
    assert list(comparison["axes"]) == ["length"]


def test_files_are_written_and_a_partition_is_named(make_document, tmp_path):
    for name, rule in {"natural": None, "dealt": "iid"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "heterogeneity.json").write_text(json.dumps(make_document()))
        (tmp_path / name / "build.json").write_text(json.dumps({"partition": rule and {"rule": rule}}))
    comparison = write_comparison(tmp_path / "natural", tmp_path / "dealt" / "heterogeneity.json", tmp_path / "out")
    assert json.loads((tmp_path / "out/comparison.json").read_text()) == comparison
    assert comparison["other"]["name"] == "fed-test (iid)"
    assert "holds artificial clients, dealt out by the rule iid: beside fed-test" in comparison["about"]
    assert "fed-test (iid)" in (tmp_path / "out/comparison.html").read_text()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert name not in ("src", "href") or value.startswith(("#", "data:"))


def test_the_page_escapes_names_and_loads_nothing(make_document):
    one, other = make_document(name="<script>alert(1)</script>"), make_document(name="\u202eb")
    page = render_comparison(compare_reports(one, other))
    tags = _Tags()
    tags.feed(page)
    assert tags.tags.count("script") == 1  # the one that chooses the language
    assert "&lt;script&gt;alert(1)" in page
    assert "\u202e" not in page


@pytest.mark.parametrize(("content", "problem"), [(None, "holds no"), ("{", "cannot be read"), ("[]", "is no heter")])
def test_a_place_without_a_report_is_refused(make_document, tmp_path, content, problem):
    if content is not None:
        (tmp_path / "heterogeneity.json").write_text(content)
    with pytest.raises(ReportError, match=problem):
        write_comparison(tmp_path, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
