"""DP-FedAvg: clipping, sensitivity, noise, the methods it fits, and runs of it."""

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256, distance
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.private import (
    ClientPrivacy,
    PrivateAggregation,
    check_private_method,
    clipped_change,
)
from fedllm_train.aggregation.staleness import ServerStates
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Reply
from fedllm_train.messages import codec
from fedllm_train.messages.wire import ServerWire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategy import Federation

PRIVATE = [name for name, strategy in STRATEGIES.items() if strategy.traits.sees == "mean"]


def one(*values):
    return {"a": torch.tensor(values)}


def privacy(*, clip=1.0, noise=0.0, expected_cohort=4, secret=b"s" * 32):
    guarantee = Guarantee(
        clip=clip,
        noise_multiplier=noise,
        sampling_rate=0.1,
        expected_cohort=expected_cohort,
        delta=1e-5,
        num_rounds=2,
    )
    return ClientPrivacy(guarantee=guarantee, secret=secret)


def made(name, **settings):
    config = FederatedConfig(output_dir="unused", strategy=name, **settings)
    federation = Federation(
        settings=config.method, seed=0, num_clients=1, cohort_size=1, eligible=["a"], sizes={"a": 1}
    )
    return STRATEGIES[name](federation)


def new_sum(privacy, start, step=0, *, max_norm=None, **settings):
    """FedAvg's sum of one round that begins at a server's state."""
    wire = ServerWire(WireSettings(**settings), seed=0, first=lambda client_id: start["adapter"])
    inbox = Inbox(strategy=made("fedavg"), wire=wire, start_adapter=start["adapter"], max_norm=max_norm)
    return PrivateAggregation(inbox, ServerStates(step=step, newest=start), privacy, anybody="a")


# -- the mechanism --------------------------------------------------------------------------------------------------


def test_the_norm_is_that_of_the_whole_adapter():
    # Changes 3 and 4 stand in two tensors: norm 5, so a clip of 1 leaves 3/5 and 4/5.
    start = {"a": torch.tensor([1.0]), "b": torch.tensor([[1.0]])}
    adapter = {"a": torch.tensor([4.0]), "b": torch.tensor([[5.0]])}
    change, was_longer = clipped_change(adapter, start, 1.0)
    assert was_longer
    assert (change["a"].item(), change["b"].item()) == pytest.approx((0.6, 0.8))
    assert not clipped_change(adapter, start, 5.0)[1]


def test_released_is_the_clipped_sum_over_the_expected_cohort():
    # Changes +2, clipped to 1, and +0.5; expected cohort 4: 1 + 1.5 / 4 = 1.375, whatever rows and true cohort are.
    total = new_sum(privacy(expected_cohort=4), {"adapter": one(1.0)})
    total.add_update({"adapter": one(3.0)})
    total.add_update({"adapter": one(1.5)})
    assert total.release()["adapter"]["a"].tolist() == [1.375]
    assert total.as_record()["privacy"]["num_clipped"] == 1


@pytest.mark.parametrize(("size", "moved"), [(100.0, 0.25), (0.01, 0.01 * 8**0.5)])
def test_a_client_moves_the_sum_by_its_norm_and_at_most_by_the_clip(size, moved):
    start = {"adapter": {"a": torch.zeros(8)}}
    others = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    sums = []
    for updates in (others, [*others, torch.full((8,), size)]):
        total = new_sum(privacy(clip=0.25), start)
        for update in updates:
            total.add_update({"adapter": {"a": update}})
        sums.append({name: tensor.clone() for name, tensor in total.total().items()})
    assert distance(*sums) == pytest.approx(moved, rel=1e-6)


