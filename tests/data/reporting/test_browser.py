"""The pages in a real browser: clicked through in two widths, light and dark, with nothing loaded from anywhere."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedllm_data.reporting.compare_reports import compare_reports, render_comparison
from fedllm_data.reporting.draw_figures import draw_figures
from fedllm_data.reporting.report_page import render_page
from fedllm_data.reporting.similarity import similarity_map
from tests.data.reporting.chromium import CHROMIUM, Page, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package `chromium`"),
]

NUM_CLIENTS = 20_000
HOSTILE = "<script>alert('x')</script>\"'\u202e" + "\u65e5" * 80
CELLS = "[...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[{column}].textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory, make_document, make_axis) -> Path:
    """A report of many clients, the largest with a hostile id."""
    rng = np.random.default_rng(0)
    columns = {
        "client_id": [HOSTILE, *(f"client-{index:05d}" for index in range(1, NUM_CLIENTS))],
        "num_rows": [10**6, *rng.integers(1, 1000, NUM_CLIENTS - 1).tolist()],
        "response_median_tokens": [None, *rng.lognormal(4, 1, NUM_CLIENTS - 1).tolist()],
    }
    axes = {
        "quantity": make_axis(client_columns=["num_rows"]),
        "language": make_axis(0.11, "no more than chance", client_columns=["main_language"]),
        "length": make_axis(30.0, client_columns=["response_median_tokens"]),
        "preference": make_axis(None, "not enough data", client_columns=[]),
    }
    document = make_document(NUM_CLIENTS, axes, columns)
    path = tmp_path_factory.mktemp("page") / "report.html"
    similar = similarity_map(document)
    figures = {name: figure.svg for name, figure in draw_figures(document, similar).items()}
    path.write_text(render_page(document, figures, similar))
    return path


def _shown_sections(page: Page) -> list[str]:
    return page.run(
        "[...document.querySelectorAll('.page[lang=en] section')].filter((one) => one.getClientRects().length)"
        ".map((one) => one.id)"
    )


def _assert_quiet(page: Page, path: Path) -> None:
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
    # Wider than the window would mean that something is cut off or must be scrolled to.
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_every_section_is_shown_by_its_link_and_fits_the_width(page, report, width, dark):
    page.open(report, width, dark=dark)
    links = page.run("[...document.querySelectorAll('.page[lang=en] nav a')].map((link) => link.getAttribute('href'))")
    assert _shown_sections(page) == ["overview"]
    for link in links[:-1]:
        page.click(f'nav a[href="{link}"]')
        assert _shown_sections(page) == [link[1:]]
        assert page.run("document.querySelector('nav [aria-current]').getAttribute('href')") == link
        _assert_quiet(page, report)
    page.click('nav a[href="#all"]')
    assert _shown_sections(page) == [link[1:] for link in links[:-1]]
    _assert_quiet(page, report)


def test_dark_mode_turns_page_and_figures(page, report):
    seen = {}
    for dark in (False, True):
        page.open(report, dark=dark)
        page.click('nav a[href="#quantity"]')
        seen[dark] = page.run(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('#quantity svg text')).fill]"
        )
    assert seen[False] == ["rgb(246, 247, 250)", "rgb(29, 36, 51)", seen[False][2]]
    assert seen[True] == ["rgb(18, 21, 27)", "rgb(232, 234, 240)", seen[True][2]]
    assert seen[False][2] != seen[True][2]


def test_the_table_is_sorted_filtered_and_paged(page, report):
    page.open(report)
    page.click('nav a[href="#clients"]')
    first = page.run(CELLS.format(column=1))
    assert len(first) == 50
    assert first[0] == "1,000,000"
    sizes = [int(cell.replace(",", "")) for cell in first]
    assert sizes == sorted(sizes, reverse=True)

    page.click('#table button[data-key="response_median_tokens"]')
    assert page.run("document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"
    column = page.run("document.querySelector('[aria-sort]').cellIndex")
    lengths = [float(cell.replace(",", "")) for cell in page.run(CELLS.format(column=column))]
    assert lengths == sorted(lengths, reverse=True)
    page.click('#table button[data-key="response_median_tokens"]')
    lengths = [float(cell.replace(",", "")) for cell in page.run(CELLS.format(column=column))]
    assert lengths == sorted(lengths)

    page.click("#next")
    assert page.run("document.querySelector('#shown').value") == "51 to 100 of 20,000"
    page.click("#filter")
    page.send("Input.insertText", text="client-0123")
    assert sorted(page.run(CELLS.format(column=0))) == [f"client-{index:05d}" for index in range(1230, 1240)]
    assert page.run("document.querySelector('#shown').value") == "1 to 10 of 10"
    page.send("Input.insertText", text="nobody")
    assert page.run("document.querySelector('#shown').value") == "no client matches"
    _assert_quiet(page, report)


def test_a_hostile_id_is_text_and_the_columns_of_an_axis_can_be_chosen(page, report):
    page.open(report)
    page.click('nav a[href="#clients"]')
    shown = page.run("document.querySelector('#table tbody td').textContent")
    assert shown.startswith("<script>alert('x')</script>\"'\\u202e")
    assert len(shown) == 80
    page.run(
        "(() => { const e = document.querySelector('#group'); e.value = 'length';"
        " e.dispatchEvent(new Event('change')); })()"
    )
    heads = page.run("[...document.querySelectorAll('#table th')].map((head) => head.textContent)")
    assert heads == ["client", "rows", "response median tokens"]
    _assert_quiet(page, report)


def test_the_keyboard_reaches_links_and_sorting(page, report):
    page.open(report)
    for _ in range(4):  # the two languages, then the first two links
        page.press("Tab")
    assert page.run("document.activeElement.getAttribute('href')") == "#quantity"
    page.press("Enter")
    assert _shown_sections(page) == ["quantity"]
    page.click('nav a[href="#clients"]')
    page.run("document.querySelector('#table button[data-key=client_id]').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.dataset.key") == "client_id"
    assert page.run(CELLS.format(column=0))[1] == "client-00001"


def test_the_map_names_the_pair_under_the_pointer(page, report):
    page.open(report)
    page.click('nav a[href="#similarity"]')
    page.click("#map img")
    assert " and client-" in page.run("document.querySelector('#pair').value")
    _assert_quiet(page, report)


def test_without_javascript_and_in_print_all_sections_are_there(page, report):
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(report, 400)
        root = page.send("DOM.getDocument", depth=0)["root"]["nodeId"]
        found = page.send("DOM.querySelectorAll", nodeId=root, selector=".page[lang=en] section")["nodeIds"]
        assert all(page.send("DOM.getBoxModel", nodeId=node)["model"]["height"] > 0 for node in found)
        rows = page.send("DOM.querySelectorAll", nodeId=root, selector="#table tbody tr")["nodeIds"]
        assert len(rows) == 100
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
    page.open(report)
    page.send("Emulation.setEmulatedMedia", media="print")
    assert len(_shown_sections(page)) == 9
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("width", [400, 1400])
def test_a_comparison_fits_the_width_and_loads_nothing(page, tmp_path, make_document, width):
    path = tmp_path / "comparison.html"
    path.write_text(render_comparison(compare_reports(make_document(), make_document(name=HOSTILE))))
    page.open(path, width, dark=True)
    assert len(_shown_sections(page)) == 6
    _assert_quiet(page, path)
