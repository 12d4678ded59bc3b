from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.codebook import Codebook
from fedllm_data.features import row_features
from fedllm_data.features.pairs import pair_columns
from fedllm_data.features.token_counts import UNICODE_WORDS
from fedllm_data.heterogeneity import measure_axes
from fedllm_data.heterogeneity.null import one_sided_p
from fedllm_data.heterogeneity.preference import PREFERENCE
from fedllm_data.heterogeneity.profile import ClientProfile, merge_profiles, stack_profiles
from fedllm_data.sources import SOURCES
from fedllm_data.sources.synth import read_preference

FEW = {"num_null": 199, "num_bootstrap": 49, "axes": {"preference": PREFERENCE}}
HEADLINE = PREFERENCE.headline


def profile(client_id, columns):
    num_rows = len(columns["chosen_tokens"])
    return ClientProfile(client_id, "codebook", num_rows, PREFERENCE.count(columns))


def stacked(profiles):
    return stack_profiles(profiles, PREFERENCE.tables, PREFERENCE.min_rows)


def pairs(rng, num_rows, longer=0.6, models=("ann", "bob", "cyd")):
    """A client's rows, with every column that the axis reads; `longer`: how often it chooses the longer answer."""
    short, more = rng.integers(5, 100, num_rows), rng.integers(1, 80, num_rows)
    chose_longer = rng.random(num_rows) < longer
    named = np.array([rng.choice(models, 2, replace=False) for _ in range(num_rows)]).reshape(-1, 2)
    return {
        "chosen_tokens": short + more * chose_longer,
        "rejected_tokens": short + more * ~chose_longer,
        "chosen_model": named[:, 0].tolist(),
        "rejected_model": named[:, 1].tolist(),
        "chosen_in_language": rng.choice([1, 1, 0, -1], num_rows),
        "rejected_in_language": rng.choice([1, 0, 0, -1], num_rows),
        "chosen_refusal": rng.integers(0, 2, num_rows),
        "rejected_refusal": rng.integers(0, 2, num_rows),
        "prompt_key": [f"{key:016x}" for key in rng.integers(0, 500, num_rows)],
        "pair_key": [f"{key:016x}" for key in rng.integers(0, 500, num_rows)],
        "pair_side": rng.integers(0, 2, num_rows),
    }


def some_profiles(seed=0, num_clients=20, longer=lambda rng: 0.6, **options):
    rng = np.random.default_rng(seed)
    return [
        profile(f"c{index:03d}", pairs(rng, int(rng.integers(2, 40)), longer(rng), **options))
        for index in range(num_clients)
    ]


def test_a_row_is_counted_in_every_table_by_hand():
    columns = {
        "chosen_tokens": [40, 5, 7],
        "rejected_tokens": [10, 10, 7],
        "chosen_model": ["a", "b", None],
        "rejected_model": ["b", "a", "a"],
        "chosen_in_language": [1, 0, 1],
        "rejected_in_language": [0, -1, 1],
        "chosen_refusal": [0, 1, 1],
        "rejected_refusal": [1, 0, 1],
        "prompt_key": ["p1", "p2", None],
        "pair_key": ["k1", "k2", None],
        "pair_side": [1, 0, 1],
    }
    assert PREFERENCE.count(columns) == {
        "preference_choice": {"a>b:+": 1, "b>a:-": 1, ">:=": 1},
        "preference_length": {"+07": 1, "-03": 1, "=": 1},
        "preference_same_language": {"yes": 1},  # the second answer of row 2 is in nobody knows which language
        "preference_refusal": {"no": 1, "yes": 1},
        "preference_votes": {"k1/1": 1, "k2/0": 1},
    }


