"""The generated corpora: their clients are what the knobs say, and every answer is right or known to be wrong."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.schema import PUBLIC_CLIENT, row_problem
from fedllm_data.sources.synth import EVASIVE_FRACTION, FED_SYNTH, FED_SYNTH_PA
from fedllm_data.synthetic.phrases import PHRASES, TASKS
from fedllm_data.synthetic.synthetic_clients import LANGUAGE_MIX, OPTIONS, SynthOptions, client_truth, parse_options
from fedllm_data.synthetic.tasks import draw_question
from fedllm_data.synthetic.vocabulary import CATEGORIES, COLOUR_OF, LANGUAGES, WORDS

KNOBS = ("size_skew", "language_skew", "length_skew", "quality_skew", "topic_skew", "preference_skew")
FIELD_OF = dict(
    zip(
        KNOBS,
        (
            "num_rows",
            "language_probs",
            "long_probability",
            "poor_probability",
            "task_probs",
            "thorough_probability",
        ),
        strict=True,
    )
)


def read(source, seed=0, **options):
    return list(source.read(None, seed, {"public_rows": "0", **{key: str(value) for key, value in options.items()}}))


def by_client(items):
    rows = defaultdict(list)
    for item in items:
        rows[item.row["client_id"]].append(item.row)
    return rows


@pytest.mark.parametrize("source", [FED_SYNTH, FED_SYNTH_PA])
def test_every_row_is_valid_and_has_an_id_of_its_own(source):
    items = list(source.read(None, 0, {"num_clients": "40", "public_rows": "50"}))
    assert [row_problem(item.row, source.task) for item in items] == [None] * len(items)
    assert len({item.row["row_id"] for item in items}) == len(items)
    assert [item.line for item in items] == list(range(1, len(items) + 1))


def test_the_default_is_three_hundred_clients_in_seven_languages():
    rows = by_client(read(FED_SYNTH))
    assert len(rows) == 300
    assert 4500 <= sum(map(len, rows.values())) <= 7500
    assert {row["language"] for client in rows.values() for row in client} == set(LANGUAGES)


def test_both_corpora_have_the_same_clients_of_the_same_sizes():
    sizes = [
        {client: len(rows) for client, rows in by_client(read(source)).items()} for source in (FED_SYNTH, FED_SYNTH_PA)
    ]
    assert sizes[0] == sizes[1]


def test_client_ids_are_hashes_that_change_with_the_seed():
    first, second = ({truth.client_id for truth in client_truth(seed)} for seed in (0, 1))
    assert all(len(client_id) == 16 and int(client_id, 16) >= 0 for client_id in first)
    assert not first & second


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    assert read(FED_SYNTH, num_clients=5) == read(FED_SYNTH, num_clients=5)
    assert read(FED_SYNTH, num_clients=5) != read(FED_SYNTH, seed=1, num_clients=5)


@pytest.mark.parametrize("source", [FED_SYNTH, FED_SYNTH_PA])
def test_adding_a_client_changes_no_other_client(source):
    few, more = (read(source, num_clients=count) for count in (4, 5))
    assert more[: len(few)] == few


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_at_zero_makes_the_clients_exchangeable_on_its_axis(knob):
    values = [getattr(truth, FIELD_OF[knob]) for truth in client_truth(0, SynthOptions(num_clients=20, **{knob: 0}))]
    assert values == [values[0]] * 20


@pytest.mark.parametrize("knob", KNOBS)
def test_turning_one_knob_changes_nothing_on_the_other_axes(knob):
    low, high = (list(client_truth(0, SynthOptions(num_clients=20, **{knob: value}))) for value in (0.1, 0.9))
    for other, field in FIELD_OF.items():
        same = [getattr(truth, field) for truth in low] == [getattr(truth, field) for truth in high]
        assert same == (other != knob)


@pytest.mark.parametrize("rho", [0.2, 0.7])
def test_a_knob_is_the_intraclass_correlation_and_leaves_the_mean_alone(rho):
    options = SynthOptions(num_clients=3000, language_skew=rho, preference_skew=rho)
    truths = list(client_truth(0, options))
    # Dirichlet(m (1 - rho) / rho) has mean m and variance m (1 - m) rho; likewise the Beta.
    for p, mean in (
        (np.array([truth.language_probs["en"] for truth in truths]), LANGUAGE_MIX["en"]),
        (np.array([truth.thorough_probability for truth in truths]), 0.65),
    ):
        assert p.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean * (1 - mean) * rho / 3000))
        assert p.var() == pytest.approx(mean * (1 - mean) * rho, rel=0.15)


def test_a_knob_at_one_makes_every_client_a_pure_type():
    options = SynthOptions(
        num_clients=50, language_skew=1, topic_skew=1, length_skew=1, quality_skew=1, preference_skew=1
    )
    for truth in client_truth(0, options):
        assert max(truth.language_probs.values()) == max(truth.task_probs.values()) == 1
        assert {truth.long_probability, truth.poor_probability, truth.thorough_probability} <= {0.0, 1.0}


def test_size_skew_keeps_the_mean_and_widens_the_spread():
    sizes = np.array([truth.num_rows for truth in client_truth(0, SynthOptions(num_clients=4000, size_skew=0.8))])
    # log-normal: standard deviation of the log is the knob, and the mean stays 20.
    assert sizes.mean() == pytest.approx(20, rel=0.06)
    assert np.log(sizes).std() == pytest.approx(0.8, abs=0.05)


def test_rows_follow_the_truth_of_their_client():
    options = {"num_clients": 6, "mean_rows": 400, "size_skew": 0, "length_skew": 0.5, "quality_skew": 1}
    rows = by_client(read(FED_SYNTH, **options))
    for truth in client_truth(0, parse_options({key: str(value) for key, value in options.items()})):
        client = rows[truth.client_id]
        languages = Counter(row["language"] for row in client)
        for language, p in truth.language_probs.items():
            assert languages[language] / 400 == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 400) + 1e-9)
        thorough = np.mean(
            [row["messages"][1]["content"].endswith(PHRASES[row["language"]].courtesy) for row in client]
        )
        # A poor client's answers are wrong, and then as long as the others, or evasive, which is short.
        p = truth.long_probability * (1 - EVASIVE_FRACTION * truth.poor_probability)
        assert thorough == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 400) + 1e-9)


def test_opposed_camps_choose_opposite_styles_and_never_waver():
    camps, camps_of = set(), {"synth-brief", "synth-thorough"}
    for client in by_client(read(FED_SYNTH_PA, num_clients=60, preference_skew=1)).values():
        styles = {row["chosen_model"] for row in client if {row["chosen_model"], row["rejected_model"]} == camps_of}
        assert len(styles) <= 1
        camps |= styles
    assert camps == camps_of


def test_careful_clients_never_choose_a_poor_answer_and_careless_ones_do_in_a_third_of_their_pairs():
    poor = {"synth-evasive", "synth-wrong"}
    rows = by_client(read(FED_SYNTH_PA, num_clients=120, quality_skew=1))
    chose_poor = {0.0: [], 1.0: []}
    for truth in client_truth(0, SynthOptions(num_clients=120, quality_skew=1)):
        for row in rows[truth.client_id]:
            if poor & {row["chosen_model"], row["rejected_model"]}:
                chose_poor[truth.poor_probability].append(row["chosen_model"] in poor)
    assert not any(chose_poor[0.0])
    assert np.mean(chose_poor[1.0]) == pytest.approx(1 / 3, abs=0.1)


def test_the_public_part_depends_on_no_knob_and_belongs_to_nobody():
    parts = [
        [item.row for item in FED_SYNTH.read(None, 0, {"public_rows": "30", "num_clients": "2", "topic_skew": skew})][
            :30
        ]
        for skew in ("0", "1")
    ]
    assert parts[0] == parts[1]
    assert {row["client_id"] for row in parts[0]} == {PUBLIC_CLIENT}
    assert not any(item.is_public for item in FED_SYNTH_PA.read(None, 0, {"num_clients": "2"}))


def test_clients_seldom_ask_what_another_asks_and_never_ask_twice():
    asked_by = defaultdict(set)
    for client_id, rows in by_client(read(FED_SYNTH)).items():
        prompts = [row["messages"][0]["content"] for row in rows]
        assert len(set(prompts)) == len(prompts)
        for prompt in prompts:
            asked_by[prompt].add(client_id)
    assert np.mean([len(clients) > 1 for clients in asked_by.values()]) < 0.06


def test_the_languages_list_the_same_things_without_repetition():
    for field in (
        "names",
        "nouns",
        "categories",
        "opposites",
        "countries",
        "coloured",
        "colours",
        "days",
        "in_language",
    ):
        for language in LANGUAGES:
            words = getattr(WORDS[language], field)
            assert len(words) == len(getattr(WORDS["en"], field)), (language, field)
            assert len(set(words)) == len(words), (language, field)
    assert set(WORDS) == set(PHRASES) == set(LANGUAGES) == set(LANGUAGE_MIX)
    assert sum(LANGUAGE_MIX.values()) == pytest.approx(1)
    assert len(COLOUR_OF) == len(WORDS["en"].coloured)
    assert sum(map(len, CATEGORIES.values())) == len(WORDS["en"].nouns)
    for phrases in PHRASES.values():
        assert set(phrases.questions) == set(phrases.sentences) == set(TASKS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_right_answers_are_right_and_wrong_ones_wrong(language):
    rng = np.random.default_rng(0)
    words, phrases = WORDS[language], PHRASES[language]
    for _ in range(60):
        questions = {task: draw_question(rng, language, task) for task in TASKS}
        assert all(question.right != question.wrong for question in questions.values())
        for task, question in questions.items():
            listed = question.x.replace(phrases.last_comma, phrases.comma).split(phrases.comma)
            if task == "capital":
                assert (question.x, question.right) in words.countries
            elif task == "opposite":
                assert {question.x, question.right} in [set(pair) for pair in words.opposites]
            elif task == "colour":
                assert words.colours.index(question.right) == COLOUR_OF[words.coloured.index(question.x)]
            elif task == "day":
                assert words.days.index(question.right) == (words.days.index(question.x) + 1) % 7
            elif task == "translate":
                target = LANGUAGES[words.in_language.index(question.c)]
                assert WORDS[target].nouns[words.nouns.index(question.x)] == question.right
                assert target != language
            elif task == "add":
                first, second = question.x.split(" + ")
                assert int(first) + int(second) == int(question.right)
            elif task == "category":
                positions = list(CATEGORIES.values())[words.categories.index(question.c)]
                assert [item for item in listed if words.nouns.index(item) in positions] == [question.right]
            else:
                assert max(map(int, listed)) == int(question.right)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": "1"}, "no such option; did you mean size_skew? it has num_clients, mean_rows"),
        ({"num_clients": "many"}, "num_clients=many: fed-synth takes a whole number from 1 to"),
        ({"num_clients": "0"}, "from 1 to"),
        ({"topic_skew": "1.5"}, "topic_skew=1.5: fed-synth takes a number from 0 to 1"),
        ({"topic_skew": "nan"}, "from 0 to 1"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused_in_one_line(options, says):
    with pytest.raises(ConfigError) as caught:
        next(iter(FED_SYNTH.read(None, 0, options)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_path_or_a_negative_seed_is_refused():
    with pytest.raises(SourceError, match="is generated"):
        next(iter(FED_SYNTH.read(Path("somewhere"), 0, {})))
    with pytest.raises(SourceError, match="seed of 0 or more"):
        next(iter(FED_SYNTH_PA.read(None, -1, {})))


def test_the_documented_options_are_the_options():
    assert set(OPTIONS) == set(SynthOptions.__dataclass_fields__)
    for name, sentence in OPTIONS.items():
        assert f"(default {getattr(SynthOptions(), name)})" in sentence
