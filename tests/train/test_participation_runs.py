"""Whole runs on a simulated clock: what it changes and what it must not, from the first round to a resumed one."""

import csv

import pytest

from fedllm_train.adapters.arithmetic import adapter_sha256

NUMBERS = ("download_mbit", "upload_mbit", "latency_ms", "flops")
ALIKE = dict.fromkeys(("ann", "bob", "cyd", "dan", "eve"), (10.0, 1.0, 20.0, 1e9))
MIXED = {
    "ann": (10.0, 1.0, 20.0, 1e9),
    "bob": (10.0, 1.0, 20.0, 2e8),
    "cyd": (50.0, 5.0, 20.0, 5e9),
    "dan": (2.0, 0.2, 200.0, 1e9),
    "eve": (100.0, 50.0, 5.0, 1e10),
}


def table(folder, machines, **columns):
    """A client table; `columns` hold more of each client, by id."""
    path = folder / "machines.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["client_id", *NUMBERS, *columns])
        for client_id, numbers in machines.items():
            writer.writerow([client_id, *numbers, *(values.get(client_id, "") for values in columns.values())])
    return str(path)


def test_a_clock_without_losses_changes_no_bit(kit, whole_run, tmp_path):
    _, plain = whole_run()
    trainer = kit.make_trainer(tmp_path / "run", client_table=table(tmp_path, MIXED))
    state = trainer.train()
    assert adapter_sha256(state.adapter) == adapter_sha256(plain.adapter)
    records = kit.records_of(tmp_path / "run")
    before = 0.0
    for record in records:
        # A round lasts as long as its slowest client.
        assert record["clock_seconds"] == max(each["arrived"] for each in record["clients"])
        for each in record["clients"]:
            parts = [each[f"{part}_seconds"] for part in ("download", "compute", "upload")]
            assert each["arrived"] == pytest.approx(before + sum(parts))
            assert each["staleness"] == 0
        before = record["clock_seconds"]
    assert state.clock == before > 0


def test_fedbuff_of_clients_that_are_all_alike_equals_fedavg_to_the_bit(kit, whole_run, tmp_path):
    _, plain = whole_run()
    settings = {"participation": "buffered", "concurrency": 3, "client_table": table(tmp_path, ALIKE)}
    state = kit.make_trainer(tmp_path / "run", **settings).train()
    assert adapter_sha256(state.adapter) == adapter_sha256(plain.adapter)
