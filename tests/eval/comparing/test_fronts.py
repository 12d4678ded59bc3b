"""A front by brute force, what is beaten stays out of the others' words, and unknown costs are named."""

import json
import re
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_eval.cli import main
from fedllm_eval.compare import compare_results, write_comparison
from fedllm_eval.comparing.front_words import front_sentences
from fedllm_eval.comparing.fronts import beaten_by, cheaper_ties
from fedllm_eval.comparing.trade_offs import AskedCosts
from fedllm_eval.deciding.stated_lines import Line, StatedPrices
from tests.eval.comparing.conftest import IDS, made_round, made_rounds

POINTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8
)
"""Label -> (score, cost); a point is better than another if its score is higher."""


def _front(points):
    better = {(a, b) for a in points for b in points if points[a][0] > points[b][0]}
    return beaten_by({label: float(cost) for label, (_, cost) in points.items()}, better)


@given(POINTS)
def test_a_front_of_drawn_points_is_that_of_brute_force(points):
    brute = {
        label
        for label, (score, cost) in points.items()
        if not any(other_score > score and other_cost <= cost for other_score, other_cost in points.values())
    }
    assert {label for label, by in _front(points).items() if not by} == brute


@given(POINTS, st.data())
def test_a_beaten_method_more_changes_no_word_on_the_others(points, data):
    one = data.draw(st.sampled_from(sorted(points)))
    score, cost = points[one]
    after = _front(points | {"z": (score - 1, cost)})  # worse than `one` and no cheaper
    before = _front(points)
    assert after.pop("z")
    assert after == before


@given(POINTS, st.randoms())
def test_the_order_of_points_changes_nothing(points, random):
    labels = list(points)
    random.shuffle(labels)
    assert _front({label: points[label] for label in labels}) == _front(points)


def test_what_cannot_be_told_apart_does_not_beat_and_is_said_to_be_cheaper():
    costs = {"none": 663.0, "drive": 23.0, "bad": 700.0}
    better = {("none", "bad"), ("drive", "bad")}
    assert beaten_by(costs, better) == {"none": [], "drive": [], "bad": ["drive", "none"]}
    tested = {frozenset(pair) for pair in permutations(costs, 2)}
    assert cheaper_ties(costs, better, tested) == {"none": ["drive"], "drive": [], "bad": []}
    assert cheaper_ties(costs, better, set())["none"] == []  # what was not tested is not called alike


@pytest.fixture
def losses():
    rng = np.random.default_rng(3)
    base = 1.0 + rng.gamma(4.0, 0.6, len(IDS))
    return {
        "base": base,
        "good": base - 0.5 + rng.normal(0, 0.02, len(IDS)),
        "same": base - 0.5 + rng.normal(0, 0.02, len(IDS)),
        "poor": base - 0.2 + rng.normal(0, 0.02, len(IDS)),
    }


@pytest.fixture
def folders(save_run, losses):
    """`good` sends 12,000 bytes, `same` as good for 600, `poor` the most; the base costs nothing."""
    visits = IDS[:2]
    return {
        "base": save_run("base", losses["base"]),
        "good": save_run("good", losses["good"], made_rounds(made_round(0, visits, down=5_000, up=1_000)), prox_mu=1),
        "same": save_run("same", losses["same"], made_rounds(made_round(0, visits, down=200, up=100)), prox_mu=2),
        "poor": save_run("poor", losses["poor"], made_rounds(made_round(0, visits, down=9_000, up=9_000)), prox_mu=3),
    }


def _item(comparison, cost):
    (found,) = (item for item in comparison["trade_offs"]["fronts"]["items"] if item["cost"] == cost)
    return found


def test_the_front_of_bytes_says_who_is_beaten_by_whom(folders):
    item = _item(compare_results(list(folders.values())), "bytes")
    points = {point["label"]: point for point in item["points"]}
    assert {label: point["cost"] for label, point in points.items()} == {
        "base": 0, "good": 12_000, "same": 600, "poor": 36_000,
    }  # fmt: skip
    assert {label: point["beaten_by"] for label, point in points.items()} == {
        "base": [], "good": [], "same": [], "poor": ["same", "good"],
    }  # fmt: skip
    assert item["sentences"] == [
        "No other method beats base, good and same in held-out loss against bytes sent (test).",
        "poor is beaten by same and good: a better score at no higher cost.",
        "good (12 kB) cannot be told from same in score, which costs less (600 B).",
    ]


def test_a_further_beaten_run_and_the_order_of_runs_change_no_word_on_the_others(folders):
    three = compare_results([folders[name] for name in ("base", "good", "same")], baseline=folders["base"])
    four = compare_results([folders[name] for name in ("poor", "same", "good", "base")], baseline=folders["base"])
    again = compare_results([folders[name] for name in ("good", "base", "poor", "same")], baseline=folders["base"])
    assert four["trade_offs"] == again["trade_offs"]
    before, after = _item(three, "bytes"), _item(four, "bytes")
    kept = ("label", "mean", "ci_low", "ci_high", "cost", "beaten_by", "ties")
    assert [{key: point[key] for key in kept} for point in before["points"]] == [
        {key: point[key] for key in kept} for point in after["points"] if point["label"] != "poor"
    ]
    # The first sentence names who stays; before, nobody was beaten at all.
    assert before["sentences"][0] == "No method beats another in held-out loss against bytes sent (test)."
    assert [one for one in after["sentences"][1:] if not one.startswith("poor is")] == before["sentences"][1:]


