"""The cells of `trust.py leak`: one method, one unit, one epsilon, one seed; trained, scored and audited.

Canaries are planted by coins of their own for every unit and seed: whole clients, or single rows of the honest
clients. Every epsilon and method of one unit and seed trains on the same rows, so that nothing differs but protection.
"""

import argparse
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.kept_cells import kept_cells
from benchmarks.trust_runs import SHARED, check_settings, scored, train_run, wanted

__all__ = ["EPSILONS", "METHODS", "UNITS", "leak_cells"]

METHODS: dict[str, dict[str, Any]] = {
    "fedavg": {"clip": 0.5, "rank": 1},
    "ffa_lora": {"clip": 0.5, "rank": 1},
    "rolora": {"clip": 0.5, "rank": 1},
    "fed_sb": {"clip": 0.2, "rank": 2, "core_frame": "random"},
}
"""Methods whose server is content with a mean -> the clip, about half the norm of an update without one, the rank in
multiples of --rank (fed_sb trains rank x rank values a matrix, the others rank x (in + out) or half of it), and
settings of their own."""
UNITS = ("client", "example")
EPSILONS = ("none", "20", "8", "3", "1")
EXAMPLE_CLIP = 1.0
"""Of the gradient of a row."""
COPIES = 4
"""Rows of a canary that is a client."""


def leak_cells(given: argparse.Namespace) -> None:
    """Make the cells that are missing."""
    from fedllm_data.clients import load_clients
    from fedllm_eval.policy.policies import load_policy

    cells = [
        (method, unit, epsilon, seed)
        for seed in given.seeds
        for unit in given.units
        for method in given.methods
        for epsilon in given.epsilons
    ]
    cells = [cell for cell in cells if wanted("-".join(map(str, cell)), given)]
    if any(unit == "example" and epsilon != "none" for _, unit, epsilon, _ in cells):
        check_settings(["dp_unit"])
    settings = {name: getattr(given, name) for name in (*SHARED, "canaries", "delta")}
    settings |= {"corpus": given.data.name, "model": given.model.name}
    splits = {split: load_clients(given.data, split) for split in ("train", "test", "unseen")}
    people = [client for client in splits["train"] if client in splits["test"]][: given.honest]
    splits = {
        "train": splits["train"].select(people),
        "test": splits["test"].select(people),
        "unseen": splits["unseen"].select(list(splits["unseen"])[: given.honest]),
    }
    start = load_policy(given.model)
    with kept_cells(f"trust_leak_{given.name}", settings, "base") as cell:
        if cell is not None:
            cell |= {"method": "base", "scores": scored(start, _heldout(splits), given)}
    for method, unit, epsilon, seed in cells:
        with kept_cells(f"trust_leak_{given.name}", settings, f"{method}-{unit}-{epsilon}-{seed}") as cell:
            if cell is None:
                continue
            started = time.process_time()
            cell |= {"method": method, "unit": unit, "epsilon": epsilon, "seed": seed}
            cell |= _one_cell(cell, splits, start, given)
            cell["cpu_seconds"] = round(time.process_time() - started, 2)
            found = {"loss": cell["scores"]["test"]["mean"], "auc": cell["auc"]["auc"], "coins": cell["coins"]}
            print(method, unit, epsilon, seed, found, cell["cpu_seconds"], flush=True)


def _heldout(splits: dict[str, Any]) -> dict[str, Any]:
    return {split: splits[split] for split in ("test", "unseen")}


def _one_cell(cell: dict[str, Any], splits: dict[str, Any], start: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Train and audit; `cell` says what."""
    from fedllm_eval.audit.audit_settings import AuditSettings
    from fedllm_eval.audit.canaries import plant
    from fedllm_eval.audit.claims import claimed
    from fedllm_eval.audit.coin_audit import audit_coins
    from fedllm_eval.audit.coins import coin_canaries
    from fedllm_eval.audit.membership_audit import audit_membership
    from fedllm_eval.policy.policies import load_policy
    from fedllm_eval.policy.run_folder import read_config
    from fedllm_train.privacy.beginning import num_values_sent

    unit, seed, method = cell["unit"], cell["seed"], cell["method"]
    salt = f"canaries of trust.py, unit {unit}, seed {seed}".encode()
    copies = COPIES if unit == "client" else 1
    canaries = coin_canaries(list(splits["train"]), given.canaries, salt=salt, unit=unit, copies=copies)
    clients = plant(splits["train"], canaries)
    run = Path(given.out) / "-".join(str(cell[name]) for name in ("method", "unit", "epsilon", "seed"))
    trainer = train_run(run, clients, seed, given, _privacy(cell, given), rank=METHODS[method]["rank"] * given.rank)
    claims = claimed(read_config(run))
    policy = load_policy(run, share=start)
    delta = claims[unit].delta if unit in claims else 0.0
    coins = audit_coins(policy, canaries, reference=start, delta=delta, batch_size=32, seed=seed)
    limits = AuditSettings(max_rows=100, batch_size=32, max_length=given.max_length, seed=seed)
    membership = audit_membership(policy, splits["train"], splits["unseen"], reference=start, settings=limits)
    attack = membership["attacks"]["calibrated"]
    found = {
        "claims": {name: asdict(claim) for name, claim in claims.items()},
        "num_values": num_values_sent(trainer.plan.strategy, trainer.loaded.start_state, next(iter(clients))),
        "noise_multiplier": None if trainer.guarantee is None else trainer.guarantee.noise_multiplier,
        "scores": scored(policy, _heldout(splits), given),
        "auc": {name: attack[name] for name in ("auc", "auc_low", "auc_high")},
        "coins": {
            name: coins[name]
            for name in (
                *("epsilon", "largest_epsilon", "delta", "num_canaries", "num_in", "num_correct"),
                *("num_guessed_in", "num_guessed_out", "mean_score_in", "mean_score_out"),
            )
        },
    }
    policy.backbone.unload_adapter(policy.adapter)
    shutil.rmtree(run)
    return found


def _privacy(cell: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the federation for a cell."""
    method = METHODS[cell["method"]]
    settings: dict[str, Any] = {"strategy": cell["method"]}
    settings |= {name: value for name, value in method.items() if name not in ("clip", "rank")}
    if cell["epsilon"] == "none":
        return settings
    clip = method["clip"] if cell["unit"] == "client" else EXAMPLE_CLIP
    settings |= {"dp_clip": clip, "dp_epsilon": float(cell["epsilon"]), "dp_delta": given.delta}
    return settings | ({"dp_unit": "example"} if cell["unit"] == "example" else {})
