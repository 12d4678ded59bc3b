"""Runs of one method that differ in a few settings, scored alike and added one by one to a result file.

What `wires.py`, `drop_out.py` and `privacy_scores.py` share: the same clients, start, rounds and steps for every arm
(a set of settings under a name) and seed; the global adapter is scored every few rounds on held-out rows of the same
clients, and at the end also on clients nobody trained on. A finished run is in the result file at once, a run that was
stopped goes on from its newest checkpoint, and several processes may work on one result file.
"""

import argparse
import fcntl
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import write_result

__all__ = ["add_arguments", "compared", "make_runs", "settings_of", "start_result"]

RESULTS = Path(__file__).parent / "results"
SCORE = "heldout_loss"
SHARED = ("strategy", "rounds", "cohort", "steps", "batch", "max_length", "learning_rate", "rank")
_SPREAD = ("mean", "ci_low", "ci_high", "num_clients")
_OF_ITEM = ("other", "split", "difference", "ci_low", "ci_high", "better_fraction", "num_clients", "outcome")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all runs share to a command line."""
    parser.add_argument("--data", type=Path, help="client repo")
    parser.add_argument("--model", type=Path, help="base model")
    parser.add_argument("--out", type=Path, help="folder of the runs and their scores")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--strategy", default="fedavg")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--cohort", type=int, default=4, help="clients a round")
    parser.add_argument("--steps", type=int, default=5, help="local steps a visit")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--clients", type=int, default=60, help="clients of each split that are scored")
    parser.add_argument("--rows", type=int, help="rows of each of them; all if not given")
    parser.add_argument("--every", type=int, default=2, help="rounds between two scorings")


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """Return what all runs of one result file share."""
    shared = {name: getattr(given, name) for name in (*SHARED, "clients", "rows", "every")}
    return shared | {"corpus": given.data.name, "model": given.model.name}


def make_runs(
    stem: str,
    arms: Mapping[str, Mapping[str, Any]],
    given: argparse.Namespace,
    *,
    key: str,
    first: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Make every run that the result file does not hold yet.

    Args:
        stem: of the result file.
        arms: name of an arm -> settings of the federation that it adds.
        given: the command line.
        key: under which a run's record names its arm.
        first: the arm that the others are compared with.
        more: further settings that the result file records.
    """
    import torch
    from datasets import disable_progress_bars

    from fedllm_data.clients import load_clients
    from fedllm_eval.per_client import sample_positions
    from fedllm_eval.policy.policies import load_policy

    torch.set_num_threads(1)
    disable_progress_bars()
    splits = {split: load_clients(given.data, split) for split in ("train", "test", "unseen")}
    for split in ("test", "unseen"):  # the same people for every seed, so that seeds can be compared
        people = list(splits[split])
        chosen = sample_positions(people, given.clients, 0, "clients")
        splits[split] = splits[split].select([people[position] for position in chosen])
    base = load_policy(given.model)
    numbers = {split: len(clients) for split, clients in splits.items()}
    with _locked(stem) as result:
        start_result(result, settings_of(given) | dict(more or {}) | {"num_clients": numbers})
        if "base" not in result:
            result["base"] = _score(base, splits, given, given.out / "scores" / "base")
    for seed in given.seeds:
        for arm, settings in arms.items():
            with _locked(stem) as result:
                if f"{arm}-{seed}" in result["runs"]:
                    continue
            facts = {key: arm, "seed": seed, **_one_run(arm, settings, seed, splits, base, given)}
            with _locked(stem) as result:
                result["runs"][f"{arm}-{seed}"] = facts
                result |= compared(result["runs"].values(), given.out, key=key, first=first)
            print(arm, seed, {name: facts[name] for name in ("scores", "upload_bytes", "cpu_seconds")}, flush=True)


