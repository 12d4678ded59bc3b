import numpy as np
import pytest

from fedllm_data.heterogeneity.null import count_sampler, holm, one_sided_p, percentile_interval


@pytest.mark.parametrize("sizes", [[3, 7, 5], [400, 900, 5]], ids=["row by row", "multinomial"])
def test_draws_have_the_clients_sizes_and_the_pools_mix(sizes):
    pooled = np.array([10, 0, 30])
    draw = count_sampler(np.array(sizes), pooled)
    rng = np.random.default_rng(0)
    draws = np.array([draw(rng) for _ in range(3000)])
    assert (draws.sum(axis=2) == sizes).all()
    assert (draws[:, :, 1] == 0).all()
    share = draws[:, :, 0] / np.array(sizes)
    assert share.mean(axis=0) == pytest.approx([0.25] * 3, abs=0.02)
    assert share.std(axis=0) == pytest.approx(np.sqrt(0.25 * 0.75 / np.array(sizes)), rel=0.1)


def test_p_counts_the_observed_clients_among_the_draws():
    null = np.array([1.0, 2.0, 3.0, 4.0])
    assert one_sided_p(5.0, null, unequal="high") == pytest.approx(1 / 5)
    assert one_sided_p(3.0, null, unequal="high") == pytest.approx(3 / 5)  # 3 and 4, and the observed value
    assert one_sided_p(3.0, null, unequal="low") == pytest.approx(4 / 5)
    assert one_sided_p(0.0, null, unequal="high") == 1.0


def test_a_null_without_spread_is_a_tie_despite_rounding():
    assert one_sided_p(1.0 + 1e-16, np.ones(9), unequal="high") == 1.0
    assert one_sided_p(1.0, np.full(9, 1.0 - 1e-15), unequal="high") == 1.0


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 gives 0.04, 0.06, 0.06, 0.5, made increasing.
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_interval_of_a_known_distribution():
    assert percentile_interval(np.arange(1001.0), 0.95) == pytest.approx((25, 975))
