"""ICC by hand, by scikit-learn and by SciPy; profiles of scores that merge; an axis made from the scorers named."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import f_oneway, wasserstein_distance
from sklearn.feature_selection import f_classif

from fedllm_data.heterogeneity import measure_axes
from fedllm_data.heterogeneity.profile import SCALE, ClientProfile, merge_profiles
from fedllm_data.heterogeneity.quality import (
    BINS_PER_UNIT,
    QUALITY,
    SHIPPED,
    ScorerInfo,
    anova_icc,
    mean_differs,
    quality_axis,
    score_bin,
)
from fedllm_data.scorers.heuristics import HEURISTICS
from fedllm_data.scorers.scorer import score_columns
from fedllm_data.sources.synth import read_sft

FEW = {"num_null": 99, "num_bootstrap": 19}
IFD = ScorerInfo(name="ifd", revision="org/model@1a2b3c", unit="ratio of losses")


def _profile(client_id, columns, num_rows=None):
    columns = {f"score:{name}": np.asarray(scores, float) for name, scores in columns.items()}
    num_rows = num_rows or len(next(iter(columns.values())))
    return ClientProfile(client_id, "digest", num_rows, QUALITY.count(columns), QUALITY.sum_up(columns))


def _clients(seed=0, num_clients=30, spread=0.1):
    """Scores that are multiples of 1/128, so that a profile's bins hold them exactly."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0.6, spread, num_clients)
    return [np.rint(rng.normal(mean, 0.2, rng.integers(2, 60)) * 128) / 128 for mean in means]


def _measure(clients, axis=QUALITY, **settings):
    profiles = [_profile(f"c{index:03d}", {"heuristics": scores}) for index, scores in enumerate(clients)]
    return measure_axes(profiles, axes={"quality": axis}, **(FEW | settings))["quality"]


def _moments(clients):
    return (
        np.array([len(scores) for scores in clients]),
        np.array([scores.sum() for scores in clients]),
        np.array([(scores**2).sum() for scores in clients]),
    )


def test_icc_by_hand():
    # Clients (0, 0, 1) and (1, 1, 0): grand mean 1/2, client means 1/3 and 2/3; SSB = 6 * (1/6)^2 = 1/6, SSW = 4/3;
    # MSB = 1/6, MSW = 1/3, n0 = 3: ICC = (1/6 - 1/3) / (1/6 + 2 * 1/3) = -1/5.
    assert anova_icc(*_moments([np.array([0.0, 0, 1]), np.array([1.0, 1, 0])])) == pytest.approx(-1 / 5, abs=1e-12)