def test_an_unknown_cost_is_named_and_its_run_is_missing(save_run, folders, losses):
    lost = save_run("lost", losses["good"], None)
    results = json.loads((lost / "results.json").read_text())
    results["policy"]["adapter_sha256"] = "elsewhere"
    (lost / "results.json").write_text(json.dumps(results))
    comparison = compare_results([*folders.values(), lost])
    item = _item(comparison, "bytes")
    assert item["unknown"] == [{"label": "lost", "reason": "the run folder is not at hand"}]
    assert "Not on this front: lost; the run folder is not at hand." in item["sentences"]
    money = _item(comparison, "money")
    assert {one["label"] for one in money["unknown"]} == {"good", "lost", "poor", "same"}
    assert "Not on this front: good, poor and same; no price is stated." in money["sentences"]
    epsilon = _item(comparison, "epsilon")
    assert "Not on this front: good, poor and same; there is no guarantee of privacy." in epsilon["sentences"]


def test_results_whose_run_is_gone_keep_the_bytes_that_they_recorded(save_run, losses):
    kept = save_run("kept", losses["good"], None)
    results = json.loads((kept / "results.json").read_text())
    results["policy"]["adapter_sha256"] = "elsewhere"
    results["cost"] = {"download_bytes": 70, "upload_bytes": 7, "num_rounds": 3}
    (kept / "results.json").write_text(json.dumps(results))
    comparison = compare_results([save_run("base", losses["base"]), kept])
    assert [point["cost"] for point in _item(comparison, "bytes")["points"]] == [0, 77]
    assert _item(comparison, "hours")["unknown"] == [{"label": "kept", "reason": "the run folder is not at hand"}]


def test_old_runs_without_any_of_the_new_keys_share_the_bytes_of_a_round_and_say_what_is_unknown(save_run, losses):
    record = made_rounds(made_round(0, IDS[:4]))[0]
    for visit in record["clients"]:
        for name in ("seconds", "download_bytes", "upload_bytes"):
            del visit[name]
    comparison = compare_results([save_run("base", losses["base"]), save_run("old", losses["good"], [record])])
    assert _item(comparison, "bytes")["points"][1]["cost"] == 480  # 4 visits of 100 + 20
    assert _item(comparison, "hours")["unknown"] == [{"label": "old", "reason": "the rounds name no time"}]


def test_hours_are_of_the_clock_else_of_training_and_stated_lines_and_different_kinds_are_not_mixed(save_run, losses):
    clocked = made_rounds(made_round(0, IDS[:2], clock_seconds=1800.0), made_round(1, IDS[:2], clock_seconds=7200.0))
    slow = made_round(0, IDS[:2], seconds=36.0, down=1_000_000, up=500_000)
    slow["clients"][1]["seconds"] = 72.0
    base = save_run("base", losses["base"])
    measured = save_run("measured", losses["poor"], made_rounds(slow), prox_mu=1)
    clock = save_run("clock", losses["good"], clocked, prox_mu=2)
    item = _item(compare_results([base, measured, clock]), "hours")
    hours = {point["label"]: (point["cost"], point["hours_from"]) for point in item["points"]}
    assert hours == {"base": (0.0, None), "clock": (2.0, "clock"), "measured": (0.02, "training alone")}
    # `clock` scores better; whether it took longer than `measured` nobody can tell.
    assert all(point["beaten_by"] == [] for point in item["points"])
    assert "Hours are of different kinds" in item["sentences"][-1]
    assert "clock (simulated clock) and measured (measured training alone)" in item["sentences"][-1]
    # 8 Mbit/s down: 1 s; 4 Mbit/s up: 1 s; beside 72 s of the slowest client.
    prices = StatedPrices(default=Line(8.0, 4.0))
    item = _item(compare_results([base, measured], costs=AskedCosts(prices=prices)), "hours")
    assert item["points"][1]["cost"] == pytest.approx(74 / 3600)
    assert item["points"][1]["hours_from"] == "training and stated lines"


def test_money_is_the_sum_of_stated_prices_and_watts_of_the_clients_own_table_count(save_run, losses):
    table = "client_id,watts\nc000,100\nc001,300\n"
    record = made_round(0, IDS[:2], seconds=3600.0, down=2 * 10**9, up=10**9)
    folder = save_run("one", losses["good"], made_rounds(record), table=table)
    prices = StatedPrices(per_gb=0.5, per_hour=2.0, per_kwh=10.0, currency="EUR")
    comparison = compare_results([save_run("base", losses["base"]), folder], costs=AskedCosts(prices=prices))
    # 6 GB at 0.5, two hours at 2, 0.1 + 0.3 kWh at 10.
    assert _item(comparison, "money")["points"][1]["cost"] == pytest.approx(3.0 + 4.0 + 4.0)
    assert "11 EUR" in compare_text(comparison)


