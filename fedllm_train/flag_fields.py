"""Which settings are flags of `fedllm-train sft`, `dpo` and `kto`: ours by group, TRL's and PEFT's by name.

Light enough for `--help`: imports no torch, and nothing that reads rows.
"""

from dataclasses import fields

from fedllm_train.config import FederatedConfig, RunInput
from fedllm_train.fates.adapter_settings import MODEL_FATES
from fedllm_train.fates.client_settings import DPO_FATES, KTO_FATES, SFT_FATES
from fedllm_train.strategies import STRATEGIES, settings_class

__all__ = ["TASK_FATES", "flag_groups", "setting_names"]

TASK_FATES = {"sft": SFT_FATES, "dpo": DPO_FATES, "kto": KTO_FATES}
"""Task -> what becomes of each field of TRL's config."""


def flag_groups(strategy: str) -> list[type]:
    """Return the dataclasses whose fields are flags of ours; the last is what a run starts from."""
    return [FederatedConfig, settings_class(strategy), RunInput]


def setting_names() -> frozenset[str]:
    """Return every setting that a flag of some task sets, TRL's and PEFT's included.

    >>> {"cohort_size", "prox_mu", "lora_r", "beta"} <= setting_names()
    True
    """
    ours = {each.name for name in STRATEGIES for group in flag_groups(name) for each in fields(group)} - {"method"}
    return frozenset(ours.union(MODEL_FATES, *TASK_FATES.values()))
