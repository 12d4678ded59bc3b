"""Whether memory grows with the number of clients, or of a cohort: peaks of whole runs, each a process of its own.

    python benchmarks/server_memory.py

20, 200 and 2,000 clients, same cohort, same rows per client, by FedAvg, and by SCAFFOLD, whose clients remember a
control variate each (on disk); then cohorts of 5 and 40 by methods with a LoRA rank for each client. The model is
untrained and has a few thousand parameters, its LoRA has rank 64. Clients are built by another process; the kernel's
peak of resident memory is reset before the first round, and read after the tenth and after the last: the models and
libraries that are there before are part of both. Linux only.
"""

import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from machine import memory_bytes, reset_peak, write_result

NUM_CLIENTS = (20, 200, 2000)
METHODS: dict[str, dict[str, Any]] = {"fedavg": {}, "scaffold": {}}
COHORTS = (5, 40)
MIXED_RANKS: dict[str, dict[str, Any]] = {
    "flexlora": {"client_ranks": "16,32,64"},
    "hetlora": {"client_ranks": "16,32,64"},
}
NUM_ROUNDS, COHORT, ROWS_PER_CLIENT = 50, 10, 8
WITHIN = 0.05


def prepare(num_clients: int, folder: Path) -> None:
    """Build a client repo and a base model."""
    from fedllm_data.build import build
    from fedllm_data.clients import load_clients
    from fedllm_data.source import Source, SourceRow
    from fedllm_train.models.tiny import TOY, train_tiny

    def rows(path: Path | None, seed: int, options: dict[str, str]):
        for client in range(num_clients):
            for index in range(ROWS_PER_CLIENT):
                turns = [
                    {"role": "user", "content": f"say {client} and {index}"},
                    {"role": "assistant", "content": f"{client} and {index}"},
                ]
                row = {"client_id": f"c{client}", "row_id": f"{client}-{index}", "language": "en", "messages": turns}
                yield SourceRow(row, "generated", client * ROWS_PER_CLIENT + index)

    source = Source(
        name="generated", task="sft", summary="rows for a measurement", client="a number", licence="cc0-1.0",
        licence_url="", attribution="", upstream="generated", revision="1", citation="", read=rows, options={},
    )  # fmt: skip
    build(source, folder / "clients", unfiltered=True)
    train_tiny(load_clients(folder / "clients").rows.select(range(100)), folder / "base", config=TOY)


def run(folder: Path, settings: dict[str, Any]) -> None:
    """Train and print the peak of memory after ten rounds and at the end as JSON."""
    warnings.simplefilter("ignore")
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_data.clients import load_clients
    from fedllm_train import FederatedConfig, FederatedTrainer

    torch.set_num_threads(1)
    clients = load_clients(folder / "clients")
    peaks: list[int] = []
    trainer = FederatedTrainer(
        str(folder / "base"),
        FederatedConfig(output_dir=str(folder / "run"), local_steps=1, **settings),
        clients,
        SFTConfig(bf16=False, use_cpu=True, activation_checkpointing=False, per_device_train_batch_size=4),
        LoraConfig(r=64, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[lambda record: peaks.append(memory_bytes("VmHWM"))],
    )
    before = memory_bytes("VmRSS")
    reset_peak()
    started = time.process_time()
    state = trainer.train()
    remembered = sum(path.stat().st_size for path in (folder / "run").glob("client_memory/*/*"))
    result = {
        "strategy": settings["strategy"],
        "num_clients": len(clients),
        "cohort_size": settings["cohort_size"],
        "num_rounds": settings["num_rounds"],
        "bytes_before_round_0": before,
        "peak_bytes_after_round_10": peaks[9],
        "peak_bytes_at_end": peaks[-1],
        "upload_bytes_per_round": state.ledger.upload_bytes // len(peaks),
        "client_memory_bytes_on_disk": remembered,
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    print(json.dumps(result))


def measure(num_clients: int, settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Build clients and run each of the settings on them, every step in a process of its own."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__]
        subprocess.run([*command, "prepare", str(num_clients), folder], check=True, capture_output=True)
        for each in settings:
            subprocess.run(["rm", "-rf", f"{folder}/run"], check=True)
            output = subprocess.run(
                [*command, "run", folder, json.dumps(each)], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            results.append(json.loads(output.splitlines()[-1]))
            print(results[-1], flush=True)
    return results


def ratios(runs: list[dict[str, Any]], names: Any) -> dict[str, Any]:
    """By strategy, the largest peak over the smallest, and whether that is flat."""
    made = {}
    for name in names:
        peaks = [each["peak_bytes_at_end"] for each in runs if each["strategy"] == name]
        made[name] = {"peak_ratio": round(max(peaks) / min(peaks), 4), "flat": max(peaks) <= (1 + WITHIN) * min(peaks)}
    return made


def main() -> None:
    """Run all, print and keep the ratios."""
    if sys.argv[1:2] == ["prepare"]:
        return prepare(int(sys.argv[2]), Path(sys.argv[3]))
    if sys.argv[1:2] == ["run"]:
        return run(Path(sys.argv[2]), json.loads(sys.argv[3]))
    base = {"num_rounds": NUM_ROUNDS, "cohort_size": COHORT}
    runs = [
        each
        for num_clients in NUM_CLIENTS
        for each in measure(num_clients, [{"strategy": name, **base, **more} for name, more in METHODS.items()])
    ]
    cohorts = measure(
        100,
        [
            {"strategy": name, "num_rounds": 12, "cohort_size": cohort, **more}
            for name, more in MIXED_RANKS.items()
            for cohort in COHORTS
        ],
    )
    result = {
        "rows_per_client": ROWS_PER_CLIENT,
        "clients": {"runs": runs, **ratios(runs, METHODS)},
        "cohorts": {"runs": cohorts, **ratios(cohorts, MIXED_RANKS)},
    }
    print({name: each for part in ("clients", "cohorts") for name, each in result[part].items() if name != "runs"})
    print(write_result("server_memory", result))
    return None


if __name__ == "__main__":
    main()
