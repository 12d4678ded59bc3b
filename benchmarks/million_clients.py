"""What registering, sampling, rounds and a checkpoint cost with a thousand, a hundred thousand and a million clients.

    python benchmarks/million_clients.py

Every size is a process of its own. A client repo of one row a client is written by another process (straight to
Parquet: no build is measured); then, step by step: it is opened and its ids are found, a plan is made of it, cohorts
are drawn by every rule that draws, FedAvg makes two rounds with cohorts of 3 on an untrained model of a few thousand
parameters, and the run is resumed for a third. Measured are the CPU seconds of each step, and the anonymous memory
(RssAnon: resident memory less mapped files, whose pages the system takes back at will): its growth over the steps
after a garbage collection, and its highest value, looked at every 50 ms. Python's and Arrow's own allocations stand
beside it. Then the memory of one more client: the difference of the two largest sizes over that of their clients. The
first opening of a repo makes the cached Arrow files of `datasets`, which are measured apart. Linux only.
"""

import gc
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from machine import memory_bytes, watched, write_result

SIZES = (1_000, 100_000, 1_000_000)
GROUP_ROWS = 500
COHORT = 3
COHORTS = {"uniform": (10, 1_000), "weighted": (10, 100), "poisson": (10, 100), "fedllm-bench": (10,)}
WORDS = ("red", "blue", "green", "one", "two", "three", "cat", "dog", "sun", "rain")
LANGUAGES = ("en", "de", "ja")


def prepare(num_clients: int, folder: Path) -> None:
    """Write a client repo of one row a client, in batches, and a base model."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fedllm_data.pipeline.client_table import CLIENTS_SCHEMA
    from fedllm_data.repo import CLIENTS_FILE
    from fedllm_data.schema import SCHEMAS
    from fedllm_train.models.tiny import TOY, train_tiny

    repo = folder / "clients"
    (repo / "data").mkdir(parents=True)
    (repo / "clients").mkdir()
    files = repo / "data" / "train-00000-of-00001.parquet", repo / CLIENTS_FILE
    with (
        pq.ParquetWriter(files[0], SCHEMAS["sft"]) as rows,
        pq.ParquetWriter(files[1], CLIENTS_SCHEMA) as clients,
    ):
        for begin in range(0, num_clients, 10_000):
            numbers = range(begin, min(begin + 10_000, num_clients))
            batch = pa.Table.from_pylist([row_of(number) for number in numbers], SCHEMAS["sft"])
            rows.write_table(batch, row_group_size=GROUP_ROWS)
            clients.write_table(pa.Table.from_pylist([client_of(number) for number in numbers], CLIENTS_SCHEMA))
    train_tiny([row_of(number) for number in range(100)], folder / "base", config=TOY)


def row_of(number: int) -> dict[str, Any]:
    """Return the one row of a client."""
    word = WORDS[number % len(WORDS)]
    turns = [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]
    language = LANGUAGES[number % len(LANGUAGES)]
    return {"client_id": f"c{number:07d}", "row_id": str(number), "language": language, "messages": turns}


def client_of(number: int) -> dict[str, Any]:
    """Return a client's line of the clients table."""
    language = LANGUAGES[number % len(LANGUAGES)]
    counts = {"num_rows": 1, "num_train_rows": 1, "num_test_rows": 0, "num_unseen_rows": 0}
    return {
        "client_id": f"c{number:07d}",
        "split": "train",
        **counts,
        "languages": [{"language": language, "num_rows": 1}],
        "main_language": language,
        "mean_prompt_chars": 7.0,
        "mean_response_chars": 3.0,
    }


class Steps:
    """CPU seconds and memory of the steps of one process."""

    def __init__(self) -> None:
        """Begin with what the process holds now."""
        self.steps: dict[str, Any] = {}
        self.start = self._held()

    def __call__(self, name: str, step: Any) -> Any:
        """Make a step, and note what it cost."""
        with watched() as spent:
            made = step()
        held = self._held()
        self.steps[name] = {
            "cpu_seconds": spent["cpu_seconds"],
            "peak_anonymous_bytes": spent["peak_anonymous_bytes"] - self.start["anonymous"],
            **{f"{what}_bytes": held[what] - self.start[what] for what in held},
        }
        return made

    def _held(self) -> dict[str, int]:
        import ctypes
        import tracemalloc

        import pyarrow as pa

        gc.collect()
        pa.default_memory_pool().release_unused()
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system, and is not counted as held
        python = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
        return {"anonymous": memory_bytes("RssAnon"), "arrow": pa.total_allocated_bytes(), "python": python}


