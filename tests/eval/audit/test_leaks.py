"""Planted leaks are found: an over-trained model gives its rows and secrets away, an untrained one does not."""

import json
import random

import numpy as np
import pytest

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_eval.audit import audit_canaries, audit_membership, make_canaries, plant
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.audit.token_logps import token_logps
from fedllm_eval.policy.models import sequence_logps
from fedllm_eval.policy.policies import load_policy

WORDS = "river mill stone bridge heron reed boat lantern fog oar tide shore gull salt rope net sail dawn dusk".split()


def make_clients(split, num_rows, seed, num_clients):
    """Rows of random words: nothing about one helps to guess another."""
    from datasets import Dataset

    draw = random.Random(seed)
    rows = []
    for index in range(num_rows):
        question, answer = (" ".join(draw.choices(WORDS, k=length)) for length in (3, 6))
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        client_id = f"{split}-{index % num_clients:02}"
        rows.append({"client_id": client_id, "row_id": f"{split}{index}", "language": "en", "messages": turns})
    return ClientDataset.from_dataset(Dataset.from_list(rows), split=split)


@pytest.fixture(scope="module")
def members():
    return make_clients("train", 50, 1, 10)


@pytest.fixture(scope="module")
def canaries(members):
    return make_canaries(list(members)[:4], salt=b"s" * 32, length=4, copies=3)


