"""Settings live with what they set, under flat names; those of a method come and go with it."""

import copy
import pickle
import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig
from fedllm_train.given import flat_fields, given_of, with_given
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.settings import Settings, part_of
from fedllm_train.strategies import STRATEGIES, settings_class, users_of
from fedllm_train.strategies.fedavg import FedAvg

OWN = {each.name for each in fields(FederatedConfig)}
OF_METHODS = sorted({each.name for name in STRATEGIES for each in fields(settings_class(name))})


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_methods_settings_are_a_frozen_dataclass_with_defaults_and_help(name):
    kind = settings_class(name)
    assert issubclass(kind, Settings)
    assert is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    for each in fields(kind):
        assert each.default is not MISSING, each.name
        assert each.metadata["help"].endswith("."), each.name
        assert each.kw_only


def test_a_name_means_one_thing_over_all_groups():
    assert not OWN & set(OF_METHODS)
    for name in OF_METHODS:
        declared = [each for user in users_of(name) for each in fields(settings_class(user)) if each.name == name]
        assert len({(each.default, each.metadata["help"], str(each.type)) for each in declared}) == 1, name


@pytest.mark.parametrize("name", OF_METHODS)
def test_a_setting_is_taken_by_its_methods_and_refused_by_all_others(name):
    default = next(each.default for each in fields(settings_class(users_of(name)[0])) if each.name == name)
    # None stands for a setting that is left out.
    values = {"local_client": "ann", "client_ranks": "4,8", "client_layers": "memory", "uniform_weights": False}
    value = values.get(name, 0.5 if default is None else default)
    for strategy in STRATEGIES:
        if strategy in users_of(name):
            config = FederatedConfig(output_dir="run", strategy=strategy, **{name: value})
            assert getattr(config.method, name) == value
            assert getattr(config, name) == value
        else:
            with pytest.raises(ConfigError, match=f"{name} is given but strategy '{strategy}' does not use it; use"):
                FederatedConfig(output_dir="run", strategy=strategy, **{name: value})


def test_a_copy_keeps_the_methods_settings_and_takes_changes_by_flat_names():
    config = FederatedConfig(output_dir="run", strategy="fedprox", prox_mu=0.2, num_rounds=7)
    for same in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), replace(config)):
        assert same == config
        assert given_of(same) >= {"prox_mu", "num_rounds"}
    assert replace(config, prox_mu=0.3).prox_mu == 0.3
    assert with_given(config, given_of(config), num_rounds=3).prox_mu == 0.2
    assert replace(FederatedConfig(output_dir="run", strategy="fedprox"), strategy="ditto").ditto_lambda == 0.1
    with pytest.raises(ConfigError, match="prox_mu is given but strategy 'fedavg' does not use it"):
        replace(config, strategy="fedavg")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_round": 3}, "has no num_round; did you mean num_rounds?"),
        ({"prox_muu": 1.0}, "has no prox_muu; did you mean prox_mu?"),
        ({"nonsense_of_mine": 1}, "has no nonsense_of_mine; leave it out"),
        ({"strategy": "fedprox", "prox_mu": "0.1"}, "prox_mu is '0.1', a str; pass a number"),
        ({"strategy": "fedprox", "prox_mu": float("nan")}, "prox_mu is nan; it must be a finite number"),
        ({"strategy": "fedprox", "prox_mu": -1.0}, "prox_mu is -1.0; it must not be negative"),
        ({"strategy": "fedadam", "server_beta2": 1.0}, r"server_beta2 is 1.0; it must lie in \[0, 1\)"),
        ({"strategy": "fedadam", "server_tau": 0.0}, "server_tau is 0.0; it must be positive"),
        ({"strategy": "fedavg_ft", "personal_steps": 0}, "personal_steps is 0; it must be at least 1"),
        ({"strategy": "ditto", "personal_clients": "some"}, "personal_clients is 'some'; it must be visited, all or"),
        ({"strategy": "fed_sb", "core_frame": "none"}, "core_frame is 'none'; it must be gradient or random"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_when_the_settings_are_made(settings, message):
    with pytest.raises(ConfigError, match=message):
        FederatedConfig(output_dir="run", **settings)


def test_the_flat_names_are_those_of_config_yaml():
    config = FederatedConfig(output_dir="run", strategy="ditto")
    names = [each.name for each in flat_fields(config)]
    assert len(names) == len(set(names))
    assert {"ditto_lambda", "personal_clients", "uniform_weights", "num_rounds", "dp_clip"} <= set(names)
    assert "method" not in names


def test_one_group_can_be_taken_out_of_those_that_were_joined():
    config = FederatedConfig(output_dir="run", wire="topk:0.3", error_feedback="ef14")
    assert part_of(WireSettings, config) == WireSettings(wire="topk:0.3", error_feedback="ef14")


def test_settings_and_plans_need_no_torch():
    heavy = ("torch", "transformers", "trl", "peft", "datasets", "matplotlib")
    code = f"import sys, fedllm_train.prepare; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_none_stands_for_a_setting_that_is_left_out():
    assert FederatedConfig(output_dir="run", client_ranks=None) == FederatedConfig(output_dir="run")
    with pytest.raises(ConfigError, match="nonsense"):
        FederatedConfig(output_dir="run", nonsense=None)


def test_a_copy_with_another_method_takes_what_both_have_and_names_what_it_has_not():
    config = FederatedConfig(output_dir="run", strategy="fedavg", uniform_weights=True)
    assert replace(config, strategy="fedprox").method == settings_class("fedprox")(uniform_weights=True)
    with pytest.raises(ConfigError, match="prox_mu is given but strategy 'fedavg' does not use it"):
        replace(FederatedConfig(output_dir="run", strategy="fedprox", prox_mu=0.3), strategy="fedavg")


class Twice(FedAvg):
    """A method with a setting that every run has."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(Settings):
        num_rounds: int = 3


class OfAList(FedAvg):
    """A method with a setting that is no single value."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(Settings):
        ranks: list[int] | None = field(default_factory=list)


@pytest.mark.parametrize(
    ("method", "message"), [(Twice, "has a setting num_rounds, as every run"), (OfAList, "ranks is declared as list")]
)
def test_a_method_whose_settings_cannot_be_flags_is_refused(method, message):
    with pytest.raises(ConfigError, match=message):
        FederatedConfig(output_dir="run", strategy=method)
