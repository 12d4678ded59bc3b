"""Results folders with the run folders that they are of: rounds with bytes, times, losses and scores by hand."""

import json

import pyarrow as pa
import pytest
import yaml

from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.running.assemble import make_results
from fedllm_eval.scores import ClientScores

IDS = [f"c{i:03}" for i in range(40)]


def made_round(index, clients, *, down=100, up=20, seconds=3.0, left_out=(), held_out=None, **more):
    """One line of rounds.jsonl: every visit takes `down` and `up` bytes; ledger totals are set by `made_rounds`."""
    visits = [
        {
            "client_id": client,
            "num_rows": 4,
            "num_steps": 5,
            "seconds": seconds,
            "download_bytes": down,
            "upload_bytes": up,
        }
        for client in clients
    ]
    record = {"round_index": index, "clients": visits, "left_out": list(left_out), "seconds": seconds * len(visits)}
    if held_out is not None:
        mean, low, high = held_out
        record["eval"] = {
            "split": "test",
            "heldout_loss": {"mean": mean, "ci_low": low, "ci_high": high, "num_clients": 9},
        }
        record["eval_score"] = "heldout_loss"
    return record | more


def made_rounds(*records):
    """The rounds with their ledger."""
    down = up = steps = 0
    seconds = 0.0
    for record in records:
        for visit in record["clients"]:
            down += visit["download_bytes"]
            up += visit["upload_bytes"]
            steps += visit["num_steps"]
            seconds += visit["seconds"] or 0.0
        record["ledger"] = {
            "download_bytes": down, "upload_bytes": up, "num_local_steps": steps, "client_seconds": seconds,
        }  # fmt: skip
    return list(records)


@pytest.fixture
def save_run(tmp_path):
    """Write a run folder and its results; return the results folder."""

    def write(name, losses, rounds=None, *, seed=0, ids=None, table=None, privacy=None, **federated):
        run = tmp_path / "runs" / name
        if rounds is not None:
            run.mkdir(parents=True)
            config = {"task": "sft", "federated": {"strategy": "fedavg", "seed": seed, **federated}}
            config |= {"privacy": privacy} if privacy else {}
            (run / "config.yaml").write_text(yaml.safe_dump(config))
            (run / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in rounds))
            if table is not None:
                (run / "client_table.csv").write_text(table)
        num = len(losses)
        count = pa.array([4] * num, pa.int64())
        none = pa.array([0] * num, pa.int64())
        columns = {"client_id": ids or IDS[:num], "split": ["test"] * num, "num_rows": count, "num_tokens": count}
        columns |= {"num_skipped": none, "num_truncated": none, "heldout_loss": pa.array(losses, pa.float64())}
        scores = ClientScores(
            task="sft",
            split="test",
            table=pa.table(columns),
            policy={"name": str(run), "adapter_sha256": None if rounds is None else name},
            reference=None,
            dataset={"name": "memory", "revision": "abc", "num_clients": num, "num_rows": 4 * num},
            settings={"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0},
        )
        write_results(make_results([scores]), tmp_path / name)
        return tmp_path / name

    return write
