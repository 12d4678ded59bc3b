"""Canaries: what is planted, where it is kept, and that nobody can guess it."""

import stat
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError
from fedllm_data.schema import SCHEMAS, row_problem
from fedllm_eval.audit import audit_canaries
from fedllm_eval.audit.canaries import (
    candidate_secrets,
    make_canaries,
    plant,
    planted_rows,
    read_secrets,
    write_secrets,
)
from fedllm_eval.audit.planted_repo import CanarySettings, plant_repo
from fedllm_eval.policy.policies import load_policy

SALT = b"s" * 32


def folder_of_rows(folder, rows):
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        filled = [
            {**row, "row_id": f"{split}{i}", "language": "en", "detected_language": None} for i, row in enumerate(rows)
        ]
        table = pa.Table.from_pylist(filled, SCHEMAS["sft"])
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_canaries_hang_on_salt_and_client_alone():
    one = make_canaries(["ann", "bob"], salt=SALT)
    assert make_canaries(["bob", "ann"], salt=SALT) == one[::-1]
    other = make_canaries(["ann", "bob"], salt=b"t" * 32)
    assert {canary.secret for canary in one}.isdisjoint(canary.secret for canary in other)
    assert len({canary.handle for canary in one + other}) == 4


def test_letters_of_secrets_are_uniform():
    canaries = make_canaries([f"c{i}" for i in range(2000)], salt=SALT, alphabet="hex", length=8)
    counts = Counter("".join(canary.secret for canary in canaries))
    assert set(counts) == set("0123456789abcdef")
    assert stats.chisquare(list(counts.values())).pvalue > 0.001
    assert canaries[0].space_bits == 32.0


def test_question_and_prefix_do_not_hold_the_secret():
    for canary in make_canaries([f"c{i}" for i in range(50)], salt=SALT, length=3):
        assert canary.secret not in canary.question + canary.prefix
        assert canary.answer() == f"{canary.prefix} {canary.secret}."


def test_candidates_are_other_secrets_of_the_same_space():
    (canary,) = make_canaries(["ann"], salt=SALT)
    candidates = candidate_secrets(canary, 500)
    assert len({*candidates, canary.secret}) == 501
    assert all(len(secret) == 6 and secret.isdigit() for secret in candidates)
    assert candidate_secrets(canary, 500, seed=1) != candidates
    (given,) = make_canaries(["ann"], salt=SALT, secrets=["the blue heron"])
    with pytest.raises(ConfigError, match="was handed in"):
        candidate_secrets(given, 10)


@pytest.mark.parametrize("task", ["sft", "preference"])
def test_planted_rows_are_valid_and_distinct(task):
    rows = planted_rows(make_canaries(["ann", "bob"], salt=SALT, copies=3), task).to_pylist()
    assert [row_problem(row, task) for row in rows] == [None] * 6
    assert len({row["row_id"] for row in rows}) == 6


def test_planting_in_memory_adds_rows_to_their_clients_alone(sft_clients):
    planted = plant(sft_clients, make_canaries(["bob"], salt=SALT, copies=2))
    assert planted.sizes == sft_clients.sizes | {"bob": sft_clients.sizes["bob"] + 2}
    with pytest.raises(ConfigError, match="no clients of"):
        plant(sft_clients, make_canaries(["zoe"], salt=SALT))


def test_a_planted_repo_is_a_client_repo_and_its_secrets_lie_elsewhere(tmp_path, message_rows):
    source = folder_of_rows(tmp_path / "source", message_rows)
    secrets = tmp_path / "secrets.json"
    canaries = plant_repo(
        source, tmp_path / "planted", secrets, salt=SALT, settings=CanarySettings(num_canaries=2, copies=2)
    )
    assert read_secrets(secrets) == canaries
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    before, after = load_clients(source, "train"), load_clients(tmp_path / "planted", "train")
    added = Counter(after.sizes) - Counter(before.sizes)
    assert added == {canary.client_id: 2 for canary in canaries}
    assert (
        load_clients(tmp_path / "planted", "test").rows["row_id"][:] == load_clients(source, "test").rows["row_id"][:]
    )
    text = " ".join(message["content"] for row in after.rows for message in row["messages"])
    assert all(text.count(canary.secret) >= 2 for canary in canaries)
    assert after.table.num_rows == len(after)
    # Nothing but the rows themselves gives a secret away.
    assert all(canary.secret not in (tmp_path / "planted" / "README.md").read_text() for canary in canaries)


def test_a_repo_without_a_column_that_may_be_null_is_completed(tmp_path, message_rows):
    source = folder_of_rows(tmp_path / "source", message_rows)
    for path in (source / "data").iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["detected_language"]), path)
    plant_repo(
        source, tmp_path / "planted", tmp_path / "secrets.json", salt=SALT, settings=CanarySettings(num_canaries=1)
    )
    assert load_clients(tmp_path / "planted", "train").rows["detected_language"][0] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"secrets_file": "planted/secrets.json"}, "lies inside"),
        ({"num_canaries": 9}, "9 canaries for 3 training clients"),
        ({"alphabet": "a"}, "distinct letters"),
        ({"length": 0}, "at least 1"),
        ({"out": "source"}, "holds something already"),
        ({"secrets_file": "there.json"}, "is there already"),
    ],
)
def test_what_cannot_be_planted_is_refused_and_leaves_nothing(tmp_path, message_rows, change, message):
    source = folder_of_rows(tmp_path / "source", message_rows)
    (tmp_path / "there.json").write_text("{}")
    options = {"secrets_file": "secrets.json", "out": "planted", "num_canaries": 1} | change
    secrets, out = tmp_path / options.pop("secrets_file"), tmp_path / options.pop("out")
    with pytest.raises(ConfigError, match=message):
        plant_repo(source, out, secrets, salt=SALT, settings=CanarySettings(**options))
    assert not (tmp_path / "planted").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "there.json"]


def test_a_file_without_canaries_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    for name in ("a.json", "missing.json"):
        with pytest.raises(ConfigError, match="holds no canaries"):
            read_secrets(tmp_path / name)
    write_secrets(make_canaries(["ann"], salt=SALT), tmp_path / "new" / "secrets.json")
    assert read_secrets(tmp_path / "new" / "secrets.json")[0].client_id == "ann"


def test_whichever_is_planted_the_ranks_among_the_others_are_one_to_n(model_folder):
    policy = load_policy(model_folder)
    secrets = ["blue heron", "old reed", "new oar", "deep mill", "a slow river", "no", "yes", "the far bank"]
    bits = []
    for secret in secrets:
        (canary,) = make_canaries(["ann"], salt=SALT, secrets=[secret])
        others = [other for other in secrets if other != secret]
        # One question and prefix for all: only the secret differs.
        found = audit_canaries(policy, [canary], candidates={"ann": others})
        bits.append(found["exposure"]["mean_bits"])
    # A policy that learned none of them: log2 8 - log2 rank, every rank from 1 to 8 once.
    assert sorted(bits) == pytest.approx(sorted(3 - np.log2(np.arange(1, 9))))