def run(folder: Path, *, traced: bool) -> None:
    """Go through the steps and print what they cost as JSON."""
    warnings.simplefilter("ignore")
    import tracemalloc

    import torch
    from datasets import disable_progress_bars
    from peft import LoraConfig
    from trl import SFTConfig

    from fedllm_data.clients import load_clients
    from fedllm_data.repo import open_repo
    from fedllm_data.roster import roster_of, roster_of_repo
    from fedllm_train import FederatedConfig, FederatedTrainer
    from fedllm_train.participation.cohort_rules import sample_cohort
    from fedllm_train.prepare import prepare as plan_of

    torch.set_num_threads(1)
    disable_progress_bars()
    # Imports and a first model, so that no step pays for them.
    few, base = folder.parent / "few", str(folder / "base")
    args = SFTConfig(bf16=False, use_cpu=True, activation_checkpointing=False)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")

    def config(out: str, num_rounds: int, **more: Any) -> FederatedConfig:
        return FederatedConfig(
            output_dir=str(folder.parent / out), num_rounds=num_rounds, cohort_size=COHORT, local_steps=1, **more
        )

    FederatedTrainer(base, config("warm", 1), load_clients(few / "clients"), args, lora).train()
    if traced:
        tracemalloc.start()
    steps = Steps()
    steps("cache of datasets", lambda: open_repo(folder / "clients").load("train").num_rows)
    clients = steps("open", lambda: load_clients(folder / "clients"))
    roster = steps("register", lambda: roster_of(clients))
    steps("roster of the repo alone", lambda: len(roster_of_repo(open_repo(folder / "clients"))))
    for rule, sizes in COHORTS.items():
        for size in sizes:
            options: dict[str, Any] = {"seed": 0, "rule": rule, "sizes": roster.sizes}
            steps(
                f"a cohort of {size}, {rule}",
                lambda: [sample_cohort(roster.ids, size, round_index=index, **options) for index in range(3)],  # noqa: B023
            )
    steps("plan, fedavg", lambda: plan_of(config("plan", 2), roster, args))
    steps("plan, languages", lambda: plan_of(config("plan", 2, strategy="language_clusters"), roster, args))
    steps("plan, ranks", lambda: plan_of(config("plan", 2, strategy="flexlora", client_ranks="2,4,8"), roster, args))
    run = config("run", 3)
    stopped = [steps("trainer", lambda: FederatedTrainer(base, run, clients, args, lora))]
    steps("two rounds and their checkpoints", lambda: _StopAfter(2).train(stopped.pop()))
    again = steps("trainer again", lambda: FederatedTrainer(base, run, clients, args, lora))
    state = steps("resume, third round", lambda: again.train(resume=True))
    assert state.next_round == 3, "the run went on where it was"
    checkpoint = sum(path.stat().st_size for path in (folder.parent / "run" / "checkpoints").glob("*/*"))
    print(json.dumps({"num_clients": len(clients), "checkpoint_bytes": checkpoint, "steps": steps.steps}))


class _Stopped(Exception):
    """The run was stopped."""


class _StopAfter:
    """Stops a run after some rounds, as a kill would."""

    def __init__(self, num_rounds: int) -> None:
        self.num_rounds = num_rounds

    def train(self, trainer: Any) -> None:
        def stop(record: dict[str, Any]) -> None:
            if record["round_index"] + 1 == self.num_rounds:
                raise _Stopped

        trainer._callbacks = [stop]
        try:
            trainer.train()
        except _Stopped:
            return
        raise SystemExit("the run was not stopped")


def measure(num_clients: int) -> dict[str, Any]:
    """Write a repo, then go through the steps twice: as they are, and with Python's allocations traced."""
    command = [sys.executable, __file__]
    with tempfile.TemporaryDirectory() as folder:
        for name, number in (("few", 100), ("many", num_clients)):
            subprocess.run([*command, "prepare", str(number), f"{folder}/{name}"], check=True, capture_output=True)
        environment = {"HF_HOME": f"{folder}/cache", "OMP_NUM_THREADS": "1"}
        output = _output([*command, "run", f"{folder}/many"], environment)
        subprocess.run(["rm", "-rf", f"{folder}/run", f"{folder}/warm"], check=True)
        traced = _output([*command, "traced", f"{folder}/many"], environment)
    for name, step in output["steps"].items():
        step["python_bytes"] = traced["steps"][name]["python_bytes"]
    return output


def _output(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    import os

    text = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ).stdout
    return json.loads(text.splitlines()[-1])


def main() -> None:
    """Run all sizes, print and keep what they cost and what one more client takes."""
    if sys.argv[1:2] == ["prepare"]:
        return prepare(int(sys.argv[2]), Path(sys.argv[3]))
    if sys.argv[1:2] in (["run"], ["traced"]):
        return run(Path(sys.argv[2]), traced=sys.argv[1] == "traced")
    runs = []
    for num_clients in map(int, sys.argv[1:]) if sys.argv[1:] else SIZES:
        runs.append(measure(num_clients))
        print(json.dumps(runs[-1], indent=1), flush=True)
    few, many = runs[-2:] if len(runs) > 1 else runs * 2
    more = (many["num_clients"] - few["num_clients"]) or 1
    each = {
        name: {
            what: round((step[what] - few["steps"][name][what]) / more, 3)
            for what in ("anonymous_bytes", "peak_anonymous_bytes", "arrow_bytes", "python_bytes")
        }
        for name, step in many["steps"].items()
    }
    print(write_result("million_clients", {"runs": runs, "bytes_per_further_client": each}))
    return None


if __name__ == "__main__":
    main()