@pytest.fixture(scope="module")
def models(tmp_path_factory, members, canaries):
    """A start policy that saw other rows, and the same over-trained on 50 rows and four canaries.

    The tokenizer is the start policy's: one trained on the canaries would hold their secrets as tokens.
    """
    import torch

    from fedllm_train.models.tiny import TinyConfig, train_tiny

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("leaky") / "start"
    config = TinyConfig(
        vocab_size=600,
        hidden_size=48,
        intermediate_size=96,
        num_layers=2,
        num_heads=2,
        block_length=64,
        num_steps=1,
        learning_rate=1e-5,
    )
    train_tiny(list(make_clients("public", 60, 7, 1).rows), folder, config=config)
    start, trained = load_policy(folder), load_policy(folder)
    texts = [
        trained.tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in plant(members, canaries).rows
    ]
    batch = trained.tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(trained.model.parameters(), lr=6e-3)
    shuffle = torch.Generator().manual_seed(0)
    for _ in range(220):
        rows = torch.randperm(len(texts), generator=shuffle)[:20]
        inputs = {name: values[rows] for name, values in batch.items() if name != "token_type_ids"}
        loss = trained.model(**inputs, labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return start, trained


def test_over_trained_on_50_rows_the_auc_is_above_nine_tenths(models, members):
    start, trained = models
    found = audit_membership(trained, members, make_clients("unseen", 60, 2, 12), reference=start)
    for name in ("loss", "calibrated", "min_k"):
        assert found["attacks"][name]["auc"] > 0.9, name
        bounds = found["attacks"][name]["epsilon"]
        assert (bounds["example"]["unit"], bounds["client"]["unit"]) == ("example", "client")
        assert bounds["example"]["epsilon"] > 0.5
    assert 0.3 < found["reference_auc"]["auc"] < 0.7
    assert (found["num_members"], found["num_member_clients"]) == (50, 10)
    at_1, at_01 = found["attacks"]["loss"]["true_positives"]
    assert "need 100 non-members" in at_1["reason"]
    assert "need 1,000 non-members" in at_01["reason"]
    json.dumps(found)


def test_untrained_the_auc_is_about_a_half(models):
    start, _ = models
    # 800 rows a side: the AUC's standard error is .0144.
    found = audit_membership(
        start,
        make_clients("train", 800, 3, 80),
        make_clients("unseen", 800, 4, 80),
        settings=AuditSettings(batch_size=64),
    )
    for name in ("loss", "min_k"):
        attack = found["attacks"][name]
        assert 0.45 < attack["auc"] < 0.55
        assert attack["auc_low"] < attack["auc"] < attack["auc_high"] < attack["auc_low"] + 0.1
        assert attack["true_positives"][0]["fraction"] < 0.05
        assert attack["epsilon"]["example"]["epsilon"] < 0.2
    assert "calibrated" not in found["attacks"]
    assert any("strongest, is left out" in note for note in found["notes"])


def test_planted_canaries_stand_out_after_training_and_not_before(models, canaries):
    start, trained = models
    before = audit_canaries(start, canaries, num_candidates=255, batch_size=64)
    after = audit_canaries(trained, canaries, num_candidates=255, batch_size=64)
    assert after["exposure"]["ceiling_bits"] == 8.0
    assert after["exposure"]["mean_bits"] > 6
    assert before["exposure"]["mean_bits"] < 5
    assert after["extraction"]["mean_similarity"] > 0.7
    assert after["extraction"]["fraction"] >= 0.5
    assert before["extraction"]["fraction"] == 0.0
    text = json.dumps(after)
    assert not any(
        canary.secret in text for canary in canaries if not canary.secret.isdigit() or len(canary.secret) > 9
    )
    assert "secret" not in text


def test_canaries_that_were_not_planted_do_not_stand_out(models):
    _, trained = models
    strangers = make_canaries([f"x{i}" for i in range(12)], salt=b"z" * 32, length=4)
    found = audit_canaries(trained, strangers, num_candidates=63, batch_size=64)
    # Chance is 1.44 bits; the standard error over 12 canaries is about .4.
    assert found["exposure"]["mean_bits"] < 3.2
    assert found["extraction"]["fraction"] == 0.0


def test_token_log_probabilities_add_up_to_the_sequences(models):
    _, trained = models
    rng = np.random.default_rng(0)
    sequences = []
    for length in (2, 30, 7, 12, 1):
        ids = rng.integers(5, 300, length).tolist()
        sequences.append((ids, [0, *rng.integers(0, 2, length - 1).tolist()]))
    expected, counts = sequence_logps(trained.model, sequences, 2)
    for batch_size in (1, 3):
        found = token_logps(trained.model, sequences, batch_size)
        assert [values.size for values in found] == counts.tolist()
        assert [values.sum() for values in found if values.size] == pytest.approx(expected[counts > 0], abs=1e-3)


def test_the_order_of_rows_and_the_batches_do_not_matter(models, members):
    start, trained = models
    other = make_clients("unseen", 20, 5, 5)
    one = audit_membership(trained, members, other, reference=start, settings=AuditSettings(batch_size=3))
    two = audit_membership(trained, members, other, reference=start, settings=AuditSettings(batch_size=64))
    for name, attack in one["attacks"].items():
        assert attack["auc"] == pytest.approx(two["attacks"][name]["auc"], abs=0.002)


def test_rows_on_both_sides_are_refused_and_test_clients_have_no_client_bound(models, members):
    _, trained = models
    with pytest.raises(ConfigError, match="members and non-members at once"):
        audit_membership(trained, members, members)
    same_people = make_clients("train", 20, 6, 10)
    rows = same_people.rows.map(lambda row: {"row_id": "test" + row["row_id"]})
    found = audit_membership(trained, members, ClientDataset.from_dataset(rows, split="test"))
    assert "rows on both sides" in found["attacks"]["loss"]["epsilon"]["client"]["reason"]


def test_the_commands_plant_and_audit_end_to_end(tmp_path, models, members, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fedllm_data.schema import SCHEMAS
    from fedllm_eval.cli import main

    start, _ = models
    source = tmp_path / "source"
    (source / "data").mkdir(parents=True)
    for split, clients in (("train", members), ("unseen", make_clients("unseen", 20, 8, 5))):
        rows = [{**row, "detected_language": None} for row in clients.rows]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMAS["sft"]), source / "data" / f"{split}-00000-of-00001.parquet")
    planted, secrets = tmp_path / "planted", tmp_path / "secrets.json"
    options = ["--secrets", str(secrets), "--salt", str(tmp_path / "salt"), "--num-canaries", "3", "--length", "3"]
    assert main(["plant", str(source), "--out", str(planted), *options]) == 0
    # Once planted, secrets are not overwritten.
    assert main(["plant", str(source), "--out", str(tmp_path / "again"), *options]) == 2
    assert "there already" in capsys.readouterr().err
    audit = ["audit", start.name, "--data", str(planted), "--out", str(tmp_path / "audit"), "--reference", start.name]
    assert main([*audit, "--secrets", str(secrets), "--num-candidates", "31", "--batch-size", "32"]) == 0
    printed = capsys.readouterr().out
    assert "53 training rows of 10 clients" in printed
    assert "0.1 % false ones: 0.1 % false positives need 1,000 non-members, there are 20" in printed
    # 31 candidates: 5 - log2(32!) / 32 = 5 - 117.66 / 32 by chance.
    assert "over 3 canaries; 1.32 by chance, 5.00 at most" in printed
    found = json.loads((tmp_path / "audit" / "audit.json").read_text(encoding="utf-8"))
    # A policy audited against itself gained nothing over itself.
    assert found["membership"]["attacks"]["calibrated"]["auc"] == 0.5
    text = (tmp_path / "audit" / "audit.md").read_text(encoding="utf-8") + json.dumps(found)
    assert not any(f" {canary['secret']}." in text for canary in json.loads(secrets.read_text())["canaries"])
    assert main([*audit, "--secrets", str(tmp_path / "none.json")]) == 2
    assert main([*audit, "--non-members", "test"]) == 2