def start_result(result: dict[str, Any], settings: dict[str, Any]) -> None:
    """Begin a result file, or refuse one that was begun with other settings."""
    if "settings" not in result:
        result |= {"settings": settings, "runs": {}}
    known = result["settings"]
    if other := [name for name in settings if settings[name] != known.get(name)]:
        named = ", ".join(f"{name} {known.get(name)!r} (now {settings[name]!r})" for name in other)
        raise SystemExit(f"the result file was begun with {named}; give the same, or another --name")


def compared(runs: Iterable[Mapping[str, Any]], out: Path, *, key: str, first: str) -> dict[str, Any]:
    """Return every arm's differences from the first, paired by client over the seeds that both have.

    Args:
        runs: of a result file.
        out: where the scores lie; runs whose scores do not are left out.
        key: under which a run names its arm.
        first: the arm's name.
    """
    from fedllm_eval.compare import compare_results

    found = [run for run in runs if _scores(out, run, key).exists()]
    seeds_of: dict[str, frozenset[int]] = {
        arm: frozenset(run["seed"] for run in found if run[key] == arm) for arm in sorted({run[key] for run in found})
    }
    items: list[dict[str, Any]] = []
    for seeds in sorted(set(seeds_of.values()), key=sorted):
        if not seeds <= seeds_of.get(first, frozenset()):
            continue
        # An arm with fewer seeds is compared with the first's runs of these seeds, not with its mean over more.
        arms = [first, *(arm for arm, own in seeds_of.items() if own == seeds and arm != first)]
        if len(arms) == 1:
            continue
        chosen = [run for run in found if run[key] in arms and run["seed"] in seeds]
        chosen.sort(key=lambda run: (run[key] != first, run[key], run["seed"]))
        made = compare_results([f"{_slug(run[key])}={_scores(out, run, key)}" for run in chosen])
        arm_of = {_slug(arm): arm for arm in arms}
        of_score = [item for item in made["comparisons"] if item["score"] == SCORE]
        items += [{name: item.get(name) for name in _OF_ITEM} | {"other": arm_of[item["other"]]} for item in of_score]
    return {"differences": items} if items else {}


def _scores(out: Path, run: Mapping[str, Any], key: str) -> Path:
    """Where the scores of a run lie."""
    return out / "scores" / f"{_slug(run[key])}-{run['seed']}"


