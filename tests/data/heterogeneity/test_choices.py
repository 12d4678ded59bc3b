import numpy as np
import pytest

from fedllm_data.heterogeneity.choices import (
    EDGES,
    LOG_RATIO_B,
    choice_labels,
    choice_sampler,
    length_labels,
    read_labels,
)
from fedllm_data.heterogeneity.profile import CountTable


def test_a_bin_holds_ratios_up_to_its_upper_edge_and_the_last_all_others():
    # Twice as long is the top of bin 3, (2^0.75, 2]; 2^6 the top of bin 23; above, bin 24.
    assert length_labels([20, 21, 640, 641, 10**9], [10] * 5) == ["+03", "+04", "+23", "+24", "+24"]
    assert length_labels([10] * 2, [20, 21]) == ["-03", "-04"]


def test_an_empty_answer_counts_as_one_token():
    assert length_labels([0, 0, 1], [0, 1, 0]) == ["=", "=", "="]


@pytest.mark.parametrize("seed", range(3))
def test_bins_stand_for_the_log_ratio_to_an_eighth_of_a_doubling(seed):
    rng = np.random.default_rng(seed)
    chosen, rejected = rng.integers(13, 800, (2, 200))  # ratios below 2^6
    for label, exact in zip(length_labels(chosen, rejected), np.log(chosen / rejected), strict=True):
        middle = 0.0 if label == "=" else LOG_RATIO_B[int(label[1:])] * (1 if label[0] == "+" else -1)
        assert middle == pytest.approx(exact, abs=np.log(2) / 8 + 1e-12)
    assert EDGES[0] == 1


def test_only_two_different_known_models_are_named():
    models = (["a", "a", None, "", "x>y"], ["b", "a", "b", "b", "a"])
    wanted = ["a>b:+", ">:+03", ">:+03", ">:+03", "x_y>a:+"]
    assert choice_labels(["+03"] * 5, *models) == wanted


def test_strata_are_the_two_models_and_the_longer_of_them():
    labels = ("a>b:+", "a>b:-", "a>b:=", "b>a:+", "b>a:-", "b>a:=", ">:+03", ">:-03", ">:=")
    strata = read_labels(labels)
    counts = np.array([[7, 2, 1, 3, 4, 5, 6, 8, 9]])
    successes, trials = strata.count(counts)
    found = {
        (bool(is_length), round(float(ratio), 3), int(s), int(t))
        for is_length, ratio, s, t in zip(strata.is_length_S, strata.log_ratio_S, successes[0], trials[0], strict=True)
    }
    # a longer: a won 7 times, b (the shorter) 4; b longer: b won 3, a 2; equal: a 1, b 5; unnamed: longer 6 of 14.
    bin_3 = round(float(LOG_RATIO_B[3]), 3)
    assert found == {(True, 0.0, 7, 11), (True, 0.0, 3, 5), (False, 0.0, 1, 6), (True, bin_3, 6, 14)}
    wins, judged = strata.pairs.count(successes, trials)
    assert strata.pairs.models == ("a", "b")
    assert (wins.tolist(), judged.tolist()) == ([[10]], [[22]])  # a beat b 7 + 2 + 1 times of 22


def test_model_pairs_count_each_pair_for_its_first_model():
    labels = ("a>b:+", "b>c:-", "c>a:+", "a>c:=")
    strata = read_labels(labels)
    wins, judged = strata.pairs.count(*strata.count(np.array([[1, 2, 3, 4], [0, 0, 0, 1]])))
    pairs = [(strata.pairs.models[one], strata.pairs.models[two])
             for one, two in zip(strata.pairs.first_P, strata.pairs.second_P, strict=True)]  # fmt: skip
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    assert wins.tolist() == [[1, 4, 2], [0, 1, 0]]
    assert judged.tolist() == [[1, 7, 2], [0, 1, 0]]


def table_of(rng, num_clients=30, many=20):
    labels = ("+01", "-01", "+05", "-05", "=", "+09")
    return CountTable(labels, rng.integers(0, many, (num_clients, 6)))


@pytest.mark.parametrize("many", [20, 2_000])  # below and above the size up to which pairs are shuffled
def test_a_draw_keeps_what_each_client_met(many):
    rng = np.random.default_rng(0)
    table = table_of(rng, many=many)
    strata = read_labels(table.labels)
    _, trials = strata.count(table.counts_KL)
    draw = choice_sampler(table)
    for _ in range(3):
        drawn = draw(rng)
        assert (strata.count(drawn.counts_KL)[1] == trials).all()
        assert (drawn.counts_KL[:, 4] == table.counts_KL[:, 4]).all()  # equally long: no choice of lengths
        assert (drawn.counts_KL[:, 5] == table.counts_KL[:, 5]).all()  # in the pool the longer always won
        if many == 20:
            assert (drawn.counts_KL.sum(axis=0) == table.counts_KL.sum(axis=0)).all()


@pytest.mark.parametrize("many", [20, 2_000])
def test_draws_have_the_rate_of_the_pool_and_its_spread(many):
    rng = np.random.default_rng(1)
    table = table_of(rng, many=many)
    draw = choice_sampler(table)
    longer = np.array([draw(rng).counts_KL[:, 0] for _ in range(1500)])
    trials = table.counts_KL[:, 0] + table.counts_KL[:, 1]
    rate, num_rows = table.counts_KL[:, 0].sum() / trials.sum(), trials.sum()
    finite = (num_rows - trials) / (num_rows - 1) if many == 20 else 1.0
    np.testing.assert_allclose(longer.mean(axis=0), trials * rate, atol=4 * np.sqrt(trials.max() / 4 / 1500))
    np.testing.assert_allclose(longer.var(axis=0), trials * rate * (1 - rate) * finite, rtol=0.25, atol=1e-9)


def test_a_table_without_rows_or_labels_draws_nothing():
    empty = CountTable((), np.zeros((3, 0), np.int64))
    assert choice_sampler(empty)(np.random.default_rng(0)).counts_KL.shape == (3, 0)
    alone = CountTable((">:=",), np.array([[2], [1]]))
    assert choice_sampler(alone)(np.random.default_rng(0)).counts_KL.tolist() == [[2], [1]]


class AllAlike:
    """A generator whose numbers are all the same: every pair of a stratum lies at one place."""

    def random(self, size):
        return np.full(size, 0.5)

    def binomial(self, trials, rate):
        return np.zeros(len(trials), np.int64)


def test_pairs_at_one_place_still_leave_the_pool_its_successes():
    counts_KL = np.array([[4, 0, 1, 1], [0, 2, 0, 2]])
    drawn = choice_sampler(CountTable(("+03", "-03", "+05", "-05"), counts_KL))(AllAlike()).counts_KL
    assert drawn.sum(axis=0).tolist() == counts_KL.sum(axis=0).tolist()
    assert (drawn[:, :2].sum(axis=1).tolist(), drawn[:, 2:].sum(axis=1).tolist()) == ([4, 2], [2, 2])
