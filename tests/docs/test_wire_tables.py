"""The tables and the figure of `benchmarks/wires.py`, from a result file written by hand."""

import doctest
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import lines_figure, scored_runs, wire_tables, wires
from benchmarks.lines_figure import Axis, Line
from benchmarks.wire_tables import level_rows, score_rows, wires_figure, wires_page

ROOT = Path(__file__).parents[2]


def run(wire, seed, up, losses, end):
    curve = [
        {"round": 2 * (index + 1), "upload_bytes": up * (index + 1), "download_bytes": 10_000_000, "loss": loss}
        for index, loss in enumerate(losses)
    ]
    spread = {"mean": end, "ci_low": end - 0.1, "ci_high": end + 0.1, "num_clients": 3}
    return {
        "wire": wire,
        "seed": seed,
        "scores": {"test": spread, "unseen": spread},
        "upload_bytes": up * len(losses),
        "download_bytes": 20_000_000,
        "message_bits_per_value": 32.0,
        "relative_error": None if wire == "none" else 0.75,
        "cpu_seconds": 4.0,
        "curve": curve,
    }


@pytest.fixture
def result():
    runs = [
        run("none", 0, 20_000_000, [2.0, 1.4, 1.0], 1.0),  # 80 % of 3.0 - 1.0 is gained at 1.4
        run("none", 1, 20_000_000, [2.0, 1.5, 1.0], 1.0),
        run("drive", 0, 1_000_000, [2.5, 1.41, 1.2], 1.1),
        run("drive", 1, 1_000_000, [2.5, 1.41, 1.3], 1.1),
        run("sign", 0, 2_000_000, [2.5, 1.41, 1.2], 1.1),
        run("sign", 1, 2_000_000, [2.5, 1.9, 1.8], 1.8),
    ]
    base = {"mean": 3.0, "ci_low": 2.9, "ci_high": 3.1, "num_clients": 3}
    item = {"other": "drive", "split": "test", "difference": 0.1, "ci_low": -0.05, "ci_high": 0.25}
    return {
        "settings": {"corpus": "c", "rounds": 6, "every": 2, "rows": None},
        "base": {"test": base, "unseen": base},
        "runs": {f"{each['wire']}-{each['seed']}": each for each in runs},
        "differences": [item],
        "machine": {"processor": "P", "num_cores": 2, "python": "3", "versions": {"torch": "2"}},
    }


def test_bytes_to_the_loss_of_none_are_counted_seed_by_seed(result):
    # none: rounds 4 and 6 (40 and 60 MB, mean 50); drive: round 6 twice (3 MB), so 50 / 3 times fewer
    assert level_rows(result) == [
        ["`none`", "5.0", "50.00", "10.00", "1.0"],
        ["`sign`", "not reached with 1 of 2 seeds", "–", "–", "–"],
        ["`drive`", "6.0", "3.00", "10.00", "16.7"],
    ]
    assert [row[0] for row in level_rows(result, ["drive"])] == ["`drive`"]


def test_a_wire_is_a_row_with_its_difference_from_none(result):
    none, _, drive = score_rows(result)
    assert none[:6] == ["`none`", "60.00", "20.00", "32.00", "–", "1.0000"]
    assert drive[4:8] == ["0.750", "1.1000", "+0.1000 [-0.0500, +0.2500]", "1.1000"]
    assert drive[-2:] == ["2", "4"]


def test_the_figure_is_drawn_for_both_kinds_of_pages(result):
    figure = wires_figure(result)
    root = ElementTree.fromstring(figure)
    assert len(root.findall(".//{*}polyline")) == 3
    assert "prefers-color-scheme:dark" in figure
    assert "http" not in figure.replace("http://www.w3.org/2000/svg", "")


def test_names_are_escaped_and_a_single_point_can_be_drawn():
    figure = lines_figure.lines_figure("a < b", [Line(name="<&>", points=[(1, 1)])], Axis(words="x"), Axis(words="y"))
    assert ElementTree.fromstring(figure).find("{*}title").text == "a < b"


def test_intervals_are_within_the_figure():
    line = Line(name="a", points=[(0, 1.0), (1, 2.0)], bars=[(0.0, 3.0), (1.0, 4.0)])
    root = ElementTree.fromstring(lines_figure.lines_figure("t", [line], Axis(words="x"), Axis(words="y")))
    bars = [each for each in root.findall("{*}line") if each.get("class") == "line c0"]
    heights = [float(each.get(name)) for each in bars for name in ("y1", "y2")]
    assert len(bars) == 2
    assert all(lines_figure.TOP <= y <= lines_figure.HEIGHT - lines_figure.BOTTOM for y in heights)


def test_a_page_shows_both_tables_and_the_figure(result):
    page = wires_page(result, "wires_c")
    assert "![Held-out loss against bytes sent up](wires_c.svg)" in page
    assert page.count("| `drive` |") == 2


def test_a_result_file_of_other_settings_is_refused():
    with pytest.raises(SystemExit, match=r"begun with rounds 6 \(now 7\)"):
        scored_runs.start_result({"settings": {"rounds": 6}}, {"rounds": 7})


@pytest.mark.parametrize("module", [lines_figure, wire_tables, wires], ids=lambda module: module.__name__)
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_the_table_of_the_readme_is_that_of_the_result_files():
    """Megabytes to the same loss of `none`, `int4` and `drive`, as `benchmarks/results/` holds them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for stem, start in (("wires_fed_synth", "| `fed-synth`, "), ("wires_fed_oasst_smollm2", "| `fed-oasst`, ")):
        found = json.loads((ROOT / "benchmarks" / "results" / f"{stem}.json").read_text(encoding="utf-8"))
        (line,) = [line for line in readme.splitlines() if line.startswith(start)]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [row[2] for row in level_rows(found, wire_tables.SHORT)]
        seeds = {run["seed"] for run in found["runs"].values() if run["wire"] in wire_tables.SHORT}
        assert cells[0].endswith(f"{len(seeds)} seeds")
