"""The cells of `trust.py attacks`: one defence, one attack, one seed; trained, scored, and the attack's success."""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.kept_cells import kept_cells
from benchmarks.trust_runs import SHARED, check_settings, scored, train_run, wanted

__all__ = ["ATTACKS", "DEFENCES", "attack_cells"]

DEFENCES: dict[str, dict[str, Any]] = {
    "none": {},
    "median": {"robust_sum": "median"},
    "trimmed_mean": {"robust_sum": "trimmed_mean"},
    "multi_krum": {"robust_sum": "multi_krum"},
    "bulyan": {"robust_sum": "bulyan"},
    "geometric_median": {"robust_sum": "geometric_median"},
    "norm_bound": {"robust_sum": "norm_bound"},
    "centred_clip": {"robust_sum": "centred_clip"},
    "fltrust": {"robust_sum": "fltrust"},
}
"""Name -> settings of the federation."""
ATTACKS = ("none", "sign_flip", "scaling", "alie", "ipm", "label_flip", "backdoor")


def attack_cells(given: argparse.Namespace) -> None:
    """Make the cells that are missing."""
    from fedllm_data.clients import load_clients
    from fedllm_eval.policy.policies import load_policy

    check_settings(["robust_sum", "attack", "attack_share"])
    cells = [(d, a, seed) for seed in given.seeds for d in given.defences for a in given.attacks]
    cells = [cell for cell in cells if wanted("-".join(map(str, cell)), given)]
    settings = {name: getattr(given, name) for name in (*SHARED, "method", "share")}
    settings |= {"corpus": given.data.name, "model": given.model.name}
    splits = {split: load_clients(given.data, split) for split in ("train", "test", "unseen")}
    people = [client for client in splits["train"] if client in splits["test"]][: given.honest]
    train = splits["train"].select(people)
    heldout = {"test": splits["test"].select(people), "unseen": splits["unseen"]}
    start = load_policy(given.model)
    with kept_cells(f"trust_attacks_{given.name}", settings, "base") as cell:
        if cell is not None:
            cell |= {"defence": "base", "scores": scored(start, heldout, given)}
    for defence, attack, seed in cells:
        with kept_cells(f"trust_attacks_{given.name}", settings, f"{defence}-{attack}-{seed}") as cell:
            if cell is None:
                continue
            started = time.process_time()
            run = Path(given.out) / f"{defence}-{attack}-{seed}"
            of_run = DEFENCES[defence] | {"strategy": given.method}
            if attack != "none":
                of_run |= {"attack": attack, "attack_share": given.share}
            train_run(run, train, seed, given, of_run, rank=given.rank)
            policy = load_policy(run, share=start)
            cell |= {"defence": defence, "attack": attack, "seed": seed, "scores": scored(policy, heldout, given)}
            policy.backbone.unload_adapter(policy.adapter)
            shutil.rmtree(run)
            cell["cpu_seconds"] = round(time.process_time() - started, 2)
            print(defence, attack, seed, cell["scores"]["test"]["mean"], cell["cpu_seconds"], flush=True)
