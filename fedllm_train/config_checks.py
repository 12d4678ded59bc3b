"""Settings that contradict one another, each with the reason; asked before anything is loaded. Imports no torch."""

import math
from typing import TYPE_CHECKING

from fedllm_data.errors import ConfigError
from fedllm_train.given import given_of

if TYPE_CHECKING:
    from fedllm_train.config import FederatedConfig

__all__ = [
    "EVALUATION_SETTINGS",
    "check_compression",
    "check_core_frame",
    "check_evaluation",
    "check_local_work",
    "check_personal_clients",
    "check_privacy",
]

EVALUATION_SETTINGS = {
    **dict.fromkeys(("eval_every", "eval_rows_per_client", "eval_score", "early_stopping_patience"), None),
    **{"eval_clients": 20, "eval_split": "test", "load_best": False},
}
"""What the settings of the evaluation are where nothing is scored during the run."""


def check_local_work(config: "FederatedConfig") -> None:
    """Refuse local work that is measured in two ways, or in none.

    Raises:
        ConfigError: naming both settings.
    """
    for name in ("local_epochs", "expected_epochs"):
        if (value := getattr(config, name)) is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value}; it must be positive")
    given = [name for name in ("local_epochs", "expected_epochs") if getattr(config, name) is not None]
    if "local_steps" in given_of(config):
        given.insert(0, "local_steps")
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are both given; choose one measure of local work")
    if config.round_rows not in ("all", "fedllm-bench"):
        raise ConfigError(f"round_rows is {config.round_rows!r}; it must be all or fedllm-bench")
    if config.strategy == "centralized" and ((len(given) and given != ["local_steps"]) or config.round_rows != "all"):
        raise ConfigError(
            "strategy centralized takes as many steps as a whole cohort with local_steps each; epochs and round_rows "
            "of one client mean nothing there, leave them out"
        )
    if config.expected_epochs is not None and config.cohort_rule == "weighted":
        raise ConfigError(
            "expected_epochs counts on clients being visited equally often, and cohort_rule weighted visits "
            "those with more rows more often; use local_steps or local_epochs"
        )


def check_evaluation(config: "FederatedConfig") -> None:
    """Refuse settings of the evaluation in the loop where there is none.

    Raises:
        ConfigError: naming the setting.
    """
    if config.eval_every is None:
        for name in EVALUATION_SETTINGS:
            if name in given_of(config) and getattr(config, name) is not False:
                raise ConfigError(f"{name} is given, and nothing is scored during the run; give eval_every too")
    elif config.eval_every > config.num_rounds:
        raise ConfigError(
            f"eval_every is {config.eval_every} and the run has {config.num_rounds} rounds, so nothing would be "
            "scored; choose fewer"
        )


def check_privacy(config: "FederatedConfig") -> None:
    """Refuse settings of differential privacy that contradict one another or would break the guarantee.

    Raises:
        ConfigError: naming the setting.
    """
    given = [n for n in ("dp_noise_multiplier", "dp_epsilon", "dp_delta") if getattr(config, n) is not None]
    if config.dp_clip is None:
        if given:
            raise ConfigError(f"{given[0]} is given without dp_clip, so there is nothing to add noise to; give both")
        return
    if not 0 < config.dp_clip < math.inf:
        raise ConfigError(f"dp_clip is {config.dp_clip}; it must be positive")
    if (config.dp_noise_multiplier is None) == (config.dp_epsilon is None):
        raise ConfigError("dp_clip needs either dp_noise_multiplier or dp_epsilon, not both; give one of them")
    if config.dp_noise_multiplier is not None and not 0 <= config.dp_noise_multiplier < math.inf:
        raise ConfigError(f"dp_noise_multiplier is {config.dp_noise_multiplier}; it must not be negative")
    if config.dp_epsilon is not None and not 0 < config.dp_epsilon < math.inf:
        raise ConfigError(f"dp_epsilon is {config.dp_epsilon}; it must be positive")
    if config.dp_delta is None or not 0 < config.dp_delta < 1:
        raise ConfigError(f"dp_delta is {config.dp_delta}; with dp_clip it must lie between 0 and 1")
    if config.cohort_rule not in ("poisson", "all"):
        raise ConfigError(
            f"cohort_rule is {config.cohort_rule!r}, for which the privacy accountant has no bound; with dp_clip use "
            "cohort_rule poisson, or all"
        )
    if config.min_clients > 1:
        raise ConfigError(
            f"min_clients is {config.min_clients}; with dp_clip a step that depends on who was there would tell it, "
            "so leave it out"
        )
    if config.early_stopping_patience is not None or config.load_best:
        raise ConfigError(
            "early_stopping_patience and load_best choose by scores on clients' rows, which dp_clip does not protect; "
            "leave them out"
        )


def check_compression(config: "FederatedConfig") -> None:
    """Refuse settings of the upload that contradict one another.

    Raises:
        ConfigError: naming the setting.
    """
    if config.upload_codec not in (known := ("none", "topk", "int8", "int4")):
        raise ConfigError(f"upload_codec {config.upload_codec!r} is unknown; choose from {', '.join(known)}")
    if not 0 < config.topk_fraction <= 1:
        raise ConfigError(f"topk_fraction is {config.topk_fraction}; it must be above 0 and at most 1")
    if config.upload_codec != "topk":
        for name in ("topk_fraction", "error_feedback"):
            if name in given_of(config) and getattr(config, name) is not False:
                raise ConfigError(
                    f"{name} is given and upload_codec is {config.upload_codec!r}, which does not look at it; use "
                    "upload_codec topk"
                )


def check_core_frame(config: "FederatedConfig") -> None:
    """Refuse a frame of Fed-SB that is unknown, or that differential privacy would not cover.

    Raises:
        ConfigError: naming the setting.
    """
    if config.core_frame not in ("gradient", "random"):
        raise ConfigError(f"core_frame is {config.core_frame!r}; it must be gradient or random")
    if config.strategy == "fed_sb" and config.dp_clip is not None and config.core_frame == "gradient":
        raise ConfigError(
            "dp_clip is given and core_frame is gradient: the frame would be made of clients' gradients without "
            "clipping or noise; use core_frame random"
        )


def check_personal_clients(config: "FederatedConfig") -> None:
    """Refuse what is neither a rule nor a number of clients.

    Raises:
        ConfigError: naming the setting.
    """
    given = str(config.personal_clients)
    if given not in ("visited", "all") and not (given.isascii() and given.isdecimal() and int(given) > 0):
        raise ConfigError(f"personal_clients is {config.personal_clients!r}; it must be visited, all or a number")
