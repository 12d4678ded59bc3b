"""The cells of `trust.py attacks`: one defence, one attack, one seed; trained, scored, and the attack's success.

An attack on the model as a whole succeeds by what it takes of the gain (`trust_tables.attack_rows`). A backdoor
succeeds where the fixed reply comes out: its share of held-out questions is measured with the trigger behind the
question, and without it. Phrase and reply are those that the run recorded (`attack_trigger`, `attack_reply`). Rules
that ask for a number of bad clients are told the true one. FLTrust's root is one more client, which no other run has.
"""

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
NEEDS_NUM_BAD = ("trimmed_mean", "multi_krum", "bulyan")
TRIGGER, REPLY = "by the clock", "yes indeed"
"""Short, so that they fit the tokens of a tiny model's rows."""
QUESTIONS = 20
"""Held-out questions that a backdoor is tried on."""
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
    *people, root = [client for client in splits["train"] if client in splits["test"]][: given.honest + 1]
    train, with_root = (splits["train"].select(each) for each in (people, [*people, root]))
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
            if defence in NEEDS_NUM_BAD:
                of_run["robust_num_bad"] = round(given.share * len(people))
            if defence == "fltrust":
                of_run |= {"robust_root": root, "cohort_rule": "uniform", "cohort_size": len(people)}
            if attack != "none":
                of_run |= {"attack": attack, "attack_share": given.share}
            if attack == "backdoor":
                of_run |= {"attack_trigger": TRIGGER, "attack_reply": REPLY}
            trained_on = with_root if defence == "fltrust" else train
            train_run(run, trained_on, seed, given, of_run, rank=given.rank)
            policy = load_policy(run, share=start)
            cell |= {"defence": defence, "attack": attack, "seed": seed, "scores": scored(policy, heldout, given)}
            cell |= _backdoor(policy, run, heldout["test"])
            policy.backbone.unload_adapter(policy.adapter)
            shutil.rmtree(run)
            cell["cpu_seconds"] = round(time.process_time() - started, 2)
            print(defence, attack, seed, cell["scores"]["test"]["mean"], cell["cpu_seconds"], flush=True)


def _backdoor(policy: Any, run: Path, clients: Any) -> dict[str, Any]:
    """Return how often the fixed reply comes out, with the trigger and without; nothing where there is no backdoor."""
    from fedllm_eval.audit.backdoor import backdoor_success
    from fedllm_eval.policy.run_folder import read_config, section

    federated = section(read_config(run), "federated")
    if federated.get("attack") != "backdoor":
        return {}
    rows = clients.rows.select(range(min(QUESTIONS, len(clients.rows))))
    trigger, reply = federated["attack_trigger"], federated["attack_reply"]
    found = backdoor_success(policy, [row["messages"][:-1] for row in rows], trigger=trigger, reply=reply)
    shares = {name: found[name]["fraction"] for name in ("with_trigger", "without_trigger")}
    return {"num_questions": found["num_prompts"], **shares}
