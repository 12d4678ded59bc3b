import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import mutual_info_score

from fedllm_data.heterogeneity.divergence import (
    hellinger_to_pool,
    jensen_shannon_bits,
    pairwise_total_variation,
    total_variation_to_pool,
)


def _tables() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    tables = [rng.integers(0, 30, size=(rng.integers(2, 12), rng.integers(2, 9))) for _ in range(5)]
    return [table + (table.sum(axis=1, keepdims=True) == 0) for table in tables]


def test_divergence_by_hand():
    # Pool (1/2, 1/2): 1 bit. Clients (3/4, 1/4) and (1/4, 3/4), equal sizes: H = 0.811278 each. 1 - 0.811278.
    assert jensen_shannon_bits(np.array([[3, 1], [1, 3]])) == pytest.approx(0.188722, abs=1e-6)


@pytest.mark.parametrize("table", _tables())
def test_divergence_is_the_mutual_information_of_client_and_label(table):
    client, label = np.indices(table.shape)
    nats = mutual_info_score(np.repeat(client, table.ravel()), np.repeat(label, table.ravel()))
    assert jensen_shannon_bits(table) == pytest.approx(nats / np.log(2), abs=1e-12)


def test_divergence_of_two_equal_sized_clients_is_the_usual_one():
    counts = np.array([[7, 2, 1], [1, 4, 5]])
    assert jensen_shannon_bits(counts) == pytest.approx(jensenshannon(counts[0], counts[1], base=2) ** 2)


def test_identical_clients_have_zero_divergence_whatever_their_sizes():
    counts = np.array([[3, 1, 2], [6, 2, 4], [300, 100, 200]])
    assert jensen_shannon_bits(counts) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(total_variation_to_pool(counts), 0, atol=1e-12)
    np.testing.assert_array_equal(hellinger_to_pool(counts), 0)
    assert pairwise_total_variation(counts, np.arange(3)) == pytest.approx(0, abs=1e-12)


def test_disjoint_clients_reach_the_maximum():
    counts = np.diag([5, 5, 5, 5])
    assert jensen_shannon_bits(counts) == 2.0  # log2(4)
    assert pairwise_total_variation(counts, np.arange(4)) == 1.0
    np.testing.assert_allclose(total_variation_to_pool(counts), 0.75)  # 1/2 (3/4 + 3 * 1/4)
    np.testing.assert_allclose(hellinger_to_pool(counts), np.sqrt(0.5))  # 1 - sqrt(1/4)


@pytest.mark.parametrize("table", _tables())
def test_pairwise_distance_equals_the_loop_over_pairs(table):
    p = table / table.sum(axis=1, keepdims=True)
    pairs = [0.5 * np.abs(p[i] - p[j]).sum() for i in range(len(p)) for j in range(i)]
    assert pairwise_total_variation(table, np.arange(len(p))) == pytest.approx(np.mean(pairs))


def test_copies_of_a_client_in_a_resample_are_no_pair():
    counts = np.array([[4, 0], [4, 0], [0, 4]])
    assert pairwise_total_variation(counts, np.array([0, 0, 1])) == 1.0
    assert np.isnan(pairwise_total_variation(counts[:2], np.array([0, 0])))
