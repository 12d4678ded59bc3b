"""Federated SFT and DPO with TRL trainers and PEFT adapters.

`FederatedTrainer` is the Python face, `fedllm-train` the command; the algorithm is `rounds.py`, read top to bottom.
"""

from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer

__all__ = ["FederatedConfig", "FederatedTrainer"]
