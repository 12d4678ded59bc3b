"""A whole federated round on a real model beside the same steps of one plain TRL trainer, and of a plain loop.

    python benchmarks/real_round.py --model SMOLLM2 --data FED_OASST

After each round of a federated SFT run, the very batches that its clients trained on go to a plain `SFTTrainer` (rows
in that order, same batch size, same number of steps, `train()` alone is counted) and to a loop of forward, backward,
clipping and AdamW. So the three alternate in one process, and what a neighbour takes from the machine is shared. The
first round loads and tokenises, and is not counted. The plain loop does FedAvg's rounds; its final adapter is compared
with ours. TRL's SFT step computes the logits in chunks, twice, to save memory; on CPUs an ordinary forward is faster,
so the run is made again with `sft_kernel` plain, beside the loop alone.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parent / "engines"))

import plain  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from engine_rounds import when_built  # noqa: E402
from machine import write_result  # noqa: E402
from peft import LoraConfig, set_peft_model_state_dict  # noqa: E402
from transformers import PrinterCallback  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

from fedllm_data.clients import load_clients  # noqa: E402
from fedllm_train import FederatedConfig, FederatedTrainer  # noqa: E402
from fedllm_train.clients.host import ClientHost  # noqa: E402
from fedllm_train.engines.engine import Reply, Task  # noqa: E402

COHORT, LOCAL_STEPS, NUM_ROUNDS, RATE = 2, 2, 3, 2e-4
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
COMMON: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "activation_checkpointing": False,
    "per_device_train_batch_size": 2,
    "learning_rate": RATE,
    "max_length": 128,
}


class Beside:
    """Takes the steps of each round again: with a plain trainer, and with a plain loop that averages as FedAvg."""

    def __init__(self, work: Path, start: plain.Adapter, *, with_trl: bool) -> None:
        """Load the models of both, or of the loop alone."""
        self._work = work
        self._with_loop = plain.load_model(work)
        self._with_trl = plain.load_model(work) if with_trl else None
        self.adapter = start
        self.visits: list[tuple[int, list[dict[str, torch.Tensor]]]] = []
        self.rounds: list[dict[str, float]] = []
        self._before = 0.0

    def listen(self, host: ClientHost) -> None:
        """Note each visit's rows and batches."""
        batches: list[dict[str, torch.Tensor]] = []
        inner, visit = host.resident.trainer, host.visit
        step = inner.training_step

        def training_step(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            batches.append({name: inputs[name].clone() for name in ("input_ids", "attention_mask", "labels")})
            return step(model, inputs, *args, **kwargs)

        def noted(task: Task) -> Reply:
            reply = visit(task)
            self.visits.append((reply.num_rows, list(batches)))
            batches.clear()
            return reply

        inner.training_step, host.visit = training_step, noted  # type: ignore[method-assign]

    def after_round(self, record: dict[str, Any]) -> None:
        """Take the round's steps in the other two ways."""
        ours = time.process_time() - self._before
        entry = {"ours": ours, "loop": self._loop()}
        if self._with_trl is not None:
            entry["trl"] = self._trl()
        if record["round_index"]:
            self.rounds.append(entry)
        print({name: round(seconds, 2) for name, seconds in entry.items()}, flush=True)
        self.visits.clear()
        self._before = time.process_time()

    def _trl(self) -> float:
        batches = [batch for _, batches in self.visits for batch in batches]
        rows = [
            {"input_ids": ids[mask.bool()].tolist(), "labels": labels[mask.bool()].tolist()}
            for batch in batches
            for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
        ]
        args = SFTConfig(
            **COMMON,
            output_dir=str(self._work / "trl"),
            max_steps=len(batches),
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = SFTTrainer(model=self._with_trl, args=args, train_dataset=Dataset.from_list(rows))
        trainer.remove_callback(PrinterCallback)
        started = time.process_time()
        trainer.train()
        return time.process_time() - started

    def _loop(self) -> float:
        started = time.process_time()
        total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in self.adapter.items()}
        for num_rows, batches in self.visits:
            set_peft_model_state_dict(self._with_loop, self.adapter)
            plain.train(self._with_loop, batches, RATE)
            for name, tensor in plain.read(self._with_loop).items():
                total[name] += num_rows * tensor.double()
        weight = sum(num_rows for num_rows, _ in self.visits)
        self.adapter = {name: (tensor / weight).float() for name, tensor in total.items()}
        return time.process_time() - started


def measure(model: Path, data: Path, work: Path, *, with_trl: bool, **changes: Any) -> dict[str, Any]:
    """Run one federated run with settings of `FederatedConfig` changed, the others beside it."""
    work.mkdir()
    (work / "settings.json").write_text(json.dumps({"lora": LORA}))
    (work / "base").symlink_to(model.resolve())
    clients = load_clients(data)
    largest = sorted(clients, key=lambda client_id: -clients.sizes[client_id])[:COHORT]
    trainer = FederatedTrainer(
        str(model),
        FederatedConfig(
            output_dir=str(work / "run"),
            num_rounds=NUM_ROUNDS,
            cohort_rule="fixed",
            cohort_clients=",".join(largest),
            local_steps=LOCAL_STEPS,
            min_learning_rate=RATE,
            **changes,
        ),
        clients,
        SFTConfig(**COMMON),
        LoraConfig(**LORA),
        callbacks=[lambda record: beside.after_round(record)],
        engine=when_built(lambda host: beside.listen(host)),
    )
    torch.save(trainer.start_adapter, work / "start.pt")
    beside = Beside(work, trainer.start_adapter, with_trl=with_trl)
    adapter = trainer.train().adapter
    seconds = {name: [each[name] for each in beside.rounds] for name in beside.rounds[0]}
    ratios = {
        f"ours_over_{name}": statistics.median(
            mine / other for mine, other in zip(seconds["ours"], seconds[name], strict=True)
        )
        for name in seconds
        if name != "ours"
    }
    return {
        "cpu_seconds_of_a_round": {name: round(statistics.median(each), 2) for name, each in seconds.items()},
        "cpu_seconds": {name: [round(each, 2) for each in values] for name, values in seconds.items()},
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
        "largest_difference_from_loop": max(
            float((tensor - beside.adapter[name]).abs().max()) for name, tensor in adapter.items()
        ),
        "largest_change_from_start": max(
            float((tensor - trainer.start_adapter[name]).abs().max()) for name, tensor in adapter.items()
        ),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "num_rounds": NUM_ROUNDS - 1,
            "cohort_size": COHORT,
            "local_steps": LOCAL_STEPS,
            **{name: COMMON[name] for name in ("per_device_train_batch_size", "max_length")},
            "lora": LORA,
            "num_threads": 1,
            "sft_kernel_trl": measure(given.model, given.data, Path(folder) / "trl", with_trl=True, sft_kernel="trl"),
            "sft_kernel_plain": measure(
                given.model, given.data, Path(folder) / "plain", with_trl=False, sft_kernel="plain"
            ),
        }
    print(json.dumps(result, indent=1))
    print(write_result("real_round", result))


if __name__ == "__main__":
    main()
