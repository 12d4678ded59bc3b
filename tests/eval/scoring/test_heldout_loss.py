"""Held-out loss: sums by hand, and the means of scikit-learn's log loss."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.heldout_loss import heldout_loss, perplexity


def test_token_and_client_weighted_means_by_hand():
    losses = heldout_loss([3.0, 1.0, 8.0], [3, 1, 4], ["a", "a", "b"])
    # Tokens: (3 + 1 + 8) / (3 + 1 + 4) = 1.5. Clients: a (3 + 1) / 4 = 1, b 8 / 4 = 2, mean 1.5.
    assert (losses.token_weighted, losses.client_weighted) == (1.5, 1.5)
    uneven = heldout_loss([3.0, 1.0, 8.0, 8.0], [3, 1, 4, 4], ["a", "a", "b", "b"])
    # Tokens: 20 / 12; clients: (1 + 2) / 2.
    assert uneven.token_weighted == pytest.approx(20 / 12)
    assert uneven.client_weighted == 1.5
    assert (uneven.num_rows, uneven.num_tokens, uneven.num_clients) == (4, 12, 2)


def test_equals_the_log_loss_of_scikit_learn_on_single_token_rows():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), size=40)
    label = np.arange(40) % 5
    nll = -np.log(p[np.arange(40), label])
    assert heldout_loss(nll, np.ones(40)).token_weighted == pytest.approx(log_loss(label, p))


def test_equal_clients_make_both_means_equal():
    rng = np.random.default_rng(1)
    losses = heldout_loss(rng.random(12), np.full(12, 7), np.repeat(["a", "b", "c"], 4))
    assert losses.client_weighted == pytest.approx(losses.token_weighted)


def test_one_row_is_its_own_loss():
    assert heldout_loss([0.5], [2], ["a"]).client_weighted == 0.25


def test_order_of_rows_does_not_matter():
    nll, tokens, clients = [3.0, 1.0, 8.0], [3, 1, 4], ["b", "a", "b"]
    permuted = heldout_loss(nll[::-1], tokens[::-1], clients[::-1])
    assert permuted == heldout_loss(nll, tokens, clients)


@pytest.mark.parametrize(
    ("nll", "tokens", "clients", "message"),
    [
        ([], [], None, "no rows"),
        ([1.0], [1, 2], None, "one length"),
        ([float("nan")], [1], None, "row 0 has loss nan"),
        ([-1.0], [1], None, "row 0 has loss -1"),
        ([1.0, 1.0], [1, 0], None, "row 1 has 0 answer tokens"),
        ([1.0], [1], ["a", "b"], "one client id a row"),
    ],
)
def test_what_cannot_be_scored_is_an_error(nll, tokens, clients, message):
    with pytest.raises(MetricError, match=message):
        heldout_loss(nll, tokens, clients)


def test_perplexity_is_the_exponential_and_never_overflows():
    assert perplexity(np.log(7)) == pytest.approx(7)
    assert perplexity(1e6) == float("inf")
