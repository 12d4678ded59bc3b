"""The plan's page in a real browser: sound at two widths, light and dark, in both languages, and its sums are ours."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from fedllm_train.planning.plan_all import plan_all
from fedllm_train.planning.plan_flags import plan_flags
from fedllm_train.planning.plan_page import page_data, write_plan
from fedllm_train.planning.quick_costs import QuickInputs, line_rates, quick_costs
from tests.data.reporting.chromium import CHROMIUM, Page, browser
from tests.data.reporting.page_checks import LANGUAGES, WIDTHS, check, complaints, speak

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package `chromium`"),
]

ENGLISH = re.compile(r"\b(?:the|of|is|are|with|from|that|than|which|clients|rows|interval)\b")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    kit.make_model().save_pretrained(folder / "model")
    argv = ["--model", str(folder / "model"), "--sizes", "30:40", "--strategy", "fedavg,fedex_lora,local"]
    argv += ["--wire", "none,topk-int8", "--cohort-size", "4,40", "--num-rounds", "5", "--drop-out", "0.2"]
    plan = plan_all(plan_flags([*argv, "--client-table", "profiles:phone-4g=0.7,laptop-home=0.3"]))
    write_plan(plan, folder / "out")
    return plan, folder / "out" / "plan.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_sound(page, made, language, width, dark):
    speak(page, language)
    assert complaints(page, made[1], width, language, dark=dark) == []


def test_the_japanese_page_holds_no_english_sentence_of_ours(page, made):
    speak(page, "ja")
    page.open(made[1])
    lines = [line for line in check(page, "TEXT").split("\n") if len(ENGLISH.findall(line)) > 1]
    assert lines == []


def form(page, language):
    return f"document.querySelector('.page[lang={language}] form.quick')"


def test_its_sums_are_those_of_python_for_drawn_inputs(page, made):
    speak(page, "en")
    page.open(made[1])
    drawn = random.Random(7)
    names = [name for name in page_data(made[0])["inputs"] if name != "line"]
    for _ in range(60):
        given = {
            "download_bytes": drawn.choice([0.0, drawn.uniform(1, 1e10)]),
            "upload_bytes": drawn.choice([0.0, drawn.uniform(1, 1e10)]),
            "step_flops": drawn.uniform(0.001, 1e16),
            "line": drawn.choice([*line_rates()]),
        } | {name: drawn.choice([drawn.uniform(0.01, 500), float(drawn.randint(1, 1000))]) for name in names}
        found = page.run(f"quickCosts({json.dumps(given)})")
        expected = asdict(quick_costs(QuickInputs(**given)))
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_changed_field_changes_the_answer(page, made, language):
    plan, path = made
    speak(page, language)
    page.open(path)
    here = form(page, language)
    data = page_data(plan)
    first = next(iter(data["candidates"].values()))

    def answer():
        return page.run(f"{here}.costs")

    def expected(**changes):
        given = {name: value for name, value in data["inputs"].items()}
        given |= {"download_bytes": first["download_bytes"], "upload_bytes": first["uploads"][first["wire"]]}
        given |= {name: first[name] for name in ("step_flops", "cohort_size", "local_steps")}
        return asdict(quick_costs(QuickInputs(**(given | changes))))

    def put(name, value):
        page.run(
            f"(() => {{ const one = {here}.elements.{name}; one.value = {json.dumps(value)};"
            " one.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    assert answer() == pytest.approx(expected(), rel=1e-9)
    put("num_rounds", "77")
    put("upload_mbit", "3.5")
    put("wire", "drive")
    changes = {"num_rounds": 77, "upload_mbit": 3.5, "upload_bytes": first["uploads"]["drive"]}
    assert answer() == pytest.approx(expected(**changes), rel=1e-9)
    put("tera_flops", "0")
    assert answer() is None
    assert not page.run(f"{here}.querySelector('.wrong').hidden")
    page.run(f"{here}.reset()")
    assert answer() == pytest.approx(expected(), rel=1e-9)


def test_without_scripts_the_tables_stand_and_the_form_does_not(page, made):
    _, path = made
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(path)
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)
    seen = page.run(
        "[...document.querySelectorAll('section')].filter((one) => one.getClientRects().length).map((one) => one.id)"
    )
    assert "beside" in seen
    assert "memory" in seen
    assert "change" not in seen


def test_on_paper_there_is_no_form(page, made):
    speak(page, "en")
    page.open(made[1])
    page.send("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.run("document.getElementById('change').getClientRects().length") == 0
        assert page.run("document.getElementById('beside').getClientRects().length") == 1
    finally:
        page.send("Emulation.setEmulatedMedia", media="screen")
