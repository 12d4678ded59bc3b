"""Whole runs of every mechanism: the same bits after a stop, what the record says, who is asked and who is not."""

import json
from collections import defaultdict

import numpy as np
import pytest
import yaml

from fedllm_data.errors import ConfigError, ResumeError
from fedllm_eval.policy.run_records import CheckpointRecord
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.privacy.covered import covered_round
from fedllm_train.privacy.matrix_file import matrix_text, square_root_coefficients
from fedllm_train.privacy.secret import secret_seed

SECRET = bytes(range(32))
BUDGET = {"dp_clip": 0.05, "dp_noise_multiplier": 1.0, "dp_delta": 1e-2}
TABLE = {"client_table": "profile:phone-4g"}


@pytest.fixture(autouse=True)
def known_secret(monkeypatch):
    monkeypatch.setattr("fedllm_train.privacy.secret.draw_secret", lambda: SECRET)


@pytest.fixture
def matrix(tmp_path):
    path = tmp_path / "matrix.json"
    path.write_text(matrix_text(square_root_coefficients(2), "square root"))
    return str(path)


def mechanisms(matrix):
    return {
        "adaptive": {"cohort_rule": "poisson", "dp_clip_quantile": 0.5, "dp_count_noise": 0.8},
        "without replacement": {"dp_sampling": "without_replacement"},
        "tree": {"dp_mechanism": "tree", "cohort_size": 2, "dp_min_separation": 2},
        "matrix": {"dp_mechanism": "matrix", "dp_matrix": matrix, "cohort_size": 2, "dp_min_separation": 2},
        "tree with a deadline": {
            **{"dp_mechanism": "tree", "participation": "deadline", "deadline_seconds": 1e6, **TABLE},
            **{"cohort_size": 2, "dp_min_separation": 2, "drop_out": 0.2, "over_selection": 1.0},
        },
        "tree with a buffer": {
            **{"dp_mechanism": "tree", "participation": "buffered", "buffer_size": 2, "concurrency": 2, **TABLE},
            **{"cohort_size": 2, "dp_min_separation": 2},
        },
    }


NAMES = [*mechanisms("")]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(kit, tmp_path, matrix, name):
    settings = {**BUDGET, **mechanisms(matrix)[name]}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.run_and_stop(tmp_path / "cut", after_round=1, **settings)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    records = [kit.records_of(tmp_path / each) for each in ("whole", "cut")]
    assert [r["privacy"] for r in records[0]] == [r["privacy"] for r in records[1]]
    assert [[c["client_id"] for c in r["clients"]] for r in records[0]] == [
        [c["client_id"] for c in r["clients"]] for r in records[1]
    ]
    assert resumed.privacy == whole.privacy
    state = json.loads((tmp_path / "cut" / "checkpoints" / "round-000003" / "state.json").read_text())
    assert state.keys() <= CheckpointRecord.__annotations__.keys()
    assert state.get("privacy", {}) == whole.privacy
    assert SECRET.hex() not in json.dumps(state)


@pytest.mark.parametrize("name", NAMES)
def test_the_config_and_the_card_say_which_epsilon_is_claimed(kit, tmp_path, matrix, name):
    kit.make_trainer(tmp_path / "run", num_rounds=2, **BUDGET, **mechanisms(matrix)[name]).train()
    told = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["privacy"]
    assert told["claim"] == ("rdp" if name == "without replacement" else "pld")
    assert told["epsilon"] == told["by_accountant"][told["claim"]]
    assert SECRET.hex() not in (tmp_path / "run" / "config.yaml").read_text()
    last = kit.records_of(tmp_path / "run")[-1]["privacy"]
    assert last["epsilon"] == pytest.approx(told["epsilon"])
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"epsilon is {told['epsilon']:.4g}" in card
    assert "Renyi" in card
    if name != "adaptive":
        assert "with probability" not in card


@pytest.mark.parametrize("name", [each for each in NAMES if "tree" in each or each == "matrix"])
def test_nobody_comes_too_early(kit, tmp_path, matrix, name):
    settings = {**BUDGET, **mechanisms(matrix)[name]}
    kit.make_trainer(tmp_path / "run", num_rounds=6, **settings).train()
    came = defaultdict(list)
    for record in kit.records_of(tmp_path / "run"):
        for each in record["clients"]:
            came[each["client_id"]].append(record["round_index"])
    assert sum(map(len, came.values())) >= 6
    for rounds in came.values():
        assert all(np.diff(rounds) >= 2)


def test_a_client_comes_as_often_as_it_may_and_rounds_go_on_without_it(kit, tmp_path):
    settings = {"dp_mechanism": "tree", "cohort_size": 2, "dp_max_participations": 2, "num_rounds": 5}
    kit.make_trainer(tmp_path / "run", **BUDGET, **settings).train()
    records = kit.records_of(tmp_path / "run")
    came = [each["client_id"] for record in records for each in record["clients"]]
    assert max(came.count(client_id) for client_id in came) == 2
    assert all(record["server_step"] for record in records)


