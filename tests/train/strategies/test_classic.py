"""The server rules of the classic methods by hand; FedProx and SCAFFOLD against plain gradient descent."""

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.strategies import STRATEGIES

ADAPTIVE = ("fedadagrad", "fedyogi", "fedadam")
CLASSIC = ("fedavg", "fedprox", "scaffold", "fedavgm", *ADAPTIVE, "centralized")


def values(state, part="adapter"):
    return state[part]["w"].tolist()


def test_fedavgm_by_hand(rules):
    strategy = rules.make("fedavgm", server_momentum=0.5)
    state = strategy.start(rules.one(w=[1.0]))
    # D = (1*2 + 3*4)/4 - 1 = 2.5; m = 2.5; theta = 3.5
    state = rules.step(strategy, state, [(rules.one(w=[2.0]), 1), (rules.one(w=[4.0]), 3)])
    assert values(state) == [3.5]
    # D = 4.5 - 3.5 = 1; m = .5 * 2.5 + 1 = 2.25; theta = 5.75
    state = rules.step(strategy, state, [(rules.one(w=[4.5]), 2)], 1)
    assert values(state) == [5.75]


def test_fedavgm_as_the_benchmark_codes_it(rules):
    strategy = rules.make("fedavgm", server_momentum=0.5, benchmark_rules=True)
    state = rules.step(strategy, strategy.start(rules.one(w=[1.0])), [(rules.one(w=[3.0]), 1)])
    assert values(state) == [3.0]  # round 0: m = D = 2
    state = rules.step(strategy, state, [(rules.one(w=[4.0]), 1)], 1)
    assert values(state) == [4.5]  # m = .5 * 2 + .5 * 1 = 1.5


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_rules_by_hand(rules, name):
    eta, tau, beta1, beta2 = 0.1, 0.5, 0.5, 0.75
    settings = {"server_learning_rate": eta, "server_tau": tau, "server_momentum": beta1}
    if name != "fedadagrad":
        settings["server_beta2"] = beta2
    strategy = rules.make(name, **settings)
    state = strategy.start(rules.one(w=[0.0]))
    # Changes 1 and 3 of 1 and 9 rows: D is their uniform mean, 2; m = .5 * 2 = 1; v_{-1} = tau^2 = .25.
    state = rules.step(strategy, state, [(rules.one(w=[1.0]), 1), (rules.one(w=[3.0]), 9)])
    v = {
        "fedadagrad": 0.25 + 4,
        "fedyogi": 0.25 + 0.25 * 4,  # D^2 > v, so the sign is -1
        "fedadam": 0.75 * 0.25 + 0.25 * 4,
    }[name]
    assert values(state, "second_moment") == pytest.approx([v], abs=1e-15)
    assert values(state) == pytest.approx([eta * 1 / (v**0.5 + tau)], rel=1e-7)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_benchmarks_code_squares_the_momentum_and_starts_with_the_change(rules, name):
    strategy = rules.make(name, benchmark_rules=True, server_momentum=0.5)
    state = rules.step(strategy, strategy.start(rules.one(w=[0.0])), [(rules.one(w=[2.0]), 1)])
    assert values(state, "first_moment") == [2.0]
    now = values(state)[0]
    state = rules.step(strategy, state, [(rules.one(w=[now]), 1)], 1)  # D = 0: m = 1, and m^2 = 1 enters v
    assert values(state, "first_moment") == [1.0]
    v0 = {"fedadagrad": 1e-6 + 4, "fedyogi": 1e-6 + 0.01 * 4, "fedadam": 0.99e-6 + 0.01 * 4}[name]
    v1 = {"fedadagrad": v0 + 1, "fedyogi": v0 + 0.01, "fedadam": 0.99 * v0 + 0.01}[name]
    assert values(state, "second_moment") == pytest.approx([v1], rel=1e-12)


def test_fedadam_is_torch_adam_without_bias_correction_for_one_constant_change(rules):
    # With v_{-1} = tau^2 negligible and one change D forever, m and v tend to D and D^2, so a step tends to eta.
    strategy = rules.make("fedadam", server_learning_rate=0.1, server_tau=1e-9)
    state = strategy.start({"w": torch.tensor([0.0], dtype=torch.float64)})
    for t in range(2000):
        before = state["adapter"]["w"]
        state = rules.step(strategy, state, [({"w": before + 0.3}, 1)], t)
    assert float(state["adapter"]["w"] - before) == pytest.approx(0.1, rel=1e-6)


def quadratic(optimum, log=None):
    """Gradient descent on (w - optimum)^2 / 2, as a client's training would be."""

    def fit(start, options):
        w = {name: tensor.clone() for name, tensor in start.items()}
        for _ in range(4):
            gradient = {name: tensor - optimum for name, tensor in w.items()}
            if log is not None:
                log.append({name: tensor.clone() for name, tensor in gradient.items()})
            if options["correct"] is not None:
                options["correct"](gradient, w)
            w = {name: tensor - 0.1 * gradient[name] for name, tensor in w.items()}
        return w

    return fit


def test_fedprox_is_gradient_descent_on_the_proximal_loss(rules):
    strategy = rules.make("fedprox", prox_mu=0.7)
    start = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
    got = strategy.client_update(rules.visit({"adapter": start}, quadratic(5.0)))["adapter"]["w"]
    w = start["w"].clone().requires_grad_(True)
    for _ in range(4):
        loss = ((w - 5.0).square() / 2 + 0.7 / 2 * (w - start["w"]).square()).sum()
        (gradient,) = torch.autograd.grad(loss, w)
        w = (w - 0.1 * gradient).detach().requires_grad_(True)
    torch.testing.assert_close(got, w.detach(), rtol=0, atol=1e-15)


