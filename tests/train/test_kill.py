"""A training process killed with SIGKILL again and again ends with the adapter of the uninterrupted run."""

import os
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

NUM_KILLS = 12
NUM_ROUNDS = 40

SCRIPT = """
import importlib.util, sys, warnings
warnings.simplefilter("ignore")
spec = importlib.util.spec_from_file_location("kit", sys.argv[1])
kit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kit)
from fedllm_train import FederatedConfig, FederatedTrainer
task, run, rounds = sys.argv[2], sys.argv[3], int(sys.argv[4])
FederatedTrainer(
    kit.make_model(),
    FederatedConfig(output_dir=run, num_rounds=rounds, cohort_size=3, local_steps=2, seed=5),
    kit.make_clients("sft" if task == "sft" else "preference"),
    kit.trl_args(task),
    kit.lora(),
    tokenizer=kit.make_tokenizer(),
).train(resume=True)
"""


def start(task, run):
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).with_name("conftest.py")), task, str(run)]
    return subprocess.Popen([*command, str(NUM_ROUNDS)], env={**os.environ, "HF_HUB_OFFLINE": "1"})


def num_rounds_done(run):
    path = run / "rounds.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def digest(run):
    return sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_twelve_kills_change_no_bit_of_the_adapter(tmp_path, task):
    assert start(task, tmp_path / "whole").wait() == 0
    run, rng, killed_after = tmp_path / "killed", random.Random(0), []
    while len(killed_after) < NUM_KILLS:
        before = num_rounds_done(run)
        assert before < NUM_ROUNDS, "the run finished before it was killed often enough; give it more rounds"
        process = start(task, run)
        # Every third kill comes anywhere in the start-up, the others while rounds are written.
        if len(killed_after) % 3 == 2:
            time.sleep(rng.uniform(0.0, 6.0))
        else:
            while num_rounds_done(run) == before and process.poll() is None:
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        killed_after.append(num_rounds_done(run))
    assert start(task, run).wait() == 0
    assert len(set(killed_after)) > NUM_KILLS // 2, f"kills came at too few places: {killed_after}"
    assert digest(run) == digest(tmp_path / "whole")
