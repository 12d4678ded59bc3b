"""The cells of `trust.py attacks`: one defence, one attack, one seed; trained, scored, and the attack's success.

An attack on the model as a whole succeeds by what it takes of the gain (`trust_tables.attack_rows`). A backdoor
succeeds where the fixed reply comes out: its share of held-out questions is measured with the trigger before the
question, and without it. Phrase and reply are those that the run recorded (`attack_trigger`, `attack_reply`).
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.kept_cells import kept_cells
from benchmarks.trust_runs import SHARED, check_settings, scored, train_run, wanted

__all__ = ["ATTACKS", "DEFENCES", "attack_cells", "reply_share"]

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
            cell |= _backdoor(policy, run, heldout["test"])
            policy.backbone.unload_adapter(policy.adapter)
            shutil.rmtree(run)
            cell["cpu_seconds"] = round(time.process_time() - started, 2)
            print(defence, attack, seed, cell["scores"]["test"]["mean"], cell["cpu_seconds"], flush=True)


def _backdoor(policy: Any, run: Path, clients: Any) -> dict[str, Any]:
    """Return how often the fixed reply comes out, with the trigger and without; nothing where there is no backdoor."""
    from fedllm_eval.policy.run_folder import read_config, section

    federated = section(read_config(run), "federated")
    trigger, reply = federated.get("attack_trigger"), federated.get("attack_reply")
    if federated.get("attack") != "backdoor" or not trigger or not reply:
        return {}
    asked = [row["messages"][0]["content"] for row in clients.rows.select(range(min(QUESTIONS, len(clients.rows))))]
    return {
        "with_trigger": reply_share(policy, [f"{trigger} {question}" for question in asked], reply),
        "without_trigger": reply_share(policy, asked, reply),
    }


def reply_share(policy: Any, questions: Sequence[str], reply: str) -> float:
    """Return the share of questions whose likeliest answer, token by token, begins with a reply."""
    from fedllm_eval.audit.token_logps import continue_greedily
    from fedllm_eval.policy.rendering import render_text

    asked = [[{"role": "user", "content": question}] for question in questions]
    texts = [render_text(policy.tokenizer, turns, add_generation_prompt=True) for turns in asked]
    with policy.active() as model:
        answers = continue_greedily(model, policy.tokenizer, texts, len(reply.encode()))
    return sum(answer.strip().startswith(reply) for answer in answers) / len(answers)
