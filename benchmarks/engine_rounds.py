"""Whole rounds of FedAvg by several engines on the same batches: CPU seconds above the steps, and the same adapter.

    python benchmarks/engine_rounds.py --pfl PFL/bin/python --flower FLOWER/bin/python

pfl-research and Flower live in environments of their own (an engine whose interpreter is not given is left out):

    python -m venv PFL; PFL/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 pfl==0.6.0
    python -m venv FLOWER; FLOWER/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 'flwr[simulation]'

Our engine runs first, on a tiny model, and every visit's batches are written down; a bare loop and the other engines
(each a script of `engines/`) then train the very same visits. An engine's overhead is what a client-round cost in all
of its processes (training, sending, averaging, checkpoints) less what its own local steps cost; the first rounds, that
load models and tokenise, are not counted. What an engine ends with is compared with the bare loop's adapter: an engine
that is fast and wrong has lost. TRL's own step is slower than the bare one; `sft_kernel` plain is shown beside it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import torch  # noqa: E402
from datasets import disable_progress_bars  # noqa: E402
from machine import write_result  # noqa: E402
from peft import LoraConfig  # noqa: E402
from trl import SFTConfig  # noqa: E402

from fedllm_data.build import build  # noqa: E402
from fedllm_data.clients import ClientDataset, load_clients  # noqa: E402
from fedllm_data.sources import SOURCES  # noqa: E402
from fedllm_train import FederatedConfig, FederatedTrainer  # noqa: E402
from fedllm_train.clients.host import ClientHost  # noqa: E402
from fedllm_train.clients.run_spec import RunSpec  # noqa: E402
from fedllm_train.engines.engine import Engine, InProcessEngine, Reply, Task  # noqa: E402
from fedllm_train.loaded_run import EngineMaker  # noqa: E402
from fedllm_train.models.tiny import TinyConfig, train_tiny  # noqa: E402

ENGINES = Path(__file__).parent / "engines"
NUM_ROUNDS, WARM_UP, COHORT, RATE = 6, 2, 3, 1e-3
WITHIN = 1e-6
LOCAL_STEPS = 10
LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
CLIENT_ARGS: dict[str, Any] = {
    "bf16": False,
    "use_cpu": True,
    "activation_checkpointing": False,
    "per_device_train_batch_size": 8,
    "learning_rate": RATE,
    "max_length": 128,
}


class Clock:
    """CPU seconds spent inside a trainer's optimizer steps, and inside its `training_step` calls."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = {"_run_epoch": 0.0, "training_step": 0.0}

    def put_on(self, trainer: Any) -> None:
        """Count the steps of this trainer from now on."""
        for name in self.seconds:
            setattr(trainer, name, self._timed(name, getattr(trainer, name)))

    def _timed(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - started

        return call


class Noted:
    """A federated run that notes its rounds' CPU seconds, and writes down what each visit trained on."""

    def __init__(self, work: Path) -> None:
        """Write into a work folder."""
        self.rounds: list[dict[str, float]] = []
        self._folder = work / "visits"
        self._folder.mkdir()
        self._visits: list[dict[str, Any]] = []
        self._clock = Clock()
        self._before = 0.0

    def listen(self, host: ClientHost) -> None:
        """Look at what the resident trainer is given."""
        batches: list[dict[str, torch.Tensor]] = []
        inner, visit = host.resident.trainer, host.visit
        step = inner.training_step

        def training_step(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            batches.append({name: inputs[name].clone() for name in ("input_ids", "attention_mask", "labels")})
            return step(model, inputs, *args, **kwargs)

        def noted(task: Task) -> Reply:
            reply = visit(task)
            self._visits.append({"batches": list(batches), "num_rows": reply.num_rows})
            batches.clear()
            return reply

        inner.training_step, host.visit = training_step, noted  # type: ignore[method-assign]
        self._clock.put_on(inner)

    def after_round(self, record: dict[str, Any]) -> None:
        """Note the round; what writing its batches takes is not counted."""
        self.rounds.append({"cpu": time.process_time() - self._before, "steps": self._clock.seconds["_run_epoch"]})
        for position, visit in enumerate(self._visits):
            torch.save(visit, self._folder / f"{record['round_index']}-{position}.pt")
        self._visits.clear()
        self._clock.seconds = dict.fromkeys(self._clock.seconds, 0.0)
        self._before = time.process_time()


def when_built(look: Callable[[ClientHost], None]) -> EngineMaker:
    """Return the engine of one process that shows the host of the clients to a function once a run has built it."""

    def make(spec: RunSpec, make_host: Callable[[], ClientHost]) -> AbstractContextManager[Engine]:
        host = make_host()
        look(host)
        return nullcontext(InProcessEngine(host))

    return make


def compare(base: Path, clients: ClientDataset, work: Path, pythons: dict[str, str], kernel: str) -> dict[str, Any]:
    """Run every engine and return, by name, seconds a client-round and the distance from the bare loop's adapter.

    Args:
        base: folder of the model.
        clients: the cohort's clients are the first of them.
        work: a folder to make.
        pythons: interpreter of each engine's environment, by the name of its script in `engines/`.
        kernel: `sft_kernel` of our run.
    """
    work.mkdir()
    given = {
        "num_rounds": NUM_ROUNDS,
        "cohort_size": COHORT,
        "local_steps": LOCAL_STEPS,
        "batch_size": CLIENT_ARGS["per_device_train_batch_size"],
        "learning_rate": RATE,
        "lora": LORA,
    }
    (work / "settings.json").write_text(json.dumps(given))
    (work / "base").symlink_to(base)
    noted = Noted(work)
    trainer = FederatedTrainer(
        str(base),
        FederatedConfig(
            output_dir=str(work / "run"),
            num_rounds=NUM_ROUNDS,
            cohort_rule="fixed",
            cohort_clients=",".join(list(clients)[:COHORT]),
            local_steps=LOCAL_STEPS,
            min_learning_rate=RATE,
            sft_kernel=kernel,
        ),
        clients,
        SFTConfig(**CLIENT_ARGS),
        LoraConfig(**LORA),
        callbacks=[noted.after_round],
        engine=when_built(noted.listen),
    )
    torch.save(trainer.start_adapter, work / "start.pt")
    torch.save(trainer.train().adapter, work / "ours.adapter.pt")
    result = {"ours": summary(noted.rounds)}
    for name, python in pythons.items():
        finished = subprocess.run(
            [python, str(ENGINES / f"{name}.py"), str(work)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ENGINES), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        engine = name.removeprefix("with_")
        if finished.returncode:
            raise SystemExit(f"{engine} failed:\n{finished.stderr[-3000:]}")
        made = json.loads((work / f"{engine}.json").read_text())
        result[engine] = summary(made["rounds"]) | {"versions": made["versions"]}
    bare = torch.load(work / "bare.adapter.pt")
    for engine, entry in result.items():
        final = torch.load(work / f"{engine}.adapter.pt")
        entry["largest_difference_from_bare"] = max(float((final[n] - bare[n]).abs().max()) for n in bare)
        entry["within_1e-6"] = entry["largest_difference_from_bare"] <= WITHIN
        # AdamW returns rounding larger where a gradient nearly cancels; one wrong rule would move most of the values.
        beyond = sum(int(((final[n] - bare[n]).abs() > WITHIN).sum()) for n in bare)
        entry["fraction_within_1e-6"] = round(1 - beyond / sum(tensor.numel() for tensor in bare.values()), 5)
        entry["above_bare_steps"] = round(entry["client_round"] - result["bare"]["steps"], 4)
    moved = max(float((bare[name] - start).abs().max()) for name, start in torch.load(work / "start.pt").items())
    return {"num_rounds": NUM_ROUNDS, "cohort_size": COHORT, "largest_change_from_start": moved, "engines": result}


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over rounds of what a client-round cost, of its steps, and of the rest; the first are left out."""
    counted = rounds[WARM_UP:]
    of = {
        "client_round": [each["cpu"] / COHORT for each in counted],
        "steps": [each["steps"] / COHORT for each in counted],
        "above_own_steps": [(each["cpu"] - each["steps"]) / COHORT for each in counted],
    }
    return {name: round(statistics.median(values), 4) for name, values in of.items()}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pfl", help="interpreter of an environment with pfl")
    parser.add_argument("--flower", help="interpreter of an environment with flwr[simulation]")
    given = parser.parse_args()
    others = {"with_pfl": given.pfl, "with_flower": given.flower}
    pythons = {"bare": sys.executable} | {name: python for name, python in others.items() if python}
    torch.set_num_threads(1)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build(SOURCES["fed-synth"], work / "clients")
        public = load_clients(work / "clients", "public").rows
        tiny = train_tiny(public, work / "base", config=TinyConfig(num_steps=5))
        clients = load_clients(work / "clients")
        result = {
            "num_parameters": tiny.num_parameters,
            "local_steps": LOCAL_STEPS,
            "batch_size": CLIENT_ARGS["per_device_train_batch_size"],
            "num_threads": 1,
            "sft_kernel_trl": compare(work / "base", clients, work / "trl", pythons, "trl"),
            "sft_kernel_plain": compare(work / "base", clients, work / "plain", {"bare": sys.executable}, "plain"),
        }
    print(json.dumps(result, indent=1))
    print(write_result("engine_rounds", result))


if __name__ == "__main__":
    main()