def test_the_headline_by_hand():
    # Two clients, one stratum, 9 of 10 and 3 of 10 for the longer: p = 0.6, V = 2.4 each, O - E = 3 and -3.
    # Q = 2 * 9 / 2.4 = 7.5; exact variance 2.4 * 10 / 19, so degrees 20 / 19 and scale 4.8 * 10 / 19.
    rows = {"chosen_tokens": [20] * 9 + [10], "rejected_tokens": [10] * 9 + [20]}
    other = {"chosen_tokens": [20] * 3 + [10] * 7, "rejected_tokens": [10] * 3 + [20] * 7}
    values = PREFERENCE.measure(stacked([profile("a", rows), profile("b", other)]))
    assert values[HEADLINE] == pytest.approx((7.5 - 20 / 19) / (48 / 19), abs=1e-9)
    assert values["length_i_squared"] == pytest.approx(1 - 20 / 19 / 7.5, abs=1e-9)
    assert np.isnan(values["win_rate_distance"])


def test_what_was_offered_is_no_preference():
    # All clients choose model a over b in 9 of 10 pairs, whatever the lengths; two are offered pairs in which a is
    # the longer answer, one is offered pairs in which it is the shorter.
    long, short = {"chosen_tokens": [20] * 9 + [10]}, {"chosen_tokens": [10] * 9 + [20]}
    long, short = long | {"rejected_tokens": [10] * 9 + [20]}, short | {"rejected_tokens": [20] * 9 + [10]}
    named = {"chosen_model": ["a"] * 9 + ["b"], "rejected_model": ["b"] * 9 + ["a"]}
    offers = [("x", long), ("y", short), ("z", long)]
    known = PREFERENCE.measure(stacked([profile(name, rows | named) for name, rows in offers]))
    unknown = PREFERENCE.measure(stacked([profile(name, rows) for name, rows in offers]))
    assert known[HEADLINE] < 0 < 3 < unknown[HEADLINE]


def test_clients_who_agree_lie_inside_the_null_and_those_who_do_not_outside():
    alike = measure_axes(some_profiles(num_clients=40), **FEW)["preference"]
    assert alike.verdict == "no more than chance"
    assert all(abs(estimate.z) < 3.5 for estimate in alike.estimates.values())
    camps = measure_axes(some_profiles(num_clients=40, longer=lambda rng: rng.choice([0.2, 0.9])), **FEW)["preference"]
    assert camps.verdict == "more than chance"
    assert camps.estimates[HEADLINE].z > 10
    assert abs(camps.estimates["refusal_tau_squared"].z) < 3.5


def test_p_values_keep_their_level_with_clients_as_small_as_fed_chatbot_pas():
    # 150 clients with mean 13 and standard deviation 21, a log-normal of sigma 1.13; p < 0.05 in 1 of 20 sets.
    low = {HEADLINE: 0, "win_rate_distance": 0, "ranking_correlation": 0}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sizes = np.maximum(2, rng.lognormal(np.log(13) - 1.13**2 / 2, 1.13, 150)).astype(int)
        stack = stacked([profile(f"c{k:03d}", pairs(rng, n)) for k, n in enumerate(sizes.tolist())])
        values, draw = PREFERENCE.measure(stack), PREFERENCE.null_sampler(stack)
        null = [PREFERENCE.measure(draw(rng)) for _ in range(19)]
        for name in low:
            drawn = np.array([values[name] for values in null])
            low[name] += one_sided_p(values[name], drawn, unequal=PREFERENCE.measures[name].unequal) <= 0.05
    assert max(low.values()) <= 5  # 1.5 are expected; 6 or more have probability 0.003


@pytest.mark.parametrize("num_raters", [4, 9])
def test_p_values_keep_their_level_with_few_raters_and_sparse_pairs_of_models(num_raters):
    models, low = [f"m{index:02d}" for index in range(13)], {HEADLINE: 0, "win_rate_distance": 0}
    rng = np.random.default_rng(num_raters)
    rows = pairs(rng, 1_500, models=tuple(models))
    for _ in range(30):
        owner = rng.choice(num_raters, 1_500, p=np.arange(1, num_raters + 1) / (num_raters * (num_raters + 1) / 2))
        parts = [{name: np.asarray(column)[owner == k] for name, column in rows.items()} for k in range(num_raters)]
        stack = stacked([profile(f"r{k}", part) for k, part in enumerate(parts)])
        values, draw = PREFERENCE.measure(stack), PREFERENCE.null_sampler(stack)
        null = [PREFERENCE.measure(draw(rng)) for _ in range(19)]
        for name in low:
            low[name] += one_sided_p(values[name], np.array([v[name] for v in null]), unequal="high") <= 0.05
    assert max(low.values()) <= 5