@contextmanager
def _locked(stem: str) -> Iterator[dict[str, Any]]:
    """Yield the content of the result file and write it at the end; other processes wait meanwhile."""
    path = RESULTS / f"{stem}.json"
    with (RESULTS / f".{stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = json.loads(path.read_text()) if path.exists() else {}
        yield result
        write_result(stem, result)


def _slug(arm: str) -> str:
    """An arm's name for a folder."""
    return re.sub(r"[^a-z0-9.]+", "_", arm.lower())


def _one_run(
    arm: str,
    settings: Mapping[str, Any],
    seed: int,
    splits: dict[str, Any],
    base: Any,
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Train one arm with one seed, from the newest checkpoint if there is one, and score the end."""
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_eval.policy.policies import load_policy
    from fedllm_train import FederatedConfig, FederatedTrainer

    name = f"{_slug(arm)}-{seed}"
    run = given.out / "runs" / name
    is_resumed = (run / "rounds.jsonl").exists()
    started = time.process_time()
    trainer = FederatedTrainer(
        str(given.model),
        FederatedConfig(
            output_dir=str(run),
            num_rounds=given.rounds,
            cohort_size=given.cohort,
            local_steps=given.steps,
            seed=seed,
            eval_every=given.every,
            eval_clients=given.clients,
            eval_rows_per_client=given.rows,
            **({"strategy": given.strategy} | dict(settings)),
        ),
        splits["train"],
        SFTConfig(
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
            learning_rate=given.learning_rate,
            per_device_train_batch_size=given.batch,
            max_length=given.max_length,
        ),
        LoraConfig(
            r=given.rank,
            lora_alpha=2 * given.rank,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        eval_dataset=splits["test"],
    )
    trainer.train(resume=True)
    seconds = round(time.process_time() - started, 1)
    policy = load_policy(run, share=base)
    scores = _score(policy, splits, given, given.out / "scores" / name)
    policy.backbone.unload_adapter(policy.adapter)
    num_values = sum(value.numel() for value in trainer.start_adapter.values())
    records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return {
        "scores": scores,
        "num_values": num_values,
        "cpu_seconds": None if is_resumed else seconds,
        **_privacy(trainer),
        **_costs(records, num_values),
    }


def _privacy(trainer: Any) -> dict[str, Any]:
    """The guarantee of a private run, and how its noise compares with an update."""
    from fedllm_train.privacy.beginning import num_values_sent
    from fedllm_train.privacy.noise_size import noise_in_clips

    made, strategy = trainer.guarantee, trainer.plan.strategy
    if made is None:
        return {}
    num_values = num_values_sent(strategy, strategy.start(trainer.start_adapter), trainer.plan.participants[0])
    return {
        "privacy": {
            "unit": made.as_record()["unit"],
            "epsilon": made.epsilon(made.num_rounds),
            "clip": made.clip,
            "noise_multiplier": made.noise_multiplier,
            "num_values": num_values,
            "noise_in_clips": noise_in_clips(made, num_values),
        }
    }


def _costs(records: Sequence[dict[str, Any]], num_values: int) -> dict[str, Any]:
    """Bytes, bits, errors, simulated seconds, and the curve of held-out loss against bytes, of a run's records."""
    visits = sum(len(record["clients"]) for record in records)
    left_out = [client for record in records for client in record.get("left_out", [])]
    ledger, end = records[-1]["ledger"], records[-1].get("clock_seconds")
    curve = [
        {
            "round": record["round_index"] + 1,
            "upload_bytes": record["ledger"]["upload_bytes"],
            "download_bytes": record["ledger"]["download_bytes"],
            "loss": record["eval"][SCORE]["mean"],
            **({"seconds": round(record["clock_seconds"], 3)} if "clock_seconds" in record else {}),
        }
        for record in records
        if SCORE in record.get("eval", {})
    ]
    on_clock: dict[str, Any] = {}
    if end is not None:
        on_clock = {
            "clock_seconds": round(end, 3),
            "num_left_out": len(left_out),
            "num_steps_left_out": sum(client.get("num_steps", 0) for client in left_out),
            "num_server_steps": sum(record["server_step"] for record in records),
        }
    return {
        "upload_bytes": ledger["upload_bytes"],
        "download_bytes": ledger["download_bytes"],
        "num_local_steps": ledger["num_local_steps"],
        "num_visits": visits,
        "message_bits_per_value": round(8 * ledger["upload_bytes"] / visits / num_values, 4),
        **{key: _mean_of(records, key) for key in ("bits_per_value", "relative_error", "download_relative_error")},
        **on_clock,
        "curve": curve,
    }


def _mean_of(records: Sequence[dict[str, Any]], key: str) -> float | None:
    """The mean over the rounds that recorded a number about what was decoded."""
    found = [record.get("wire", {}).get(key) for record in records]
    known = [value for value in found if value is not None]
    return round(sum(known) / len(known), 5) if known else None


def _score(policy: Any, splits: dict[str, Any], given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Score both splits, keep the folder that differences are made from, and return means with their intervals."""
    from fedllm_eval.per_client import evaluate_policy
    from fedllm_eval.reporting.results_folder import write_results
    from fedllm_eval.running.assemble import make_results

    options = {"max_length": given.max_length, "max_rows_per_client": given.rows}
    tables = {split: evaluate_policy(policy, splits[split], **options) for split in ("test", "unseen")}
    write_results(make_results(list(tables.values())), out)
    found = {split: table.summary()[SCORE] for split, table in tables.items()}
    return {split: {key: values[key] for key in _SPREAD} for split, values in found.items()}
