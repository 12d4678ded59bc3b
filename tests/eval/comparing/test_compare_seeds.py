"""Seeds of one method, gates, the history, rows, and what the page may hold."""

import json
import re
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.cli import main
from fedllm_eval.compare import compare_results, write_comparison
from fedllm_eval.comparing.comparison_page import render_page
from fedllm_eval.comparing.history import append_history, history_line, read_history
from fedllm_eval.comparing.release_gate import gate, parse_margins
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.reporting.unnamed import without_clients
from fedllm_eval.running.assemble import make_results
from fedllm_eval.scores import ClientScores
from fedllm_eval.scoring.intervals import mean_interval

IDS = [f"c{i:03}" for i in range(30)]


@pytest.fixture
def save(tmp_path):
    """Write a results folder of held-out losses, and the run folder it names; return the results folder."""

    def write(name, losses, *, strategy="fedavg", seed=None, adapter=None, rows=None):
        run = tmp_path / "runs" / name
        if seed is not None:
            run.mkdir(parents=True)
            text = f"task: sft\nfederated:\n  strategy: {strategy}\n  seed: {seed}\nclient:\n  seed: {seed}\n"
            (run / "config.yaml").write_text(text)
        num = len(losses)
        digest = None if adapter == "" or (adapter is None and seed is None) else adapter or name
        columns = {
            "client_id": IDS[:num],
            "split": ["test"] * num,
            **{column: pa.array([4] * num, pa.int64()) for column in ("num_rows", "num_tokens")},
            **{column: pa.array([0] * num, pa.int64()) for column in ("num_skipped", "num_truncated")},
            "heldout_loss": pa.array(losses, pa.float64()),
        }
        scores = ClientScores(
            task="sft",
            split="test",
            table=pa.table(columns),
            policy={"name": str(run), "adapter_sha256": digest},
            reference=None,
            dataset={"name": "memory", "revision": "abc", "num_clients": num, "num_rows": 4 * num},
            settings={"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0},
        )
        write_results(make_results([scores]), tmp_path / name)
        if rows is not None:
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / "per_row.parquet")
        return tmp_path / name

    return write


@pytest.fixture
def losses():
    rng = np.random.default_rng(0)
    base = rng.gamma(4.0, 0.6, 30)
    return {
        "base": base,
        **{f"fedavg-s{s}": base - 0.3 + 0.02 * s + rng.normal(0, 0.05, 30) for s in range(3)},
        **{f"fedprox-s{s}": base - 0.2 - 0.02 * s + rng.normal(0, 0.05, 30) for s in range(3)},
    }


@pytest.fixture
def folders(save, losses):
    made = [save("base", losses["base"])]
    for strategy in ("fedavg", "fedprox"):
        made += [save(f"{strategy}-s{s}", losses[f"{strategy}-s{s}"], strategy=strategy, seed=s) for s in range(3)]
    return made


def test_seeds_of_one_configuration_are_one_method(folders, losses):
    comparison = compare_results(folders)
    assert [other["label"] for other in comparison["others"]] == ["fedavg", "fedprox"]
    item = comparison["comparisons"][0]
    mean = np.mean([losses[f"fedavg-s{s}"] for s in range(3)], axis=0)
    assert item["difference"] == pytest.approx((mean - losses["base"]).mean())
    assert (item["num_seeds"], item["covers_seeds"], item["outcome"]) == ([1, 3], True, "better")
    assert item["p_holm"] >= item["p_value"]
    assert comparison["caveats"] == []


def test_the_order_of_folders_but_for_the_first_changes_no_number(folders):
    there, back = compare_results(folders), compare_results([folders[0], *folders[:0:-1]])
    key = lambda item: item["other"]  # noqa: E731
    assert sorted(there["comparisons"], key=key) == sorted(back["comparisons"], key=key)


def test_paired_seeds_and_another_baseline(folders, losses):
    comparison = compare_results(folders[4:], baseline=folders[1])
    assert comparison["baseline"]["label"] == "fedavg-s0"
    assert compare_results([*folders[4:], folders[1]], baseline=folders[1]) == comparison
    comparison = compare_results(
        [f"a={folder}" for folder in folders[1:4]] + [f"b={folder}" for folder in folders[4:]]
    )
    (item,) = comparison["comparisons"]
    assert (comparison["baseline"]["label"], item["other"], item["num_seeds"]) == ("a", "b", [3, 3])


def test_one_seed_of_a_trained_method_is_said_to_be_one(folders):
    caveats = compare_results([folders[0], folders[1]])["caveats"]
    assert len(caveats) == 1
    assert caveats[0].startswith("fedavg-s0 against base: one seed each")


