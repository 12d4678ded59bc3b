"""What the site makes while it is built: results as the files have them, every command and every flag, the picture."""

import doctest
import re

import pytest

from benchmarks import result_tables
from benchmarks.result_tables import read_result
from docs.making import command_pages, flow_picture, interval_figure, results_page
from docs.making.command_pages import COMMAND_PAGES, command_page, help_of, subcommands_of
from docs.making.interval_figure import Interval

RESULTS = results_page.results_page()


def test_every_method_of_every_corpus_is_drawn_with_its_interval():
    for name in results_page.CORPORA:
        for row in read_result(name)["personal"]["items"]:
            digits = 3 if "smollm2" in name else 2
            figures = f"{row['difference']:+.{digits}f} [{row['ci_low']:+.{digits}f}, {row['ci_high']:+.{digits}f}]"
            assert figures in RESULTS, (name, row["other"])
            assert f">{row['other']}</text>" in RESULTS


def test_every_seed_and_every_verdict_is_on_the_page():
    for item in read_result("quickstart_seeds")["results"]:
        assert f"{item['difference']:+.2f} [{item['ci_low']:+.2f}, {item['ci_high']:+.2f}]" in RESULTS
    assert all(verdict in RESULTS for verdict in read_result("real_run")["verdicts"])


def test_a_result_that_changes_changes_the_page(monkeypatch):
    def moved(name):
        result = read_result(name)
        if name == "real_run":
            result["scores"]["fed-oasst/base"]["unseen"]["scores"]["heldout_loss"]["mean"] = 9.876
        return result

    monkeypatch.setattr(results_page, "read_result", moved)
    assert "9.876 [" in results_page.results_page()


def test_dots_lie_where_the_values_are():
    """Values from -1 to 1 over 340 units from 190: zero at 190 + 340 / 2 = 360, one half at 445."""
    rows = [Interval(words="half", mean=0.5, low=-1, high=1), Interval(words="<none>", mean=0, low=0.0, high=0.5)]
    drawn = interval_figure.interval_figure("t", "u", rows)
    assert re.findall(r'<circle cx="([\d.]+)"', drawn) == ["445.0", "360.0"]
    assert re.findall(r'<line class="bar \w+" x1="([\d.]+)" x2="([\d.]+)"', drawn) == [
        ("190.0", "530.0"),
        ("360.0", "445.0"),
    ]
    assert "&lt;none&gt;" in drawn


def test_an_interval_that_holds_zero_is_grey_and_another_is_not():
    drawn = interval_figure.interval_figure("t", "u", [Interval(words="a", mean=1, low=-1, high=2)])
    assert 'class="dot unclear"' in drawn
    drawn = interval_figure.interval_figure("t", "u", [Interval(words="a", mean=1, low=0.5, high=2)])
    assert 'class="dot clear"' in drawn


def test_what_is_said_in_short_is_what_the_files_hold():
    """For example 10 of 11 clients where the file has a better_fraction of 0.909..."""
    short = RESULTS.split("## In short")[1].split("## A real model")[0]
    for name, comparison, method, split, digits in (
        ("methods_fed_synth", "personal_against_fedavg", "local", "test", 2),
        ("methods_fed_oasst_smollm2", "personal", "fedavg", "test", 3),
        ("methods_fed_oasst_smollm2", "global", "fedavg", "unseen", 3),
    ):
        items = read_result(name)[comparison]["items"]
        (item,) = [item for item in items if (item["other"], item["split"]) == (method, split)]
        low, high = item["ci_low"], item["ci_high"]
        assert f"{item['difference']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]" in short
    assert "10 of 11 clients better off" in short


def test_natural_clients_of_every_corpus_are_shown_without_their_controls():
    lines = [line for line in RESULTS.splitlines() if line.startswith("| fed-") and "; chance " in line]
    measured = (result_tables.RESULTS / "heterogeneity.md").read_text(encoding="utf-8")
    assert [line.split(" | ")[0] for line in lines] == re.findall(r"^\| fed-[\w-]+", measured, re.MULTILINE)
    assert all(line in measured for line in lines)
    assert "| IID |" not in RESULTS


def test_figures_load_nothing():
    assert not re.search(r"(href|src)=|url\(|<script|<image", RESULTS)


@pytest.mark.parametrize("program", COMMAND_PAGES)
def test_every_subcommand_has_its_help_on_the_page(program):
    page = command_page(program)
    names = subcommands_of(program)
    assert len(names) > 4
    for name in names:
        assert f"\n## {name}\n" in page
        help_text = help_of(program, [name])
        assert help_text.startswith(f"usage: {program} {name}")
        assert help_text.rstrip() in page


def test_the_flags_of_training_are_on_the_page():
    page = command_page("fedllm-train")
    assert all(flag in page for flag in ("--cohort-size", "--dp-epsilon", "--strategy", "--out", "--help-all"))


@pytest.mark.parametrize("theme", flow_picture.COLOURS)
def test_the_picture_is_what_its_script_draws(theme):
    drawn = (flow_picture.PICTURES / f"flow-{theme}.svg").read_text(encoding="utf-8")
    assert drawn == flow_picture.flow_picture(theme), "run `python -m docs.making.flow_picture`"


@pytest.mark.parametrize(
    "module", [command_pages, flow_picture, interval_figure, results_page], ids=lambda module: module.__name__
)
def test_doctests(module):
    assert doctest.testmod(module).failed == 0
