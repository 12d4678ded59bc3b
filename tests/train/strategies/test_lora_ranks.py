"""FlexLoRA, HetLoRA and LoRA-FAIR: their identities on random factors, and runs with clients of different ranks."""

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import RunningSum, adapter_sha256
from fedllm_train.adapters.lora import Factors, aggregation_error
from fedllm_train.adapters.ranks import padded
from fedllm_train.strategies.lora_fair import correction

A, B = "m.lora_A.weight", "m.lora_B.weight"
METHODS = ("flexlora", "hetlora", "lora_fair")


def factors(seed, rank=2, d=7, m=6):
    generator = torch.Generator().manual_seed(seed)
    return {
        A: torch.randn(rank, m, generator=generator).double(),
        B: torch.randn(d, rank, generator=generator).double(),
    }


def product(adapter):
    return adapter[B] @ adapter[A]


def test_flexlora_is_exact_where_the_rank_suffices(rules):
    strategy = rules.make("flexlora", ranks={"a": 1, "b": 2, "c": 1, "d": 2})
    updates = [(factors(0, 1), 1), (factors(1, 2), 3)]
    state = rules.step(strategy, strategy.start(factors(9, 3)), updates)
    expected = (product(updates[0][0]) + 3 * product(updates[1][0])) / 4  # of rank 3
    torch.testing.assert_close(product(state["adapter"]), expected, rtol=0, atol=1e-12)


def test_flexlora_loses_the_singular_values_beyond_the_rank(rules):
    strategy = rules.make("flexlora", ranks={"a": 2, "b": 4, "c": 1, "d": 1})
    updates = [(factors(i, 4), 1) for i in range(2)]
    state = rules.step(strategy, strategy.start(factors(9, 4)), updates)
    whole = sum(product(each) for each, _ in updates) / 2
    singular = torch.linalg.svdvals(whole)
    for client_id, rank in (("a", 2), ("b", 4), ("c", 1)):
        sent = strategy.broadcast(state, client_id, 1)["adapter"]
        assert sent[A].shape == (rank, 6)
        lost = float((product(sent) - whole).norm())
        assert lost == pytest.approx(float(singular[rank:].norm()), abs=1e-10)


def test_hetlora_with_equal_ranks_and_norms_is_the_uniform_mean(rules):
    strategy = rules.make("hetlora")
    adapters = [factors(i) for i in range(2)]
    adapters = [{A: each[A], B: each[B] / product(each).norm()} for each in adapters]
    state = rules.step(strategy, strategy.start(factors(9)), [(adapters[0], 1), (adapters[1], 5)])
    for name in (A, B):
        torch.testing.assert_close(state["adapter"][name], (adapters[0][name] + adapters[1][name]) / 2)


def test_hetlora_by_hand(rules):
    strategy = rules.make("hetlora", ranks={"a": 1, "b": 2, "c": 1, "d": 1})
    one = {A: torch.tensor([[1.0]]), B: torch.tensor([[1.0]])}  # norm 1
    two = {A: torch.tensor([[1.0], [1.0]]), B: torch.tensor([[2.0, 1.0]])}  # norm 3
    state = rules.step(strategy, strategy.start({A: torch.zeros(2, 1), B: torch.zeros(1, 2)}), [(one, 1), (two, 1)])
    # Weights 1/4 and 3/4: B = [1/4 + 6/4, 3/4], A = [1, 3/4].
    assert state["adapter"][B].tolist() == [[1.75, 0.75]]
    assert state["adapter"][A].tolist() == [[1.0], [0.75]]


def test_hetlora_in_a_round_of_zero_products_takes_the_uniform_mean(rules):
    strategy = rules.make("hetlora")
    zero = {A: torch.ones(2, 6).double(), B: torch.zeros(7, 2).double()}
    state = rules.step(strategy, strategy.start(factors(9)), [(zero, 1), (zero, 1)])
    assert torch.equal(state["adapter"][A], zero[A])