def test_without_replacement_draws_from_the_secret_and_not_from_the_seed(kit, tmp_path):
    settings = {**BUDGET, "dp_sampling": "without_replacement", "num_rounds": 3}
    kit.make_trainer(tmp_path / "run", **settings).train()
    seed, ids = secret_seed(SECRET, "cohort"), ["ann", "bob", "cyd", "dan", "eve"]
    for record in kit.records_of(tmp_path / "run"):
        drawn = sample_cohort(ids, 3, seed=seed, round_index=record["round_index"])
        assert [each["client_id"] for each in record["clients"]] == drawn
        assert len(set(drawn)) == 3
    by_seed = [sample_cohort(ids, 3, seed=5, round_index=index) for index in range(3)]
    assert by_seed != [sample_cohort(ids, 3, seed=seed, round_index=index) for index in range(3)]


def test_every_cohort_of_one_size_is_equally_likely():
    # 10 cohorts of 3 of 5 clients, 4,000 draws: chi-square with 9 degrees of freedom, 27.9 at one in a thousand.
    counts = defaultdict(int)
    for index in range(4000):
        counts[tuple(sample_cohort("abcde", 3, seed=secret_seed(SECRET, "cohort"), round_index=index))] += 1
    assert len(counts) == 10
    assert sum((count - 400) ** 2 / 400 for count in counts.values()) < 27.9


def test_the_clip_of_each_round_is_recorded_and_published(kit, tmp_path):
    settings = {**BUDGET, **mechanisms("")["adaptive"]}
    kit.make_trainer(tmp_path / "run", **settings).train()
    records = kit.records_of(tmp_path / "run")
    clips = [record["privacy"]["clip"] for record in records]
    assert clips[0] == 0.05
    assert len(set(clips)) == len(clips)
    for record in records:
        covered = covered_round(record)["privacy"]
        assert covered["clip"] == record["privacy"]["clip"]
        assert "num_clipped" not in covered


def test_a_fixed_clip_is_in_the_record_of_no_round(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", num_rounds=1, cohort_rule="poisson", **BUDGET).train()
    (record,) = kit.records_of(tmp_path / "run")
    assert record["privacy"].keys() == {"unit", "epsilon", "delta", "num_clipped"}
    checkpoint = json.loads((tmp_path / "run" / "checkpoints" / "round-000000" / "state.json").read_text())
    assert "privacy" not in checkpoint


def test_a_run_does_not_go_on_with_other_coefficients(kit, tmp_path, matrix):
    settings = {**BUDGET, **mechanisms(matrix)["matrix"]}
    kit.run_and_stop(tmp_path / "cut", after_round=1, **settings)
    with open(matrix, "w") as file:
        file.write(matrix_text(np.array([1.0, 0.4]), "others"))
    with pytest.raises(ResumeError, match="related_noise"):
        kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)


def test_a_run_of_an_older_version_goes_on(kit, tmp_path):
    """Its config.yaml does not name the claim, nor other accountants."""
    settings = {"cohort_rule": "poisson", **BUDGET}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.run_and_stop(tmp_path / "cut", after_round=1, **settings)
    path = tmp_path / "cut" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for name in ("claim", "by_accountant"):
        del config["privacy"][name]
    for name in [each for each in config["federated"] if each.startswith("dp_")]:
        if name not in ("dp_clip", "dp_noise_multiplier", "dp_epsilon", "dp_delta"):
            del config["federated"][name]
    path.write_text(yaml.safe_dump(config))
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)


def test_related_noise_needs_the_same_values_in_every_round(kit, tmp_path):
    """RoLoRA trains A and B in turns: the noise on A would be taken back in rounds that send B."""
    with pytest.raises(ConfigError, match="whose noise would not be taken back"):
        kit.make_trainer(tmp_path / "run", strategy="rolora", dp_mechanism="tree", **BUDGET)
    assert not (tmp_path / "run").exists()
    kit.make_trainer(tmp_path / "run", strategy="rolora", dp_sampling="without_replacement", **BUDGET)


@pytest.mark.parametrize("strategy", ["ffa_lora", "fed_sb", "fedadam"])
def test_methods_that_send_the_same_values_run_with_related_noise(kit, tmp_path, strategy):
    settings = {"core_frame": "random"} if strategy == "fed_sb" else {}
    kit.make_trainer(
        tmp_path / "run", strategy=strategy, dp_mechanism="tree", num_rounds=2, **BUDGET, **settings
    ).train()
    records = kit.records_of(tmp_path / "run")
    assert records[1]["privacy"]["epsilon"] > records[0]["privacy"]["epsilon"] > 0
    assert all(record["update_norm"] > 0 for record in records)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dp_mechanism": "tree", "dp_min_separation": 3, "num_rounds": 9}, "choose at most 1"),
        ({"dp_mechanism": "tree", "dp_max_participations": 1, "num_rounds": 9}, "choose 6 or more"),
        ({"dp_mechanism": "tree", "dp_min_separation": 2, "cohort_rule": "all"}, "choose at most 1"),
        ({"dp_mechanism": "matrix", "dp_matrix": "none.json"}, "dp_matrix none.json cannot be read"),
        ({"dp_clip_quantile": 0.5, "cohort_rule": "poisson"}, "use a cohort_size of 11 or more"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_a_model_is_loaded(kit, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr("fedllm_train.loaded_run.load_starting_policy", None)
    with pytest.raises(ConfigError, match=message):
        kit.make_trainer(tmp_path / "run", **BUDGET, **changes)
    assert not (tmp_path / "run").exists()
