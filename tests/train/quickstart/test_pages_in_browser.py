"""Every page of the project in a real browser: two widths, light and dark, English and Japanese, and no complaint."""

import re
import shutil
from collections.abc import Iterator

import pytest

from fedllm_data.reporting.compare_reports import write_comparison
from fedllm_eval.cli import main
from fedllm_train.cli import main as train_main
from tests.data.reporting.chromium import CHROMIUM, Page, browser
from tests.data.reporting.page_checks import LANGUAGES, WIDTHS, check, complaints, speak

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package `chromium`"),
]

PAGES = (
    "summary.html",
    "report/report.html",
    "two/comparison.html",
    "scores/loss/sft/results.html",
    "scores/preference/dpo/results.html",
    "compare/loss/comparison.html",
    "compare/preference/comparison.html",
    "trade/comparison.html",
    "decision/decision.html",
    "decision/partners.html",
    "audit/audit.html",
    "revealed/given_away.html",
)
ENGLISH = re.compile(r"\b(?:the|of|is|are|with|from|that|than|which|clients|rows|interval)\b")
"""Words that stand in nearly every English sentence and in no name."""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(quickstart_run):
    """The quickstart's folder, with a comparison of its report with itself, and one of runs that asks for costs."""
    folder = quickstart_run.folder
    shutil.copytree(folder / "report", folder / "again", dirs_exist_ok=True)
    write_comparison(folder / "report", folder / "again", folder / "two")
    asked = ["--budget", "bytes=1GB,hours=9,money=1", "--target", "heldout_loss=9", "--target", "heldout_loss=0.1"]
    stated = ["--price-per-gb", "0.09", "--currency", "EUR", "--download-mbit", "50", "--upload-mbit", "10"]
    scored = [str(folder / "scores" / "loss" / name) for name in ("base", "sft")]
    assert main(["compare", *scored, *asked, *stated, "--out", str(folder / "trade")]) == 0
    run = str(folder / "runs" / "sft")
    audit = ["audit", run, f"again={run}", "--data", str(folder / "fed-synth"), "--max-rows", "12"]
    assert main([*audit, "--out", str(folder / "audit")]) == 0
    assert train_main(["reveals", run, "--audit", str(folder / "audit"), "--out", str(folder / "revealed")]) == 0
    return folder


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(page, folder, name, language, width, dark):
    speak(page, language)
    assert complaints(page, folder / name, width, language, dark=dark) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_japanese_page_holds_no_english_sentence(page, folder, name):
    speak(page, "ja")
    page.open(folder / name)
    text = check(page, "TEXT").replace(str(folder), "")  # a path is no sentence
    lines = [line for line in text.split("\n") if len(ENGLISH.findall(line)) > 1]
    assert lines == []


def test_the_switch_changes_the_language_and_is_remembered(page, folder):
    speak(page, "en")
    path = folder / "summary.html"
    page.open(path)
    is_seen = "document.querySelector('.page[lang=ja]').getClientRects().length"
    seen = f"[document.documentElement.lang, document.title, {is_seen}]"
    assert page.run(seen)[::2] == ["en", 0]
    page.click(".languages button[data-language=ja]")
    assert page.run(seen) == ["ja", "クイックスタート:fed-synthでの連合SFTと連合DPO", 1]
    page.open(path)
    assert page.run("document.documentElement.lang") == "ja"
    page.click(".languages button[data-language=en]")
    assert page.run(seen)[::2] == ["en", 0]


def test_an_address_names_a_place_in_a_language(page, folder):
    speak(page, "en")
    page.open(folder / "summary.html")
    page.run("location.hash = '#ja-term-interval'")
    page.run("new Promise((done) => setTimeout(done, 50))")
    assert page.run("document.documentElement.lang") == "ja"
    assert page.run("document.querySelector('dt:target').textContent") == "95%信頼区間"
