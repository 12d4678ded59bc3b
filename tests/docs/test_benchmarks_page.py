"""`benchmarks/README.md` says what the result files say: it is made from them, and no script is left out."""

import doctest
import re

import pytest

from benchmarks import codec_tables, result_tables, write_readme
from benchmarks.result_tables import RESULTS, corpora_rows, engine_rows, method_rows, quickstart_rows, read_result

FOLDER = RESULTS.parent
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_template_makes_of_the_result_files():
    assert write_readme.readme_text() == PAGE, "run `python -m benchmarks.write_readme`"


def test_a_figure_that_moves_moves_on_the_page(monkeypatch):
    read = result_tables.read_result

    def moved(name):
        result = read(name)
        if name == "sft_kernel":
            result["ratio"] = 7.77
        return result

    monkeypatch.setattr(result_tables, "read_result", moved)
    assert "takes 7.77 times as long a step" in write_readme.readme_text()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_every_script_is_named(path):
    assert f"`{path.name}`" in PAGE


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_every_result_file_is_shown(path):
    by_a_table = {"null_calibration": "null_calibration.md"} | {
        f"methods_{corpus}": "methods.md"
        for corpus in ("fed_synth", "fed_synth_newer", "fed_oasst", "fed_oasst_smollm2")
    }
    assert f"(results/{path.name})" in PAGE or f"(results/{by_a_table[path.stem]})" in PAGE


def test_the_ways_to_run_name_files_that_are_there():
    named = re.findall(r"python benchmarks/(\w+\.py)", PAGE)
    assert len(named) > 15
    assert all((FOLDER / name).is_file() for name in named)


OF_ROWS = "clients with too few rows|duplicates within a client|pairs of equal answers|prompts of unseen clients"


def test_what_a_preset_leaves_out_of_the_valid_rows_adds_up():
    corpora = read_result("real_corpora")["corpora"]
    for row in corpora_rows({"corpora": corpora}):
        preset = corpora[row[0].strip("`")]["preset"]
        reasons = [reason for reason in row[3].split("; ") if re.match(OF_ROWS, reason)]
        left_out = sum(int(re.search(r"\(([\d,]+)\)", reason)[1].replace(",", "")) for reason in reasons)
        assert preset["counts"]["num_valid"] - left_out == preset["num_rows"], row


def test_a_seed_is_a_row_with_both_claims_on_both_splits():
    items = [
        {"seed": 3, "score": score, "split": split, "difference": value, "ci_low": value - 1, "ci_high": value + 1}
        for score, split, value in (
            ("heldout_loss", "test", -2.0),
            ("heldout_loss", "unseen", -1.0),
            ("ranking_accuracy", "test", 0.5),
            ("ranking_accuracy", "unseen", 0.25),
        )
    ]
    assert quickstart_rows({"results": items}) == [
        [
            "3",
            "-2.00 [-3.00, -1.00]",
            "-1.00 [-2.00, +0.00]",
            "+0.500 [-0.500, +1.500]",
            "+0.250 [-0.750, +1.250]",
        ]
    ]


def test_engines_are_shown_once_and_ours_with_both_kernels():
    names = [row[0] for row in engine_rows(read_result("engine_rounds"))]
    assert len(names) == len(set(names))
    assert [name for name in names if name.startswith("ours")] == ["ours, TRL's kernel", "ours, plain kernel"]


def test_methods_are_paired_with_their_own_scores():
    for row in method_rows(read_result("methods_fed_oasst")):
        assert row["own"]["other"] == row["unseen"]["other"] == row["method"]
        assert (row["own"]["split"], row["unseen"]["split"]) == ("test", "unseen")


@pytest.mark.parametrize("module", [codec_tables, result_tables, write_readme], ids=lambda module: module.__name__)
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_the_page_names_no_folder_of_a_machine():
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users)/", PAGE)