def test_one_method_alone_or_one_run_twice_is_refused(save, folders, losses):
    with pytest.raises(MetricError, match="seeds of one method"):
        compare_results(folders[1:4])
    with pytest.raises(MetricError, match="given twice"):
        compare_results([folders[0], folders[0]])
    again = save("again", losses["fedavg-s0"], seed=0, adapter="fedavg-s1")
    with pytest.raises(MetricError, match="the same adapter"):
        compare_results([folders[0], folders[2], again])


def test_rows_add_a_second_level(save, losses):
    rng = np.random.default_rng(1)
    sides = {}
    for name in ("one", "two"):
        values = rng.normal(2.0 if name == "one" else 1.5, 0.5, (30, 4))
        rows = [
            {"split": "test", "client_id": c, "row_id": f"{c}-{r}", "num_tokens": 1, "heldout_loss": values[i, r]}
            for i, c in enumerate(IDS)
            for r in range(4)
        ]
        sides[name] = save(name, values.mean(axis=1), rows=rows), save(f"{name}-bare", values.mean(axis=1))
    (two_levels,) = compare_results([sides["one"][0], sides["two"][0]])["comparisons"]
    (one_level,) = compare_results([sides["one"][1], sides["two"][1]])["comparisons"]
    assert (two_levels["levels"], one_level["levels"]) == (["client", "row"], ["client"])
    assert two_levels["difference"] == pytest.approx(one_level["difference"])
    widths = [item["ci_high"] - item["ci_low"] for item in (one_level, two_levels)]
    # All spread here is that of rows, so the second level counts it nearly twice: sqrt(1 + 3/4).
    assert 1.15 < widths[1] / widths[0] < 1.5


def item(low, high, *, higher_is_better=False, score="heldout_loss"):
    middle, half = (low + high) / 2, (high - low) / 2

    def bounds(confidence):
        assert confidence >= 0.9
        return middle - half, middle + half

    about = {
        "score": score,
        "split": "test",
        "other": "new",
        "higher_is_better": higher_is_better,
        "difference": middle,
    }
    return about, bounds


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "outcome"),
    [
        (0.11, 0.20, False, "worse"),
        (0.05, 0.20, False, "cannot tell"),
        (-0.1, 0.09, False, "within"),
        (-0.20, -0.11, True, "worse"),
        (0.11, 0.20, True, "within"),
        (float("nan"), float("nan"), True, "cannot tell"),
    ],
)
def test_the_gate_stops_what_is_surely_beyond_the_margin(low, high, higher_is_better, outcome):
    result = gate([item(low, high, higher_is_better=higher_is_better)], {"heldout_loss": 0.1})
    assert result["checks"][0]["outcome"] == outcome
    assert result["passed"] == (outcome != "worse")


def test_a_margin_is_not_passed_by_rounding():
    # All clients lose 0.32 - 0.30, which is 0.020000000000000018; a real step beyond is still stopped.
    exact = 0.32 - 0.30
    assert exact > 0.02
    assert gate([item(exact, exact)], {"heldout_loss": 0.02})["checks"][0]["outcome"] == "within"
    assert gate([item(0.0201, 0.0201)], {"heldout_loss": 0.02})["checks"][0]["outcome"] == "worse"


def test_gating_more_scores_asks_for_more_confidence():
    asked = []

    def bounds(confidence):
        asked.append(confidence)
        return 0.0, 0.0

    one = (item(0, 0)[0], bounds)
    gate([one], {"heldout_loss": 0.1})
    gate([one] * 5, {"heldout_loss": 0.1})
    # One-sided 5 % is a two-sided 90 %; shared by five checks 1 % each, 98 %.
    assert asked == pytest.approx([0.9] + [0.98] * 5)


def bounds_of(d_K, confidence):
    interval = mean_interval(d_K, confidence=confidence)
    return interval.low, interval.high


def test_the_gate_stops_good_releases_in_at_most_one_of_twenty():
    stopped = 0
    for draw in range(400):
        rng = np.random.default_rng(draw)
        # Five scores, each exactly as much worse as the margin allows.
        checks = []
        for score in range(5):
            d_K = rng.normal(0.1, 0.3, 25)
            checks.append((item(0, 0, score=str(score))[0], partial(bounds_of, d_K)))
        stopped += not gate(checks, {str(score): 0.1 for score in range(5)})["passed"]
    # 5 % of 400 are 20; three standard errors are 13.
    assert stopped <= 33


@pytest.mark.parametrize("text", ["", "x", "-0.1", "nan", "inf", "other=0.1"])
def test_margins_that_make_no_sense_are_refused(text):
    with pytest.raises(MetricError, match="margin"):
        parse_margins([text], ["heldout_loss"])


