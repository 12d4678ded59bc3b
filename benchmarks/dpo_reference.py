"""DPO steps with the reference's log-probabilities cached, against computing them in every step, on a real model.

    python benchmarks/dpo_reference.py --model SMOLLM2 --data FED_OASST_PA

Two resident trainers visit the same client in turn, from the same adapter and with the same seed; what a step costs is
the CPU time of the trainer's `training_step`. The cached one computes the client's reference at its first visit: that
cost is what its first visit took beyond its later ones, and it is paid back after as many visits as the table says.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import torch  # noqa: E402
from datasets import disable_progress_bars  # noqa: E402
from engine_rounds import Clock  # noqa: E402
from machine import write_result  # noqa: E402
from peft import LoraConfig  # noqa: E402
from trl import DPOConfig  # noqa: E402

from fedllm_data.clients import load_clients  # noqa: E402
from fedllm_train import FederatedConfig, FederatedTrainer  # noqa: E402
from fedllm_train.adapters.arithmetic import Adapter  # noqa: E402
from fedllm_train.engines.engine import Task  # noqa: E402
from fedllm_train.messages import codec  # noqa: E402

BATCH, MAX_LENGTH, LOCAL_STEPS, NUM_VISITS, ROWS = 2, 96, 2, 1, 8
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


class Way:
    """A resident trainer, with or without the cache; each visit is from the same start."""

    def __init__(self, cache: bool, model: Path, data: Path, folder: Path) -> None:
        """Load the model and build the trainer."""
        clients = load_clients(data)
        enough = [client_id for client_id in clients if clients.sizes[client_id] >= ROWS]
        self._client_id = min(enough, key=lambda client_id: clients.sizes[client_id])
        self.num_rows = clients.sizes[self._client_id]
        trainer = FederatedTrainer(
            str(model),
            FederatedConfig(
                output_dir=str(folder), cohort_size=1, local_steps=LOCAL_STEPS, seed=1, reference_cache=cache
            ),
            clients,
            DPOConfig(
                bf16=False,
                use_cpu=True,
                activation_checkpointing=False,
                per_device_train_batch_size=BATCH,
                max_length=MAX_LENGTH,
                learning_rate=5e-5,
            ),
            LoraConfig(**LORA),
        )
        self._host, self._clock = trainer.loaded.host, Clock()
        self._clock.put_on(self._host.resident.trainer)
        self._message = codec.encode({"adapter": trainer.start_adapter})
        self.visits: list[float] = []
        self.steps: list[float] = []
        self.adapter: Adapter = {}

    def visit(self) -> None:
        """Visit the client once."""
        self._clock.seconds = dict.fromkeys(self._clock.seconds, 0.0)
        started = time.process_time()
        task = Task(run="run", step=0, client_id=self._client_id, message=self._message, learning_rate=5e-5, seed=1)
        reply = self._host.visit(task)
        self.visits.append(time.process_time() - started)
        self.steps.append(self._clock.seconds["training_step"] / LOCAL_STEPS)
        assert reply.message is not None, reply.reason
        self.adapter = codec.decode(reply.message)["adapter"]
        print(f"visit {self.visits[-1]:.2f}, step {self.steps[-1]:.2f}", flush=True)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: Way(name == "cached", given.model, given.data, Path(folder) / name) for name in ("cached", "in_step")
        }
        for _ in range(1 + NUM_VISITS):
            for way in ways.values():
                way.visit()
    cached, in_step = ways["cached"], ways["in_step"]
    later = {name: statistics.median(way.visits[1:]) for name, way in ways.items()}
    cost, saving = cached.visits[0] - later["cached"], later["in_step"] - later["cached"]
    result: dict[str, Any] = {
        "batch_size": BATCH,
        "max_length": MAX_LENGTH,
        "local_steps": LOCAL_STEPS,
        "num_visits": NUM_VISITS,
        "num_pairs_of_client": cached.num_rows,
        "lora": LORA,
        "num_threads": 1,
        "cpu_seconds_a_step": {name: round(statistics.median(way.steps), 3) for name, way in ways.items()},
        "step_ratio": round(statistics.median(a / b for a, b in zip(cached.steps, in_step.steps, strict=True)), 3),
        "cpu_seconds_a_later_visit": {name: round(seconds, 2) for name, seconds in later.items()},
        "visit_ratio": round(later["cached"] / later["in_step"], 3),
        "cpu_seconds_to_fill_the_cache": round(cost, 2),
        "visits_until_it_pays": round(cost / saving, 2),
        "passes_over_the_rows_until_it_pays": round(cost / saving * LOCAL_STEPS * BATCH / cached.num_rows, 2),
        "largest_difference_of_adapters": max(
            float((tensor - in_step.adapter[name]).abs().max()) for name, tensor in cached.adapter.items()
        ),
    }
    print(json.dumps(result, indent=1))
    print(write_result("dpo_reference", result))


if __name__ == "__main__":
    main()
