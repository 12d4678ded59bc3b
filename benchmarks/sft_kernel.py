"""CPU seconds of an SFT or DPO step with TRL's chunked kernel and with the model's ordinary forward.

    python benchmarks/sft_kernel.py [--task dpo] [--model FOLDER] [--data CLIENT_REPO]

What `sft_kernel` and `preference_kernel` choose between; DPO's reference is kept, so a step is the policy's alone.
Both kernels take the same steps on the same rows of one resident trainer, in turns; medians of CPU seconds over steps,
and the largest relative difference of their losses. Without flags: a tiny model trained for five steps on `fed-synth`.
The result of a model of one's own is printed and not kept.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import torch  # noqa: E402
from datasets import disable_progress_bars  # noqa: E402
from machine import write_result  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from trl import DPOConfig, SFTConfig  # noqa: E402

from fedllm_data.build import build  # noqa: E402
from fedllm_data.clients import load_clients  # noqa: E402
from fedllm_data.sources import SOURCES  # noqa: E402
from fedllm_train import FederatedConfig, FederatedTrainer  # noqa: E402
from fedllm_train.models.tiny import TinyConfig, train_tiny  # noqa: E402

BATCH = 8


CORPORA = {"sft": "fed-synth", "dpo": "fed-synth-pa"}


def measure(task: str, model: Path, data: Path, run: Path, *, num_steps: int, batch: int) -> dict[str, Any]:
    """Return the medians of both kernels on the rows of the client that has most."""
    clients = load_clients(data)
    config = SFTConfig if task == "sft" else DPOConfig
    trainer = FederatedTrainer(
        str(model),
        FederatedConfig(output_dir=str(run)),
        clients,
        config(bf16=False, use_cpu=True, activation_checkpointing=False, per_device_train_batch_size=batch),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    host = trainer.loaded.host
    largest = max(clients, key=clients.sizes.__getitem__)
    inner, rows = host.resident.trainer, host.resident.with_reference(largest, host.tokens[largest].rows)
    inner.model.train()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    differences = []
    for step in range(num_steps + 1):  # the first warms up
        picked = [rows[(step * batch + i) % len(rows)] for i in range(batch)]
        losses = []
        for plain in (False, True):
            inner.plain_kernel = plain
            inputs = inner._prepare_inputs(inner.data_collator(picked))
            started = time.process_time()
            loss = inner.compute_loss(inner.model, inputs)
            loss.backward()
            if step:
                seconds[plain].append(time.process_time() - started)
            losses.append(loss.item())
            inner.model.zero_grad()
        differences.append(abs(losses[1] / losses[0] - 1))
    trl, plain = (statistics.median(seconds[kernel]) for kernel in (False, True))
    return {
        "trl_seconds": round(trl, 4),
        "plain_seconds": round(plain, 4),
        "ratio": round(trl / plain, 2),
        "largest_relative_difference_of_losses": float(f"{max(differences):.1e}"),
        "num_steps": num_steps,
        "batch_size": batch,
        "num_parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }


def main() -> None:
    """Measure, print, and keep what the tiny model gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=CORPORA, default="sft")
    parser.add_argument("--model", type=Path, help="folder of a base model")
    parser.add_argument("--data", type=Path, help="folder of a client repo of the task")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=BATCH)
    given = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        data, model = given.data or workspace / CORPORA[given.task], given.model or workspace / "base"
        if given.data is None:
            build(SOURCES[CORPORA[given.task]], data)
        if given.model is None:
            if not (workspace / "fed-synth").exists():
                build(SOURCES["fed-synth"], workspace / "fed-synth")
            public = load_clients(workspace / "fed-synth", "public").rows
            train_tiny(public, model, config=TinyConfig(num_steps=5))
        result = measure(given.task, model, data, workspace / "run", num_steps=given.steps, batch=given.batch)
    print(result)
    if given.model is None and given.data is None:
        print(write_result("sft_kernel" if given.task == "sft" else "preference_kernel", {"num_threads": 1, **result}))


if __name__ == "__main__":
    main()
