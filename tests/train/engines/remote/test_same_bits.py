"""A run whose clients are at sites ends with the adapter of the same run on one machine, to the bit."""

import json

import pytest

from fedllm_data.clients import load_clients
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.strategies import STRATEGIES

CASES = {
    "fedavg": {},
    "scaffold, whose clients remember": {"strategy": "scaffold"},
    "flexlora, with ranks": {"strategy": "flexlora", "client_ranks": "2,4"},
    "fed_sb": {"strategy": "fed_sb"},
    "fedkseed": {"strategy": "fedkseed"},
    "packed": {"wire": "drive"},
    "packed both ways, with feedback": {"wire": "int4", "error_feedback": "ef14", "download_wire": "int8"},
}
MORE = {
    **{
        name: {"strategy": name}
        for name, method in STRATEGIES.items()
        if method.traits.family not in ("baseline", "personal")
    },
    "with a clock": {"client_table": "profile:laptop-home", "drop_out": 0.2},
    "buffered": {
        **{"client_table": "profile:laptop-home", "participation": "buffered", "buffer_size": 2, "concurrency": 4}
    },
    "expected epochs": {"expected_epochs": 2.0},
    "private": {"dp_clip": 0.5, "dp_noise_multiplier": 0.8, "cohort_rule": "poisson"},
}


def fits(changes):
    changes = dict(changes)
    if changes.get("strategy") in ("flora", "flexlora", "hetlora"):
        changes.setdefault("client_ranks", "2,4")
    return changes


def compare(remote, tmp_path, task="sft", *, num_sites=2, **changes):
    _, here = remote.here(tmp_path / "here", task, **changes)
    trainer, there = remote.there(tmp_path / "there", task, num_sites=num_sites, **changes)
    assert adapter_sha256(there.server["adapter"]) == adapter_sha256(here.server["adapter"])
    assert (there.ledger.upload_bytes, there.ledger.download_bytes) == (
        here.ledger.upload_bytes,
        here.ledger.download_bytes,
    )
    return trainer


@pytest.mark.parametrize("changes", CASES.values(), ids=list(CASES))
def test_sites_give_the_adapter_of_one_machine(remote, tmp_path, changes):
    compare(remote, tmp_path, **fits(changes))


@pytest.mark.slow
@pytest.mark.parametrize("changes", MORE.values(), ids=list(MORE))
def test_so_does_every_method_and_rule(remote, tmp_path, changes):
    if "dp_clip" in changes:  # noise and cohorts come from a secret of the run
        pytest.skip("two private runs differ by their secrets")
    compare(remote, tmp_path, num_sites=3, **fits(changes))


def test_kto_trains_at_sites_on_two_rows_of_each_pair(remote, tmp_path):
    compare(remote, tmp_path, "kto")
    rounds = [json.loads(line) for line in (tmp_path / "there" / "rounds.jsonl").read_text().splitlines()]
    assert not any(each["left_out"] for each in rounds)


def test_dpo_goes_on_from_an_adapter_whose_tensors_travel(remote, tmp_path):
    remote.here(tmp_path / "sft")
    trainer = compare(remote, tmp_path, "dpo", adapter=str(tmp_path / "sft"))
    assert not trainer.loaded.policy.is_base


def test_personal_adapters_stay_at_their_sites(remote, tmp_path):
    changes = {"strategy": "ditto", "personal_clients": "visited"}
    compare(remote, tmp_path, **changes)
    here = json.loads((tmp_path / "here" / "personal" / "clients.json").read_text())
    there = json.loads((tmp_path / "there" / "personal" / "clients.json").read_text())
    assert here.keys() == there.keys()
    assert all("folder" not in entry and len(entry["adapter_sha256"]) == 64 for entry in there.values())
    assert [each.name for each in (tmp_path / "there" / "personal").iterdir() if each.is_dir()] == []
    for client_id, entry in there.items():
        folders = list((tmp_path / "there-sites").glob(f"*/runs/*/personal/{entry['adapter_sha256'][:32]}"))
        assert len(folders) == 1  # the name is the digest of what is in it, as on one machine
        assert here[client_id]["folder"] == folders[0].name


def test_no_row_is_at_the_server(remote, tmp_path):
    trainer, _ = remote.there(tmp_path / "run", num_rounds=1)
    assert not hasattr(trainer.clients, "rows")
    sites = json.loads((tmp_path / "run" / "sites.json").read_text())
    assert sorted(name for site in sites.values() for name in site["clients"]) == sorted(trainer.clients)
    records = [path for path in (tmp_path / "run").iterdir() if path.suffix in (".json", ".jsonl", ".yaml", ".md")]
    turns = [turn["content"] for row in load_clients(str(remote.places / "sft")).rows for turn in row["messages"]]
    said = {each for each in turns if len(each.split()) > 2}
    assert len(records) >= 4
    assert said
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert not any(each in text for each in said)
