"""The table and the figures of `benchmarks/drop_out.py`, from a result file written by hand."""

from argparse import Namespace
from xml.etree import ElementTree

import pytest

from benchmarks.drop_out import arm_settings, drop_out_figure, drop_out_page, drop_out_rows


def run(arm, seed, losses, seconds):
    spread = {"mean": losses[-1], "ci_low": 0.0, "ci_high": 9.0, "num_clients": 3}
    curve = [{"round": 2 * place, "loss": loss, "seconds": 10.0 * place} for place, loss in enumerate(losses, start=1)]
    return {
        "arm": arm,
        "seed": seed,
        "scores": {"test": spread, "unseen": spread},
        "upload_bytes": 2_000_000,
        "clock_seconds": seconds,
        "num_visits": 6,
        "num_left_out": 2,
        "num_server_steps": 3,
        "curve": curve,
    }


@pytest.fixture
def result():
    runs = [
        run("buffered-0.3", 0, [2.0, 1.4], 20.0),
        run("synchronous-0", 0, [2.0, 1.0], 40.0),  # 80 % of 3.0 - 1.0 is gained at 1.4
        run("synchronous-0.3", 0, [2.0, 1.5], 60.0),
    ]
    base = {"mean": 3.0}
    item = {"other": "buffered-0.3", "split": "test", "difference": 0.4, "ci_low": 0.1, "ci_high": 0.7}
    return {
        "settings": {"corpus": "c", "every": 2},
        "base": {"test": base, "unseen": base},
        "runs": {f"{each['arm']}-{each['seed']}": each for each in runs},
        "differences": [item],
        "machine": {"processor": "P", "num_cores": 2, "python": "3", "versions": {"torch": "2"}},
    }


def test_a_rule_and_share_is_a_row(result):
    whole, synchronous, buffered = drop_out_rows(result)
    assert whole[:3] == ["synchronous", "0%", "1.0000"]
    assert synchronous[6:8] == ["60.0", "not reached with 1 of 1 seeds"]
    # two updates a step; of eight visits two were in vain
    assert buffered == [
        *("buffered", "30%", "1.4000", "+0.4000 [+0.1000, +0.7000]", "1.4000", "–", "20.0", "20.0"),
        *("2.00", "25%", "2.0", "1"),
    ]


@pytest.mark.parametrize("what", ["loss", "time"])
def test_a_figure_has_a_line_for_each_rule(result, what):
    assert len(ElementTree.fromstring(drop_out_figure(result, what)).findall("{*}polyline")) == 2


def test_a_page_names_both_figures(result):
    page = drop_out_page(result, "drop_out_c")
    assert "(drop_out_c_loss.svg)" in page
    assert "(drop_out_c_time.svg)" in page


def test_a_deadline_is_given_to_its_rule_alone():
    given = Namespace(machines="profile:phone-4g", deadline_seconds=4.0)
    assert arm_settings("deadline", 0.1, given)["deadline_seconds"] == 4.0
    assert "deadline_seconds" not in arm_settings("buffered", 0.1, given)
