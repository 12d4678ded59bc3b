"""What a client's visit costs beyond the trainer's own steps, on a tiny model; three ways in one process, interleaved.

    python benchmarks/client_round_overhead.py

- resident: `ResidentTrainer.train_client`, as federated runs do it;
- new trainer: a TRL trainer built anew for every visit, tokenising the client's rows again;
- bare loop: forward, backward, clipping and AdamW by hand on the same batches, without a trainer.

Same model, clients, batch size and number of steps. Overhead is the CPU seconds of a visit minus those spent inside
the trainer's `training_step`; a client's first visit, which tokenises, is counted apart. Medians over visits.
"""

import gc
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import torch  # noqa: E402
from datasets import disable_progress_bars  # noqa: E402
from machine import write_result  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed  # noqa: E402
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # noqa: E402

from fedllm_data.build import build  # noqa: E402
from fedllm_data.clients import ClientDataset, load_clients  # noqa: E402
from fedllm_data.sources import SOURCES  # noqa: E402
from fedllm_train import FederatedConfig, FederatedTrainer, codec  # noqa: E402
from fedllm_train.engine import ClientTask  # noqa: E402
from fedllm_train.tiny import TinyConfig, train_tiny  # noqa: E402

NUM_CLIENTS, NUM_VISITS, LOCAL_STEPS, BATCH = 5, 5, 10, 8
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
COMMON: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "activation_checkpointing": False,
    "per_device_train_batch_size": BATCH,
    "learning_rate": 1e-3,
    "max_length": 128,
}


class StepClock:
    """CPU seconds spent inside `training_step` of any trainer it is put on."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = 0.0

    def put_on(self, trainer: Any) -> None:
        """Count the steps of this trainer from now on."""
        inner = trainer.training_step

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - started

        trainer.training_step = timed


def measure(visit: Callable[[], None], clock: StepClock) -> tuple[float, float]:
    """CPU seconds of a visit and, of these, those inside the steps."""
    clock.seconds, started = 0.0, time.process_time()
    visit()
    return time.process_time() - started, clock.seconds


def compare(task: str, clients: ClientDataset, base: Path, workspace: Path) -> dict[str, Any]:
    """Run all visits of one task and return medians in seconds."""
    args = (SFTConfig if task == "sft" else DPOConfig)(**COMMON)
    trainer = FederatedTrainer(
        str(base),
        FederatedConfig(output_dir=str(workspace / task), cohort_size=1, local_steps=LOCAL_STEPS),
        clients,
        args,
        LoraConfig(**LORA),
    )
    resident, clock = trainer._resident_trainer(), StepClock()
    clock.put_on(resident.trainer)
    message = codec.encode(trainer.start_adapter)
    chosen = list(clients)[:NUM_CLIENTS]

    def resident_visit(client_id: str) -> None:
        resident.train_client(
            ClientTask(round_index=0, client_id=client_id, message=message, learning_rate=1e-3, seed=1)
        )

    def new_trainer_visit(client_id: str) -> None:
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**LORA))
        settings = {**COMMON, "max_steps": LOCAL_STEPS, "save_strategy": "no", "logging_strategy": "no"}
        settings |= {"disable_tqdm": True, "output_dir": str(workspace / "plain"), "lr_scheduler_type": "constant"}
        fresh = (SFTTrainer if task == "sft" else DPOTrainer)(
            model=model,
            args=(SFTConfig if task == "sft" else DPOConfig)(**settings),
            train_dataset=clients[client_id],
            processing_class=tokenizer,
        )
        fresh.remove_callback(PrinterCallback)
        clock.put_on(fresh)
        fresh.train()

    def bare_visit(client_id: str) -> None:
        rows = resident._tokens[client_id].rows
        collate, model = resident.trainer.data_collator, resident.model
        model.train()
        set_seed(1)
        order = [int(i) for _ in range(LOCAL_STEPS * BATCH // len(rows) + 1) for i in torch.randperm(len(rows))]
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
        for step in range(LOCAL_STEPS):
            batch = collate([rows[i] for i in order[step * BATCH : (step + 1) * BATCH]])
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            labels = batch["labels"][:, 1:]
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    tokenizer = AutoTokenizer.from_pretrained(base)
    gc.collect()
    gc.freeze()  # as `FederatedTrainer.train` does
    first = [measure(lambda c=c: resident_visit(c), clock) for c in chosen]
    rows: dict[str, list[tuple[float, float]]] = {"resident": [], "new_trainer": [], "bare_loop": []}
    for _ in range(NUM_VISITS):
        for client_id in chosen:
            rows["resident"].append(measure(lambda c=client_id: resident_visit(c), clock))
            rows["new_trainer"].append(measure(lambda c=client_id: new_trainer_visit(c), clock))
            if task == "sft":
                rows["bare_loop"].append(measure(lambda c=client_id: bare_visit(c), clock))

    def median_overhead(visits: list[tuple[float, float]]) -> float:
        return statistics.median(total - steps for total, steps in visits)

    gc.unfreeze()
    result = {
        "visit_cpu_seconds": {k: statistics.median(total for total, _ in v) for k, v in rows.items() if v},
        "steps_cpu_seconds": {k: statistics.median(s for _, s in v) for k, v in rows.items() if v and k[0] != "b"},
        "overhead_cpu_seconds": {
            "resident": median_overhead(rows["resident"]),
            "resident_first_visit": median_overhead(first),
            "new_trainer": median_overhead(rows["new_trainer"]),
        },
    }
    overhead = result["overhead_cpu_seconds"]
    result["new_trainer_overhead_over_resident"] = overhead["new_trainer"] / overhead["resident"]
    return result


def main() -> None:
    """Measure SFT and DPO, print the medians and keep them."""
    torch.set_num_threads(1)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        for name in ("fed-synth", "fed-synth-pa"):
            build(SOURCES[name], workspace / name)
        public = load_clients(workspace / "fed-synth", "public").rows
        tiny = train_tiny(public, workspace / "base", config=TinyConfig(num_steps=5))
        result = {
            "num_parameters": tiny.num_parameters,
            "local_steps": LOCAL_STEPS,
            "batch_size": BATCH,
            "num_threads": 1,
            "num_visits": NUM_CLIENTS * NUM_VISITS,
            "sft": compare("sft", load_clients(workspace / "fed-synth"), workspace / "base", workspace),
            "dpo": compare("dpo", load_clients(workspace / "fed-synth-pa"), workspace / "base", workspace),
        }
    for task in ("sft", "dpo"):
        for name, seconds in result[task]["overhead_cpu_seconds"].items():
            print(f"{task} overhead of a visit, {name:22} {seconds:.4f} CPU s")
        for name, seconds in result[task]["visit_cpu_seconds"].items():
            print(f"{task} whole visit,         {name:22} {seconds:.4f} CPU s")
        print(f"{task} new trainer / resident overhead: {result[task]['new_trainer_overhead_over_resident']:.1f}")
    print(write_result("client_round_overhead", result))


if __name__ == "__main__":
    main()
