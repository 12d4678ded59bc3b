"""Clients whose update cannot be used: each kind through an engine that spoils it, and a round with too few left."""

import re
from dataclasses import replace

import pytest
import torch

from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.engines.engine import InProcessEngine
from fedllm_train.messages import codec


class FaultyEngine(InProcessEngine):
    """Changes what one client sends, as a broken or hostile client would."""

    def __init__(self, host, client_id, spoil):
        super().__init__(host)
        self._client_id, self._spoil = client_id, spoil

    def take(self):
        reply = super().take()
        if reply is not None and reply.client_id == self._client_id:
            reply = replace(reply, message=codec.encode(self._spoil(codec.decode(reply.message))))
        return reply


def nan_of(update):
    name = next(iter(update["adapter"]))
    update["adapter"][name] = torch.full_like(update["adapter"][name], float("nan"))
    return update


def wide(update):
    name = next(iter(update["adapter"]))
    update["adapter"][name] = torch.zeros(3, 3)
    return update


def nameless(update):
    update["adapter"].pop(next(iter(update["adapter"])))
    return update


def huge(update):
    return {"adapter": {name: tensor + 100 for name, tensor in update["adapter"].items()}}


def train(kit, run, spoil, **settings):
    engine = kit.in_process(engine=lambda host: FaultyEngine(host, "cyd", spoil))
    trainer = kit.make_trainer(run, cohort_size=5, num_rounds=1, engine=engine, **settings)
    return trainer, trainer.train()


@pytest.mark.parametrize(
    ("spoil", "settings", "reason"),
    [
        (nan_of, {}, "not finite"),
        (wide, {}, r"shape \(3, 3\)"),
        (nameless, {}, "lack"),
        (huge, {"max_update_norm": 5.0}, "max_update_norm"),
    ],
    ids=["nan", "shape", "missing", "norm"],
)
def test_one_spoilt_update_is_left_out_named_and_paid_for(kit, tmp_path, spoil, settings, reason):
    trainer, state = train(kit, tmp_path / "run", spoil, **settings)
    (record,) = kit.records_of(tmp_path / "run")
    (left_out,) = record["left_out"]
    assert left_out["client_id"] == "cyd"
    assert re.search(reason, left_out["reason"]), left_out["reason"]
    assert [each["client_id"] for each in record["clients"]] == ["ann", "bob", "dan", "eve"]
    assert all(bool(tensor.isfinite().all()) for tensor in state.adapter.values())
    # All five were sent the adapter and five messages came back, the useless one too.
    message = len(codec.encode({"adapter": trainer.start_adapter}))
    assert state.ledger.download_bytes == 5 * message
    assert state.ledger.upload_bytes > 4 * message


def test_the_others_are_averaged_as_if_the_spoilt_client_had_not_been_there(kit, tmp_path):
    _, state = train(kit, tmp_path / "run", nan_of)
    others = kit.make_trainer(tmp_path / "others", cohort_rule="fixed", cohort_clients="ann,bob,dan,eve", num_rounds=1)
    assert adapter_sha256(others.train().adapter) == adapter_sha256(state.adapter)


def test_a_round_with_too_few_usable_updates_makes_no_server_step(kit, tmp_path):
    trainer, state = train(kit, tmp_path / "run", nan_of, min_clients=5)
    (record,) = kit.records_of(tmp_path / "run")
    assert record["server_step"] is False
    assert record["update_norm"] == 0.0
    assert record["aggregation_error"] is None
    assert adapter_sha256(state.adapter) == adapter_sha256(trainer.start_adapter)
    assert state.ledger.upload_bytes > 0
    assert state.next_round == 1
