"""A module refuses configs that it has not, and inputs that it would ignore under the config it was loaded with."""

import evaluate
import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.metrics import DEFAULT, INPUTS, METRIC_FOLDERS, check_inputs


@pytest.mark.parametrize("name", sorted(METRIC_FOLDERS))
@pytest.mark.parametrize("config", ["length-controlled", "swaped", "Default", "en"])
def test_an_unknown_config_is_an_error_that_names_the_known_ones(name, config):
    with pytest.raises(ConfigError, match=f"{name} has no config '{config}'; load it with") as caught:
        evaluate.load(str(METRIC_FOLDERS[name]), config)
    assert all(known in str(caught.value) for known in INPUTS[name] if known != DEFAULT)


IGNORED = [
    (name, config, given)
    for name, configs in INPUTS.items()
    for config, inputs in configs.items()
    for other, others in configs.items()
    for given in others
    if given not in inputs
]


@pytest.mark.parametrize(("name", "config", "given"), sorted(set(IGNORED)))
def test_an_input_of_another_config_is_an_error_that_names_the_config(name, config, given):
    takers = [repr(other) for other, inputs in INPUTS[name].items() if given in inputs]
    with pytest.raises(ConfigError, match=f"ignores {given} under config '{config}'; load it with config") as caught:
        check_inputs(name, config, {given: [1.0]})
    assert all(taker in str(caught.value) for taker in takers)


def test_the_modules_themselves_refuse_them():
    win_rate = evaluate.load(str(METRIC_FOLDERS["win_rate"]))
    with pytest.raises(ConfigError, match="swapped_predictions under config 'default'; load it with config 'swapped'"):
        win_rate.compute(predictions=[1.0], swapped_predictions=[0.0])
    rating = evaluate.load(str(METRIC_FOLDERS["judge_rating"]))
    with pytest.raises(ConfigError, match="question_ids under config 'default'; load it with config 'questions'"):
        rating.compute(judgments=["[[8]]"], question_ids=["1"])
    loss = evaluate.load(str(METRIC_FOLDERS["heldout_loss"]))
    with pytest.raises(ConfigError, match="client_ids under config 'default'; load it with config 'clients'"):
        loss.compute(nll_sums=[1.0], num_tokens=[1], client_ids=["a"])
    free = evaluate.load(str(METRIC_FOLDERS["dpo_implicit_reward"]), "reference_free")
    pairs = {"chosen": [-1.0], "rejected": [-2.0], "chosen_tokens": [2], "rejected_tokens": [2]}
    with pytest.raises(ConfigError, match="beta under config 'reference_free'; load it with config 'default'"):
        free.compute(**pairs, beta=0.1)
    assert free.compute(**pairs)["ranking_accuracy"] == 1.0


def test_inputs_of_other_metrics_are_those_of_a_combination():
    check_inputs("win_rate", DEFAULT, {"judgments": ["[[8]]"], "swapped_predictions": [1.0]})
    with pytest.raises(TypeError, match="takes no 'swapped_prediction'"):
        check_inputs("win_rate", DEFAULT, {"swapped_prediction": [1.0]})
