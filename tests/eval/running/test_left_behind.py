"""Shares of groups by hand, chance that is not called unfair, and nobody named."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.machine import Machine
from fedllm_eval.plain_json import without_nan
from fedllm_eval.reporting.left_behind_section import left_behind_section, left_behind_sentences
from fedllm_eval.running.client_groups import language_groups, speed_groups
from fedllm_eval.running.left_behind import left_behind, permuted_p
from fedllm_eval.running.run_left_behind import left_behind_of_run

CLIENTS = [f"c{i:02}" for i in range(30)]


def _visit(client, steps=5, **more):
    return {"client_id": client, "num_steps": steps, **more}


def _speed(num_slow=10):
    return {client: "slow" if at < num_slow else "fast" for at, client in enumerate(CLIENTS)}


def _group(found, name):
    (group,) = (group for group in found["groups"] if group["name"] == name)
    return group


def test_shares_are_those_of_records_counted_by_hand():
    rounds = [
        {
            "clients": [_visit("c00"), _visit("c10"), _visit("c11"), _visit("c12")],
            "left_out": [{"client_id": "c01", "kind": "lost"}, {"client_id": "c02", "kind": "late"}],
        },
        # Too few for a server step: what was done there did not count.
        {"clients": [_visit("c03")], "server_step": False, "left_out": [{"client_id": "c20", "kind": "closed"}]},
    ]
    rows = {client: 1 + 2 * (client >= "c10") for client in CLIENTS}  # 10 of 1, 20 of 3: 10 of 70
    found = left_behind(rounds, {"speed": _speed()}, num_rows=rows)
    slow, fast = _group(found, "slow"), _group(found, "fast")
    assert (slow["num_clients"], slow["client_fraction"], slow["row_fraction"]) == (10, 1 / 3, 1 / 7)
    assert (slow["num_asked"], slow["asked_fraction"]) == (4, 0.5)  # c00, c01, c02, c03 of 8
    assert (slow["num_steps"], slow["step_fraction"]) == (5, 0.25)  # c00 of c00, c10, c11, c12
    assert (slow["lost_fraction"], slow["late_fraction"]) == (0.25, 0.25)
    assert (fast["lost_fraction"], fast["late_fraction"]) == (0.25, 0.0)
    assert found["counted"] == "steps"


def test_the_permutation_test_is_that_of_all_label_sets():
    steps_K = np.array([0, 0, 5, 5, 10, 15])
    for members in ((0, 1), (0, 2), (4, 5)):
        observed = steps_K[list(members)].sum()
        sums = [steps_K[list(pair)].sum() for pair in itertools.combinations(range(6), 2)]
        exact = min(1.0, 2 * min(np.mean([s <= observed for s in sums]), np.mean([s >= observed for s in sums])))
        assert permuted_p(steps_K, 2, int(observed)) == pytest.approx(exact, abs=0.02)


def test_degenerate_groups_have_no_test():
    assert np.isnan(permuted_p(np.array([1, 2]), 0, 0))
    assert np.isnan(permuted_p(np.array([1, 2]), 2, 3))
    assert np.isnan(permuted_p(np.array([0, 0]), 1, 0))
    assert permuted_p(np.array([3, 3]), 1, 3) == 1.0


def test_slow_clients_that_never_arrive_are_said_to_be_left_behind_and_whether_they_are_served_worse():
    rounds = [{"clients": [_visit(client) for client in CLIENTS[10:]]} for _ in range(3)]
    rng = np.random.default_rng(0)
    worse = {client: 2.0 - 0.5 * (at >= 10) + rng.normal(0, 0.1) for at, client in enumerate(CLIENTS)}
    found = left_behind(rounds, {"speed": _speed()}, scores=worse)
    slow = _group(found, "slow")
    assert slow["gave_less"]
    assert slow["served"]["is_worse"]
    assert not _group(found, "fast")["gave_less"]
    more = {"score": "heldout_loss", "speed_is_known": True, "language_is_known": True, "num_unseen": 0}
    first, second, *rest = left_behind_sentences(without_nan(found | more))
    assert first.startswith("Slow clients (10) made 0 % of the steps that counted, less than their share of 33 %")
    assert second.startswith("They are also served worse than the others: held-out loss 2.0")
    assert rest == []
    alike = {client: 1.5 + rng.normal(0, 0.1) for client in CLIENTS}
    found = left_behind(rounds, {"speed": _speed()}, scores=alike)
    assert left_behind_sentences(without_nan(found | more))[1].startswith("They are not shown to be served worse")
    # Higher is better for an accuracy: the same numbers are then a good score.
    found = left_behind(rounds, {"speed": _speed()}, scores=worse, higher_is_better=True)
    assert not _group(found, "slow")["served"]["is_worse"]


def test_noise_is_not_called_unfair():
    """Clients drawn at random: of a hundred runs about five may show anything, in either direction."""
    rng = np.random.default_rng(1)
    accused = 0
    for run in range(100):
        rounds = [{"clients": [_visit(client) for client in rng.choice(CLIENTS, 4, replace=False)]} for _ in range(8)]
        found = left_behind(rounds, {"speed": _speed()}, seed=run)
        accused += any(group["gave_less"] for group in found["groups"])
    assert accused <= 9  # P(more than 9 of 100 at 5 %) is 0.03, and each error is two-sided


@given(st.lists(st.lists(st.sampled_from(CLIENTS), min_size=1, max_size=5, unique=True), min_size=1, max_size=6))
def test_shares_of_all_groups_add_up_and_order_changes_nothing(cohorts):
    rounds = [{"clients": [_visit(client) for client in cohort]} for cohort in cohorts]
    groups = {"speed": _speed(), "language": dict.fromkeys(CLIENTS, "de")}
    found = left_behind(rounds, groups)
    for kind in groups:
        of_kind = [group for group in found["groups"] if group["kind"] == kind]
        for share in ("client_fraction", "asked_fraction", "step_fraction"):
            assert sum(group[share] for group in of_kind) == pytest.approx(1.0)
    backwards = {kind: dict(reversed(of.items())) for kind, of in groups.items()}
    turned = [{"clients": record["clients"][::-1]} for record in rounds[::-1]]
    assert without_nan(left_behind(turned, backwards)) == without_nan(found)


def test_speed_is_the_time_of_a_visit_with_the_work_that_the_rounds_record():
    machines = {
        "line": Machine(download_mbit=0.8, upload_mbit=0.8, flops=1e12),  # 10 + 10 s to send a megabyte, 1 s of work
        "chip": Machine(download_mbit=80, upload_mbit=80, flops=1e10),  # 0.2 s to send, 100 s of work
        "good": Machine(download_mbit=80, upload_mbit=80, flops=1e12),
        "half": Machine(download_mbit=80, flops=1e12),  # no line up: nobody knows
    }
    visit = {"client_id": "good", "download_bytes": 10**6, "upload_bytes": 10**6, "compute_seconds": 1.0}
    found = speed_groups(machines, [{"clients": [visit]}], [*machines, "none"])
    assert found == {"line": "middle", "chip": "slow", "good": "fast", "half": "unknown", "none": "unknown"}
    light = visit | {"compute_seconds": 1e-3}  # a thousandth of the work: the line decides
    assert speed_groups(machines, [{"clients": [light]}], list(machines))["line"] == "slow"


def test_equal_machines_are_in_one_group():
    machine = Machine(download_mbit=8, upload_mbit=8, flops=1e12)
    assert set(speed_groups(dict.fromkeys("abc", machine), [], list("abc")).values()) == {"all alike"}
    slow = Machine(download_mbit=8, upload_mbit=8, flops=1e11)
    mixed = {client: machine if client < "e" else slow for client in "abcdef"}
    groups = speed_groups(mixed, [], list(mixed))
    assert len({groups[client] for client in "abcd"}) == 1
    assert {groups[client] for client in "ef"} == {"slow"}


def test_languages_of_few_clients_are_told_together():
    mains = {client: "de" for client in CLIENTS[:6]} | {"c06": "ja", "c07": "fi", "c08": "und"}
    groups = language_groups(mains, CLIENTS[:10])
    assert [groups[client] for client in ("c00", "c06", "c07", "c08", "c09")] == [
        "de", "other", "other", "unknown", "unknown",
    ]  # fmt: skip


def test_a_group_of_few_clients_has_no_score():
    rounds = [{"clients": [_visit(client) for client in CLIENTS]}]
    found = left_behind(rounds, {"speed": _speed(4)}, scores=dict.fromkeys(CLIENTS, 1.0))
    assert _group(found, "slow")["served"] is None
    assert _group(found, "fast")["served"]["num_clients"] == 26


@pytest.fixture
def run(tmp_path):
    """A run of eight rounds in which the last twelve clients take part; the others are lost."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        yaml.safe_dump(
            {"task": "sft", "federated": {"strategy": "fedavg"}, "data": {"split": "train", "num_clients": 32}}
        )
    )
    lost = [{"client_id": client, "kind": "lost"} for client in CLIENTS[:2]]
    rounds = []
    for index in range(8):
        ledger = {"download_bytes": 0, "upload_bytes": 0, "num_local_steps": 0, "client_seconds": 0.0}
        visits = [_visit(client, num_rows=3, seconds=1.0) for client in CLIENTS[18:]]
        rounds.append({"round_index": index, "clients": visits, "left_out": lost, "ledger": ledger, "seconds": 1.0})
    (folder / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in rounds))
    lines = [f"{client},8,8,{1e11 if at < 10 else 1e12 if at < 20 else 1e13}" for at, client in enumerate(CLIENTS)]
    (folder / "client_table.csv").write_text("client_id,download_mbit,upload_mbit,flops\n" + "\n".join(lines) + "\n")
    return folder