def test_fedprox_without_a_pull_is_fedavg(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "a", num_rounds=2).train()
    prox = kit.make_trainer(tmp_path / "b", strategy="fedprox", prox_mu=0.0, num_rounds=2).train()
    assert adapter_sha256(plain.adapter) == adapter_sha256(prox.adapter)


def test_scaffold_keeps_mean_gradients_which_is_option_two_under_sgd(rules):
    strategy = rules.make("scaffold", client_ids=("a", "b", "c", "d", "e"))
    server = {"adapter": {"w": torch.tensor([1.0], dtype=torch.float64)}}
    server["control"] = {"w": torch.tensor([0.25], dtype=torch.float64)}
    own = {"w": torch.tensor([-0.5], dtype=torch.float64)}
    log = []
    visit = rules.visit(server, quadratic(3.0, log), memory={"control": own})
    update = strategy.client_update(visit)
    kept = visit.memory["control"]["w"]
    assert kept.tolist() == pytest.approx([sum(float(g["w"]) for g in log) / 4])
    # Option II: c_k - c + (theta_global - theta_k) / (K lr), with K = 4 and lr = 0.1.
    option_two = own["w"] - server["control"]["w"] + (server["adapter"]["w"] - update["adapter"]["w"]) / (4 * 0.1)
    torch.testing.assert_close(kept, option_two, rtol=0, atol=1e-12)
    # c moves by the sum of the changes over all N = 5 clients.
    state = rules.step(strategy, server, [(update, 1)])
    expected = 0.25 + float(kept - own["w"]) / 5
    assert state["control"]["w"].tolist() == pytest.approx([expected])


def test_scaffold_with_every_client_every_round_keeps_c_the_mean_of_the_c_k(rules):
    strategy = rules.make("scaffold", client_ids=("a", "b"))
    state = strategy.start({"w": torch.tensor([0.0], dtype=torch.float64)})
    memories = {"a": {}, "b": {}}
    for t in range(30):
        updates = []
        for client_id, optimum in (("a", 1.0), ("b", 9.0)):
            visit = rules.visit(state, quadratic(optimum), memory=memories[client_id], round_index=t)
            updates.append((strategy.client_update(visit), 1))
        state = rules.step(strategy, state, updates, t)
    mean = (memories["a"]["control"]["w"] + memories["b"]["control"]["w"]) / 2
    torch.testing.assert_close(state["control"]["w"], mean, rtol=0, atol=1e-12)
    # Two quadratics of one curvature: the optimum of the sum is the mean of theirs.
    assert float(state["adapter"]["w"]) == pytest.approx(5.0, abs=1e-3)


def test_scaffold_on_trl_with_sgd_is_option_two(kit, tmp_path):
    from fedllm_train import FederatedConfig, FederatedTrainer

    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(
            output_dir=str(tmp_path / "run"), strategy="scaffold", num_rounds=1, cohort_size=1, local_steps=3
        ),
        kit.make_clients(sizes={"ann": 7}),
        kit.trl_args("sft", optim="sgd", max_grad_norm=0.0, learning_rate=0.5),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
    )
    start = trainer.start_adapter
    end = trainer.train().adapter
    kept = kit.memory_of(tmp_path / "run", "ann", before=1)["control"]
    for name, tensor in start.items():
        torch.testing.assert_close(kept[name], (tensor - end[name]) / (3 * 0.5), rtol=0, atol=1e-6)
    assert any(bool(tensor.any()) for tensor in kept.values())


@pytest.mark.parametrize(("name", "task"), [*((name, "sft") for name in CLASSIC), ("scaffold", "dpo")])
def test_trains_and_a_resumed_run_equals_the_uninterrupted_one(kit, tmp_path, name, task):
    settings = {"strategy": name, "num_rounds": 3, "cohort_size": 2, "local_steps": 1, "keep_checkpoints": 3}
    whole = kit.make_trainer(tmp_path / "whole", task, **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    assert whole.server.keys() == resumed.server.keys()
    for part in whole.server:
        assert adapter_sha256(whole.server[part]) == adapter_sha256(resumed.server[part]), part
    moved = [record["update_norm"] for record in kit.records_of(tmp_path / "cut")]
    assert all(norm > 0 for norm in moved)


def test_scaffolds_control_variates_travel_and_are_counted(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "a", num_rounds=1).train().ledger
    scaffold = kit.make_trainer(tmp_path / "b", strategy="scaffold", num_rounds=1).train().ledger
    assert 1.9 < scaffold.upload_bytes / plain.upload_bytes < 2.2
    assert 1.9 < scaffold.download_bytes / plain.download_bytes < 2.2


def test_centralized_trains_the_pool_with_the_cohorts_steps(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", strategy="centralized", num_rounds=2, cohort_size=3, local_steps=2)
    state = trainer.train()
    records = kit.records_of(tmp_path / "run")
    assert [[c["num_rows"] for c in r["clients"]] for r in records] == [[sum(kit.SIZES.values())]] * 2
    assert state.ledger.num_local_steps == 2 * 3 * 2
    assert state.ledger.download_bytes == state.ledger.upload_bytes == 0


def test_a_setting_of_another_method_is_refused(kit, tmp_path):
    with pytest.raises(ConfigError, match="prox_mu is given but strategy 'fedavg' does not use it"):
        kit.make_trainer(tmp_path / "run", prox_mu=0.5)


def test_every_method_has_a_capability_record():
    for name, strategy in STRATEGIES.items():
        traits = strategy.traits
        assert all((traits.title, traits.source, traits.down, traits.up)), name
        assert (strategy.__doc__ or "").strip(), name
