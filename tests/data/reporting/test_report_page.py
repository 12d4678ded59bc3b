import json
import re
from html.parser import HTMLParser

import pytest

from fedllm_data.reporting.draw_figures import draw_figures
from fedllm_data.reporting.report_page import render_page
from fedllm_data.reporting.similarity import similarity_map
from fedllm_data.reporting.table import clients_table

HOSTILE = "</script><script>alert('x')</script>\"'\u202e{{ 7 * 7 }}<!--"


class _Page(HTMLParser):
    """Tags with their attributes, and the text of the table and of the embedded data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self.rows: list[list[str]] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = {"td": "cell", "th": "cell"}.get(
            tag, dict(attrs).get("id") if tag == "script" else self._inside
        )
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._inside = "cell"
            self.rows[-1].append("")

    def handle_data(self, text):
        if self._inside == "data":
            self.data += text
        elif self._inside == "cell":
            self.rows[-1][-1] += text.strip()

    def handle_endtag(self, tag):
        if tag in ("td", "th", "script"):
            self._inside = ""


def _render(document, language="en"):
    similar = similarity_map(document)
    return render_page(
        document, {name: figure.svg for name, figure in draw_figures(document, similar).items()}, similar, language
    )


def test_text_from_data_can_neither_open_a_tag_nor_end_the_data(make_document, make_axis):
    columns = {"client_id": [HOSTILE, *(f"c{index}" for index in range(8))], "main_language": [HOSTILE] * 9}
    axes = {"topics": make_axis(client_columns=["main_language"], sentence=HOSTILE, facts={HOSTILE: HOSTILE})}
    page = _render(make_document(9, axes, columns, name=HOSTILE, summary=HOSTILE), language=None)
    parsed = _Page(page)
    names = [tag for tag, _ in parsed.tags]
    assert names.count("script") == 3
    assert "alert('x')</script>" not in page
    assert "\u202e" not in page
    assert "{{ 7 * 7 }}" in page
    assert json.loads(parsed.data)["columns"][0]["values"].count(HOSTILE.replace("\u202e", "\\u202e")) == 1


def test_the_page_loads_nothing_from_anywhere(make_document):
    for tag, attributes in _Page(_render(make_document())).tags:
        for name in ("src", "href", "xlink:href", "action", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    page = _render(make_document())
    assert "@import" not in page
    assert not re.search(r"url\(\s*['\"]?(?!#)", page)


def test_every_axis_has_a_section_that_a_link_leads_to(make_document):
    document = make_document()
    tags = _Page(_render(document)).tags
    sections = [attributes["id"] for tag, attributes in tags if tag == "section"]
    assert sections == ["overview", *document["axes"], "similarity", "clients", "reading", "glossary"]
    links = {attributes["href"] for tag, attributes in tags if tag == "a"}
    assert {f"#{name}" for name in sections} <= links


@pytest.mark.parametrize("language", ["en", "ja", None])
def test_ids_in_the_page_are_unique_and_every_link_leads_somewhere(make_document, language):
    tags = _Page(_render(make_document(), language)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {
        attributes["href"][1:] for _, attributes in tags if "href" in attributes and attributes["href"] != "data:,"
    }
    assert {link for link in links if not link.endswith("all")} <= set(ids)
    labelled = {attributes["for"] for _, attributes in tags if "for" in attributes}
    assert labelled <= set(ids)


def test_a_page_of_all_languages_holds_each_drawing_and_the_data_once_and_is_hardly_larger(make_document):
    document = make_document(300)
    one, both = _render(document, "en"), _render(document, None)
    assert both.count("<symbol") == one.count("<symbol") == 2  # quantity and language; quality has no data
    assert both.count('id="data"') == 1
    assert len(both) < 1.5 * len(one)


def test_the_japanese_page_says_its_sentences_and_the_words_of_its_figures_in_japanese(make_document):
    document = make_document()
    page = _render(document, "ja")
    assert '<html lang="ja">' in page
    assert "このページの読み方" in page
    assert "各指標と偶然との比較</text>" in page
    assert "Each measure against chance" not in page
    # What nobody translated, as of an axis of somebody's own, is marked as English.
    assert '<span lang="en">They differ somewhat.</span>' in page


def test_without_script_the_hundred_largest_clients_are_listed(make_document):
    document = make_document(150)
    rows = [row for row in _Page(_render(document)).rows if row and row[0].startswith("client-")]
    assert len(rows) == 100
    sizes = [int(row[1].replace(",", "")) for row in rows]
    assert sizes == sorted(document["clients"]["num_rows"], reverse=True)[:100]


def test_axes_say_what_they_mean_for_the_method_by_their_verdict(make_document, make_axis):
    axes = {
        "one": make_axis(means="Cluster the clients of one."),
        "two": make_axis(0.1, "no more than chance", means="Cluster the clients of two."),
        "three": make_axis(None, "not enough data", means="Cluster the clients of three."),
    }
    page = _render(make_document(axes=axes))
    assert "Cluster the clients of one." in page
    assert "Cluster the clients of two." not in page
    assert "a method that adapts to it has nothing to\nadapt" in page or "nothing to adapt to here" in page
    assert "no reason for or against any method" in page


def test_one_client_and_no_axis_with_data_still_make_a_page(make_document, make_axis):
    page = _render(make_document(1, {"quantity": make_axis(None, "not enough data")}))
    assert 'id="similarity"' not in page
    assert "nobody said anything" in page


def test_a_null_without_spread_is_said_and_not_drawn(make_document, make_axis):
    axis = make_axis()
    axis["measures"]["spread"] |= {"null_std": 0.0, "z": None}
    assert "chance has no spread here" in _render(make_document(axes={"quantity": axis}))


def test_a_null_of_unknown_spread_gives_its_mean_alone(make_document, make_axis):
    axis = make_axis()
    axis["measures"]["other"] = axis["measures"]["spread"] | {
        "null_mean": 1.675,
        "null_std": None,
        "z": None,
        "p": None,
    }
    page = _render(make_document(axes={"quantity": axis}))
    row = next(row for row in _Page(page).rows if row[-1] == "–" and "1.68 on average" in row)
    assert row[-3:] == ["", "–", "–"]  # no strip, no z, no p


def test_the_table_stays_in_its_bounds_and_keeps_the_largest_clients(make_document):
    columns = {"client_id": [f"{index:05d}" + "\u65e5" * 250 for index in range(3000)]}
    document = make_document(3000, columns=columns)
    table = clients_table(document, max_bytes=200_000)
    listed = table["columns"][0]["values"]
    assert 500 < len(listed) < 3000
    assert max(len(shown) for shown in listed) == 80
    assert table["columns"][1]["values"] == sorted(document["clients"]["num_rows"], reverse=True)[: len(listed)]


def test_a_page_of_20_000_clients_with_thirty_columns_is_below_six_megabytes(make_document):
    columns = {f"figure_{index:02d}": [0.123456789 * (k + index) for k in range(20_000)] for index in range(28)}
    columns |= {"client_id": [f"{index:064x}" for index in range(20_000)]}
    assert len(_render(make_document(20_000, columns=columns)).encode()) < 6_000_000
