"""A training process killed with SIGKILL again and again ends with what the uninterrupted run ends with, to the bit.

Compared are the finished adapter, clients' personal adapters, what clients remember and the server's last checkpoint.
Processes are forked from one that has imported everything, so that a start costs no import.
"""

import importlib.util
import json
import multiprocessing
import random
import signal
import time
import warnings
from hashlib import sha256
from pathlib import Path

import pytest

NUM_KILLS = 12
NUM_ROUNDS = 60  # more than twelve starts get through before they are killed

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fedllm_train", "trl.trainer.sft_trainer", "trl.trainer.dpo_trainer"])

METHODS = [
    ("sft", {"strategy": "fedavg"}),
    ("dpo", {"strategy": "fedavg"}),
    ("sft", {"strategy": "scaffold"}),
    ("sft", {"strategy": "fedadam"}),
    ("sft", {"strategy": "flexlora", "client_ranks": "1,2,4"}),
    ("sft", {"strategy": "ditto"}),
]


def train(task, settings, run):
    """What a process does from its start to its end."""
    warnings.simplefilter("ignore")
    spec = importlib.util.spec_from_file_location("kit", Path(__file__).parents[1] / "conftest.py")
    kit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kit)
    kit.make_trainer(run, task, num_rounds=NUM_ROUNDS, **settings).train(resume=True)


def start(task, settings, run):
    process = FORKS.Process(target=train, args=(task, settings, run))
    process.start()
    return process


def ended(process):
    process.join()
    return process.exitcode


def num_rounds_done(run):
    path = run / "rounds.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def personal_adapters(run):
    return sorted(run.glob("personal/[!.]*/adapter_model.safetensors"))


def digests(run):
    """What the run learned, file by file; of a client's memory only what it would read next."""
    newest = sorted((run / "checkpoints").iterdir())[-1]
    # Killed before its first checkpoint, a run begins again under another key, and finds nothing of the earlier one's.
    kept = run / "client_memory" / json.loads((newest / "state.json").read_text())["run_key"]
    memories = [sorted(folder.iterdir())[-1] for folder in kept.glob("*")]
    files = [run / "adapter" / "adapter_model.safetensors", *newest.glob("*.safetensors")]
    files += [*memories, *personal_adapters(run)]
    return {
        str(path.relative_to(run)).replace(kept.name, "key"): sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.mark.slow
@pytest.mark.parametrize(("task", "settings"), METHODS, ids=[f"{each['strategy']}-{task}" for task, each in METHODS])
def test_twelve_kills_change_no_bit_of_what_is_learned(tmp_path, task, settings):
    assert ended(start(task, settings, tmp_path / "whole")) == 0
    run, rng, killed_after = tmp_path / "killed", random.Random(0), []
    while len(killed_after) < NUM_KILLS:
        before = num_rounds_done(run)
        assert before < NUM_ROUNDS, "the run finished before it was killed often enough; give it more rounds"
        process = start(task, settings, run)
        # Every third kill comes anywhere in the start-up, the others while rounds are written.
        if len(killed_after) % 3 == 2:
            time.sleep(rng.uniform(0.0, 2.0))
        else:
            while num_rounds_done(run) == before and process.is_alive():
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.25))
        process.kill()
        assert ended(process) == -signal.SIGKILL
        killed_after.append(num_rounds_done(run))
    process = start(task, settings, run)
    if settings["strategy"] == "ditto":  # once more where clients get their adapters, after the last round
        while not personal_adapters(run) and process.is_alive():
            time.sleep(0.002)
        process.kill()
        process.join()
        assert num_rounds_done(run) == NUM_ROUNDS
        process = start(task, settings, run)
    assert ended(process) == 0
    assert len(set(killed_after)) > NUM_KILLS // 2, f"kills came at too few places: {killed_after}"
    whole = digests(tmp_path / "whole")
    assert digests(run) == whole
    kinds = {Path(name).parts[0] for name in whole}
    assert ("client_memory" in kinds) == (settings["strategy"] in ("scaffold", "ditto"))
    assert ("personal" in kinds) == (settings["strategy"] == "ditto")
