import numpy as np
import pytest

from fedllm_data.heterogeneity import measure_axes
from fedllm_data.heterogeneity.language import language_values


def test_measures_by_hand():
    # Clients (1, 0) and (0, 1) of 1 and 3 rows: the pool is (1/4, 3/4), H = 0.811278 bits, and the client tells all.
    values = language_values(np.array([[1, 0], [0, 3]]), np.arange(2))
    assert values["divergence_bits"] == pytest.approx(0.811278, abs=1e-6)
    assert values["divergence_fraction"] == 1.0
    assert values["total_variation_to_pool"] == pytest.approx(0.5)  # (3/4 + 1/4) / 2
    assert values["hellinger_to_pool"] == pytest.approx((np.sqrt(1 - 0.5) + np.sqrt(1 - np.sqrt(0.75))) / 2)
    assert values["languages_per_client"] == 1.0


def test_rows_of_unknown_language_take_no_part_but_are_reported(make_profiles):
    clients = {"a": {"language": ["en", "en", "und", "und"]}, "b": {"language": ["fr", "fr", "fr", "fr"]}}
    language = measure_axes(make_profiles(clients), num_null=9, num_bootstrap=9)["language"]
    assert language.estimates["divergence_fraction"].value == 1.0
    assert language.facts["undetermined_fraction"] == 0.25
    assert language.facts["num_languages"] == 2


def test_one_language_is_not_enough_data(make_profiles):
    clients = {name: {"language": ["en"] * 5} for name in "abc"}
    language = measure_axes(make_profiles(clients), num_null=9, num_bootstrap=9)["language"]
    assert language.verdict == "not enough data"
    assert language.estimates["divergence_fraction"].value is None
    assert "all rows are in one language" in language.estimates["divergence_fraction"].reason


def test_no_known_language_is_not_enough_data(make_profiles):
    clients = {name: {"language": ["und"] * 5} for name in "abc"}
    language = measure_axes(make_profiles(clients), num_null=9, num_bootstrap=9)["language"]
    assert language.verdict == "not enough data"
    assert language.sentence == "Not enough data: 0 clients with 2 rows or more, at least 2 are needed."


def test_facts_order_languages_by_rows(make_profiles):
    clients = {"a": {"language": ["fr", "en", "en"]}, "b": {"language": ["de", "en"]}}
    facts = measure_axes(make_profiles(clients), num_null=9, num_bootstrap=9)["language"].facts
    assert list(facts["rows_per_language"].items()) == [("en", 3), ("de", 1), ("fr", 1)]
    assert facts["one_language_client_fraction"] == 0.0
