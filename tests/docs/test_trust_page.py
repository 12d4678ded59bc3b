"""`docs/trust.md` says what the result files say, and its tables follow from cells alone."""

import doctest
import json

import pytest

from benchmarks import kept_cells, trust_tables, write_readme
from benchmarks.kept_cells import locked_result
from benchmarks.trust_tables import attack_rows, audit_rows, leak_rows


def test_the_page_is_what_the_template_makes_of_the_result_files():
    assert write_readme.TRUST.read_text(encoding="utf-8") == write_readme.trust_text(), (
        "run `python -m benchmarks.write_readme`"
    )


def test_every_result_file_of_trust_is_named_on_the_page():
    text = write_readme.trust_text()
    for name in write_readme.result_names("trust_") + write_readme.result_names("audit_epsilon"):
        assert f"(../benchmarks/results/{name}.json)" in text


def cell(epsilon, seed, loss, found):
    scores = {split: {"mean": loss} for split in ("test", "unseen")}
    coins = {"epsilon": found, "largest_epsilon": 2.0}
    noise = None if epsilon == "none" else float(seed + 1)
    kept = {"method": "fedavg", "unit": "client", "epsilon": epsilon, "seed": seed, "scores": scores, "coins": coins}
    return kept | {"num_values": 10, "noise_multiplier": noise, "auc": {"auc": 0.5}, "claims": {}}


def test_rows_are_means_over_seeds_from_no_privacy_to_the_strongest():
    cells = [cell("1", 0, 3.0, 0.0), cell("none", 0, 1.0, 0.5), cell("8", 0, 2.0, 0.0), cell("8", 1, 2.5, 0.25)]
    runs = {str(number): each for number, each in enumerate(cells)} | {"base": {"method": "base"}}
    rows = leak_rows({"runs": runs}, "client")
    assert [row[1] for row in rows] == ["none", "8", "1"]
    # (2.0 + 2.5) / 2; noise (1 + 2) / 2; the most that was found in any seed.
    # Student's interval: 2.25 +- 12.706 * 0.3536 / sqrt(2).
    loss = "2.250 [-0.926, 5.426]"
    assert rows[1][3:] == ["1.50", loss, loss, "0.50", "0.25", "2.00", "2"]
    assert rows[0][3] == "–"
    assert leak_rows({"runs": runs}, "example") == []


def attacked(defence, attack, loss, **more):
    return {"defence": defence, "attack": attack, "seed": 0, "scores": {"test": {"mean": loss}}} | more


def test_the_share_of_the_gain_that_an_attack_takes():
    cells = [attacked("none", "none", 2.0), attacked("none", "sign_flip", 5.0), attacked("median", "sign_flip", 2.5)]
    cells += [attacked("median", "backdoor", 2.0, with_trigger=0.75, without_trigger=0.0, num_questions=20)]
    runs = {str(number): each for number, each in enumerate(cells)}
    rows = attack_rows({"runs": runs | {"base": attacked("base", "none", 4.0)}})
    # The gain is 4 - 2 = 2; the attack makes the loss 5, so 3 of 2 are lost, and the median loses 0.5 of 2.
    assert [row[3] for row in rows] == ["0%", "150%", "25%", "0%"]
    assert rows[3][4:6] == ["75% [53%, 89%]", "0% [0%, 16%]"]  # Wilson's intervals
    assert [row[3] for row in attack_rows({"runs": runs})] == ["–"] * 4


def test_bounds_above_the_claim_are_counted():
    found = [{"arm": "poisson", "claimed": 2.0, "one_run": value, "gaussian": None} for value in (0.5, 1.5, 2.5)]
    (row,) = audit_rows({"runs": dict(enumerate(found))})
    assert row[1:] == ["3", "2.00", "1.50", "2.50", "1", "–", "–", "–"]


def test_a_finished_cell_is_not_made_again_and_one_that_failed_is(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_cells, "RESULTS", tmp_path)
    monkeypatch.setattr(kept_cells, "write_result", lambda stem, result: write(tmp_path, stem, result))
    with pytest.raises(InterruptedError), kept_cells.kept_cells("r", {"a": 1}, "one"):
        raise InterruptedError
    with kept_cells.kept_cells("r", {"a": 1}, "one") as made:
        made["value"] = 3
    with kept_cells.kept_cells("r", {"a": 1}, "one") as again:
        assert again is None
    with locked_result("r") as result:
        assert result["runs"] == {"one": {"value": 3}}
    with pytest.raises(SystemExit, match="begun with a 1"), kept_cells.kept_cells("r", {"a": 2}, "two"):
        pass


def write(folder, stem, result):
    (folder / f"{stem}.json").write_text(json.dumps(result))


@pytest.mark.parametrize("module", [trust_tables, kept_cells], ids=lambda module: module.__name__)
def test_examples_of_the_tables_hold(module):
    assert doctest.testmod(module).failed == 0
