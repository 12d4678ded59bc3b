"""Results folders with a base inside, made by hand, and a run folder with two rounds."""

import json

import pyarrow as pa
import pytest
import yaml

from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.running.assemble import join_results, make_results
from fedllm_eval.scores import ClientScores

SETTINGS = {"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0}


@pytest.fixture
def scored():
    """Return a policy's results on hand-made scores."""

    def make(name, values, *, score="heldout_loss", split="test", ids=None, rows=3, revision="abc", policy=None):
        num = len(values)
        columns = {
            "client_id": ids or [f"c{i:03}" for i in range(num)],
            "split": [split] * num,
            **{column: pa.array([rows] * num, pa.int64()) for column in ("num_rows", "num_tokens")},
            **{column: pa.array([0] * num, pa.int64()) for column in ("num_skipped", "num_truncated")},
            score: pa.array(values, pa.float64()),
        }
        scores = ClientScores(
            task="sft" if score == "heldout_loss" else "preference",
            split=split,
            table=pa.table(columns),
            policy={"name": name, "base": "b", "base_digest": "d", "adapter_sha256": name, **(policy or {})},
            reference=None,
            dataset={"name": "memory", "revision": revision, "num_clients": num, "num_rows": rows * num},
            settings=SETTINGS,
        )
        return make_results([scores])

    return make


@pytest.fixture
def save(tmp_path, scored):
    """Write a results folder with its base inside, and return its path."""

    def write(name, before, after, *, alone=None, **options):
        plain = {"adapter_sha256": None}
        results = {"policy": scored(name, after, **options)}
        if before is not None:
            results["base"] = scored("base", before, **options, policy=plain)
        if alone is not None:
            results["alone"] = scored("alone", alone, **options)
        write_results(join_results(results), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def save_run(tmp_path, save):
    """Write a run folder of two rounds with its scores inside, and return its path."""

    def write(name, before, after, *, privacy=None, **options):
        run = tmp_path / f"run-{name}"
        run.mkdir()
        config = {"task": "sft", "federated": {"seed": 0, "local_steps": 5, "num_rounds": 2}, "method": name}
        if privacy:
            config["privacy"] = privacy
        (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        records = [
            {
                "round_index": index,
                "seconds": 1.0,
                "clients": [{"client_id": client, "num_rows": 4, "seconds": seconds} for client, seconds in visits],
                "ledger": {
                    "download_bytes": 1_000_000 * (index + 1),
                    "upload_bytes": 500_000 * (index + 1),
                    "num_local_steps": 10 * (index + 1),
                    "client_seconds": 1.0,
                },
            }
            for index, visits in enumerate(([("c000", 3600.0), ("c001", 1800.0)], [("c000", 3600.0)]))
        ]
        (run / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
        save(name, before, after, **options).rename(run / "scores")
        return run

    return write
