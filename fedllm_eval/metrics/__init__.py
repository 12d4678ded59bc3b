"""Modules for `evaluate.load`: thin shells over `fedllm_eval.scoring`, each a folder that is also a Hub Space.

>>> sorted(METRIC_FOLDERS)
['client_spread', 'dpo_implicit_reward', 'heldout_loss']
"""

from pathlib import Path

__all__ = ["METRIC_FOLDERS"]

METRIC_FOLDERS = {
    name: Path(__file__).parent / name for name in ("heldout_loss", "dpo_implicit_reward", "client_spread")
}
"""Name -> folder, which `evaluate.load` takes as it is."""
