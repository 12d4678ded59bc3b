"""Federated SFT and DPO with TRL trainers and PEFT adapters.

`FederatedTrainer` is the Python face, `fedllm-train` the command; the algorithm is `rounds.py`, read top to bottom.
"""

import os
from typing import TYPE_CHECKING, Any

from fedllm_train.config import FederatedConfig

if TYPE_CHECKING:
    from fedllm_train.trainer import FederatedTrainer

__all__ = ["FederatedConfig", "FederatedTrainer"]

# TRL reports the use of its trainers to the Hub. Who trains on data that cannot be pooled did not ask for that;
# setting the variable to 0 allows it.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """Import the trainer on first use: it brings torch and TRL, and `fedllm-train --help` must not wait for them."""
    if name == "FederatedTrainer":
        from fedllm_train.trainer import FederatedTrainer

        return FederatedTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
