"""The table of `benchmarks/privacy_scores.py`, from a result file written by hand, and the settings of its runs."""

import math
from argparse import Namespace

import pytest

from benchmarks.privacy_scores import METHODS, arm_name, privacy_page, privacy_rows, private_settings
from fedllm_train.config import FederatedConfig
from fedllm_train.strategies import STRATEGIES

GIVEN = Namespace(learning_rate=3e-3, steps=5, delta=1e-4, clip_share=0.3)


def run(arm, seed, loss, privacy=None):
    spread = {"mean": loss, "ci_low": 0.0, "ci_high": 9.0, "num_clients": 3}
    return {"arm": arm, "seed": seed, "scores": {"test": spread, "unseen": spread}} | (
        {} if privacy is None else {"privacy": privacy}
    )


@pytest.fixture
def result():
    privacy = {"clip": 0.27, "noise_in_clips": 3.14159, "num_values": 3584}
    runs = [
        run("fed_sb-1", 0, 2.5, privacy),
        run("fed_sb-20", 0, 2.0, privacy),
        run("fed_sb-none", 1, 1.6),
        run("fed_sb-none", 0, 1.4),
        run("fedavg-none", 0, 1.3),
    ]
    item = {"other": "fed_sb-1", "split": "test", "difference": 1.1, "ci_low": 1.0, "ci_high": 1.2}
    base = {"mean": 3.0}
    return {
        "settings": {"corpus": "c", "model": "m"},
        "base": {"test": base, "unseen": base},
        "runs": {f"{each['arm']}-{each['seed']}": each for each in runs},
        "differences": [item],
        "machine": {"processor": "P", "num_cores": 2, "python": "3", "versions": {"torch": "2"}},
    }


def test_a_method_and_epsilon_is_a_row_and_the_least_protected_comes_first(result):
    rows = privacy_rows(result)
    assert [row[:2] for row in rows] == [["fed_sb", "none"], ["fed_sb", "20"], ["fed_sb", "1"], ["fedavg", "none"]]
    assert rows[0][2:6] == ["–", "–", "–", "1.5000"]  # (1.4 + 1.6) / 2
    assert rows[0][-1] == "2"
    assert rows[2][2:6] == ["3,584", "0.27", "3.14", "2.5000"]
    assert "+1.1" in rows[2][6]
    assert rows[1][6] == "–"
    assert "| fed_sb | 1 | 3,584 |" in privacy_page(result, "privacy_c")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epsilon", [1.0, 20.0, math.inf])
def test_the_settings_of_every_arm_are_allowed(method, epsilon):
    settings = private_settings("client", method, epsilon, 3600, GIVEN)
    config = FederatedConfig(output_dir="unused", cohort_size=40, **settings)
    assert config.dp_epsilon == (None if math.isinf(epsilon) else epsilon)
    assert STRATEGIES[method].traits.sees == "mean"
    assert arm_name(method, epsilon).startswith(method)


def test_the_clip_follows_from_settings_alone():
    # 0.3 * 3e-3 * 5 * sqrt(3600) = 0.27
    assert private_settings("client", "fed_sb", 8.0, 3600, GIVEN)["dp_clip"] == pytest.approx(0.27)
    assert "dp_clip" not in private_settings("client", "fed_sb", math.inf, 3600, GIVEN)
    assert private_settings("example", "fedavg", 8.0, 3600, GIVEN)["dp_unit"] == "example"