def test_nothing_gated_is_an_error():
    with pytest.raises(MetricError, match="no score is gated"):
        gate([item(0, 1)], {})


def test_exit_codes_and_the_history(folders, tmp_path, capsys):
    history, out = tmp_path / "history" / "h.jsonl", tmp_path / "out"
    base, *rest = map(str, folders)
    options = ["--baseline", base, "--margin", "0.05", "--history", str(history), "--out", str(out)]
    assert main(["compare", *rest, *options]) == 0
    assert "Passed" in capsys.readouterr().out
    # The base model against what was trained: worse by .25 nats, far beyond .05.
    worse = ["compare", base, "--baseline", rest[0], "--margin", "heldout_loss=0.05", "--history", str(history)]
    assert main([*worse, "--out", str(out), "--json"]) == 1
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["gate"]["verdict"].startswith("Stopped: 1 of 1")
    assert [line["passed"] for line in read_history(history)] == [True, False]
    assert len(comparison["history"]) == 2
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "2 so far" in page
    assert "the gate stopped" in page
    assert main(["compare", base, "--baseline", str(tmp_path / "nothing")]) == 2
    assert main(["compare", base, rest[0], "--margin", "much"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    # Nothing was added by what failed.
    assert len(read_history(history)) == 2


def test_a_broken_history_is_refused_and_stays(folders, tmp_path):
    path = tmp_path / "h.jsonl"
    line = history_line(compare_results(folders[:2]), datetime(2026, 1, 2, tzinfo=UTC))
    append_history(path, line)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    with pytest.raises(ConfigError, match="line 2 is no line"):
        compare_results(folders[:2], history=path)
    with pytest.raises(ConfigError, match="half a line"):
        append_history(path, line)
    assert path.read_bytes() == whole + whole[:40]
    assert read_history(tmp_path / "none.jsonl") == []


def test_the_page_escapes_all_text_and_loads_nothing(save, losses, tmp_path):
    evil = '<img src onerror>&"quoted"'
    one, two = save("one", losses["base"]), save("two", losses["fedavg-s0"])
    comparison = compare_results([f"{evil}={one}", f"b\u202ec={two}"], margins=["0.1"], history=tmp_path / "h.jsonl")
    write_comparison(comparison, tmp_path / "out")
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "\u202e" not in page
    assert page.count("<script") == 1  # the one that chooses the language
    # The one thing a page leads to is another page beside it, by a relative link.
    own = re.sub(r'href="[^":]*results\.html"', "", page)
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)|url\((?!#)|@import|https?://""", own)
    links = {str(place): f"../{place.name}/results.html" for place in (one, two)}
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert render_page(comparison, links=links) == page
    assert all((tmp_path / "out" / link).is_file() for link in links.values())


def test_the_page_names_the_ten_clients_that_are_served_worst(save, losses, tmp_path):
    comparison = compare_results([save("one", losses["base"]), save("two", losses["fedavg-s0"])])
    named = comparison["worst_served"][0]
    now = [client["now"] for client in named["clients"]]
    assert len(now) == min(10, named["num_clients"])
    assert now == sorted(now, reverse=True)  # the highest losses, the highest first
    page = render_page(comparison, "en")
    first = page.partition('<section id="numbers"')[0]
    assert all(f"<bdi>{client['client_id']}</bdi>" in first for client in named["clients"])
    # A summary that anybody may see names nobody.
    assert "worst_served" not in without_clients(comparison)


def test_a_single_client_still_makes_a_page(save, tmp_path):
    comparison = compare_results(
        [save("one", [1.0]), save("two", [2.0])], margins=["0.1"], history=tmp_path / "h.jsonl"
    )
    assert "no interval" in render_page(comparison)
    assert comparison["gate"]["checks"][0]["outcome"] == "cannot tell"


def test_a_run_that_trained_all_weights_is_no_base(save, losses):
    # It has no adapter, but a configuration with a seed: another seed would have trained another model.
    comparison = compare_results([save("base", losses["base"]), save("full", losses["fedavg-s0"], seed=0, adapter="")])
    (item,) = comparison["comparisons"]
    assert not item["covers_seeds"]
    assert item["outcome"] == "better run"


def test_one_seed_beside_several_is_said_to_be_unknown(folders):
    comparison = compare_results([folders[4], *folders[1:4]])
    (item,) = comparison["comparisons"]
    assert (item["num_seeds"], item["covers_seeds"]) == ([1, 3], False)
    (caveat,) = comparison["caveats"]
    assert "fedprox-s0 has one seed, so how much it varies between seeds is not known" in caveat
    assert " is better" not in item["verdict"]
