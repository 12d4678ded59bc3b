import numpy as np
import pytest
from scipy.stats import rankdata

from fedllm_data.reporting.similarity import client_distances


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_compared_by_their_ranks_with_ties_at_the_middle(seed):
    values = np.random.default_rng(seed).integers(0, 9, 40).astype(float)
    ranks = rankdata(values)
    wanted = np.abs(ranks[:, None] - ranks) / np.ptp(ranks)
    found = client_distances({"size": values.tolist()}, {"one": ["size"]}, np.arange(40))
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_column_that_a_client_lacks_is_left_out():
    columns = {"size": [1, None, 3], "word": ["x", "x", "y"]}
    found = client_distances(columns, {"one": ["size", "word"]}, np.arange(3))
    assert found.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]  # of the second client, the word alone is known
