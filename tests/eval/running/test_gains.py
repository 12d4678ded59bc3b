"""Gains from results in memory: only shared clients, only each client's own policy, and only what was scored alike."""

import json

import pyarrow as pa
import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.results import Results
from fedllm_eval.running.gains import client_gains


def results(scores, name="policy", revision="r1", **settings):
    summary = {
        "policy": {"name": name},
        "dataset": {"name": "d", "revision": revision},
        "settings": {"max_length": 8, "seed": 0, "max_rows_per_client": None, **settings},
    }
    rows = [{"client_id": client, "split": "test", "heldout_loss": loss} for client, loss in scores.items()]
    rows.append({"client_id": "ann", "split": "unseen", "heldout_loss": 99.0})
    return Results(summary, pa.Table.from_pylist(rows))


FEDERATED = results({"ann": 2.0, "bob": 3.0, "cyd": 1.0, "dan": None})
BASE = results({"cyd": 2.0, "ann": 4.0, "bob": 3.0, "eve": 1.0}, "base")
POOLED = results({"ann": 1.5, "bob": 2.0, "cyd": 1.0}, "pooled")
ALONE = {
    "ann": results({"ann": 2.5, "bob": 0.0}, "ann alone"),
    "bob": results({"ann": 0.0, "bob": 2.5}, "bob alone"),
}


def test_gains_by_hand():
    found = client_gains(FEDERATED, base=BASE, alone=ALONE, centralised=POOLED)
    json.dumps(found)
    base = found["against"]["base"]
    # Losses fall by 2 (ann), 0 (bob), 1 (cyd); dan has no score, eve none under the policy.
    assert base["by_client"] == {"ann": 2.0, "bob": 0.0, "cyd": 1.0}
    assert (base["gain"], base["num_clients"]) == (1.0, 3)
    assert base["better_off"] == pytest.approx(2 / 3)
    # Alone, only a client's own policy counts: 2.5 for ann and for bob.
    assert found["against"]["alone"]["by_client"] == {"ann": 0.5, "bob": -0.5}
    # Means over ann and bob: policy 2.5, alone 2.5, pooled 1.75: nothing of the gap is closed.
    assert found["recovered_fraction"] == pytest.approx(0.0)
    assert (found["score"], found["higher_is_better"]) == ("heldout_loss", False)


def test_the_order_of_clients_does_not_matter():
    turned = Results(BASE.summary, BASE.per_client.take(list(range(BASE.per_client.num_rows))[::-1]))
    assert client_gains(FEDERATED, base=turned) == client_gains(FEDERATED, base=BASE)


def test_a_single_client_has_no_interval():
    found = client_gains(FEDERATED, alone={"ann": ALONE["ann"]})["against"]["alone"]
    assert (found["gain"], found["ci_low"], found["p_value"]) == (0.5, None, None)


def test_errors():
    with pytest.raises(MetricError, match="something to gain over"):
        client_gains(FEDERATED)
    with pytest.raises(MetricError, match="shares no scored client"):
        client_gains(FEDERATED, base=results({"eve": 1.0}))
    with pytest.raises(MetricError, match="revision 'r2'"):
        client_gains(FEDERATED, base=results({"ann": 1.0}, revision="r2"))
    with pytest.raises(MetricError, match="max_length 9"):
        client_gains(FEDERATED, centralised=results({"ann": 1.0}, max_length=9))
    with pytest.raises(MetricError, match="no score 'chosen_loss'"):
        client_gains(FEDERATED, base=BASE, score="chosen_loss")