def test_rows_without_preferences_are_not_enough_data():
    rows = ClientProfile("a", "codebook", 9, {"rows": {"all": 9}})
    result = measure_axes([rows, replace(rows, client_id="b")], **FEW)["preference"]
    assert result.estimates[HEADLINE].reason == "not enough data: these rows hold no preferences"
    assert PREFERENCE.count({"language": ["en"], "instruction_tokens": [3], "response_tokens": [9]}) == {}


def test_one_client_is_not_enough_data():
    result = measure_axes(some_profiles(num_clients=1), **FEW)["preference"]
    assert "1 client with 2 rows or more, at least 2 are needed" in result.estimates[HEADLINE].reason
    assert len(result.per_client["num_pairs"]) == 1


def test_answers_of_one_length_leave_the_other_figures():
    profiles = some_profiles(num_clients=5)
    level = {"chosen_tokens": [7] * 12, "rejected_tokens": [7] * 12, "chosen_model": ["a", "b", "c"] * 4}
    level |= {"rejected_model": ["b", "a", "b"] * 4}
    equal = [profile(f"e{index}", level) for index in range(6)]
    result = measure_axes(equal, **FEW)["preference"]
    assert "equally long" in result.estimates[HEADLINE].reason
    assert result.verdict == "not enough data"
    assert result.estimates["win_rate_distance"].value == pytest.approx(0, abs=1e-12)
    assert result.per_client["longer_fraction"] == [None] * 6
    assert measure_axes(profiles + equal, **FEW)["preference"].estimates[HEADLINE].value is not None


def test_rows_without_models_leave_the_figures_on_length():
    rng = np.random.default_rng(0)
    rows = [pairs(rng, 20) for _ in range(6)]
    nameless = [{name: column for name, column in part.items() if "model" not in name} for part in rows]
    result = measure_axes([profile(f"c{k}", part) for k, part in enumerate(nameless)], **FEW)["preference"]
    assert result.estimates["win_rate_distance"].reason == (
        "not enough data: fewer than two clients chose between two named models"
    )
    assert result.estimates[HEADLINE].p is not None
    assert result.per_client["ranking_kendall_tau"] == [None] * 6
    assert result.facts["model_strengths"] == {}


def test_a_handful_of_refusals_gives_no_spread():
    rng = np.random.default_rng(0)
    rows = [pairs(rng, 20) | {"chosen_refusal": [1] + [0] * 19, "rejected_refusal": [0] * 20} for _ in range(19)]
    clients = [profile(f"c{k:02d}", part) for k, part in enumerate(rows)]
    assert np.isnan(PREFERENCE.measure(stacked(clients))["refusal_tau_squared"])
    clients.append(profile("c19", rows[0] | {"chosen_refusal": [0] * 20, "rejected_refusal": [1] + [0] * 19}))
    assert np.isfinite(PREFERENCE.measure(stacked(clients))["refusal_tau_squared"])


def shared_profiles(seed, contrary):
    """Twelve clients judge half of 60 pairs; eight in ten say the same, and the contrary ones the opposite."""
    rng = np.random.default_rng(seed)
    right, clients = rng.integers(0, 2, 60), []
    for k in range(12):
        judged = np.flatnonzero(rng.random(60) < 0.5)
        sides = right[judged] ^ (rng.random(len(judged)) < 0.2) ^ (k in contrary)
        keys = {"pair_key": [f"{item:016x}" for item in judged], "pair_side": sides}
        clients.append(profile(f"c{k:02d}", pairs(rng, len(judged)) | keys))
    return clients


