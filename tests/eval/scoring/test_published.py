"""Stored judgments of others whose published scores must come out again; needs the real files."""

import csv
import json

import pytest

from fedllm_eval.scoring.length_controlled import length_controlled_win_rate
from fedllm_eval.scoring.ratings import parse_rating
from fedllm_eval.scoring.win_rate import win_rate

pytestmark = pytest.mark.slow

LEADERBOARDS = {"v1": "leaderboard_v1.csv", "v2": "leaderboard_v2_weighted.csv"}


def preferences(stored):
    """AlpacaEval's `preference` (1 baseline, 2 model, 0 or 1.5 a tie, null none) -> preference for the model."""
    return [None if value is None else (1.5 if value == 0 else value) - 1 for value in stored]


def published(folder, version):
    """(model, annotations, row of the leaderboard) of every stored model."""
    with (folder / LEADERBOARDS[version]).open(encoding="utf-8") as file:
        rows = {row[""]: row for row in csv.DictReader(file)}
    files = sorted((folder / version).glob("*/annotations.json"))
    return [(path.parent.name, json.loads(path.read_text(encoding="utf-8")), rows[path.parent.name]) for path in files]


@pytest.mark.parametrize(("version", "num_models"), [("v1", 6), ("v2", 5)])
def test_alpaca_eval_win_rates(shared_data, version, num_models):
    models = published(shared_data / "eval" / "alpaca_eval", version)
    assert len(models) == num_models
    for model, annotations, row in models:
        result = win_rate(preferences([item["preference"] for item in annotations]))
        assert 100 * result.win_rate == pytest.approx(float(row["win_rate"]), abs=0.01), model
        assert 100 * result.standard_error == pytest.approx(float(row["standard_error"]), abs=0.01), model
        assert result.num_items == int(row["n_total"]), model
        assert result.low < result.win_rate < result.high


def test_our_length_control_against_the_leaderboards(shared_data):
    """What the docstring says of the distance; the two are different estimates."""
    gaps, gaps_within = [], []
    for version in LEADERBOARDS:
        for _, annotations, row in published(shared_data / "eval" / "alpaca_eval", version):
            result = length_controlled_win_rate(
                preferences([item["preference"] for item in annotations]),
                [len(item["output_2"]) for item in annotations],
                [len(item["output_1"]) for item in annotations],
            )
            gaps.append(abs(100 * result.win_rate - float(row["length_controlled_winrate"])))
            if 0.04 <= result.longer_fraction <= 0.96:
                gaps_within.append(gaps[-1])
    assert len(gaps) == 11
    assert max(gaps) < 8.4
    assert len(gaps_within) == 7
    assert max(gaps_within) < 4


def test_mt_bench_judgments_all_parse_and_average_as_published(shared_data):
    path = shared_data / "eval" / "mt_bench_judged" / "gpt-4_single.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 800
    ratings = [parse_rating(row["judgment"]) for row in rows]
    assert all(rating.failure is None for rating in ratings)
    assert [rating.value for rating in ratings] == [row["score"] for row in rows]
