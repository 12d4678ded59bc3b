"""What a client's visit costs beyond the trainer's own steps, on a tiny model; three ways in one process, in blocks.

    python benchmarks/client_round_overhead.py

- resident: `ClientHost.visit`, as federated runs do it;
- new trainer: a TRL trainer built anew for every visit (from the second visit on, `datasets` finds the client's
  tokenised rows in its own cache);
- bare loop: forward, backward, clipping and AdamW by hand on the same batches, without a trainer.

Same model, clients, batch size and number of steps. Two overheads are given, in CPU seconds of a visit: beyond the
trainer's optimizer steps (its `_run_epoch`: batches, forward, backward, clipping, optimizer), which is what the
federation adds, and beyond its `training_step` calls alone (forward and backward). A client's first visit, which
tokenises, is counted apart. Medians over visits. The ways run one after the other, each behind a garbage collection,
because trainers built anew leave garbage that the others would have to collect.
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
from engine_rounds import Clock  # noqa: E402
from machine import write_result  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, set_seed  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # noqa: E402

from fedllm_data.build import build  # noqa: E402
from fedllm_data.clients import ClientDataset, load_clients  # noqa: E402
from fedllm_data.sources import SOURCES  # noqa: E402
from fedllm_train import FederatedConfig, FederatedTrainer  # noqa: E402
from fedllm_train.engines.engine import Task  # noqa: E402
from fedllm_train.messages import codec  # noqa: E402
from fedllm_train.models.tiny import TinyConfig, train_tiny  # noqa: E402

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


def measure(visit: Callable[[], None], clock: Clock) -> dict[str, float]:
    """CPU seconds of a visit, and of it beyond the optimizer steps and beyond the training steps."""
    clock.seconds = dict.fromkeys(clock.seconds, 0.0)
    started = time.process_time()
    visit()
    total = time.process_time() - started
    return {
        "visit": total,
        "beyond_optimizer_steps": total - clock.seconds["_run_epoch"],
        "beyond_training_steps": total - clock.seconds["training_step"],
    }


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
    host, clock = trainer.loaded.host, Clock()
    clock.put_on(host.resident.trainer)
    message = codec.encode({"adapter": trainer.start_adapter})
    chosen = list(clients)[:NUM_CLIENTS]

    def resident_visit(client_id: str) -> None:
        host.visit(Task(run="run", step=0, client_id=client_id, message=message, learning_rate=1e-3, seed=1))

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
        rows = host.tokens[client_id].rows
        collate, model = host.resident.trainer.data_collator, host.resident.model
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

    def block(visit: Callable[[str], None], num_visits: int) -> dict[str, float]:
        gc.collect()
        gc.freeze()  # as `FederatedTrainer.train` does
        visits = [measure(lambda c=c: visit(c), clock) for _ in range(num_visits) for c in chosen]
        gc.unfreeze()
        return {name: round(statistics.median(each[name] for each in visits), 4) for name in visits[0]}

    tokenizer = AutoTokenizer.from_pretrained(base)
    result = {
        "resident_first_visit": block(resident_visit, 1),
        "resident": block(resident_visit, NUM_VISITS),
        "new_trainer": block(new_trainer_visit, NUM_VISITS),
    }
    if task == "sft":
        result["bare_loop"] = {"visit": block(bare_visit, NUM_VISITS)["visit"]}
    result["resident_over_new_trainer"] = {
        name: round(result["resident"][name] / result["new_trainer"][name], 3) for name in result["resident"]
    }
    return result


def main() -> None:
    """Measure SFT and DPO, print the medians and keep them."""
    torch.set_num_threads(1)
    disable_progress_bars()
    disable_progress_bar()
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
        for way, seconds in result[task].items():
            print(task, way, seconds)
    print(write_result("client_round_overhead", result))


if __name__ == "__main__":
    main()
