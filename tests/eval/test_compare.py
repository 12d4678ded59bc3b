"""Comparisons are paired by client, refuse what was not scored alike, and do not claim what the data do not show."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.compare import compare_results, comparison_table, write_comparison
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.running.assemble import make_results
from fedllm_eval.scores import ClientScores
from fedllm_eval.scoring.intervals import paired_difference


@pytest.fixture
def save(tmp_path):
    """Write a results folder of hand-made preference scores and return its path."""

    def write(
        name, accuracies, *, ids=None, margins=None, reference=None, settings=None, revision="abc", split="test"
    ):
        num_clients = len(accuracies)
        columns = {
            "client_id": ids or [f"c{i:03}" for i in range(num_clients)],
            "split": [split] * num_clients,
            **{c: pa.array([2] * num_clients, pa.int64()) for c in ("num_rows", "num_tokens")},
            **{c: pa.array([0] * num_clients, pa.int64()) for c in ("num_skipped", "num_truncated")},
        }
        if margins is not None:
            columns["implicit_reward_margin"] = pa.array(margins, pa.float64())
        columns["ranking_accuracy"] = pa.array(accuracies, pa.float64())
        defaults = {"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0}
        scores = ClientScores(
            task="preference",
            split=split,
            table=pa.table(columns),
            policy={"name": name},
            reference=reference,
            dataset={"name": "memory", "revision": revision, "num_clients": num_clients, "num_rows": 2 * num_clients},
            settings=defaults | (settings or {}) | ({"beta": 0.1} if reference else {}),
        )
        write_results(make_results([scores]), tmp_path / name)
        return tmp_path / name

    return write


def test_a_clear_gain_is_called_better_with_its_numbers(save):
    rng = np.random.default_rng(0)
    a = 0.2 + 0.5 * rng.random(40)
    b = a + 0.1 + 0.05 * rng.normal(size=40)
    (item,) = compare_results([save("sft", a), save("dpo", b)])["comparisons"]
    paired = paired_difference(a, b)
    assert (item["difference"], item["ci_low"], item["ci_high"]) == (paired.difference, paired.low, paired.high)
    assert item["better_fraction"] == (b > a).mean()
    # One seed each: what is shown is shown of these runs, and the verdict makes no claim about the methods.
    assert item["outcome"] == "better run"
    assert item["verdict"].startswith("The runs of dpo at hand scored better than sft in ranking_accuracy on test")
    assert item["verdict"].endswith("other seeds are not covered.")
    assert "is better" not in item["verdict"]


def test_the_order_of_clients_in_the_files_does_not_matter(save):
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 12))
    ids = [f"c{i:03}" for i in range(12)]
    straight = compare_results([save("sft", a), save("dpo", b)])["comparisons"]
    permuted = compare_results([save("sft", a), save("dpo", b[::-1], ids=ids[::-1])])["comparisons"]
    assert straight == permuted


def test_noise_is_undecided_and_the_verdict_says_what_would_go_unseen(save):
    rng = np.random.default_rng(2)
    (item,) = compare_results([save("sft", rng.random(30)), save("dpo", rng.random(30))])["comparisons"]
    assert item["outcome"] == "undecided"
    assert "The data cannot tell dpo from sft" in item["verdict"]
    assert "to be seen four times in five" in item["verdict"]


def test_a_handful_of_clients_proves_nothing(save):
    (item,) = compare_results([save("sft", [0.1, 0.2, 0.3]), save("dpo", [0.4, 0.5, 0.6])])["comparisons"]
    assert item["outcome"] == "undecided"
    assert "fewer than 6 cannot show any difference" in item["verdict"]
    (item,) = compare_results([save("sft", [0.1]), save("dpo", [0.4])])["comparisons"]
    assert (item["outcome"], item["ci_low"], item["p_value"]) == ("undecided", None, None)


def test_equal_results_are_called_equal(save):
    x = np.random.default_rng(3).random(10)
    (item,) = compare_results([save("sft", x), save("again", x)])["comparisons"]
    assert item["verdict"] == "again and sft score the same in ranking_accuracy for all 10 test clients."


def test_implicit_rewards_need_one_reference(save):
    x = list(np.linspace(0, 1, 8))
    one, other = {"name": "a", "adapter_sha256": "1"}, {"name": "b", "adapter_sha256": "2"}
    same = {"name": "called otherwise", "adapter_sha256": "1"}
    left = save("left", x, margins=x, reference=one)
    comparison = compare_results([left, save("right", x, margins=x, reference=other)])
    assert [item["score"] for item in comparison["comparisons"]] == ["ranking_accuracy"]
    assert "different references" in comparison["notes"][0]
    comparison = compare_results([left, save("right", x, margins=x, reference=same)])
    assert len(comparison["comparisons"]) == 2
    comparison = compare_results([left, save("base", x)])
    assert comparison["notes"] == ["only left has implicit_reward_margin"]


def test_clients_of_one_side_only_are_left_out_and_counted(save):
    comparison = compare_results(
        [save("sft", [0.1, 0.2, 0.3], ids=["a", "b", "c"]), save("dpo", [0.4, 0.5], ids=["b", "d"])]
    )
    assert comparison["comparisons"][0]["num_clients"] == 1
    assert comparison["comparisons"][0]["difference"] == pytest.approx(0.2)
    assert comparison["notes"] == ["1 clients of split test are scored in both sft and dpo"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"revision": "def"}, "differ in dataset revision"),
        ({"settings": {"max_length": 32}}, "differ in max_length"),
        ({"settings": {"seed": 1}}, "differ in seed"),
        ({"split": "unseen"}, "no split and score in common"),
        ({"ids": ["x", "y"]}, "share no scored client"),
    ],
)
def test_what_was_not_scored_alike_is_refused(save, overrides, message):
    with pytest.raises(MetricError, match=message):
        compare_results([save("sft", [0.1, 0.2]), save("dpo", [0.1, 0.2], **overrides)])


def test_one_folder_or_no_results_is_an_error(save, tmp_path):
    with pytest.raises(MetricError, match="two or more"):
        compare_results([save("sft", [0.1])])
    with pytest.raises(ConfigError, match="holds no results"):
        compare_results([tmp_path / "sft", tmp_path / "nothing"])


def test_a_comparison_is_written_with_its_verdicts(save, tmp_path):
    x = 0.9 * np.random.default_rng(4).random(10)
    comparison = compare_results([save("sft", x), save("dpo", x + 0.1)])
    write_comparison(comparison, tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert comparison["comparisons"][0]["verdict"] in text
    assert comparison_table(comparison).row_count == 1


def test_a_small_difference_is_not_shown_as_none_and_a_name_is_one_cell(save, tmp_path):
    x = 0.9 * np.random.default_rng(4).random(10)
    comparison = compare_results([save("sft", x), f"a|b={save('dpo', x + 3e-5)}"])
    write_comparison(comparison, tmp_path / "out")
    page, text = ((tmp_path / "out" / f"comparison.{end}").read_text(encoding="utf-8") for end in ("html", "md"))
    assert "+3.0e-05 [+3.0e-05, +3.0e-05]" in comparison["comparisons"][0]["verdict"]
    assert "<b>+3.0e−05</b><small>+3.0e−05 to +3.0e−05</small>" in page
    assert "| a\\|b |" in text
    assert "+0.0000" not in page + text


@pytest.fixture
def twelve(save):
    """Two methods, three scores and two splits against a baseline; the first method gains a little in all of them."""
    rng = np.random.default_rng(5)
    names = ("ranking_accuracy", "ranking_accuracy_per_token", "chosen_loss")
    base = {(split, name): 0.3 + 0.3 * rng.random(20) for split in ("test", "unseen") for name in names}
    folders = []
    for method, gain in (("base", 0.0), ("one", 0.03), ("two", 0.0)):
        scores = []
        for split in ("test", "unseen"):
            columns = {name: base[split, name] + gain + 0.04 * rng.normal(size=20) for name in names}
            num = pa.array([2] * 20, pa.int64())
            table = {"client_id": [f"c{i:03}" for i in range(20)], "split": [split] * 20, "num_rows": num}
            table |= {"num_tokens": num, "num_skipped": num, "num_truncated": num, **columns}
            scores.append(
                ClientScores(
                    task="preference",
                    split=split,
                    table=pa.table(table),
                    policy={"name": method},
                    reference=None,
                    dataset={"name": "memory", "revision": "abc", "num_clients": 20, "num_rows": 40},
                    settings={"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0},
                )
            )
        folder = save(method, [0.0])
        write_results(make_results(scores), folder)
        folders.append(folder)
    return folders


def test_twelve_tests_are_corrected_together_and_it_is_said_everywhere(twelve, tmp_path):
    comparison = compare_results(twelve)
    items = comparison["comparisons"]
    p = [item["p_value"] for item in items]
    assert len(p) == 12
    # Holm by hand: the i-th smallest times (12 - i), never below an earlier one, at most 1.
    expected, largest = {}, 0.0
    for rank, index in enumerate(sorted(range(12), key=lambda at: p[at])):
        largest = max(largest, min(1.0, (12 - rank) * p[index]))
        expected[index] = largest
    assert [item["p_holm"] for item in items] == pytest.approx([expected[index] for index in range(12)])
    # Small by itself, not shown among twelve.
    assert any(item["p_value"] < 0.05 <= item["p_holm"] and item["outcome"] == "undecided" for item in items)
    assert comparison["correction"] == {
        "method": "Holm",
        "over": ["methods", "scores", "splits"],
        "alpha": 0.05,
        "num_tests": 12,
        "num_methods": 2,
        "num_scores": 3,
        "num_splits": 2,
    }
    write_comparison(comparison, tmp_path / "out")
    text, page = ((tmp_path / "out" / f"comparison.{end}").read_text(encoding="utf-8") for end in ("md", "html"))
    assert "corrected (Holm) for 12 tests: 2 methods, 3 scores, 2 splits" in text
    assert "tests: 12; methods: 2; scores: 3; splits: 2" in page
    # A difference that four in five would show has to pass the corrected level: t(1 - .05 / 24) + t(.8).
    item, quantile = items[0], stats.t(19)
    half = (item["ci_high"] - item["ci_low"]) / 2 / quantile.ppf(0.975)
    assert item["minimum_detectable"] == pytest.approx(half * (quantile.ppf(1 - 0.025 / 12) + quantile.ppf(0.8)))


def test_among_many_tests_more_clients_are_needed_and_the_verdict_says_so(save):
    x = np.linspace(0.1, 0.5, 7)
    folders = [save("base", x)] + [save(f"m{i}", x + 0.1 + 0.001 * i) for i in range(6)]
    items = compare_results(folders)["comparisons"]
    # 7 clients reach 2 / 2^7 = .0156, times 6 tests .094; 8 clients .0078 x 6 = .047.
    assert {item["outcome"] for item in items} == {"undecided"}
    assert "fewer than 8 cannot show any difference at p < 0.05 over 6 tests" in items[0]["verdict"]
    assert compare_results(folders[:2])["comparisons"][0]["outcome"] == "better run"
