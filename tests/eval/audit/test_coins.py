"""Canaries with coins: planted by fair secret coins, audited in one run or several, and set beside what runs claim."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError
from fedllm_data.schema import SCHEMAS
from fedllm_eval.audit import coin_audit
from fedllm_eval.audit.audit_run import audit_run
from fedllm_eval.audit.audit_runs import audit_runs, run_labels
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.audit.canaries import plant, planted_rows, read_secrets, write_secrets
from fedllm_eval.audit.claims import Claim, claimed, protections, verdict
from fedllm_eval.audit.coins import coin_canaries
from fedllm_eval.audit.planted_repo import CanarySettings, plant_repo
from fedllm_eval.cli import main
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.reporting.audit_files import render_audits
from fedllm_eval.reporting.audit_lines import audit_lines

SALT = b"s" * 32
WORDS = "river mill stone bridge heron reed boat lantern".split()


def make_source(folder, num_clients=4):
    (folder / "data").mkdir(parents=True)
    for split in ("train", "unseen"):
        rows = []
        for index in range(4 * num_clients):
            turns = [
                {"role": "user", "content": f"{WORDS[index % 8]} {index} {split}"},
                {"role": "assistant", "content": " ".join(WORDS[index % 5 :])},
            ]
            client_id = f"{split}-{index % num_clients}"
            rows.append(
                {"client_id": client_id, "row_id": f"{split}{index}", "language": "en", "detected_language": None}
                | {"messages": turns}
            )
        rows.sort(key=lambda row: (row["client_id"], row["row_id"]))
        pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["sft"]), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def write_run(folder, model_folder, **privacy):
    """A run folder as far as an audit reads it: a finished model, and a config that claims something."""
    import shutil

    shutil.copytree(model_folder, folder / "model")
    config = {"format": 2, "task": "sft", "model": {"name": str(model_folder), "revision": None}}
    config |= {"data": {"name": "d", "revision": None, "split": "train", "num_clients": 4}, "client": {}, "peft": None}
    config |= {"federated": {"strategy": "fedavg", "dp_clip": 1.0 if privacy else None}}
    if privacy:
        config["privacy"] = privacy
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder


def test_coins_are_fair_independent_and_follow_from_the_salt_alone():
    canaries = coin_canaries(["ann"], 4000, salt=SALT)
    coins = np.array([canary.is_in for canary in canaries])
    assert stats.binomtest(int(coins.sum()), coins.size).pvalue > 1e-3
    # As many changes between neighbours as fair coins have.
    assert stats.binomtest(int((coins[1:] != coins[:-1]).sum()), coins.size - 1).pvalue > 1e-3
    again = coin_canaries(["bob", "eve"], 4000, salt=SALT)
    assert [canary.is_in for canary in again] == coins.tolist()
    other = np.array([canary.is_in for canary in coin_canaries(["ann"], 4000, salt=b"t" * 32)])
    assert stats.binomtest(int((other == coins).sum()), coins.size).pvalue > 1e-3
    assert len({canary.handle for canary in canaries}) == 4000


def test_a_canary_tells_its_coin_by_nothing_but_its_rows():
    canaries = coin_canaries(["ann", "bob"], 600, salt=SALT)
    inside, outside = ([c for c in canaries if c.is_in is side] for side in (True, False))
    # Letters of secrets have one distribution on both sides.
    counts = [[sum(c.secret.count(d) for c in side) for d in "0123456789"] for side in (inside, outside)]
    assert stats.chi2_contingency(counts).pvalue > 1e-3
    assert len(planted_rows(canaries, "sft")) == len(inside)
    assert planted_rows(outside, "sft").num_rows == 0
    pairs = planted_rows(canaries, "preference").to_pylist()
    assert len(pairs) == len(inside)
    assert pairs[0]["chosen"] != pairs[0]["rejected"]


@pytest.mark.parametrize("unit", ["example", "client"])
def test_a_planted_repo_has_the_canaries_that_are_in_and_no_others(tmp_path, unit):
    source = make_source(tmp_path / "source")
    copies = 3 if unit == "client" else 1
    options = CanarySettings(num_canaries=40, coins=unit, copies=copies)
    canaries = plant_repo(source, tmp_path / "planted", tmp_path / "secrets.json", salt=SALT, settings=options)
    assert read_secrets(tmp_path / "secrets.json") == canaries
    assert len(canaries) == 40
    before, after = load_clients(source, "train"), load_clients(tmp_path / "planted", "train")
    inside = [canary for canary in canaries if canary.is_in]
    assert 5 < len(inside) < 35
    assert len(after.rows) - len(before.rows) == copies * len(inside)
    text = json.dumps([row["messages"] for row in after.rows])
    assert all((canary.handle in text) is canary.is_in for canary in canaries)
    if unit == "client":
        assert {client for client in after if client not in before} == {canary.client_id for canary in inside}
        assert all(after.sizes[canary.client_id] == 3 for canary in inside)
    else:
        assert list(after) == list(before)
    in_memory = plant(before, canaries)
    assert in_memory.sizes == after.sizes


def test_a_secrets_file_of_before_is_still_read(tmp_path):
    write_secrets(coin_canaries(["ann"], 8, salt=SALT), tmp_path / "new.json")
    content = json.loads((tmp_path / "new.json").read_text())
    for canary in content["canaries"]:
        del canary["is_in"], canary["unit"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = read_secrets(tmp_path / "old.json")
    assert all(canary.is_in for canary in old)
    assert coin_audit.unit_of(old) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_canaries": 7, "coins": "example"}, "7 canaries with coins prove nothing"),
        ({"num_canaries": 10, "coins": "example", "copies": 2}, "bounds no epsilon of one example"),
    ],
)
def test_coins_that_prove_nothing_are_refused(tmp_path, options, named):
    source = make_source(tmp_path / "source")
    with pytest.raises(ConfigError, match=named):
        plant_repo(source, tmp_path / "p", tmp_path / "s.json", salt=SALT, settings=CanarySettings(**options))
    assert not (tmp_path / "p").exists()
    assert not (tmp_path / "s.json").exists()


def test_canaries_of_two_units_are_refused():
    mixed = coin_canaries(["ann"], 8, salt=SALT) + coin_canaries(["ann"], 8, salt=SALT, unit="client")
    with pytest.raises(ConfigError, match="audit one unit at a time"):
        coin_audit.unit_of(mixed)
    with pytest.raises(ConfigError, match="no clients"):
        coin_canaries([], 8, salt=SALT)


def test_a_model_that_learned_its_canaries_is_found_out_and_one_that_did_not_is_not(tmp_path, model_folder):
    import torch

    torch.set_num_threads(1)
    canaries = coin_canaries(["train-0", "train-1"], 60, salt=SALT, length=4)
    start, trained = load_policy(model_folder), load_policy(model_folder)
    texts = [
        trained.tokenizer.apply_chat_template(row["messages"], tokenize=False)
        for row in planted_rows(canaries, "sft").to_pylist()
    ]
    batch = trained.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(trained.model.parameters(), lr=5e-3)
    for _ in range(60):
        inputs = {name: values for name, values in batch.items() if name != "token_type_ids"}
        loss = trained.model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = coin_audit.audit_coins(trained, canaries, reference=start, batch_size=32)
    assert found["epsilon"] > 1.0
    assert found["mean_score_in"] > found["mean_score_out"]
    assert (found["unit"], found["num_canaries"]) == ("example", 60)
    assert coin_audit.audit_coins(start, canaries, reference=start, batch_size=32)["epsilon"] == 0.0
    # Without the start the answer's own difficulty stays in the score, and something is still found.
    assert coin_audit.audit_coins(trained, canaries, batch_size=32)["mean_score_in"] < 0


def test_claims_are_read_from_the_run_and_compared_by_unit_and_delta():
    config = {
        "privacy": {
            "unit": "example",
            "epsilon": 2.0,
            "delta": 1e-5,
            "units": {"client": {"epsilon": 20.0, "delta": 1e-4}, "other": {"epsilon": None}},
        },
        "federated": {"secure_sum": True, "robust_sum": "none", "wire": "none", "dp_clip": 0.1},
    }
    assert claimed(config) == {"example": Claim(epsilon=2.0, delta=1e-5), "client": Claim(epsilon=20.0, delta=1e-4)}
    kept = protections(config)
    assert (kept["secure_sum"], kept["robust_sum"], kept["wire"]) == (True, None, None)
    claim = Claim(epsilon=2.0, delta=1e-5)
    assert verdict({"epsilon": 2.0, "delta": 1e-5}, claim) == "within"
    assert verdict({"epsilon": 2.1, "delta": 1e-5}, claim) == "above"
    # A bound at a smaller delta is a bound on another epsilon.
    assert verdict({"epsilon": 2.1, "delta": 0.0}, claim) == "no bound"
    assert verdict({"epsilon": None}, claim) == "no bound"
    assert verdict({"epsilon": 9.0, "delta": 0.0}, None) == "no claim"


def test_several_runs_side_by_side_and_a_false_claim_is_shouted_at(tmp_path, model_folder, capsys, monkeypatch):
    source = make_source(tmp_path / "source")
    planting = ["--secrets", str(tmp_path / "s.json"), "--salt", str(tmp_path / "salt"), "--num-canaries", "40"]
    planted = ["plant", str(source), "--out", str(tmp_path / "planted"), *planting, "--coins", "client"]
    assert main(planted) == 0
    assert "of 40 canaries are in" in capsys.readouterr().out
    plain = write_run(tmp_path / "plain", model_folder)
    private = write_run(tmp_path / "private", model_folder, unit="client", epsilon=0.5, delta=1e-6)
    audit = [
        "audit",
        str(plain),
        f"noisy={private}",
        "--data",
        str(tmp_path / "planted"),
        "--out",
        str(tmp_path / "a"),
    ]
    audit += ["--secrets", str(tmp_path / "s.json"), "--num-candidates", "15", "--batch-size", "32"]
    audit += ["--reference", str(model_folder)]
    assert main(audit) == 0
    printed = capsys.readouterr().out
    assert "WARNING" not in printed
    found = json.loads((tmp_path / "a" / "audits.json").read_text())
    assert list(found["runs"]) == ["plain", "noisy"]
    one = found["runs"]["noisy"]
    assert one["claimed"] == {"client": {"epsilon": 0.5, "delta": 1e-6}}
    assert (one["one_run"]["delta"], one["settings"]["delta"]) == (1e-6, 1e-6)
    assert one["verdicts"][0] == {
        "attack": "coins",
        "unit": "client",
        "epsilon": one["one_run"]["epsilon"],
        "claimed": 0.5,
        "verdict": "within",
    }
    assert found["runs"]["plain"]["verdicts"][0]["verdict"] == "no claim"
    assert one["canaries"]["kept_out"]["num_canaries"] == 10
    secrets = [canary.secret for canary in read_secrets(tmp_path / "s.json")]
    everything = "".join((tmp_path / "a" / name).read_text() for name in ("audits.json", "audits.md", "audit.html"))
    assert not any(f" {secret}." in everything for secret in secrets)

    # The same with scores that give every coin away: the claim cannot be true.
    def told(policy, canaries, **options):
        return np.array([float(canary.is_in) for canary in canaries])

    monkeypatch.setattr(coin_audit, "canary_scores", told)
    assert main(audit) == 1
    printed = capsys.readouterr().out
    assert printed.count("WARNING: epsilon for one client is at least") == 1
    page = (tmp_path / "a" / "audit.html").read_text()
    assert 'class="shout" role="alert">noisy: WARNING' in page
    assert "| noisy | differential privacy |" in (tmp_path / "a" / "audits.md").read_text()
    # A folder of one run is replaced by that of one run, and holds one page again.
    assert main([*audit[:1], str(private), *audit[3:]]) == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["audit.html", "audit.json", "audit.md"]


def test_the_delta_is_the_claims_unless_another_is_asked_for(tmp_path, model_folder):
    source = make_source(tmp_path / "source", 8)
    run = write_run(tmp_path / "run", model_folder, unit="client", epsilon=3.0, delta=0.01)
    for asked, used in ((None, 0.01), (0.0, 0.0), (0.1, 0.1)):
        found = audit_run(str(run), source, reference=str(model_folder), settings=AuditSettings(delta=asked))
        assert found["settings"]["delta"] == used
        assert found["membership"]["attacks"]["loss"]["epsilon"]["client"]["delta"] == used
        assert found["one_run"] is None
    assert "No claim could be tested" in render_audits(found, language="en")


def test_a_bound_by_splits_above_the_claim_is_no_warning(tmp_path, model_folder):
    run = write_run(tmp_path / "run", model_folder, unit="client", epsilon=0.1, delta=0.01)
    found = audit_run(str(run), make_source(tmp_path / "source", 8), reference=str(model_folder))
    found["verdicts"][1] |= {"verdict": "above", "epsilon": 0.4, "claimed": 0.1}
    said = [line for line in audit_lines(found) if "lies above the 0.10" in line]
    assert len(said) == 1
    assert not any("WARNING" in line for line in audit_lines(found))


def test_names_of_runs():
    assert run_labels(["a/x", "b/y"]) == {"x": "a/x", "y": "b/y"}
    with pytest.raises(ConfigError, match="two runs are called 'n'"):
        run_labels(["n=a", "n=b"])
    with pytest.raises(ConfigError, match="two runs are called"):
        run_labels(["a/x", "a/x"])


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--delta", "1"], "--delta is 1.0"),
        (["--delta", "nan"], "--delta is nan"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--num-candidates", "-1"], "--num-candidates is -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_in_one_line(tmp_path, capsys, flags, named):
    assert main(["audit", "nowhere", "--data", "nowhere", "--out", str(tmp_path / "a"), *flags]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_all_runs_are_looked_for_before_any_is_loaded(tmp_path, model_folder):
    run = write_run(tmp_path / "run", model_folder)
    with pytest.raises(ConfigError, match=r"'no/such/run' is neither a folder here nor a Hub id"):
        audit_runs([str(run), "no/such/run"], make_source(tmp_path / "source"))


def test_whole_clients_can_be_planted_in_memory_and_example_canaries_only_in_clients_that_are_there():
    from datasets import Dataset

    rows = planted_rows(coin_canaries(["ann"], 20, salt=b"r" * 32), "sft")
    clients = ClientDataset.from_dataset(Dataset(rows), split="train")
    as_clients = coin_canaries(list(clients), 20, salt=SALT, unit="client", copies=2)
    grown = plant(clients, as_clients)
    assert len(grown) == 1 + sum(canary.is_in for canary in as_clients)
    with pytest.raises(ConfigError, match="no clients of"):
        plant(clients, coin_canaries(["zoe"], 20, salt=SALT))