def compare_text(comparison):
    """The cells of the front of money."""
    from fedllm_eval.comparing.trade_off_tables import front_section

    section = front_section(_item(comparison, "money"), comparison["trade_offs"]["currency"])
    return " ".join(cell for row in section.rows for cell, _ in row)


def test_epsilon_is_what_the_last_round_had_spent(save_run, losses):
    rounds = made_rounds(
        made_round(0, IDS[:2], privacy={"unit": "client", "epsilon": 3.0, "delta": 1e-5}),
        made_round(1, IDS[:2], privacy={"unit": "client", "epsilon": 5.0, "delta": 1e-5}),
    )
    private = save_run("private", losses["poor"], rounds, privacy={"epsilon": 8.0}, noise_multiplier=1)
    item = _item(compare_results([save_run("base", losses["base"]), private]), "epsilon")
    assert [point["cost"] for point in item["points"]] == [0.0, 5.0]


def test_costs_of_several_seeds_are_a_mean_with_its_range(save_run, losses):
    base = save_run("base", losses["base"])
    seeds = [
        save_run(f"m-s{seed}", losses["good"] + 0.01 * seed, made_rounds(made_round(0, IDS[: 1 + seed])), seed=seed)
        for seed in range(3)
    ]
    item = _item(compare_results([base, *seeds]), "bytes")
    (point,) = (point for point in item["points"] if point["label"] == "m")
    assert (point["cost"], point["cost_low"], point["cost_high"], point["num_seeds"]) == (240, 120, 360, 3)


def test_clients_too_few_to_show_anything_do_not_make_two_methods_alike(save_run, losses):
    base = save_run("base", losses["base"][:4])
    item = _item(
        compare_results([base, save_run("one", losses["good"][:4], made_rounds(made_round(0, IDS[:2])))]), "bytes"
    )
    assert [(point["beaten_by"], point["ties"]) for point in item["points"]] == [([], []), ([], [])]
    assert "Too few clients were scored for any difference to be shown." in item["sentences"]


def test_sentences_of_fronts_that_tell_nothing():
    front = {"score": "heldout_loss", "split": "test", "cost": "money", "is_tested": False, "points": []}
    (only,) = front_sentences(front | {"unknown": []})
    assert only == "held-out loss against money (test): this cost is known of no method."


def test_the_command_writes_figures_with_both_axes_labelled_and_says_the_fronts(folders, tmp_path, capsys):
    out = tmp_path / "comparison"
    places = [str(folder) for folder in folders.values()]
    assert main(["compare", *places, "--out", str(out), "--price-per-gb", "0.09", "--currency", "EUR"]) == 0
    printed = capsys.readouterr().out
    assert "front: No other method beats base, good and same in held-out loss against bytes sent (test)." in printed
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        "front-test-bytes.svg", "front-test-hours.svg", "front-test-money.svg",
    ]  # fmt: skip
    svg = (out / "figures" / "front-test-bytes.svg").read_text()
    assert ">bytes sent<" in svg
    assert ">held-out loss<" in svg
    assert ">(nats per token; lower is better)<" in svg
    assert ">100 B<" in svg  # powers of ten: the bytes span more than a decade
    assert ">money (EUR)<" in (out / "figures" / "front-test-money.svg").read_text()
    # Four methods have four forms of marker: `defs` holds a path for each.
    assert len(set(re.findall(r'<use [^>]*?(#[\w-]+)"', svg))) >= 4
    text = (out / "comparison.md").read_text()
    assert "![held-out loss against bytes sent, test clients](figures/front-test-bytes.svg)" in text
    assert "| beaten by same and good |" in text
    page = (out / "comparison.html").read_text()
    assert "drawn-front-test-bytes" in page
    assert "保留" not in page


def test_a_comparison_is_written_again_over_its_figures(folders, tmp_path):
    comparison = compare_results(list(folders.values()))
    for _ in range(2):
        write_comparison(comparison, tmp_path / "out")
    assert (tmp_path / "out" / "figures").is_dir()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "bytes=20XB"], "the limit of bytes is '20XB'; give a size such as 20MB"),
        (["--budget", "byte=20"], "no cost 'byte'; did you mean bytes?"),
        (["--budget", "bytes=1,bytes=2"], "limits bytes twice"),
        (["--budget", "bytes"], "is not of the form COST=LIMIT"),
        (["--budget", "hours=-1"], "the limit of hours is '-1'"),
        (["--target", "heldout_los=1"], "no score 'heldout_los'; did you mean heldout_loss?"),
        (["--target", "heldout_loss=low"], "'low' is no number"),
        (["--target", "ranking_accuracy=0.5"], "which none of these results has"),
        (["--watts", "-1"], "--watts is -1.0; give a positive number"),
        (["--upload-mbit", "5"], "belong together"),
    ],
)
def test_a_question_that_makes_no_sense_is_one_line(folders, capsys, flags, message):
    assert main(["compare", str(folders["base"]), str(folders["good"]), *flags]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
