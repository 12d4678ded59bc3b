"""The length-controlled win rate: its identities, an independent fit, coverage of its interval."""

import math

import numpy as np
import pytest
from scipy import optimize, special

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.length_controlled import length_controlled_win_rate
from fedllm_eval.scoring.win_rate import win_rate


def made_up(num_items=400, theta=0.4, phi=1.5, shift=300.0, seed=0):
    """Preferences drawn from the model, candidates longer on average by `shift`."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(800, 1200, num_items)
    candidate = base + rng.normal(shift, 250, num_items).clip(-700)
    d = candidate - base
    p = rng.random(num_items) < special.expit(theta + phi * np.tanh(d / d.std(ddof=1)))
    return p.astype(float), candidate, base


def test_equal_lengths_give_the_plain_win_rate():
    p = [1, 0.3, 0.5, 0, 1, None]
    result = length_controlled_win_rate(p, [10, 20, 30, 40, 50, 60], [10, 20, 30, 40, 50, 60])
    assert result.win_rate == pytest.approx(win_rate(p).win_rate, abs=1e-12)
    assert result.plain_win_rate == win_rate(p).win_rate
    assert (result.length_effect, result.longer_fraction, result.num_missing) == (0.0, 0.0, 1)
    # One length difference for all says nothing about length either.
    constant = length_controlled_win_rate(p, [15] * 6, [10] * 6)
    assert constant.win_rate == pytest.approx(result.win_rate, abs=1e-12)


def test_a_judge_who_goes_by_length_alone_gives_one_half():
    rng = np.random.default_rng(1)
    d = rng.normal(size=2_000)
    sure = length_controlled_win_rate((d > 0).astype(float), 100 + 10 * d.clip(0), 100 + 10 * (-d).clip(0))
    assert sure.win_rate == pytest.approx(0.5, abs=0.02)
    # Candidates longer in 84 % of the items win 84 %; as soft preferences the model is exact.
    d = rng.normal(1.0, 1.0, 2_000)
    soft = special.expit(2.0 * np.tanh(d / d.std(ddof=1)))
    result = length_controlled_win_rate(soft, 1000 + 100 * d, np.full(2_000, 1000.0), ridge=1e-9)
    assert result.plain_win_rate > 0.7
    assert result.win_rate == pytest.approx(0.5, abs=1e-9)
    assert result.length_effect == pytest.approx(2.0, abs=1e-6)
    # The default prior on phi moves it a little.
    assert length_controlled_win_rate(soft, 1000 + 100 * d, [1000.0] * 2_000).win_rate == pytest.approx(0.5, abs=0.01)


def test_the_fit_is_the_optimum_another_method_finds():
    p, candidate, base = made_up()
    x = np.tanh((candidate - base) / (candidate - base).std(ddof=1))

    def objective(beta):
        eta = beta[0] + beta[1] * x
        return -(p * special.log_expit(eta) + (1 - p) * special.log_expit(-eta)).sum() + beta[1] ** 2 / 2

    found = optimize.minimize(objective, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    result = length_controlled_win_rate(p, candidate, base)
    assert result.win_rate == pytest.approx(special.expit(found.x[0]), abs=1e-6)
    assert result.length_effect == pytest.approx(found.x[1], abs=1e-6)


def test_swapping_sides_and_order_of_items():
    p, candidate, base = made_up()
    one, other = length_controlled_win_rate(p, candidate, base), length_controlled_win_rate(1 - p, base, candidate)
    assert (one.win_rate, one.low, one.high) == pytest.approx((1 - other.win_rate, 1 - other.high, 1 - other.low))
    order = np.random.default_rng(0).permutation(len(p))
    shuffled = length_controlled_win_rate(p[order], candidate[order], base[order])
    assert shuffled.win_rate == pytest.approx(one.win_rate, abs=1e-10)


def test_the_interval_covers_the_truth():
    # 400 data sets whose truth is sigmoid(.4); at 95 % the count is 380 with standard deviation 4.4.
    truth = special.expit(0.4)
    results = [length_controlled_win_rate(*made_up(seed=seed)) for seed in range(400)]
    assert 0.92 <= np.mean([result.low <= truth <= result.high for result in results]) <= 0.98
    # The plain rate is off by what length adds.
    assert np.mean([result.plain_win_rate for result in results]) > truth + 0.1


def test_nothing_to_go_by():
    nothing = length_controlled_win_rate([None], [3], [4])
    assert math.isnan(nothing.win_rate)
    assert nothing.num_missing == 1
    always = length_controlled_win_rate([1, 1, 1], [9, 8, 7], [1, 2, 3])
    assert (always.win_rate, always.high) == (1.0, 1.0)
    assert always.low < 0.5
    single = length_controlled_win_rate([0.5], [9], [1])
    assert single.high - single.low > 0.8


def test_inputs_that_do_not_fit():
    with pytest.raises(MetricError, match="2 preferences need 2 lengths"):
        length_controlled_win_rate([1, 0], [1], [1])
    with pytest.raises(MetricError, match="lengths of 0 or more"):
        length_controlled_win_rate([1], [-1], [1])
    with pytest.raises(MetricError, match="must be positive"):
        length_controlled_win_rate([1], [1], [1], ridge=0)
    with pytest.raises(MetricError, match="at least one item"):
        length_controlled_win_rate([], [], [])


def test_card_and_page_say_how_far_it_lies_from_the_leaderboard():
    from fedllm_eval.metrics import METRIC_FOLDERS
    from fedllm_eval.reporting.run_sections import suites_section
    from fedllm_eval.scoring.length_controlled import DISTANCE

    card = (METRIC_FOLDERS["win_rate"] / "README.md").read_text(encoding="utf-8")
    score = {"name": "pairwise/length_controlled_win_rate", "value": 0.5, "low": 0.4, "high": 0.6, "num_items": 9}
    record = {"scores": [{**score, "unit": "u", "higher_is_better": True}], "settings": {}, "notes": []}
    (note,) = suites_section({"suites": {"pairwise": {"policy": record}}}).notes
    assert DISTANCE in note
    for text in (card, note):
        assert all(figure in text for figure in ("53", "5.3", "17.8", "5.2"))