def test_noise_has_the_stated_deviation_and_comes_from_a_stream_per_round():
    start = {"adapter": {"a": torch.zeros(20_000), "b": torch.zeros(20_000)}}
    secret = privacy(clip=0.5, noise=2.0, expected_cohort=4)
    released = new_sum(secret, start, 0).release()["adapter"]  # a round without clients: noise alone
    # z C / (q N) = 2 * 0.5 / 4 = 0.25; that of 40,000 draws is off by 0.35 %, four times that is allowed.
    assert torch.cat([released["a"], released["b"]]).std().item() == pytest.approx(0.25, rel=0.014)
    assert not torch.equal(released["a"], released["b"])
    assert torch.equal(new_sum(secret, start, 0).release()["adapter"]["a"], released["a"])
    assert not torch.equal(new_sum(secret, start, 1).release()["adapter"]["a"], released["a"])
    other = privacy(clip=0.5, noise=2.0, secret=b"t" * 32)
    assert not torch.equal(new_sum(other, start).release()["adapter"]["a"], released["a"])
    assert "ssss" not in repr(secret)


# -- methods --------------------------------------------------------------------------------------------------------


def test_a_reply_is_unpacked_before_it_is_clipped_and_refused_if_it_does_not_fit():
    total = new_sum(privacy(expected_cohort=4), {"adapter": one(1.0)}, max_norm=10.0)

    def reply(update):
        return Reply(step=0, client_id="a", message=codec.encode(update), num_rows=7)

    assert total.add(reply({"adapter": one(3.0)})) is None
    assert "lacks adapter//a" in total.add(reply({"other": one(3.0)}))
    assert "shape (2,)" in total.add(reply({"adapter": one(3.0, 4.0)}))
    assert "not finite" in total.add(reply({"adapter": one(float("inf"))}))
    assert "beyond max_update_norm 10" in total.add(reply({"adapter": one(12.0)}))
    # One change of 2, clipped to 1, counts once whatever its rows: the server rule sees 1 + 1 / 4 with one weight.
    assert total.total()["a"].tolist() == [1.0]
    assert total.is_enough()
    assert total.sums()["adapter"].mean()["a"].tolist() == [1.25]


def test_a_private_step_is_made_and_noisy_without_any_reply():
    total = new_sum(privacy(noise=1.0), {"adapter": one(1.0)})
    assert total.is_enough()
    assert total.sums()["adapter"].mean()["a"].tolist() != [1.0]


@pytest.mark.parametrize("name", PRIVATE)
def test_a_mean_stands_for_the_clients_of_a_private_method(name):
    names = ("m.lora_A.weight", "m.lora_B.weight", "m.lora_R.weight")
    draw = torch.Generator().manual_seed(1)
    start, *clients = [{n: torch.randn(2, 2, generator=draw, dtype=torch.float64) for n in names} for _ in range(4)]
    strategy = made(name, **{"fed_sb": {"core_frame": "random"}, "ravan": {"ravan_heads": 1}}.get(name, {}))
    state = strategy.start({n: start[n] for n in names[:2]})  # R is none of a starting adapter's
    wanted = strategy.expects(state, "a", 0)["adapter"].keys()
    mean = {n: sum(client[n] for client in clients) / 3 for n in names}
    after = []
    for updates in (clients, [mean]):
        sums = {}
        for update in updates:
            one_update = {"adapter": {n: update[n] for n in wanted}}
            strategy.fold(sums, one_update, strategy.weigh(one_update, 1))
        after.append(strategy.server_step(state, sums, 0))
    for part, tensors in after[0].items():
        for n, tensor in tensors.items():
            torch.testing.assert_close(tensor, after[1][part][n])


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(PRIVATE)))
def test_other_methods_are_refused_with_a_reason(name):
    with pytest.raises(ConfigError, match=f"dp_clip is given, but strategy '{name}' "):
        check_private_method(name, STRATEGIES[name].traits)


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(PRIVATE)))
def test_what_sees_more_than_a_mean_is_refused_before_the_model_and_the_run_folder(kit, tmp_path, monkeypatch, name):
    monkeypatch.setattr("fedllm_train.loaded_run.load_starting_policy", None)
    settings = {"local_client": "ann"} if name == "local" else {}
    with pytest.raises(ConfigError, match=f"dp_clip is given, but strategy '{name}' "):
        kit.make_trainer(tmp_path / "run", strategy=name, cohort_rule="poisson", **settings, **BUDGET)
    assert not (tmp_path / "run").exists()


