"""Comparisons are paired by client, refuse what was not scored alike, and do not claim what the data do not show."""

import numpy as np
import pyarrow as pa
import pytest

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.compare import compare_results, comparison_table, write_comparison
from fedllm_eval.results import make_results, write_results
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
    assert item["outcome"] == "better"
    assert item["better_fraction"] == (b > a).mean()
    assert item["verdict"].startswith("dpo is better than sft in ranking_accuracy on test clients: +0.1")


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
