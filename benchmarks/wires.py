"""Score against bytes: one method, one corpus, the same clients and steps, and a different wire each time.

    python benchmarks/wires.py --data FED_SYNTH --model BASE --out DIR
    python benchmarks/wires.py --name fed_oasst_smollm2 --data FED_OASST --model SMOLLM2 --out DIR \
        --wires none bf16 int8 int4 drive --rounds 25 --cohort 2 --steps 3 --batch 2 --learning-rate 1e-3 \
        --clients 24 --rows 2 --every 5
    python benchmarks/wires.py --draw                 (tables and figures again, from the result files alone)

Every wire trains FedAvg once a seed: the same cohorts, the same start, the same rounds, cohort size and local steps.
The global adapter is scored every few rounds on held-out rows of the same clients, and at the end also on clients
nobody trained on; differences from `none` are paired by client over all seeds (`fedllm-eval compare`). A wire may have
a second name after a slash, which packs the downloads: `drive/int4`. A finished run is added to the result file at
once, a run that was stopped goes on from its newest checkpoint, and several processes may work on one result file, so
the script may be stopped at any time. Results: `results/wires_<name>.json`, `.md` and `.svg`.
"""

import argparse
import fcntl
import json
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.machine import write_result
from benchmarks.wire_tables import wires_figure, wires_page

RESULTS = Path(__file__).parent / "results"
WIRES = ("none", "bf16", "int8", "int4", "int3", "sign", "drive", "topk", "topk-int8", "topk-int4")
SCORE = "heldout_loss"
_SPREAD = ("mean", "ci_low", "ci_high", "num_clients")
_OF_ITEM = ("other", "split", "difference", "ci_low", "ci_high", "better_fraction", "num_clients", "outcome")


def main() -> None:
    """Train and score what is missing, then write the tables and the figure."""
    warnings.simplefilter("ignore")
    given = arguments()
    if not given.draw:
        run_all(given)
    for path in sorted(RESULTS.glob("wires_*.json")):
        draw(path)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="only write tables and figures of all result files again")
    parser.add_argument("--name", default="fed_synth", help="of the result file: results/wires_NAME.json")
    parser.add_argument("--data", type=Path, help="client repo")
    parser.add_argument("--model", type=Path, help="base model")
    parser.add_argument("--out", type=Path, help="folder of the runs and their scores")
    parser.add_argument("--wires", nargs="+", default=list(WIRES), help="a preset, stages, or UP/DOWN")
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
    given = parser.parse_args()
    if not given.draw and not (given.data and given.model and given.out):
        parser.error("--data, --model and --out are needed, or --draw")
    return given


def run_all(given: argparse.Namespace) -> None:
    """Make every run that the result file does not hold yet."""
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
    with locked(given.name) as result:
        start_result(result, settings_of(given) | {"num_clients": numbers})
        if "base" not in result:
            result["base"] = score(base, splits, given, given.out / "scores" / "base")
    for seed in given.seeds:
        for wire in given.wires:
            with locked(given.name) as result:
                if f"{wire}-{seed}" in result["runs"]:
                    continue
            facts = one_run(wire, seed, splits, base, given)
            with locked(given.name) as result:
                result["runs"][f"{wire}-{seed}"] = facts
                result |= compared(result["runs"], given.out)
            print(wire, seed, {name: facts[name] for name in ("scores", "upload_bytes", "cpu_seconds")}, flush=True)


