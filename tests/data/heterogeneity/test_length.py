import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from fedllm_data.heterogeneity.length import (
    LOG_LENGTH_B,
    LOWEST_B,
    intraclass_correlation,
    length_bin,
    length_quantiles,
    wasserstein_to_pool,
)

BIN_WIDTH = np.log(2) / 8


def _clients(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.exp(rng.normal(rng.normal(5, 0.5), 1, rng.integers(2, 80))).astype(int) + 1 for _ in range(25)]


def _counts(clients: list[np.ndarray]) -> np.ndarray:
    return np.array([np.bincount(length_bin(tokens), minlength=len(LOWEST_B)) for tokens in clients])


def _anova_icc(groups: list[np.ndarray]) -> float:
    sizes = np.array([len(group) for group in groups])
    everything = np.concatenate(groups)
    mean_square_between = sum(
        size * (group.mean() - everything.mean()) ** 2 for size, group in zip(sizes, groups, strict=True)
    ) / (len(groups) - 1)
    mean_square_within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (sizes.sum() - len(groups))
    n0 = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    return (mean_square_between - mean_square_within) / (mean_square_between + (n0 - 1) * mean_square_within)


def test_short_texts_have_a_bin_each_and_all_bins_are_narrow():
    tokens = np.arange(1, 200_000)
    bins = length_bin(tokens)
    assert bins[:11].tolist() == list(range(11))
    assert (np.diff(bins) >= 0).all()
    error = np.abs(LOG_LENGTH_B[bins] - np.log(tokens))
    assert error.max() <= BIN_WIDTH / 2 + 1e-9
    assert error[:11].max() < 1e-12


def test_empty_text_counts_as_one_token_and_the_last_bin_is_open():
    assert length_bin(np.array([0, 1])).tolist() == [0, 0]
    assert length_bin(np.array([2**40])).tolist() == [len(LOWEST_B) - 1]


def test_icc_by_hand():
    # Groups (0, 0, 1) and (1, 1, 0): grand mean 1/2, group means 1/3 and 2/3; SSB = 6 * (1/6)^2 = 1/6, SSW = 4/3;
    # MSB = 1/6, MSW = 1/3, n0 = 3: ICC = (1/6 - 1/3) / (1/6 + 2 * 1/3) = -1/5; eta^2 = (1/6) / (3/2) = 1/9.
    icc, between = intraclass_correlation(np.array([[2, 1], [1, 2]]), np.array([0.0, 1.0]))
    assert (icc, between) == (pytest.approx(-1 / 5), pytest.approx(1 / 9))


@pytest.mark.parametrize("seed", range(5))
def test_icc_is_the_anova_formula_on_binned_lengths_and_close_to_it_on_raw_ones(seed):
    clients = _clients(seed)
    icc, _ = intraclass_correlation(_counts(clients), LOG_LENGTH_B)
    binned = [LOG_LENGTH_B[length_bin(tokens)] for tokens in clients]
    assert icc == pytest.approx(_anova_icc(binned), abs=1e-12)
    assert icc == pytest.approx(_anova_icc([np.log(tokens) for tokens in clients]), abs=2e-3)


def test_icc_extremes_and_undefined_cases():
    log_lengths = np.array([0.0, 1.0])
    assert intraclass_correlation(np.array([[5, 0], [0, 5]]), log_lengths) == (1.0, 1.0)
    assert np.isnan(intraclass_correlation(np.array([[5, 0], [5, 0]]), log_lengths)).all()  # no variance
    assert np.isnan(intraclass_correlation(np.array([[1, 0], [0, 1]]), log_lengths)).all()  # one row a client
    assert np.isnan(intraclass_correlation(np.array([[3, 3]]), log_lengths)).all()  # one client


@pytest.mark.parametrize("seed", range(5))
def test_wasserstein_is_scipys_within_the_resolution_of_a_bin(seed):
    clients = _clients(seed)
    pool = np.concatenate(clients)
    distances = wasserstein_to_pool(_counts(clients), LOG_LENGTH_B)
    binned = [
        wasserstein_distance(LOG_LENGTH_B[length_bin(tokens)], LOG_LENGTH_B[length_bin(pool)]) for tokens in clients
    ]
    raw = [wasserstein_distance(np.log(tokens), np.log(pool)) for tokens in clients]
    np.testing.assert_allclose(distances, binned, atol=1e-12)
    np.testing.assert_allclose(distances, raw, atol=BIN_WIDTH / 2)


def test_quantiles_are_those_of_the_rows_within_a_bin():
    clients = _clients()
    for fraction in (0.1, 0.5, 0.9):
        found = length_quantiles(_counts(clients), LOG_LENGTH_B, fraction)
        wanted = [np.quantile(tokens, fraction, method="inverted_cdf") for tokens in clients]
        np.testing.assert_allclose(np.log(found), np.log(wanted), atol=BIN_WIDTH / 2 + 1e-9)


def test_facts_give_the_exact_mean_and_population_spread_of_tokens(make_profiles):
    from fedllm_data.heterogeneity import measure_axes

    tokens = {"a": [10, 700, 3], "b": [1, 1234567]}
    profiles = make_profiles({name: {"response_tokens": counts} for name, counts in tokens.items()})
    facts = measure_axes(profiles, num_null=9, num_bootstrap=9)["length"].facts
    everything = np.array([*tokens["a"], *tokens["b"]])
    assert facts["response_mean_tokens"] == pytest.approx(everything.mean(), rel=1e-12)
    assert facts["response_std_tokens"] == pytest.approx(everything.std(), rel=1e-12)