# -- runs -----------------------------------------------------------------------------------------------------------

SECRET = bytes(range(32))
BUDGET = {"dp_clip": 0.05, "dp_noise_multiplier": 1.0, "dp_delta": 1e-2}


def test_without_clipping_and_noise_it_is_the_uniform_average(kit, tmp_path):
    clients = kit.make_clients(sizes=dict.fromkeys(("ann", "bob", "cyd"), 4))
    # Ten clients are asked for by default and rule all takes three.
    settings = {"clients": clients, "cohort_rule": "all", "num_rounds": 2, "cohort_size": 3}
    plain = kit.make_trainer(tmp_path / "plain", **settings).train()
    private = kit.make_trainer(
        tmp_path / "private", **settings, dp_clip=1e6, dp_noise_multiplier=0.0, dp_delta=1e-2
    ).train()
    for name, tensor in plain.adapter.items():
        torch.testing.assert_close(private.adapter[name], tensor, rtol=1e-5, atol=1e-7)
    record = kit.records_of(tmp_path / "private")[-1]["privacy"]
    assert record == {"unit": "client", "epsilon": None, "delta": 1e-2, "num_clipped": 0}


def test_a_private_run_counts_epsilon_survives_empty_rounds_and_resumes_to_the_bit(kit, tmp_path, monkeypatch):
    # Cohorts of 1, 0, 0 and 2 of the five clients follow from this secret.
    monkeypatch.setattr("fedllm_train.privacy.secret.draw_secret", lambda: SECRET)
    settings = {"cohort_rule": "poisson", "cohort_size": 1, "num_rounds": 4, "seed": 13, **BUDGET}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.run_and_stop(tmp_path / "cut", after_round=1, **settings)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    records = kit.records_of(tmp_path / "whole")
    assert [r["privacy"] for r in kit.records_of(tmp_path / "cut")] == [r["privacy"] for r in records]
    spent = [record["privacy"]["epsilon"] for record in records]
    assert spent == sorted(set(spent))
    empty = [record for record in records if not record["clients"]]
    assert empty
    assert len(empty) < 4
    for record in empty:  # noise comes whoever is there; nothing was sent
        assert record["server_step"]
        assert record["train_loss"] is None
        assert record["update_norm"] > 0
    sent = [record["ledger"]["upload_bytes"] for record in records]
    first = records.index(empty[0])
    assert sent[first] == (sent[first - 1] if first else 0)
    card = (tmp_path / "whole" / "README.md").read_text()
    assert f"epsilon {spent[-1]:.3g} at delta 0.01, unit: client" in card
    assert "Poisson sampling" in card


def test_what_is_clipped_is_what_was_sent(kit, tmp_path):
    # The packed updates of all five clients are longer than the clip, so their mean moves by at most that.
    settings = {"cohort_rule": "all", "cohort_size": 5, "num_rounds": 1, "wire": "int4"}
    kit.make_trainer(tmp_path / "run", **settings, dp_clip=0.01, dp_noise_multiplier=0.0, dp_delta=1e-2).train()
    (record,) = kit.records_of(tmp_path / "run")
    assert record["privacy"]["num_clipped"] == 5
    assert 0 < record["update_norm"] <= 0.01 * (1 + 1e-5)


def test_an_empty_round_without_privacy_changes_nothing(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", cohort_rule="poisson", cohort_size=1, num_rounds=4, seed=13).train()
    empty = [record for record in kit.records_of(tmp_path / "run") if not record["clients"]]
    assert empty
    assert all(not record["server_step"] and record["update_norm"] == 0 for record in empty)
