"""What a registered client costs the server in memory: its id, row count and language, whether it ever takes part.

    python benchmarks/registered_clients.py

1,000, 100,000 and 300,000 clients of one row each, the same cohort of 3, FedAvg on an untrained model of a few
thousand parameters; every size in a process of its own. What is measured is the resident memory after three rounds
less that before the clients were opened (the rows stay on disk); per client, the difference of two sizes over the
difference of their clients. Linux only.
"""

import gc
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import memory_bytes, write_result

NUM_CLIENTS = (1_000, 100_000, 300_000)
NUM_ROUNDS, COHORT = 3, 3
WORDS = ("red", "blue", "green", "one", "two", "three", "cat", "dog", "sun", "rain")


def rows(num_clients: int) -> Iterator[dict[str, Any]]:
    """Yield one row a client."""
    for number in range(num_clients):
        word = WORDS[number % len(WORDS)]
        turns = [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]
        yield {"client_id": f"c{number:07d}", "row_id": str(number), "language": "en", "messages": turns}


def run(num_clients: int) -> None:
    """Train and print the memory that it took as JSON."""
    warnings.simplefilter("ignore")
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_data.clients import ClientDataset
    from fedllm_train import FederatedConfig, FederatedTrainer
    from fedllm_train.models.tiny import TOY, train_tiny

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train_tiny(list(rows(100)), Path(folder, "base"), config=TOY)
        data = Dataset.from_generator(rows, gen_kwargs={"num_clients": num_clients}, cache_dir=folder)
        gc.collect()
        before = memory_bytes("VmRSS")
        trainer = FederatedTrainer(
            str(Path(folder, "base")),
            FederatedConfig(
                output_dir=str(Path(folder, "run")), num_rounds=NUM_ROUNDS, cohort_size=COHORT, local_steps=1
            ),
            ClientDataset.from_dataset(data),
            SFTConfig(bf16=False, use_cpu=True, activation_checkpointing=False),
            LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trainer.train()
        gc.collect()
        print(json.dumps({"num_clients": num_clients, "bytes": memory_bytes("VmRSS") - before}))


def main() -> None:
    """Run all sizes, print and keep what a client takes."""
    if sys.argv[1:2] == ["run"]:
        return run(int(sys.argv[2]))
    runs = []
    for num_clients in NUM_CLIENTS:
        command = [sys.executable, __file__, "run", str(num_clients)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        runs.append(json.loads(output.splitlines()[-1]))
        print(runs[-1], flush=True)
    few, many = runs[0], runs[-1]
    each = (many["bytes"] - few["bytes"]) / (many["num_clients"] - few["num_clients"])
    print(write_result("registered_clients", {"runs": runs, "bytes_per_client": round(each)}))


if __name__ == "__main__":
    main()
