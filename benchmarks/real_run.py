"""A real instruct model on real people: federated SFT and DPO on OpenAssistant, scored per client before and after.

    python benchmarks/real_run.py --model DIR_OR_ID --oasst FILE_OR_DIR --out DIR

Runs the commands a user would type (they are printed, and stand in benchmarks/README.md) and gathers their results
into `results/real_run.json`. With SmolLM2-135M-Instruct and the English validation split, about an hour on two cores.
What a run leaves is kept: started again, the script goes on where it stopped.
"""

import argparse
import json
import shlex
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from machine import write_result

import fedllm_data.cli
import fedllm_eval.cli
import fedllm_train.cli

PROGRAMS = {
    "fedllm-data": fedllm_data.cli.main,
    "fedllm-train": fedllm_train.cli.main,
    "fedllm-eval": fedllm_eval.cli.main,
}
COMMON = (
    "--num-rounds 5 --cohort-size 4 --local-steps 3 --max-length 192 --activation-checkpointing False --seed 0 "
    "--resume True"
)
SFT = f"--per-device-train-batch-size 4 --learning-rate 2e-4 --lora-r 8 --lora-alpha 16 {COMMON}"
DPO = f"--per-device-train-batch-size 2 --learning-rate 5e-5 --beta 0.1 {COMMON}"
SCORE = "--max-length 192 --batch-size 8"


def commands(model: str, oasst: str, out: str) -> list[tuple[str, str]]:
    """Return what is run: (the folder that tells that it was done, the command)."""
    return [
        (f"{out}/fed-oasst/build.json", f"fedllm-data build fed-oasst --source {oasst} --out {out}/fed-oasst"),
        (
            f"{out}/fed-oasst-pa/build.json",
            f"fedllm-data build fed-oasst-pa --source {oasst} --out {out}/fed-oasst-pa",
        ),
        (
            f"{out}/sft/adapter",
            f"fedllm-train sft --data {out}/fed-oasst --model {model} --out {out}/sft {SFT}",
        ),
        (
            f"{out}/dpo/adapter",
            f"fedllm-train dpo --data {out}/fed-oasst-pa --model {model} --adapter {out}/sft --out {out}/dpo {DPO}",
        ),
        *(
            (
                f"{out}/scores/{data}/{name}/results.json",
                f"fedllm-eval run {policy} --data {out}/{data} --out {out}/scores/{data}/{name} {SCORE}",
            )
            for data, policies in (
                ("fed-oasst", (("base", model), ("sft", f"{out}/sft"))),
                ("fed-oasst-pa", (("base", model), ("sft", f"{out}/sft"), ("dpo", f"{out}/dpo"))),
            )
            for name, policy in policies
        ),
    ]


def per_client(scores: Path, names: tuple[str, ...], score: str) -> list[dict[str, Any]]:
    """Return one line a client, before and after; clients by a hash of their id, in the order of the hashes."""
    lines: dict[str, dict[str, Any]] = {}
    for name in names:
        for row in pq.read_table(scores / name / "per_client.parquet").to_pylist():
            client = sha256(row["client_id"].encode()).hexdigest()[:12]
            line = lines.setdefault(client, {"client": client, "split": row["split"], "num_rows": row["num_rows"]})
            line[name] = None if row[score] is None else round(row[score], 4)
    return [lines[client] for client in sorted(lines)]


def main() -> None:
    """Run what is not there yet, print the tables and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--oasst", required=True)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    out = arguments.out
    for done, command in commands(shlex.quote(arguments.model), shlex.quote(arguments.oasst), shlex.quote(str(out))):
        if Path(done).exists():
            continue
        print(f"$ {command}", flush=True)
        program, *words = shlex.split(command)
        started = time.monotonic()
        if PROGRAMS[program](words) != 0:
            raise SystemExit(f"{command} failed")
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    from fedllm_eval.compare import compare_results

    result = {
        # Paths of the machine it ran on stay out of the result; README.md gives the commands with plain names.
        "commands": [command for _, command in commands("SmolLM2-135M-Instruct", "en-validation.jsonl", "oasst")],
        "scores": {
            path.parent.relative_to(out / "scores").as_posix(): {
                split: {key: content[key] for key in ("num_clients", "num_rows", "num_truncated", "scores")}
                for split, content in json.loads(path.read_text())["splits"].items()
            }
            for path in sorted((out / "scores").glob("*/*/results.json"))
        },
        "verdicts": [
            item["verdict"]
            for data, pair in (("fed-oasst", ("base", "sft")), ("fed-oasst-pa", ("sft", "dpo")))
            for item in compare_results([out / "scores" / data / name for name in pair])["comparisons"]
        ],
        "per_client": {
            f"{data}, {score}": per_client(out / "scores" / data, names, score)
            for data, names, score in (
                ("fed-oasst", ("base", "sft"), "heldout_loss"),
                ("fed-oasst-pa", ("base", "sft", "dpo"), "ranking_accuracy_per_token"),
                ("fed-oasst-pa", ("dpo",), "implicit_reward_margin"),
            )
        },
        "rounds": {
            task: [
                {key: record[key] for key in ("round_index", "learning_rate", "train_loss", "update_norm", "seconds")}
                for record in map(json.loads, (out / task / "rounds.jsonl").read_text().splitlines())
            ]
            for task in ("sft", "dpo")
        },
        "ledger": {
            task: json.loads((out / task / "rounds.jsonl").read_text().splitlines()[-1])["ledger"]
            for task in ("sft", "dpo")
        },
    }
    for verdict in result["verdicts"]:
        print(verdict)
    print(write_result("real_run", result))


if __name__ == "__main__":
    main()