def test_verdicts_on_shared_pairs_have_a_null_an_interval_and_words():
    alike, camps = (measure_axes(shared_profiles(0, contrary), **FEW)["preference"] for contrary in ((), range(0, 5)))
    # Two agree in 0.8 * 0.8 + 0.2 * 0.2 of the pairs: 32 % are opposite.
    opposite = alike.estimates["opposite_fraction"]
    assert opposite.low < 0.32 < opposite.high
    assert opposite.z < -5
    assert opposite.null_mean == pytest.approx(alike.facts["opposite_by_chance_fraction"], abs=0.02)
    assert alike.estimates["opposite_spread"].p > 0.05
    assert "of two verdicts are opposite; verdicts at random would be in 50%" in alike.sentence
    # Five against seven contradict one another on nearly every pair that both judged.
    assert camps.estimates["opposite_fraction"].value > opposite.value + 0.1
    lone = measure_axes(shared_profiles(1, (3,)), **FEW)["preference"]
    assert lone.estimates["opposite_spread"].p == pytest.approx(1 / 200)


def test_separable_clients_have_finite_figures():
    long = {"chosen_tokens": [20] * 5, "rejected_tokens": [10] * 5}
    short = {"chosen_tokens": [10] * 5, "rejected_tokens": [20] * 5}
    named = {"chosen_model": ["a"] * 5, "rejected_model": ["b"] * 5}
    other = {"chosen_model": ["b"] * 5, "rejected_model": ["a"] * 5}
    clients = [profile("a", long | named), profile("b", short | other), profile("c", long | named)]
    values = PREFERENCE.measure(stacked(clients))
    assert all(np.isfinite(values[name]) for name in (HEADLINE, "win_rate_distance", "ranking_correlation"))
    columns = PREFERENCE.per_client(stacked(clients))
    assert columns["ranking_kendall_tau"] == [1, -1, 1]
    assert all(value is not None for column in columns.values() for value in column)


def test_permuting_the_clients_changes_nothing():
    profiles = some_profiles()
    few = FEW | {"num_null": 19, "num_bootstrap": 9}
    assert measure_axes(profiles[::-1], **few) == measure_axes(profiles, **few)


def test_the_union_of_two_clients_has_the_merged_profile():
    rng = np.random.default_rng(0)
    one, two = pairs(rng, 30), pairs(rng, 12)
    union = {name: [*one[name], *two[name]] for name in one}
    assert merge_profiles([profile("u", one), profile("v", two)], client_id="w") == profile("w", union)


def test_leaving_out_the_keys_changes_no_measure():
    rng = np.random.default_rng(0)
    rows = [pairs(rng, 60) for _ in range(6)]
    bare = [{name: column for name, column in part.items() if "key" not in name} for part in rows]
    with_keys, without = (
        measure_axes([profile(f"c{k}", part) for k, part in enumerate(parts)], **FEW)["preference"]
        for parts in (rows, bare)
    )
    verdicts = ("opposite_fraction", "opposite_spread")
    assert all(found.p for found in (with_keys.estimates.pop(name) for name in verdicts))
    reasons = [without.estimates.pop(name).reason for name in verdicts]
    assert all("pairs were judged by two clients, or their hashes were left out" in reason for reason in reasons)
    assert with_keys.estimates == without.estimates
    assert with_keys.facts["num_shared_pairs"] > 20
    assert with_keys.facts["verdicts_kept_fraction"] == 1.0
    assert (without.facts["num_shared_pairs"], without.facts["krippendorff_alpha"]) == (0, None)


def synth_profiles(**options):
    knobs = ("size_skew", "language_skew", "length_skew", "quality_skew", "topic_skew", "preference_skew")
    settings = {"num_clients": 80, "mean_rows": 20} | dict.fromkeys(knobs, 0) | options
    rows = [item.row for item in read_preference(None, 3, {name: str(value) for name, value in settings.items()})]
    lengths = {side: _tokens([row[side] for row in rows]) for side in ("chosen", "rejected")}
    columns = {f"{side}_tokens": tokens for side, tokens in lengths.items()}
    columns |= {name: np.array([row[name] for row in rows]) for name in ("chosen_model", "rejected_model")}
    owner = np.array([row["client_id"] for row in rows])
    return [
        profile(client, {name: column[owner == client] for name, column in columns.items()})
        for client in np.unique(owner).tolist()
    ]


