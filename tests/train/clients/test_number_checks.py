"""Numbers that no trainer can use end in one line, before a run folder is made."""

import math

import pytest
from trl import KTOConfig

from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig
from fedllm_train.clients.number_checks import check_numbers
from fedllm_train.clients.resident_args import check_client_args

OUTSIDE = {
    "learning_rate": (-1.0, math.nan, math.inf),
    "weight_decay": (-0.5, math.nan),
    "adam_beta1": (1.0, -0.1, 2),
    "adam_beta2": (1.5,),
    "adam_epsilon": (-1e-8,),
    "max_grad_norm": (-1.0, math.nan),
    "per_device_train_batch_size": (0, -2),
    "gradient_accumulation_steps": (0,),
    "dataloader_num_workers": (-1,),
    "max_length": (0, -5),
}


@pytest.mark.parametrize("task", ["sft", "dpo"])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OUTSIDE.items() for value in values])
def test_a_number_outside_its_range_is_refused_by_name(kit, task, name, value):
    args = kit.trl_args(task)
    setattr(args, name, value)  # some of them TRL refuses itself, when they are given at once
    with pytest.raises(ConfigError, match=f"^--{name} is {value}; it must be "):
        check_client_args(args, flag="--")


def test_numbers_at_the_edge_and_settings_switched_off_pass(kit):
    changes = {"learning_rate": 0.0, "weight_decay": 0.0, "adam_beta1": 0.0, "max_grad_norm": 0.0, "max_length": None}
    check_numbers(kit.trl_args("sft", **changes, optim_args="a=1, b=x"))
    kto = {"bf16": False, "use_cpu": True}
    check_numbers(KTOConfig(**kto, desirable_weight=0.0))
    with pytest.raises(ConfigError, match="undesirable_weight is -1"):
        check_numbers(KTOConfig(**kto, undesirable_weight=-1.0))


@pytest.mark.parametrize("given", ["momentum", "momentum=0.9,nesterov", "a=b=c"])
def test_optim_args_that_set_nothing_are_refused(kit, given):
    with pytest.raises(ConfigError, match=r"^optim_args has .* which sets nothing"):
        check_numbers(kit.trl_args("sft", optim="sgd", optim_args=given))


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("prox_mu", "fedprox"),
        ("ditto_lambda", "ditto"),
        ("min_learning_rate", "fedavg"),
        ("max_update_norm", "fedavg"),
        ("server_tau", "fedadam"),
    ],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_settings_of_the_federation_are_finite(name, strategy, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}; it must be a finite number"):
        FederatedConfig(output_dir="run", strategy=strategy, **{name: value})
