import ast
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedllm_data import heterogeneity
from fedllm_data.errors import ReportError
from fedllm_data.heterogeneity import AXES, axes, measure_axes
from fedllm_data.heterogeneity.profile import ClientProfile, merge_profiles

FEW = {"num_null": 199, "num_bootstrap": 99}


def test_clients_of_one_pool_lie_inside_the_null(make_profiles, mixed_clients):
    results = measure_axes(make_profiles(mixed_clients), **FEW)
    for axis in ("language", "length"):
        assert results[axis].verdict == "no more than chance"
        assert all(abs(estimate.z) < 3 for estimate in results[axis].estimates.values())


def test_identical_clients_differ_less_than_chance(make_profiles):
    rows = {"language": ["en", "fr"] * 10, "response_tokens": [5, 50] * 10}
    results = measure_axes(make_profiles({f"c{index}": rows for index in range(12)}), **FEW)
    for axis in AXES.values():
        assert results[axis.name].verdict != "more than chance"
    assert results["language"].estimates["divergence_bits"].value == pytest.approx(0, abs=1e-12)
    assert results["quantity"].estimates["gini"].value == 0


def test_disjoint_clients_reach_the_maximum_of_every_axis(make_profiles):
    clients = {
        f"c{index}": {"language": [f"l{index}"] * 30, "response_tokens": [10 * 2**index] * 30} for index in range(6)
    }
    results = measure_axes(make_profiles(clients), **FEW)
    assert results["language"].estimates["divergence_fraction"].value == 1.0
    assert results["language"].estimates["divergence_bits"].value == pytest.approx(np.log2(6))
    assert results["length"].estimates["response_icc"].value == pytest.approx(1.0)
    num_tests = sum(result.p_holm is not None for result in results.values())
    for axis in ("language", "length"):
        p = results[axis].estimates[AXES[axis].headline].p
        assert results[axis].p_holm == pytest.approx(p * num_tests, abs=0.006)
        assert results[axis].verdict == "more than chance"


def test_shuffled_client_ids_lie_inside_the_null_in_most_seeds(make_profiles):
    rng = np.random.default_rng(1)
    num_rows, extreme = 600, dict.fromkeys(("language", "length"), 0)
    owner = np.sort(rng.integers(0, 20, num_rows))
    language = np.array(["de", "en", "fr"])[owner % 3]
    tokens = np.exp(rng.normal(4 + owner / 10, 0.5)).astype(int) + 1
    for seed in range(20):
        shuffle = rng.permutation(num_rows)
        clients = {
            f"c{index:02d}": {
                "language": language[shuffle][owner == index].tolist(),
                "response_tokens": tokens[shuffle][owner == index],
            }
            for index in range(20)
        }
        results = measure_axes(make_profiles(clients), seed=seed, num_null=99, num_bootstrap=9)
        for axis in extreme:
            extreme[axis] += results[axis].estimates[AXES[axis].headline].p <= 0.05
    assert max(extreme.values()) <= 4  # 1 in 20 is expected; 5 or more has probability 0.003


def test_permuting_the_clients_changes_nothing(make_profiles, mixed_clients):
    profiles = make_profiles(mixed_clients)
    assert measure_axes(profiles[::-1], **FEW) == measure_axes(profiles, **FEW)


def test_the_seed_decides_and_axes_have_streams_of_their_own(make_profiles, mixed_clients):
    profiles = make_profiles(mixed_clients)
    all_axes = measure_axes(profiles, seed=3, **FEW)
    alone = measure_axes(profiles, seed=3, axes={"length": AXES["length"]}, **FEW)
    assert alone["length"].estimates == all_axes["length"].estimates
    other = measure_axes(profiles, seed=4, **FEW)
    assert other["length"].estimates["response_icc"].null_mean != alone["length"].estimates["response_icc"].null_mean


def test_profiles_that_travelled_as_json_give_the_same_report(make_profiles, mixed_clients):
    profiles = make_profiles(mixed_clients)
    travelled = [ClientProfile.from_json(profile.to_json()) for profile in profiles]
    assert measure_axes(travelled, **FEW) == measure_axes(profiles, **FEW)


