"""The settings of a run's `config.yaml` in today's words, whichever version of this package wrote them.

A setting that got another name is translated; one that did not exist then has its default, which always stands for
what runs did before there was the setting. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from fedllm_train.config import FederatedConfig
from fedllm_train.strategies import STRATEGIES, settings_class

__all__ = ["in_todays_words", "with_defaults"]


def in_todays_words(federated: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names they have now.

    Args:
        federated: the section `federated` of a `config.yaml`.

    >>> in_todays_words({"upload_codec": "topk", "topk_fraction": 0.2, "seed": 1})
    {'seed': 1, 'wire': 'topk:0.2'}
    >>> in_todays_words({"upload_codec": "int8", "topk_fraction": 0.1}), in_todays_words({"wire": "drive"})
    ({'wire': 'int8'}, {'wire': 'drive'})
    >>> in_todays_words({"wire": "topk", "error_feedback": True})
    {'wire': 'topk', 'error_feedback': 'ef14'}
    """
    settings = dict(federated)
    share = settings.pop("topk_fraction", 0.1)
    if (codec := settings.pop("upload_codec", None)) is not None:
        settings["wire"] = f"topk:{share!r}" if codec == "topk" else codec
    if isinstance(feedback := settings.get("error_feedback"), bool):
        settings["error_feedback"] = "ef14" if feedback else "none"
    return settings


def with_defaults(federated: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under the names they have now, and the defaults of those that are not among them.

    Args:
        federated: the section `federated` of a `config.yaml`.

    >>> with_defaults({"strategy": "fedavg", "num_rounds": 3})["wire"]
    'none'
    """
    strategy = federated.get("strategy", "fedavg")
    groups = [FederatedConfig, *([settings_class(strategy)] if strategy in STRATEGIES else [])]
    defaults = {each.name: each.default for group in groups for each in fields(group) if each.default is not MISSING}
    defaults.pop("method")
    return defaults | in_todays_words(federated)