def test_icc_by_hand_with_unequal_sizes():
    # Clients (1, 3) and (2, 4, 6): grand mean 16/5; SSB = 2 (2 - 3.2)^2 + 3 (4 - 3.2)^2 = 2.88 + 1.92 = 4.8, SSW = 2 +
    # 8 = 10; MSB = 4.8, MSW = 10/3, n0 = 5 - 13/5 = 2.4: ICC = (4.8 - 10/3) / (4.8 + 1.4 * 10/3) = 1.46667 / 9.46667.
    icc = anova_icc(*_moments([np.array([1.0, 3]), np.array([2.0, 4, 6])]))
    assert icc == pytest.approx((4.8 - 10 / 3) / (4.8 + 1.4 * 10 / 3), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_icc_of_a_profile_follows_from_the_f_of_scipy_and_scikit_learn(seed):
    clients = _clients(seed)
    rows_K = np.array([len(scores) for scores in clients])
    n0 = (rows_K.sum() - (rows_K**2).sum() / rows_K.sum()) / (len(clients) - 1)
    scores, owner = np.concatenate(clients), np.repeat(np.arange(len(clients)), rows_K)
    for f in (f_oneway(*clients).statistic, f_classif(scores[:, None], owner)[0][0]):
        # MSB / MSW = F: ICC = (F - 1) / (F + n0 - 1).
        expected = (f - 1) / (f + n0 - 1)
        assert _measure(clients).estimates["heuristics_icc"].value == pytest.approx(expected, abs=1e-9)


def test_icc_extremes_and_undefined_cases():
    assert anova_icc(*_moments([np.zeros(5), np.ones(5)])) == 1.0
    assert np.isnan(anova_icc(*_moments([np.ones(5), np.ones(5)])))  # no variance
    assert np.isnan(anova_icc(*_moments([np.zeros(1), np.ones(1)])))  # one row a client
    assert np.isnan(anova_icc(*_moments([np.arange(6.0)])))  # one client


def test_equal_scores_that_are_no_binary_fraction_have_no_variance():
    result = _measure([np.full(9, 0.3), np.full(4, 0.3)])
    assert result.estimates["heuristics_icc"].reason == (
        "not enough data: all scores are equal, or no client has two scored rows"
    )


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein_is_scipys_of_the_binned_scores(seed):
    rng = np.random.default_rng(seed)
    # Multiples of 1/1024, to which profiles round first.
    raw = [np.rint(rng.normal(0.6, 0.2, rng.integers(2, 60)) * 1024) / 1024 for _ in range(30)]
    clients = [score_bin(scores) / BINS_PER_UNIT for scores in raw]
    pool = np.concatenate(clients)
    expected = np.mean([wasserstein_distance(scores, pool) for scores in clients])
    found = _measure(raw).estimates["heuristics_wasserstein_to_pool"].value
    assert found == pytest.approx(expected, abs=1e-9)


def test_mean_differs_is_a_z_test_against_the_pool():
    # Pool: 4 rows, mean 1/2, variance 1/4; each client of 2 has error sqrt(1/4 * (1/2 - 1/4)) = 1/4 and lies 1/2 away:
    # z = 2 > 1.96. With 1 row of 4 the error is sqrt(3)/4 = 0.43: z = 1.15.
    assert mean_differs(*_moments([np.zeros(2), np.ones(2)])).all()
    assert not mean_differs(*_moments([np.zeros(1), np.zeros(1), np.ones(1), np.ones(1)])).any()


def test_about_one_client_in_twenty_of_one_pool_differs():
    rng = np.random.default_rng(0)
    differs = [mean_differs(*_moments([rng.random(40) for _ in range(50)])).mean() for _ in range(40)]
    assert np.mean(differs) == pytest.approx(0.05, abs=0.01)


def test_the_profile_of_a_union_is_the_merged_profile():
    one, two = np.random.default_rng(0).random((2, 17))
    merged = merge_profiles([_profile("a", {"heuristics": one}), _profile("b", {"heuristics": two})], client_id="ab")
    whole = _profile("ab", {"heuristics": np.concatenate([two, one])})
    assert merged == whole
    assert ClientProfile.from_json(whole.to_json()) == whole


def test_undefined_scores_are_counted_nowhere():
    nan = float("nan")
    assert _profile("a", {"ifd": [nan, 0.5, nan]}).counts == {"score:ifd": {"64": 1}}
    assert _profile("a", {"ifd": [nan, 0.5, nan]}).vectors["score:ifd"].tolist() == [SCALE // 2, SCALE // 4]
    assert _profile("a", {"ifd": [nan, nan]}).counts == {}


def test_a_scorer_named_by_the_codebook_gets_measures_of_its_own():
    axis = quality_axis([*SHIPPED, IFD])
    rng = np.random.default_rng(0)
    profiles = [
        _profile(f"c{index}", {"heuristics": rng.random(20), "ifd": rng.normal(0.5 + 0.1 * index, 0.01, 20)})
        for index in range(8)
    ]
    result = measure_axes(profiles, axes={"quality": axis}, **FEW)["quality"]
    assert result.estimates["ifd_icc"].value > 0.9
    assert result.facts["scorers"]["ifd"] == "revision org/model@1a2b3c; ratio of losses; higher is better"
    assert "Of ifd (revision org/model@1a2b3c)" in result.sentence
    assert result.facts["ifd_mean"] == pytest.approx(0.85, abs=0.01)
    assert len(result.per_client["ifd_mean"]) == 8


def test_clients_that_a_scorer_left_out_do_not_count_for_it():
    clients = _clients(1, num_clients=6)
    profiles = [_profile(f"c{index}", {"heuristics": scores, "ifd": scores}) for index, scores in enumerate(clients)]
    profiles.append(_profile("without", {"heuristics": [0.5] * 30}))
    result = measure_axes(profiles, axes={"quality": quality_axis([*SHIPPED, IFD])}, **FEW)["quality"]
    alone = _measure(clients).estimates["heuristics_icc"].value
    assert result.estimates["ifd_icc"].value == pytest.approx(alone, abs=1e-12)
    assert result.per_client["ifd_mean"][-1] is None


def test_without_scores_there_is_not_enough_data():
    profiles = [ClientProfile(name, "digest", 5, {}) for name in "ab"]
    result = measure_axes(profiles, axes={"quality": QUALITY}, **FEW)["quality"]
    assert result.verdict == "not enough data"
    assert result.facts["heuristics_scored_fraction"] == 0


def test_facts_are_exact():
    clients = _clients(3)
    pool = np.concatenate(clients)
    facts = _measure(clients).facts
    assert facts["heuristics_mean"] == pytest.approx(pool.mean(), abs=1e-12)
    assert facts["heuristics_std"] == pytest.approx(pool.std(), abs=1e-9)


def test_a_scorer_made_of_others_is_computed_once():
    rows = pa.Table.from_pylist([item.row for item in read_sft(None, 0, {"num_clients": "5", "public_rows": "0"})])
    alone = score_columns(rows, "sft", HEURISTICS[:1])["score:heuristics"]
    np.testing.assert_array_equal(score_columns(rows, "sft", HEURISTICS)["score:heuristics"], alone)


def test_clients_of_one_pool_lie_inside_the_null_in_most_seeds():
    rng = np.random.default_rng(2)
    num_outside = 0
    for seed in range(20):
        clients = [rng.choice([0.5, 0.75, 1.0], rng.integers(2, 40), p=[0.05, 0.15, 0.8]) for _ in range(40)]
        num_outside += _measure(clients, seed=seed, num_bootstrap=1).p_holm <= 0.05
    assert num_outside <= 4  # 1 in 20 is expected; 5 or more has probability 0.003


def test_repeated_answers_are_described():
    profiles, rng = [], np.random.default_rng(0)
    for number in range(6):
        answers = ["f" * 16] * 8 if number == 0 else [rng.bytes(8).hex() for _ in range(8)]
        columns = {"score:heuristics": np.linspace(0, 1, 8), "answer_key": answers}
        profiles.append(ClientProfile(f"c{number}", "d", 8, QUALITY.count(columns), QUALITY.sum_up(columns)))
    result = measure_axes(profiles, axes={"quality": QUALITY}, **FEW)["quality"]
    assert result.per_client["repeated_answers"][0] == 1.0
    assert max(result.per_client["repeated_answers"][1:]) < 0.2
    # One client in six repeats itself.
    assert result.facts["repeated_answer_fraction"] == pytest.approx(1 / 6, abs=0.05)


def _generated(**options):
    rows = [item.row for item in read_sft(None, 0, {"num_clients": "60", "public_rows": "0"} | options)]
    columns = score_columns(pa.Table.from_pylist(rows), "sft", HEURISTICS)
    owners = np.array([row["client_id"] for row in rows])
    parts = {owner: owners == owner for owner in np.unique(owners).tolist()}
    columns_of = {owner: {name: scores[part] for name, scores in columns.items()} for owner, part in parts.items()}
    profiles = [
        ClientProfile(owner, "d", int(parts[owner].sum()), QUALITY.count(own), QUALITY.sum_up(own))
        for owner, own in columns_of.items()
    ]
    return measure_axes(profiles, axes={"quality": QUALITY}, **FEW)["quality"].estimates["heuristics_icc"]


@pytest.mark.slow  # test_knobs has the claim with two values of the knob, over all axes
def test_the_knob_of_the_generated_corpus_moves_the_headline_and_the_others_do_not():
    icc = [_generated(quality_skew=skew).value for skew in ("0", "0.2", "0.5", "1")]
    assert icc == sorted(icc)
    assert icc[0] == pytest.approx(0, abs=0.02)
    assert icc[-1] > 0.4
    for knob in ("language_skew", "length_skew", "topic_skew", "preference_skew", "size_skew"):
        assert abs(_generated(quality_skew="0", **{knob: "1"}).z) < 3, knob