@pytest.fixture
def table():
    mains = ["de" if at < 15 else "ja" for at in range(30)]
    return pa.table({"client_id": CLIENTS, "num_train_rows": [2] * 30, "main_language": mains})


def test_a_run_folder_tells_its_groups_and_names_nobody(run, table):
    found = left_behind_of_run(run, table)
    assert [(group["kind"], group["name"], group["num_clients"]) for group in found["groups"]] == [
        ("speed", "slow", 10), ("speed", "middle", 10), ("speed", "fast", 10),
        ("language", "de", 15), ("language", "ja", 15),
    ]  # fmt: skip
    assert _group(found, "slow")["step_fraction"] == 0.0
    assert _group(found, "slow")["lost_fraction"] == 1.0
    assert _group(found, "ja")["row_fraction"] == 0.5
    assert found["num_unseen"] == 2
    section = left_behind_section({"left_behind": without_nan(found)})
    text = json.dumps(found) + str(section)
    assert not any(client in text for client in CLIENTS)
    assert any(note.startswith("Slow clients (10) made 0 %") for note in section.notes)
    assert section.notes[-1] == "Shares leave out 2 clients that were never asked and of which nothing is at hand."


def test_an_old_run_without_table_or_corpus_says_what_is_unknown(run):
    (run / "client_table.csv").unlink()
    found = left_behind_of_run(run)
    assert {group["name"] for group in found["groups"]} == {"unknown"}
    assert all(group["row_fraction"] is None for group in found["groups"])
    said = left_behind_sentences(without_nan(found))
    assert said[0].startswith("No group of clients is shown")
    assert "How fast clients are is not known: the run has no client table." in said
    assert "What languages clients write is not known: no clients table of the corpus is at hand." in said


def test_a_private_run_tells_nothing(run, table):
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"privacy": {"epsilon": 8.0}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert left_behind_of_run(run, table) is None
    assert left_behind_section({"left_behind": None}) is None


def test_a_table_of_other_clients_is_not_used(run):
    other = pa.table({"client_id": ["x"], "num_train_rows": [2], "main_language": ["de"]})
    assert left_behind_of_run(run, other)["language_is_known"] is False


def test_a_damaged_client_table_is_one_error(run):
    (run / "client_table.csv").write_text("client_id,flops\nc00,fast\n")
    with pytest.raises(ConfigError, match="line 2, column 'flops' holds 'fast', which is no number"):
        left_behind_of_run(run)
    (run / "client_table.csv").write_text("client,flops\nc00,1\n")
    with pytest.raises(ConfigError, match="client_id"):
        left_behind_of_run(run)
