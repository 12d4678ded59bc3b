"""Numbers of TRL's configs that no trainer can use, refused before anything is loaded.

TRL and torch find most of them in the first step, when the run folder already exists, and some (a negative weight
decay, a rate that is not a number in a fused optimizer) never.
"""

import math

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import ClientArgs

__all__ = ["check_numbers"]

_AT_LEAST_ONE = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    "max_length",
)
_NOT_NEGATIVE = (
    *("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "dataloader_num_workers"),
    *("beta", "desirable_weight", "undesirable_weight"),
)
_BELOW_ONE = ("adam_beta1", "adam_beta2")


def check_numbers(client_args: ClientArgs, *, flag: str = "") -> None:
    """Refuse numbers outside the range in which they mean something.

    Args:
        client_args: TRL's settings; None stands for a setting that is switched off.
        flag: the prefix of a field's name on a command line.

    Raises:
        ConfigError: naming the setting and its range.
    """
    for names, least, below, words in (
        (_AT_LEAST_ONE, 1, math.inf, "at least 1"),
        (_NOT_NEGATIVE, 0, math.inf, "a finite number that is not negative"),
        (_BELOW_ONE, 0, 1, "at least 0 and below 1"),
    ):
        for name in names:
            value = getattr(client_args, name, None)
            if isinstance(value, int | float) and not least <= value < below:
                raise ConfigError(f"{flag}{name} is {value}; it must be {words}")
    settings = [each for each in (client_args.optim_args or "").replace(" ", "").split(",") if each]
    if odd := [each for each in settings if each.count("=") != 1]:
        raise ConfigError(
            f"{flag}optim_args has {odd[0]!r}, which sets nothing; write name=value pairs, joined by commas"
        )
