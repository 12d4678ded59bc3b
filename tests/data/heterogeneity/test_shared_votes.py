import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from fedllm_data.heterogeneity.shared_votes import (
    gather_votes,
    krippendorff_alpha,
    opposite_by_chance,
    opposite_spread,
    opposite_weighted,
    vote_samplers,
)


def some_tables(seed=0, num_clients=12, num_items=60, contrary=()):
    """Clients who judge half of the items, whose sides they see alike in 8 of 10 cases; some always the other way."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 2, num_items)
    tables = []
    for client in range(num_clients):
        judged = np.flatnonzero(rng.random(num_items) < 0.5)
        sides = right[judged] ^ (rng.random(len(judged)) < 0.2) ^ (client in contrary)
        tables.append({f"k{item:03d}/{side}": 1 for item, side in zip(judged.tolist(), sides.tolist(), strict=True)})
    return tables


def opposite_fraction(votes_IC):
    """The share of pairs of votes on one item that differ: what `opposite_weighted` is for weights of one."""
    votes_I = votes_IC.sum(axis=1)
    num_pairs = int((votes_I * (votes_I - 1)).sum())
    return (num_pairs - int((votes_IC * (votes_IC - 1)).sum())) / num_pairs if num_pairs else float("nan")


def test_alpha_by_hand():
    # Items with votes (2, 0), (1, 1), (0, 3); one item with a single vote does not count. 7 votes, 3 and 4.
    # Observed: (1, 1) gives 2 * 1 * 1 / (2 - 1) = 2 differing ordered pairs, the others none: 2 / 7.
    # By chance: 2 * 3 * 4 / (7 * 6) = 24 / 42. alpha = 1 - (2 / 7) / (24 / 42) = 1 / 2.
    votes = np.array([[2, 0], [1, 1], [0, 3], [1, 0]])
    assert krippendorff_alpha(votes) == pytest.approx(0.5, abs=1e-9)
    # Of 1 + 1 + 3 pairs of votes on one item, one differs.
    assert opposite_fraction(votes) == pytest.approx(1 / 5)


def test_alpha_of_krippendorffs_own_example():
    # Krippendorff (2011), Computing alpha-reliability, section C: four observers, twelve units, nominal: 0.743.
    observers = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    votes = np.zeros((12, 5), np.int64)
    for observer in observers:
        for unit, value in enumerate(observer.split()):
            if value != ".":
                votes[unit, int(value) - 1] += 1
    assert krippendorff_alpha(votes) == pytest.approx(0.743, abs=5e-4)


def test_two_raters_give_alpha_from_the_agreement_by_chance_of_their_common_shares():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 3, 40)
    two = np.where(rng.random(40) < 0.7, one, rng.integers(0, 3, 40))
    votes = np.eye(3, dtype=np.int64)[one] + np.eye(3, dtype=np.int64)[two]
    share = votes.sum(axis=0) / 80
    scott_pi = 1 - (one != two).mean() / (1 - (share**2).sum())
    # Alpha is Scott's pi with n / (n - 1) for sampling without replacement: 1 - alpha = (1 - pi) (2N - 1) / 2N.
    assert 1 - krippendorff_alpha(votes) == pytest.approx((1 - scott_pi) * 79 / 80, abs=1e-9)


def test_nothing_judged_twice_and_one_category_give_no_alpha():
    assert np.isnan(opposite_fraction(np.array([[1, 0], [0, 1]])))
    assert np.isnan(krippendorff_alpha(np.array([[1, 0], [0, 1]])))
    assert np.isnan(krippendorff_alpha(np.array([[2, 0], [3, 0]])))
    assert np.isnan(krippendorff_alpha(np.zeros((0, 2), np.int64)))


def test_votes_are_counted_once_a_client_and_contradictions_not_at_all():
    tables = [{"k1/1": 3, "k2/0": 1}, {"k1/0": 1, "k2/0": 1}, {"k1/1": 1, "k2/0": 2, "k2/1": 1}]
    votes = gather_votes(tables)
    assert votes.votes_IC.tolist() == [[1, 2], [2, 0]]
    assert votes.client_V.tolist() == [0, 1, 2, 0, 1]
    assert gather_votes([]).votes_IC.shape == (0, 2)


def test_opposed_camps_agree_less_than_chance():
    assert krippendorff_alpha(np.array([[1, 1]] * 5)) < 0
    assert opposite_fraction(np.array([[1, 1]] * 5)) == 1


@pytest.mark.slow
def test_pandalms_annotators_have_their_published_kappas(shared_data):
    items = json.loads((shared_data / "pref" / "pandalm" / "testset-v1.json").read_text("utf-8"))
    labels = np.array([[item[f"annotator{number}"] for number in (1, 2, 3)] for item in items])
    assert labels.shape == (999, 3)
    kappas = [cohen_kappa_score(labels[:, one], labels[:, two]) for one, two in ((0, 1), (0, 2), (1, 2))]
    assert sorted(round(kappa, 2) for kappa in kappas) == [0.85, 0.86, 0.88]
    votes = np.stack([(labels == category).sum(axis=1) for category in (0, 1, 2)], axis=1)
    # Alpha over the same votes lies between the kappas of the pairs.
    assert min(kappas) < krippendorff_alpha(votes) < max(kappas)


def test_weighted_opposites_are_those_of_the_clients_written_out():
    tables = some_tables()
    votes = gather_votes(tables)
    assert opposite_weighted(votes, np.ones(12, int)) == pytest.approx(opposite_fraction(votes.votes_IC), abs=1e-12)
    weights = np.random.default_rng(1).integers(0, 4, 12)
    opposite = total = 0
    for one in range(12):
        for two in range(one):
            sides = [{label[:-2]: label[-1] for label in tables[client]} for client in (one, two)]
            common = sides[0].keys() & sides[1].keys()
            total += weights[one] * weights[two] * len(common)
            opposite += weights[one] * weights[two] * sum(sides[0][key] != sides[1][key] for key in common)
    assert opposite_weighted(votes, weights) == pytest.approx(opposite / total, abs=1e-12)
    assert np.isnan(opposite_weighted(votes, np.eye(12, dtype=int)[0]))  # one client alone


def test_chance_is_one_less_alphas_agreement_by_chance():
    votes = np.array([[3, 1], [1, 3], [4, 0]])
    assert opposite_by_chance(np.array([[3, 1], [0, 2]])) == pytest.approx(2 * 3 * 3 / (6 * 5), abs=1e-12)
    # With as many votes on every item, alpha = 1 - opposite / by chance.
    assert krippendorff_alpha(votes) == pytest.approx(
        1 - opposite_fraction(votes) / opposite_by_chance(votes), abs=1e-12
    )
    assert np.isnan(opposite_by_chance(np.zeros((0, 2), np.int64)))


def test_both_nulls_keep_what_they_say_they_keep():
    votes = gather_votes(some_tables())
    anyhow, divided = (draw(np.random.default_rng(0)) for draw in vote_samplers(votes))
    for drawn in (anyhow, divided):
        assert drawn.item_V is votes.item_V
        assert drawn.side_V.sum() == votes.side_V.sum()
        assert drawn.side_V.tolist() != votes.side_V.tolist()
    assert sorted(map(tuple, divided.votes_IC)) == sorted(map(tuple, votes.votes_IC))
    assert sorted(map(tuple, anyhow.votes_IC)) != sorted(map(tuple, votes.votes_IC))


def spread_p(tables, seed, num_draws=39):
    votes, rng = gather_votes(tables), np.random.default_rng(seed)
    weights, (_, divided) = np.ones(len(tables), int), vote_samplers(votes)
    value = opposite_spread(votes, weights)
    return (1 + sum(opposite_spread(divided(rng), weights) >= value for _ in range(num_draws))) / (num_draws + 1)


def test_contrary_clients_are_found_and_alike_ones_keep_the_level():
    assert spread_p(some_tables(contrary=(3,)), 0) == pytest.approx(1 / 40)
    low = sum(spread_p(some_tables(seed), seed) <= 0.05 for seed in range(40))
    assert low <= 6  # 2 are expected; 7 or more have probability 0.003


def test_where_two_raters_share_a_pair_the_contrary_one_is_found_too():
    tables = some_tables(num_clients=9, num_items=900, contrary=(0,))
    kept = {}
    for client, table in enumerate(tables):
        for label in table:
            kept.setdefault(label[:-2], []).append((client, label))
    pairs = [{} for _ in tables]
    for votes in kept.values():
        for client, label in votes[:2]:
            pairs[client][label] = 1
    assert set(np.bincount(gather_votes(pairs).item_V).tolist()) == {2}
    assert spread_p(pairs, 0) == pytest.approx(1 / 40)


def test_no_shared_pair_gives_no_spread():
    votes = gather_votes([{"k/0": 1}, {"l/1": 1}])
    assert np.isnan(opposite_spread(votes, np.ones(2, int)))
    assert np.isnan(opposite_weighted(votes, np.ones(2, int)))
