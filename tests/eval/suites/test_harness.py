"""A task of one's own through lm-evaluation-harness: our log-probabilities come out, errors name their remedy."""

import json
import math

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.models import sequence_logps
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.suites import SuiteOptions
from fedllm_eval.suites.harness import TASK_SETS, Harness, suite_scores

QUESTIONS = [
    {"query": "the river runs past", "choices": ["the old mill", "no"], "gold": 0},
    {"query": "old rivers run", "choices": ["yes", "deep and slow"], "gold": 1},
    {"query": "what runs past", "choices": ["mill", "the mill?"], "gold": 1},
]
TASK = """\
task: mills
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 7.0}}
"""


@pytest.fixture
def harness():
    """The suite, where lm-evaluation-harness is installed."""
    pytest.importorskip("lm_eval", reason="extra `harness` is not installed")
    return Harness()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "mills.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (folder / "mills.yaml").write_text(TASK.format(file=folder / "mills.jsonl"))
    return folder


def by_hand(policy):
    """Which questions the likeliest choice answers."""
    right = []
    with policy.active() as model:
        for question in QUESTIONS:
            prompt = policy.tokenizer(question["query"])["input_ids"]
            sequences = []
            for choice in question["choices"]:
                ids = policy.tokenizer(f"{question['query']} {choice}")["input_ids"]
                sequences.append((ids, [0] * len(prompt) + [1] * (len(ids) - len(prompt))))
            logp, _ = sequence_logps(model, sequences, 1)
            right.append(float(logp.argmax() == question["gold"]))
    return right


def test_a_local_task_on_base_and_adapter(harness, folder, model_folder, make_adapter, tmp_path):
    base = load_policy(model_folder, device="cpu")
    for policy in (base, load_policy(make_adapter(tmp_path / "adapter", seed=2), share=base)):
        options = SuiteOptions(folder=tmp_path, items=folder, batch_size=2, switches={"tasks": "mills"})
        result = harness.run(policy, options)
        want = by_hand(policy)
        assert result.items["score"].to_pylist() == want
        assert result.items["item_id"].to_pylist() == ["mills/0", "mills/1", "mills/2"]
        (score,) = result.scores
        mean = sum(want) / 3
        # The harness's error of a mean: sample standard deviation over the root of 3.
        error = math.sqrt(sum((x - mean) ** 2 for x in want) / 2) / math.sqrt(3)
        assert (score.name, score.num_items, score.higher_is_better) == ("mills/acc", 3, True)
        assert score.value == pytest.approx(mean)
        assert score.high - score.value == pytest.approx(1.959964 * error, abs=1e-5)
        assert result.settings["task_versions"] == {"mills": "7.0"}
    # Another run reads the answers that were kept.
    assert harness.run(policy, options).items.equals(result.items)
    assert len(list(tmp_path.glob("harness-*"))) == 2


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({}, "was given no tasks"),
        ({"tasks": "mmlu", "shots": 3}, "'shots' is unknown"),
        ({"tasks": "humaneval"}, "runs code that the policy wrote"),
        ({"tasks": "code"}, "run code"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(tmp_path, switches, message):
    with pytest.raises(ConfigError, match=message):
        Harness().run(None, SuiteOptions(folder=tmp_path, switches=switches))


def test_without_the_extra_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("fedllm_eval.suites.harness.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"fedllm-commons\[harness\]"):
        Harness().run(None, SuiteOptions(folder=tmp_path, switches={"tasks": "mmlu"}))


def test_unknown_folder_and_missing_data(harness, folder, model_folder, tmp_path):
    policy = load_policy(model_folder, device="cpu")
    options = {"folder": tmp_path, "switches": {"tasks": "mills"}}
    with pytest.raises(ConfigError, match="is no folder"):
        harness.run(policy, SuiteOptions(items=tmp_path / "none", **options))
    (folder / "mills.jsonl").unlink()
    with pytest.raises(ConfigError, match="mills cannot be loaded"):
        harness.run(policy, SuiteOptions(items=folder, **options))


def test_a_task_that_runs_code_needs_leave(harness, folder, model_folder, tmp_path):
    task = folder / "mills.yaml"
    task.write_text(task.read_text() + "unsafe_code: true\n")
    policy = load_policy(model_folder, device="cpu")
    switches = {"tasks": "mills"}
    with pytest.raises(ConfigError, match="task mills runs code that the policy wrote"):
        harness.run(policy, SuiteOptions(folder=tmp_path, items=folder, switches=switches))
    switches["allow_code"] = True
    assert harness.run(policy, SuiteOptions(folder=tmp_path, items=folder, switches=switches)).items.num_rows == 3


def test_scores_of_groups_filters_and_missing_errors():
    found = {
        "results": {
            "a": {"alias": "a", "exact_match,strict": 0.25, "exact_match_stderr,strict": 0.1},
            "b": {"bleu,none": 12.0, "bleu_stderr,none": "N/A", "ppl,none": 9.0, "ppl_stderr,none": 0.0},
        },
        "groups": {"ab": {"alias": "ab", "acc,none": 0.5, "acc_stderr,none": 0.02}},
        "group_subtasks": {"ab": ["a", "b"]},
        "n-samples": {"a": {"original": 9, "effective": 4}, "b": {"original": 6, "effective": 6}},
        "higher_is_better": {"a": {"exact_match": True}, "b": {"bleu": True, "ppl": False}, "ab": {"acc": True}},
    }
    scores, notes = suite_scores(found)
    by_name = {score.name: score for score in scores}
    assert list(by_name) == ["a/exact_match@strict", "b/bleu", "b/ppl", "ab/acc"]
    assert by_name["a/exact_match@strict"].low == pytest.approx(0.25 - 1.959964 * 0.1, abs=1e-5)
    assert math.isnan(by_name["b/bleu"].low)
    assert not by_name["b/ppl"].higher_is_better
    assert by_name["ab/acc"].num_items == 10
    assert "no standard error for b/bleu" in notes[0]
    assert "b/ppl" in notes[1]


@pytest.mark.slow
def test_the_harness_knows_every_task_of_the_sets():
    tasks = pytest.importorskip("lm_eval.tasks", reason="extra `harness` is not installed")
    known = set(tasks.TaskManager().all_tasks)
    assert {task for names in TASK_SETS.values() for task in names} <= known