def test_hetlora_prunes_a_tail_that_shrank_and_never_takes_it_back(rules):
    strategy = rules.make("hetlora", hetlora_prune=1.0)
    start = factors(0, 4)

    def shrink(adapter, options):
        gradients = {name: torch.zeros_like(tensor) for name, tensor in adapter.items()}
        options["correct"](gradients, adapter)
        return {name: tensor - 0.1 * gradients[name] for name, tensor in adapter.items()}

    visit = rules.visit({"adapter": start}, shrink)
    update = strategy.client_update(visit)["adapter"]
    assert int(visit.memory["pruned"]["rank"]) == 3
    assert update[A].shape == start[A].shape
    assert not bool(update[A][3:].any())
    again = rules.visit({"adapter": start}, shrink, memory=visit.memory)
    assert not bool(strategy.client_update(again)["adapter"][A][2:].any())


def test_lora_fair_with_the_frobenius_norm_is_ridge_regression():
    mean = Factors(factors(0)[B], factors(0)[A])
    target = Factors(factors(1, 5)[B], factors(1, 5)[A])
    change = correction(mean, target, strength=0.3, similarity="frobenius").requires_grad_(True)
    loss = (target.product() - (mean.left + change) @ mean.right).square().sum() + 0.3 * change.square().sum()
    (gradient,) = torch.autograd.grad(loss, change)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)
    # lambda -> 0: least squares by the pseudo-inverse; lambda -> infinity: no correction.
    free = correction(mean, target, strength=0.0, similarity="frobenius")
    least_squares = (target.product() - mean.product()) @ torch.linalg.pinv(mean.right)
    torch.testing.assert_close(free, least_squares, rtol=0, atol=1e-9)
    assert float(correction(mean, target, strength=1e12, similarity="frobenius").norm()) < 1e-9


def test_lora_fair_with_the_cosine_ends_at_a_stationary_point_that_fits_better():
    # Clients that differ from their mean as much as adapters of one round do; in the far case there is no minimum.
    mean = Factors(factors(0)[B], factors(0)[A])
    target = Factors(
        torch.cat([mean.left, 0.1 * factors(1, 5)[B]], dim=1), torch.cat([mean.right, factors(1, 5)[A]], dim=0)
    )

    def loss(change):
        made = (mean.left + change) @ mean.right
        cosine = (made * target.product()).sum() / (made.norm() * target.product().norm())
        return 1 - cosine + 0.01 * change.norm()

    change = correction(mean, target, strength=0.01, similarity="cosine").requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(change), change)
    assert float(gradient.norm()) < 1e-4
    assert float(loss(change).detach()) < float(loss(torch.zeros_like(change)))


def test_lora_fair_leaves_b_alone_from_the_weight_on_at_which_the_norm_wins_over_the_slope():
    # B = (1, 0)', A = 1 and M = (3, 4)': 1 - cos at B + (0, y)' is 1 - (3 + 4 y) / (5 sqrt(1 + y^2)), slope -4/5 in y.
    mean = Factors(torch.tensor([[1.0], [0.0]]).double(), torch.ones(1, 1).double())
    target = Factors(torch.tensor([[3.0], [4.0]]).double(), torch.ones(1, 1).double())
    assert not bool(correction(mean, target, strength=0.8001, similarity="cosine").any())
    change = correction(mean, target, strength=0.79, similarity="cosine")
    assert 0 < float(change[1, 0]) < 0.1


def test_flexlora_puts_the_singular_values_into_b(rules):
    strategy = rules.make("flexlora")
    state = rules.step(strategy, strategy.start(factors(9, 3)), [(factors(0, 2), 1), (factors(1, 2), 3)])
    a, b = state["adapter"][A], state["adapter"][B]
    torch.testing.assert_close(a @ a.mT, torch.eye(3).double(), rtol=0, atol=1e-12)
    gram = b.mT @ b
    whole = (product(factors(0, 2)) + 3 * product(factors(1, 2))) / 4
    torch.testing.assert_close(gram.diagonal().sqrt(), torch.linalg.svdvals(whole)[:3], rtol=0, atol=1e-12)
    assert float((gram - gram.diagonal().diag()).abs().max()) < 1e-12