def _tokens(answers):
    rows = [{"client_id": "a", "language": "en", "messages": messages} for messages in answers]
    return row_features(pa.Table.from_pylist(rows), "sft")["response_tokens"]


@pytest.mark.slow  # test_knobs has the claim with two values of the knob, over all axes
def test_the_preference_knob_of_fed_synth_moves_the_headline_and_no_other_knob_does():
    turned = [PREFERENCE.measure(stacked(synth_profiles(preference_skew=skew)))[HEADLINE] for skew in (0, 0.3, 1)]
    assert turned == sorted(turned)
    assert turned[-1] > turned[0] + 1
    for knob, value in [("size_skew", 1.5), ("language_skew", 1), ("length_skew", 1), ("topic_skew", 1)]:
        estimate = measure_axes(synth_profiles(**{knob: value}), **FEW | {"num_bootstrap": 0})["preference"].estimates[
            HEADLINE
        ]
        assert estimate.p > 0.05, knob
    quality = measure_axes(synth_profiles(quality_skew=0.2), **FEW | {"num_bootstrap": 0})["preference"].estimates[
        HEADLINE
    ]
    assert quality.p > 0.05


def test_a_thousand_clients_are_measured_in_well_under_a_second():
    stack = stacked(some_profiles(num_clients=1_000, models=tuple(f"m{index}" for index in range(20))))
    draw, measured = PREFERENCE.null_sampler(stack), PREFERENCE.measure
    assert stack.num_clients == 1_000
    values = measured(draw(np.random.default_rng(0)))
    assert all(np.isfinite(value) for name, value in values.items() if not name.startswith("opposite"))


def test_the_axis_names_the_reason_for_every_figure_it_may_not_give():
    assert set(PREFERENCE.measure(stacked(some_profiles()))) == set(PREFERENCE.measures)
    assert all(measure.undefined and measure.meaning for measure in PREFERENCE.measures.values())


REAL = {
    # More than chance: which headline, and which figures on models; names are of people in the first two.
    "fed-oasst-pa": ("sft/oasst1", {HEADLINE}),
    "fed-stackexchange-pa": ("sft/stackexchange", {HEADLINE}),
    "fed-mqm": ("pref/wmt_mqm", {"win_rate_distance", "ranking_correlation"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_corpora_differ_beyond_chance_and_shuffled_do_not(tmp_path, shared_data, name):
    folder, beyond_chance = REAL[name]
    build(SOURCES[name], tmp_path / name, source_path=shared_data / folder)
    book = Codebook(tokenizer="unicode-words", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")
    owner, columns = [], {}
    for split in ("train", "test", "unseen"):
        if not list((tmp_path / name / "data").glob(f"{split}-*")):
            continue
        table = load_clients(tmp_path / name, split).rows.with_format("arrow")[:]
        owner += table["client_id"].to_pylist()
        for column, values in pair_columns(table, UNICODE_WORDS, book).items():
            columns.setdefault(column, []).extend(values)
    found = measure_axes(clients_of(columns, owner), **FEW)["preference"]
    assert all(found.estimates[figure].p <= 0.02 for figure in beyond_chance)
    assert found.num_null == 199
    shuffled = np.random.default_rng(0).permutation(owner)
    by_chance = measure_axes(clients_of(columns, shuffled), **FEW)["preference"]
    assert by_chance.estimates[HEADLINE].p > 0.02


def clients_of(columns, owner):
    arrays, owner = {name: np.asarray(column, object) for name, column in columns.items()}, np.asarray(owner)
    return [
        profile(client, {name: column[owner == client].tolist() for name, column in arrays.items()})
        for client in np.unique(owner).tolist()
    ]