def test_one_client_is_not_enough_data(make_profiles):
    results = measure_axes(make_profiles({"a": {"language": ["en", "fr"] * 5}}), **FEW)
    for result in results.values():
        assert result.verdict == "not enough data"
        assert result.p_holm is None
        assert result.sentence.startswith("Not enough data: ")
        assert all(estimate.value is None and estimate.reason for estimate in result.estimates.values())


def test_few_clients_have_no_interval(make_profiles, mixed_clients):
    few = dict(list(mixed_clients.items())[:4])
    estimate = measure_axes(make_profiles(few), **FEW)["quantity"].estimates["gini"]
    assert estimate.value is not None
    assert (estimate.low, estimate.high) == (None, None)


def test_the_interval_holds_the_value_of_the_headlines(make_profiles, mixed_clients):
    for name, result in measure_axes(make_profiles(mixed_clients), **FEW).items():
        estimate = result.estimates[AXES[name].headline]
        assert estimate.value is None or estimate.low <= estimate.value <= estimate.high


def test_no_rows_are_refused():
    with pytest.raises(ReportError, match=r"no rows to report on: 1 client\(s\) with 0 rows in all"):
        measure_axes([ClientProfile("a", "words", 0, {})])


def test_an_axis_with_many_clients_takes_fewer_draws_and_says_so(make_profiles, mixed_clients):
    hasty = replace(AXES["language"], slow_above=39)
    results = measure_axes(
        make_profiles(mixed_clients),
        axes=AXES | {"language": hasty},
        num_null=axes.FEW_DRAWS + 1,
        num_bootstrap=axes.FEW_DRAWS - 1,
    )
    assert (results["language"].num_null, results["language"].num_bootstrap) == (199, 198)
    assert (results["length"].num_null, results["length"].num_bootstrap) == (200, 198)
    assert results["language"].estimates["divergence_bits"].p * 200 % 1 == pytest.approx(0)


def test_merged_small_clients_count_in_the_facts_and_are_no_client(make_profiles, mixed_clients):
    profiles = make_profiles(mixed_clients)
    merged = merge_profiles(make_profiles({"x": {"language": ["xx"]}, "y": {"language": ["xx"]}}), client_id="")
    with_merged, without = measure_axes([*profiles, merged], **FEW), measure_axes(profiles, **FEW)
    for name, result in with_merged.items():
        assert result.estimates == without[name].estimates
    assert with_merged["language"].facts["rows_per_language"]["xx"] == 2
    with pytest.raises(ReportError, match="all 2 rows are of clients too small to be reported on"):
        measure_axes([merged])


def test_every_axis_names_a_headline_that_it_measures(make_profiles, mixed_clients):
    results = measure_axes(make_profiles(mixed_clients), num_null=2, num_bootstrap=2)
    for name, axis in AXES.items():
        assert axis.name == name
        assert axis.headline in axis.measures
        assert set(results[name].estimates) == set(axis.measures)
        assert all(len(column) == len(results[name].client_ids) for column in results[name].per_client.values())


def test_an_axis_can_be_added_as_one_object(make_profiles, mixed_clients):
    longer = replace(AXES["language"], name="tongue", min_rows=30)
    result = measure_axes(make_profiles(mixed_clients), axes={"tongue": longer}, **FEW)["tongue"]
    assert all(len(mixed_clients[client_id]["language"]) >= 30 for client_id in result.client_ids)


def test_the_package_imports_numpy_and_scipy_only():
    allowed = {"numpy", "scipy", *sys.stdlib_module_names}
    for path in sorted(Path(heterogeneity.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                # The catalogue of words is the standard library's gettext.
                ours = ("fedllm_data.heterogeneity", "fedllm_data.wording", "fedllm_data.errors")
                inside = name.startswith(ours)
                assert inside or name.split(".")[0] in allowed, f"{path.name} imports {name}"
