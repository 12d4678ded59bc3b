"""Membership scores: by hand, against scikit-learn and SciPy, and what too little data must not claim."""

import functools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from fedllm_data.errors import MetricError
from fedllm_eval.scoring import membership as module
from fedllm_eval.scoring.membership import membership, min_k_score, true_positives_at


def scores(seed, num_members=60, num_nonmembers=80, shift=0.5, digits=1):
    """Scores with ties."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, num_members).round(digits), rng.normal(0, 1, num_nonmembers).round(digits)


def test_auc_by_hand():
    # Pairs (member, non-member): 3>1, 3>2, 2>1 and 2=2 for a half: 3.5 of 4.
    assert membership([3.0, 2.0], [1.0, 2.0]).auc == 0.875


@pytest.mark.parametrize("seed", range(5))
def test_auc_equals_scikit_learn_and_mann_whitney(seed):
    members, nonmembers = scores(seed)
    labels = np.r_[np.ones(members.size), np.zeros(nonmembers.size)]
    auc = membership(members, nonmembers).auc
    assert auc == pytest.approx(roc_auc_score(labels, np.r_[members, nonmembers]), abs=1e-12)
    u = stats.mannwhitneyu(members, nonmembers).statistic
    assert auc == pytest.approx(u / (members.size * nonmembers.size), abs=1e-12)


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.2])
def test_true_positives_equal_the_roc_curve(fraction):
    members, nonmembers = scores(7, 300, 200)
    labels = np.r_[np.ones(members.size), np.zeros(nonmembers.size)]
    fpr, tpr, _ = roc_curve(labels, np.r_[members, nonmembers], drop_intermediate=False)
    found = true_positives_at(members, nonmembers, fraction)
    assert found.fraction == pytest.approx(tpr[fpr <= fraction + 1e-12].max())
    assert (nonmembers > found.threshold).mean() <= fraction
    assert found.low <= found.fraction <= found.high


@pytest.fixture
def each_share_once(monkeypatch):
    """The intervals of the true positives, which these tests do not look at, are worked out once for each count."""
    monkeypatch.setattr(module, "clopper_pearson", functools.cache(module.clopper_pearson))


@pytest.mark.usefixtures("each_share_once")
def test_the_interval_of_the_auc_holds_where_rows_are_alone_and_where_clients_have_many():
    truth = stats.norm.cdf(0.5 / np.sqrt(2))
    covered, covered_by_client, covered_by_row = [], [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        found = membership(rng.normal(0.5, 1, 60), rng.normal(0, 1, 80))
        covered.append(found.auc_low <= truth <= found.auc_high)
        # 40 clients with 5 members each and 40 others with 5 non-members; half of a score's variance is the client's.
        own, others = np.repeat(rng.normal(0, np.sqrt(0.5), (2, 40)), 5, axis=1)
        members, nonmembers = np.array([own + 0.5, others]) + rng.normal(0, np.sqrt(0.5), (2, 200))
        ids, other_ids = ([f"{kind}{k}" for k in range(40) for _ in range(5)] for kind in "mn")
        found = membership(members, nonmembers, member_clients_M=ids, nonmember_clients_N=other_ids)
        covered_by_client.append(found.auc_low <= truth <= found.auc_high)
        found = membership(members, nonmembers)
        covered_by_row.append(found.auc_low <= truth <= found.auc_high)
    # Three binomial standard errors at 400 draws are .033.
    assert 0.915 <= np.mean(covered) <= 0.985
    assert 0.905 <= np.mean(covered_by_client) <= 0.985
    # Counting the rows of a client as so many witnesses promises too much.
    assert np.mean(covered_by_row) < 0.8


@pytest.mark.usefixtures("each_share_once")
def test_clients_with_rows_on_both_sides_are_one_witness():
    # Of 40 x 40 pairs of clients one in 40 is a client with itself, without its own variance.
    truth = 39 / 40 * stats.norm.cdf(0.5) + 1 / 40 * stats.norm.cdf(np.sqrt(0.5))
    covered = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        own = np.repeat(rng.normal(0, np.sqrt(0.5), 40), 5)
        members, nonmembers = (own + shift + rng.normal(0, np.sqrt(0.5), 200) for shift in (np.sqrt(0.5), 0.0))
        ids = [f"c{k}" for k in range(40) for _ in range(5)]
        found = membership(members, nonmembers, member_clients_M=ids, nonmember_clients_N=ids)
        covered.append(found.auc_low <= truth <= found.auc_high)
    assert 0.905 <= np.mean(covered) <= 0.985


def test_a_client_of_one_row_is_a_row():
    members, nonmembers = scores(3)
    alone = membership(members, nonmembers)
    ids = membership(
        members,
        nonmembers,
        member_clients_M=[f"m{i}" for i in range(members.size)],
        nonmember_clients_N=[f"n{i}" for i in range(nonmembers.size)],
    )
    assert (ids.auc_low, ids.auc_high) == pytest.approx((alone.auc_low, alone.auc_high))
    assert ids.num_clients == members.size + nonmembers.size


def test_the_order_of_rows_does_not_matter():
    members, nonmembers = scores(4, 150, 150)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(members), rng.permutation(nonmembers)
    fractions = {"false_positive_fractions": (0.01, 0.1)}
    assert membership(*shuffled, **fractions) == membership(members, nonmembers, **fractions)


def test_too_few_non_members_give_nan_with_a_reason():
    at_1, at_01 = membership(*scores(5, 50, 200)).true_positives
    assert at_1.reason is None
    assert np.isnan([at_01.fraction, at_01.low, at_01.high]).all()
    assert at_01.reason == "0.1 % false positives need 1,000 non-members, there are 200"


def test_one_client_alone_has_no_interval():
    found = membership([1.0, 2.0], [0.0, 1.0], member_clients_M=["a", "a"], nonmember_clients_N=["b", "c"])
    assert found.auc == 0.875
    assert np.isnan([found.auc_low, found.auc_high]).all()


def test_min_k_by_hand_and_whole():
    # The lowest 2 of 5 tokens: (-5 - 3) / 2.
    assert min_k_score([-1.0, -5.0, -2.0, -3.0, 0.0], 0.4) == -4.0
    assert min_k_score([-1.0, -5.0], 0.2) == -5.0
    assert min_k_score([-1.0, -5.0], 1.0) == -3.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: membership([], [1.0]), "members must be a list of at least one"),
        (lambda: membership([1.0], []), "non-members must be a list of at least one"),
        (lambda: membership([1.0, float("nan")], [1.0]), "members: score 1 is nan"),
        (lambda: membership([1.0], [1.0], member_clients_M=["a"]), "or for none"),
        (lambda: membership([1.0], [1.0], member_clients_M=["a"], nonmember_clients_N=[]), "or for none"),
        (lambda: true_positives_at([1.0], [1.0], 0.0), "between 0 and 1"),
        (lambda: min_k_score([]), "at least one"),
        (lambda: min_k_score([1.0], 0.0), "min-k"),
    ],
)
def test_what_makes_no_sense_is_an_error(call, message):
    with pytest.raises(MetricError, match=message):
        call()
