"""Whether server memory grows with the number of clients: 20 against 2,000, same cohort, same rows per client.

    python benchmarks/server_memory.py

Each run is a process of its own on an untrained model of a few thousand parameters with a LoRA of several megabytes'
worth of updates a round; its peak resident memory is compared with the memory before the first round, so that what the
libraries hold does not hide what a round adds. Rows lie on disk either way.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from machine import write_result

NUM_CLIENTS = (20, 2000)
NUM_ROUNDS, COHORT, ROWS_PER_CLIENT = 100, 10, 8


def run(num_clients: int, folder: Path) -> None:
    """Build clients, train, and print peak memory before and after the rounds as JSON."""
    warnings.simplefilter("ignore")
    import torch
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_data.build import build
    from fedllm_data.clients import load_clients
    from fedllm_data.source import Source, SourceRow
    from fedllm_train import FederatedConfig, FederatedTrainer
    from fedllm_train.tiny import TOY, train_tiny

    torch.set_num_threads(1)

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
    clients = load_clients(folder / "clients")
    train_tiny(clients.rows.select(range(100)), folder / "base", config=TOY)
    peaks: list[int] = []

    def look(record: dict) -> None:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    trainer = FederatedTrainer(
        str(folder / "base"),
        FederatedConfig(output_dir=str(folder / "run"), num_rounds=NUM_ROUNDS, cohort_size=COHORT, local_steps=1),
        clients,
        SFTConfig(bf16=False, use_cpu=True, activation_checkpointing=False, per_device_train_batch_size=4),
        LoraConfig(r=64, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[look],
    )
    started = time.process_time()
    state = trainer.train()
    print(
        json.dumps(
            {
                "num_clients": len(clients),
                "peak_bytes_after_round_10": peaks[9],
                "peak_bytes_at_end": peaks[-1],
                "growth_bytes": peaks[-1] - peaks[9],
                "upload_bytes_per_round": state.ledger.upload_bytes // NUM_ROUNDS,
                "cpu_seconds": round(time.process_time() - started, 1),
            }
        )
    )


def main() -> None:
    """Run both sizes in processes of their own and print the ratio of their peaks."""
    if len(sys.argv) == 3:
        return run(int(sys.argv[1]), Path(sys.argv[2]))
    results = []
    for num_clients in NUM_CLIENTS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, str(num_clients), folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results.append(json.loads(output.splitlines()[-1]))
        print(results[-1])
    ratio = results[1]["peak_bytes_at_end"] / results[0]["peak_bytes_at_end"]
    print(f"peak memory, {NUM_CLIENTS[1]} / {NUM_CLIENTS[0]} clients: {ratio:.3f}")
    settings = {"num_rounds": NUM_ROUNDS, "cohort_size": COHORT, "rows_per_client": ROWS_PER_CLIENT}
    print(write_result("server_memory", {**settings, "runs": results, "peak_ratio": ratio}))
    return None


if __name__ == "__main__":
    main()
