"""Modules for `evaluate.load`: thin shells over `fedllm_eval.scoring`, each a folder that is also a Hub Space.

>>> "heldout_loss" in METRIC_FOLDERS, all(folder.is_dir() for folder in METRIC_FOLDERS.values())
(True, True)
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fedllm_data.errors import ConfigError, MetricError

__all__ = [
    "DEFAULT",
    "INPUTS",
    "METRIC_FOLDERS",
    "check_config",
    "check_flag",
    "check_inputs",
    "check_texts",
    "check_whole",
]

DEFAULT = "default"
"""How `evaluate` calls the config of a module that is loaded without one."""

INPUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "attack_success": {DEFAULT: ("answers", "refusal_list", "detect_language")},
    "over_refusal": {DEFAULT: ("answers", "refusal_list", "detect_language")},
    "language_consistency": {DEFAULT: ("question_languages", "answers")},
    "collaboration_gain": {DEFAULT: ("policy_scores", "baseline_scores", "higher_is_better", "seed")},
    "communication_cost": {
        DEFAULT: (
            "download_bytes",
            "upload_bytes",
            "num_clients",
            "download_mbit_per_second",
            "upload_mbit_per_second",
        )
    },
    "kl_to_reference": {DEFAULT: ("logps", "ref_logps", "num_tokens", "estimator")},
    "heldout_loss": {DEFAULT: ("nll_sums", "num_tokens"), "clients": ("nll_sums", "num_tokens", "client_ids")},
    "dpo_implicit_reward": {
        DEFAULT: ("chosen", "rejected", "ref_chosen", "ref_rejected", "beta"),
        "reference_free": ("chosen", "rejected", "chosen_tokens", "rejected_tokens"),
    },
    "win_rate": {
        DEFAULT: ("predictions",),
        "swapped": ("predictions", "swapped_predictions"),
        "length_controlled": ("predictions", "candidate_lengths", "baseline_lengths"),
    },
    "judge_rating": {DEFAULT: ("judgments",), "questions": ("judgments", "question_ids")},
    "client_spread": {DEFAULT: ("scores", "higher_is_better", "confidence", "seed")},
    "membership_inference": {DEFAULT: ("membership_scores", "is_member", "delta", "seed")},
    "canary_exposure": {DEFAULT: ("canary_losses", "candidate_losses")},
}
"""Name -> config -> inputs and options."""

METRIC_FOLDERS = {name: Path(__file__).parent / name for name in INPUTS}
"""Name -> folder, which `evaluate.load` takes as it is."""


def check_config(metric: str, config: str) -> None:
    """Check the config that a metric was loaded with: `evaluate` takes any name for one.

    Raises:
        ConfigError: if the metric has no such config.

    >>> check_config("win_rate", "swapped")
    >>> check_config("win_rate", "length-controlled")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: win_rate has no config 'length-controlled'; load it with one of swapped, ...
    """
    if config in INPUTS[metric]:
        return
    others = [name for name in INPUTS[metric] if name != DEFAULT]
    remedy = f"load it with one of {', '.join(others)}, or without" if others else "load it without"
    raise ConfigError(f"{metric} has no config {config!r}; {remedy}")


def check_inputs(metric: str, config: str, given: Mapping[str, object]) -> None:
    """Check inputs that a metric was given and does not use under this config.

    `evaluate.combine(...).compute(...)` hands every input to every module, so inputs of other metrics are fine, and
    where there are any, so are those of this metric's other configs, which may be combined with it.

    Args:
        metric: the metric.
        config: the one it was loaded with.
        given: name -> value; None stands for an input of the metric's own that was not given.

    Raises:
        ConfigError: if a value is an input of the metric under another config.
        TypeError: if a name is an input of no metric.

    >>> check_inputs("heldout_loss", "default", {"beta": 0.1, "client_ids": None})
    >>> check_inputs("heldout_loss", "default", {"client_ids": ["a"]})
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: heldout_loss ignores client_ids under config 'default'; load it with ... 'clients'
    >>> check_inputs("dpo_implicit_reward", "default", {"betta": 1})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    TypeError: dpo_implicit_reward takes no 'betta'; its inputs are chosen, rejected, ref_chosen, ref_rejected, beta
    """
    own = {name for inputs in INPUTS[metric].values() for name in inputs}
    known = {name for configs in INPUTS.values() for inputs in configs.values() for name in inputs}
    foreign = [name for name in given if name not in own]
    for name in foreign:
        if name not in known | {"predictions", "references"}:
            raise TypeError(f"{metric} takes no {name!r}; its inputs are {', '.join(INPUTS[metric][config])}")
    for name, value in () if foreign else given.items():
        if name in INPUTS[metric][config] or value is None:
            continue
        takers = " or ".join(repr(other) for other, inputs in INPUTS[metric].items() if name in inputs)
        raise ConfigError(f"{metric} ignores {name} under config {config!r}; load it with config {takers}")


def check_texts(**inputs: Iterable[object] | None) -> None:
    """Check that lists of texts hold texts alone: `evaluate` looks at the first one only.

    Args:
        inputs: name -> values; None for an input that was not given.

    Raises:
        MetricError: if a value is no text.

    >>> check_texts(answers=["yes", None])
    Traceback (most recent call last):
    fedllm_data.errors.MetricError: answers: item 1 is None; give a text, an empty one where there is none
    """
    for name, values in inputs.items():
        for at, value in enumerate(values if values is not None else ()):
            if not isinstance(value, str):
                raise MetricError(f"{name}: item {at} is {value!r}; give a text, an empty one where there is none")


def check_whole(**inputs: Iterable[float | None] | None) -> None:
    """Check that lists of counts hold whole numbers: `evaluate` would cut 2.7 down to 2 without a word.

    Args:
        inputs: name -> values; None for an input that was not given.

    Raises:
        MetricError: if a value is missing or no whole number.

    >>> check_whole(num_tokens=[3.0, 2.7])
    Traceback (most recent call last):
    fedllm_data.errors.MetricError: num_tokens: item 1 is 2.7; give whole numbers
    """
    for name, values in inputs.items():
        for at, value in enumerate(values if values is not None else ()):
            if value is None or not math.isfinite(value) or value != int(value):
                raise MetricError(f"{name}: item {at} is {value}; give whole numbers")


def check_flag(**inputs: object) -> None:
    """Check that a switch is a bool: the text "False" would count as true, and None as false.

    Args:
        inputs: name -> value.

    Raises:
        MetricError: if a value is no bool.

    >>> check_flag(higher_is_better="False")
    Traceback (most recent call last):
    fedllm_data.errors.MetricError: higher_is_better is 'False'; give True or False
    """
    for name, value in inputs.items():
        if not isinstance(value, bool | np.bool_):
            raise MetricError(f"{name} is {value!r}; give True or False")