def test_flexlora_leaves_no_rank_that_could_never_be_trained_again(rules):
    # One client of rank 1 in the cohort: the mean has rank 1, and ranks 2 and 3 must still have an A.
    strategy = rules.make("flexlora", ranks={"a": 1, "b": 3, "c": 1, "d": 1})
    state = rules.step(strategy, strategy.start(factors(9, 3)), [(factors(0, 1), 1)])
    torch.testing.assert_close(product(state["adapter"]), product(factors(0, 1)), rtol=0, atol=1e-12)
    a = state["adapter"][A]
    torch.testing.assert_close(a @ a.mT, torch.eye(3).double(), rtol=0, atol=1e-12)
    assert not bool(state["adapter"][B][:, 1:].any())


def test_hetlora_counts_by_rows_or_alike_where_it_is_told_to(rules):
    zero = {A: torch.zeros(2, 1), B: torch.zeros(1, 2)}
    one = {A: torch.tensor([[1.0], [0.0]]), B: torch.tensor([[1.0, 0.0]])}  # norm 1
    two = {A: torch.tensor([[1.0], [0.0]]), B: torch.tensor([[5.0, 0.0]])}  # norm 5
    for uniform, expected in ((None, (1 + 5 * 5) / 6), (True, 3.0), (False, (1 + 3 * 5) / 4)):
        strategy = rules.make("hetlora", uniform_weights=uniform)
        state = rules.step(strategy, strategy.start(zero), [(one, 1), (two, 3)])
        assert state["adapter"][B][0, 0].item() == pytest.approx(expected, rel=1e-6)


def test_lora_fair_keeps_what_equal_clients_agree_on(rules):
    for similarity in ("cosine", "frobenius"):
        strategy = rules.make("lora_fair", lora_fair_similarity=similarity)
        same = factors(3)
        state = rules.step(strategy, strategy.start(factors(9)), [(same, 1), (same, 2)])
        torch.testing.assert_close(product(state["adapter"]), product(same), rtol=0, atol=1e-6)


def test_lora_fair_lowers_the_aggregation_error(rules):
    updates = [(factors(i), 1) for i in range(3)]
    mean = RunningSum()
    for adapter, num_rows in updates:
        mean.add(adapter, num_rows)
    whole = sum(product(each) for each, _ in updates) / 3
    products = {"m": Factors(whole, torch.eye(6).double())}
    before = aggregation_error(mean.mean(), products)
    strategy = rules.make("lora_fair", lora_fair_similarity="frobenius", lora_fair_lambda=1e-6)
    after = aggregation_error(rules.step(strategy, strategy.start(factors(9)), updates)["adapter"], products)
    assert after < before


@pytest.mark.parametrize(
    ("name", "task", "ranks"),
    [
        ("flexlora", "sft", "1,2,4"),
        ("flexlora", "dpo", "1,4"),
        ("hetlora", "sft", "1,2,4"),
        ("lora_fair", "sft", None),
    ],
)
def test_trains_and_a_resumed_run_equals_the_uninterrupted_one(kit, tmp_path, name, task, ranks):
    settings = {"strategy": name, "num_rounds": 3, "cohort_size": 2, "local_steps": 1, "keep_checkpoints": 3}
    if ranks is not None:
        settings["client_ranks"] = ranks
    if name == "hetlora":
        settings["hetlora_prune"] = 0.1
    whole = kit.make_trainer(tmp_path / "whole", task, **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    assert all(record["update_norm"] > 0 for record in kit.records_of(tmp_path / "cut"))


def test_a_client_of_lower_rank_sends_and_receives_less(kit, tmp_path):
    ledgers = [
        kit.make_trainer(tmp_path / ranks, strategy="flexlora", client_ranks=ranks, num_rounds=1).train().ledger
        for ranks in ("4", "1")
    ]
    assert ledgers[1].upload_bytes < 0.6 * ledgers[0].upload_bytes
    assert ledgers[1].download_bytes < 0.6 * ledgers[0].download_bytes


def test_ranks_above_the_adapters_and_methods_without_ranks_are_refused(kit, tmp_path):
    with pytest.raises(ConfigError, match="rank 8 but lora_r is 4"):
        kit.make_trainer(tmp_path / "run", strategy="flexlora", client_ranks="8")
    with pytest.raises(ConfigError, match="client_ranks is given but strategy 'fedavg' does not use it"):
        kit.make_trainer(tmp_path / "run", client_ranks="2,4")
    assert padded(factors(0), 4)[A].shape == (4, 6)