@contextmanager
def locked(name: str) -> Iterator[dict[str, Any]]:
    """Yield the content of the result file and write it at the end; other processes wait meanwhile."""
    path = RESULTS / f"wires_{name}.json"
    with (RESULTS / f".{path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = json.loads(path.read_text()) if path.exists() else {}
        yield result
        write_result(path.stem, result)


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """What all runs of one result file share."""
    names = ("strategy", "rounds", "cohort", "steps", "batch", "max_length", "learning_rate", "rank")
    shared = {name: getattr(given, name) for name in (*names, "clients", "rows", "every")}
    return shared | {"corpus": given.data.name, "model": given.model.name}


def start_result(result: dict[str, Any], settings: dict[str, Any]) -> None:
    """Begin a result file, or refuse one that was begun with other settings."""
    if "settings" not in result:
        result |= {"settings": settings, "runs": {}}
    known = result["settings"]
    if other := [name for name in settings if settings[name] != known.get(name)]:
        named = ", ".join(f"{name} {known.get(name)!r} (now {settings[name]!r})" for name in other)
        raise SystemExit(f"the result file was begun with {named}; give the same, or another --name")


def slug(wire: str) -> str:
    """Return a wire's name for a folder."""
    return re.sub(r"[^a-z0-9.]+", "_", wire.lower())


def wire_settings(wire: str) -> dict[str, Any]:
    """Return the settings of the federation that pack as a wire's name says."""
    up, _, down = wire.partition("/")
    return {"wire": up, **({"download_wire": down} if down else {})}


def one_run(wire: str, seed: int, splits: dict[str, Any], base: Any, given: argparse.Namespace) -> dict[str, Any]:
    """Train with one wire and one seed, from the newest checkpoint if there is one, and score the end."""
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_eval.policy.policies import load_policy
    from fedllm_train import FederatedConfig, FederatedTrainer

    name = f"{slug(wire)}-{seed}"
    run = given.out / "runs" / name
    is_resumed = (run / "rounds.jsonl").exists()
    started = time.process_time()
    trainer = FederatedTrainer(
        str(given.model),
        FederatedConfig(
            output_dir=str(run),
            strategy=given.strategy,
            num_rounds=given.rounds,
            cohort_size=given.cohort,
            local_steps=given.steps,
            seed=seed,
            eval_every=given.every,
            eval_clients=given.clients,
            eval_rows_per_client=given.rows,
            **wire_settings(wire),
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
    scores = score(policy, splits, given, given.out / "scores" / name)
    policy.backbone.unload_adapter(policy.adapter)
    num_values = sum(value.numel() for value in trainer.start_adapter.values())
    records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return {
        "wire": wire,
        "seed": seed,
        "scores": scores,
        "num_values": num_values,
        "cpu_seconds": None if is_resumed else seconds,
        **costs(records, num_values),
    }


def costs(records: list[dict[str, Any]], num_values: int) -> dict[str, Any]:
    """Return bytes, bits, errors and the curve of held-out loss against bytes of a run's records."""
    visits = sum(len(record["clients"]) for record in records)
    ledger = records[-1]["ledger"]
    curve = [
        {
            "round": record["round_index"] + 1,
            "upload_bytes": record["ledger"]["upload_bytes"],
            "download_bytes": record["ledger"]["download_bytes"],
            "loss": record["eval"][SCORE]["mean"],
        }
        for record in records
        if SCORE in record.get("eval", {})
    ]
    return {
        "upload_bytes": ledger["upload_bytes"],
        "download_bytes": ledger["download_bytes"],
        "num_visits": visits,
        "message_bits_per_value": round(8 * ledger["upload_bytes"] / visits / num_values, 4),
        **{key: mean_of(records, key) for key in ("bits_per_value", "relative_error", "download_relative_error")},
        "curve": curve,
    }


def mean_of(records: list[dict[str, Any]], key: str) -> float | None:
    """Return the mean over the rounds that recorded a number about what was decoded."""
    found = [record.get("wire", {}).get(key) for record in records]
    known = [value for value in found if value is not None]
    return round(sum(known) / len(known), 5) if known else None


def score(policy: Any, splits: dict[str, Any], given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Score both splits, keep the folder that differences are made from, and return means with their intervals."""
    from fedllm_eval.per_client import evaluate_policy
    from fedllm_eval.reporting.results_folder import write_results
    from fedllm_eval.running.assemble import make_results

    options = {"max_length": given.max_length, "max_rows_per_client": given.rows}
    tables = {split: evaluate_policy(policy, splits[split], **options) for split in ("test", "unseen")}
    write_results(make_results(list(tables.values())), out)
    found = {split: table.summary()[SCORE] for split, table in tables.items()}
    return {split: {key: values[key] for key in _SPREAD} for split, values in found.items()}


def compared(runs: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return the means of every wire over its seeds, and its differences from `none`, paired by client."""
    from fedllm_eval.compare import compare_results

    wire_of = {slug(run["wire"]): run["wire"] for run in runs.values()}
    ordered = sorted(runs.values(), key=lambda run: (run["wire"] != "none", run["wire"], run["seed"]))
    places = [(slug(run["wire"]), out / "scores" / f"{slug(run['wire'])}-{run['seed']}") for run in ordered]
    places = [(name, folder) for name, folder in places if folder.exists()]
    if len({name for name, _ in places}) < 2 or places[0][0] != "none":
        return {}
    made = compare_results([f"{name}={folder}" for name, folder in places])
    items = [{key: item.get(key) for key in _OF_ITEM} for item in made["comparisons"] if item["score"] == SCORE]
    return {"differences": [item | {"other": wire_of[item["other"]]} for item in items]}


def draw(path: Path) -> None:
    """Write the tables and the figure of a result file beside it."""
    result = json.loads(path.read_text())
    if not result.get("runs"):
        return
    path.with_suffix(".svg").write_text(wires_figure(result))
    path.with_suffix(".md").write_text(wires_page(result, path.stem))
    print(path.with_suffix(".md"))


if __name__ == "__main__":
    main()
