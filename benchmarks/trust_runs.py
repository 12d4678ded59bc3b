"""One run of `trust.py`: trained, scored on held-out rows, and removed."""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

__all__ = ["SHARED", "check_settings", "scored", "train_run", "wanted"]

SHARED = ("honest", "rounds", "steps", "batch", "max_length", "learning_rate", "rank", "rows")
"""What all cells of one result file share."""
SCORE = "heldout_loss"
_SPREAD = ("mean", "ci_low", "ci_high", "num_clients")


def wanted(cell: str, given: argparse.Namespace) -> bool:
    """Return whether a cell was asked for.

    >>> wanted("fedavg-client-8-0", argparse.Namespace(only=["client-8"]))
    True
    """
    return not given.only or any(part in cell for part in given.only)


def check_settings(names: Sequence[str]) -> None:
    """Stop where this version of the package lacks a setting of the federation.

    >>> check_settings(["dp_clip"])
    """
    from fedllm_train import FederatedConfig

    known = {field.name for field in fields(FederatedConfig)}
    if lacking := [name for name in names if name not in known]:
        raise SystemExit(f"this version of fedllm-train has no setting {lacking[0]}; leave out the cells that need it")


def train_run(
    run: Path, clients: Any, seed: int, given: argparse.Namespace, settings: Mapping[str, Any], rank: int
) -> Any:
    """Train a run afresh and return its trainer; all clients take part in every round unless settings say otherwise.

    Args:
        run: the run folder, which is replaced.
        clients: the training clients.
        seed: of the run.
        given: the command line.
        settings: of the federation, beside the shared ones.
        rank: of the adapter.
    """
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_train import FederatedConfig, FederatedTrainer

    shutil.rmtree(run, ignore_errors=True)
    trainer = FederatedTrainer(
        str(given.model),
        FederatedConfig(
            output_dir=str(run),
            num_rounds=given.rounds,
            local_steps=given.steps,
            seed=seed,
            **{"cohort_rule": "all", **settings},
        ),
        clients,
        SFTConfig(
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
            learning_rate=given.learning_rate,
            per_device_train_batch_size=given.batch,
            max_length=given.max_length,
        ),
        LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    return trainer


def scored(policy: Any, splits: Mapping[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Return the held-out loss of each split, a mean over clients with its interval."""
    from fedllm_eval.per_client import evaluate_policy

    found = {}
    for split, clients in splits.items():
        table = evaluate_policy(policy, clients, max_length=max(given.max_length, 128), max_rows_per_client=given.rows)
        summary = table.summary()[SCORE]
        found[split] = {key: summary[key] for key in _SPREAD}
    return found
