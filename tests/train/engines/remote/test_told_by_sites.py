"""What a server records that only sites can tell it: rows without a rendering, personal adapters, unknown overlaps."""

import json
from dataclasses import replace

import pytest

from fedllm_train.engines.remote.remote_engine import RemoteEngine

METHOD = {"strategy": "ditto", "personal_clients": "visited", "num_rounds": 1}


def test_rows_that_sites_cannot_render_are_in_the_run_folder(remote, tmp_path, monkeypatch):
    take = RemoteEngine.take

    def counted(engine):
        reply = take(engine)
        is_one = reply is not None and reply.client_id == "client-a"
        return replace(reply, facts={**reply.facts, "num_unrendered_rows": 2}) if is_one else reply

    monkeypatch.setattr(RemoteEngine, "take", counted)
    trainer, _ = remote.there(tmp_path / "run", num_rounds=1, cohort_size=8)
    record = json.loads((tmp_path / "run" / "unrendered_rows.json").read_text())
    assert record["clients"] == {"client-a": {"the client's site said so": 2}}
    assert record["num_unrendered_rows"] == 2
    assert record["num_rows"] == sum(trainer.clients.sizes.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"message": b"an adapter"}, "dropped unread"),
        ({"facts": {"num_steps": 2}}, "did not say which adapter"),
        ({"facts": {"num_steps": 2, "adapter_sha256": "../../elsewhere"}}, "did not say which adapter"),
        ({"facts": {"num_steps": "2", "adapter_sha256": "0" * 64}}, "did not say which adapter"),
    ],
)
def test_what_a_site_says_of_personal_adapters_is_checked(remote, tmp_path, monkeypatch, change, words):
    take = RemoteEngine.take

    def wrong(engine):
        reply = take(engine)
        is_personal = reply is not None and reply.step == METHOD["num_rounds"]
        return replace(reply, **change) if is_personal else reply

    monkeypatch.setattr(RemoteEngine, "take", wrong)
    remote.there(tmp_path / "run", **METHOD)
    entries = json.loads((tmp_path / "run" / "personal" / "clients.json").read_text())
    assert entries
    assert all(words in entry["left_out"] for entry in entries.values())
    assert not [each for each in (tmp_path / "run" / "personal").iterdir() if each.is_dir()]


def test_a_start_that_was_trained_before_is_said_to_leave_held_out_rows_in_doubt(remote, tmp_path, caplog):
    remote.here(tmp_path / "sft", num_rounds=1)
    remote.there(tmp_path / "run", adapter=str(tmp_path / "sft"), num_rounds=1)
    assert "whether they are new to it is not known" in caplog.text


def test_a_template_that_ends_no_turn_is_warned_of_at_sites_too(remote, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("fedllm_train.training.trains_end_of_turn", lambda tokenizer, marked: False)
    remote.there(tmp_path / "run", num_rounds=1)
    assert "is not taught to stop" in caplog.text.replace("\n", " ")
