"""LoRA methods that average exactly or share one factor: client and server rules by hand, and their identities."""

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.lora import is_b
from fedllm_train.strategies import STRATEGIES

from .conftest import added, product, shift_matrix

METHODS = ["ffa_lora", "rolora", "fedsa_lora", "fedex_lora", "flora"]
EXACT = [name for name in METHODS if STRATEGIES[name].traits.exact_aggregation]
SHIFTING = ["fedex_lora", "flora"]


def lora_adapter(seed, d=6, m=5, r=2, modules=("x", "y")):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(*shape, generator=generator)
        for module in modules
        for name, shape in ((f"{module}.lora_A.weight", (r, m)), (f"{module}.lora_B.weight", (d, r)))
    }


def fresh_adapter():
    """As PEFT makes one: A within 1 / sqrt(5), B = 0."""
    return {name: t * 0 if is_b(name) else t.clamp(-0.4, 0.4) for name, t in lora_adapter(0).items()}


def one(a, b):
    """An adapter of rank 1 on a 1 x 1 matrix."""
    return {"x.lora_A.weight": torch.tensor([[a]]), "x.lora_B.weight": torch.tensor([[b]])}


# -- server rules -------------------------------------------------------------------------------------------------


def test_ffa_lora_by_hand(rules):
    method = rules.make("ffa_lora")
    state = method.start(one(a=2.0, b=0.0))
    assert method.broadcast(state, "a", 0) == {"adapter": {"x.lora_B.weight": torch.tensor([[0.0]])}}
    after = rules.step(method, state, [({"x.lora_B.weight": torch.tensor([[b]])}, n) for b, n in ((1.0, 1), (5.0, 3))])
    # The paper's 1/K: B = (1 + 5) / 2 = 3 and A = 2 as ever; products: (1*2 + 5*2) / 2 = 6 = 3 * 2.
    assert (after["adapter"]["x.lora_A.weight"].item(), after["adapter"]["x.lora_B.weight"].item()) == (2.0, 3.0)
    method = rules.make("ffa_lora", uniform_weights=False)
    after = rules.step(method, state, [({"x.lora_B.weight": torch.tensor([[b]])}, n) for b, n in ((1.0, 1), (5.0, 3))])
    assert after["adapter"]["x.lora_B.weight"].item() == 4.0  # (1*1 + 3*5) / 4


def test_rolora_trains_b_first_and_then_takes_turns(rules):
    method = rules.make("rolora")
    state = method.start(one(a=2.0, b=0.0))
    assert [sorted(method.expects(state, "a", t)["adapter"]) for t in range(3)] == [
        ["x.lora_B.weight"],
        ["x.lora_A.weight"],
        ["x.lora_B.weight"],
    ]
    state = rules.step(method, state, [({"x.lora_B.weight": torch.tensor([[b]])}, 1) for b in (1.0, 3.0)])
    state = rules.step(method, state, [({"x.lora_A.weight": torch.tensor([[a]])}, 1) for a in (4.0, 8.0)], 1)
    # Round 0: B = (1 + 3) / 2 = 2, A stays 2; round 1: A = (4 + 8) / 2 = 6, B stays 2; products (4*2 + 8*2) / 2 = 12.
    assert (state["adapter"]["x.lora_A.weight"].item(), state["adapter"]["x.lora_B.weight"].item()) == (6.0, 2.0)


def test_fedsa_lora_averages_a_and_a_client_keeps_its_b(rules):
    method = rules.make("fedsa_lora")
    start = one(a=2.0, b=0.0)
    state = method.start(start)
    sent = method.broadcast(state, "a", 0)
    assert list(sent["adapter"]) == ["x.lora_A.weight"]
    first = rules.visit(sent, lambda given, options: one(a=4.0, b=7.0), start_adapter=start)
    assert list(method.client_update(first)["adapter"]) == ["x.lora_A.weight"]
    state = rules.step(method, state, [({"x.lora_A.weight": torch.tensor([[a]])}, n) for a, n in ((4.0, 1), (8.0, 3))])
    # A = (1*4 + 3*8) / 4 = 7; the server's B is never touched.
    assert (state["adapter"]["x.lora_A.weight"].item(), state["adapter"]["x.lora_B.weight"].item()) == (7.0, 0.0)
    given = []
    second = rules.visit(
        method.broadcast(state, "a", 1),
        lambda start, options: given.append(start) or start,
        start_adapter=start,
        memory=first.memory,
        round_index=1,
    )
    method.client_update(second)
    assert given == [one(a=7.0, b=7.0)]  # the global A, the client's own B
    never = rules.visit(method.broadcast(state, "z", 1), None, start_adapter=start, client_id="z")
    assert method.personal_adapter(never) == one(a=7.0, b=0.0)


def test_fedex_lora_by_hand(rules):
    method = rules.make("fedex_lora")
    state = method.start(one(a=1.0, b=0.0))
    after = rules.step(method, state, [(one(a=1.0, b=2.0), 1), (one(a=3.0, b=4.0), 1)])
    # Products 2 and 12: mean 7; means A = 2, B = 3: 6; so the base is shifted by 7 - 6 = 1.
    assert product(after["adapter"]).item() == 6.0
    assert shift_matrix(after).item() == pytest.approx(1.0, abs=1e-12)
    # By rows 1 : 3, products (2 + 3*12) / 4 = 9.5, A = 2.5, B = 3.5: 8.75, shift 0.75; by the paper's 1/K as above.
    weighted = [(one(a=1.0, b=2.0), 1), (one(a=3.0, b=4.0), 3)]
    assert shift_matrix(rules.step(method, state, weighted)).item() == pytest.approx(1.0, abs=1e-12)
    by_rows = rules.make("fedex_lora", uniform_weights=False)
    assert shift_matrix(rules.step(by_rows, state, weighted)).item() == pytest.approx(0.75, abs=1e-12)


def test_flora_by_hand(rules):
    method = rules.make("flora")
    state = method.start(one(a=1.0, b=0.0))
    assert method.broadcast(state, "a", 0) == {"base_shift": {}}
    after = rules.step(method, state, [(one(a=1.0, b=2.0), 1), (one(a=3.0, b=4.0), 3)])
    # (1*2 + 3*12) / 4 = 9.5; p in both factors would give (2 + 9*12) / 16.
    assert shift_matrix(after).item() == pytest.approx(9.5, abs=1e-12)
    assert after["adapter"]["x.lora_B.weight"].item() == 0.0


def test_flora_draws_an_a_for_each_client_and_round(rules):
    method = rules.make("flora")
    start = fresh_adapter()
    begun = {}

    def begins(client_id, round_index):
        visit = rules.visit(
            method.broadcast(method.start(start), client_id, round_index),
            lambda given, options: begun.setdefault((client_id, round_index), given),
            **{"start_adapter": start, "client_id": client_id, "round_index": round_index},
        )
        method.client_update(visit)
        return begun[client_id, round_index]

    drawn = [begins(client_id, t) for client_id in "ab" for t in (0, 1)]
    for i, adapter in enumerate(drawn):
        assert not adapter["x.lora_B.weight"].any()
        assert float(adapter["x.lora_A.weight"].abs().max()) <= 5**-0.5  # PEFT's rule: uniform in +-1/sqrt(m)
        for other in [start, *drawn[:i]]:
            assert not torch.equal(adapter["x.lora_A.weight"], other["x.lora_A.weight"])
    # The server knows what they began with, and another run of the seed draws the same.
    again = rules.make("flora").anchor({}, start, "b", 1)
    assert all(torch.equal(again[name], tensor) for name, tensor in drawn[3].items())


def test_as_of_a_shared_a_little_of_a_round_would_lie_beyond_rank_r(rules):
    """Twenty clients whose A stays near the one they drew: their mean has the rank of all A together."""
    method = rules.make("flora", client_ids=[f"c{k}" for k in range(20)])
    like = lora_adapter(0, d=40, m=30, r=2, modules=("x",))
    like = {n: t * 0 if is_b(n) else t.clamp(-0.1, 0.1) for n, t in like.items()}
    state = method.start(like)
    updates = []
    for k in range(20):
        begun = method.anchor(method.broadcast(state, f"c{k}", 0), like, f"c{k}", 0)
        learned = lora_adapter(k + 1, d=40, m=30, r=2, modules=("x",))["x.lora_B.weight"]
        updates.append((begun | {"x.lora_B.weight": learned}, 1))
    singular = torch.linalg.svdvals(shift_matrix(rules.step(method, state, updates)))
    energy = float(singular[:2].square().sum() / singular.square().sum())
    assert energy < 0.5  # 1 with one A for all, which spans 2 dimensions


@pytest.mark.parametrize("name", SHIFTING)
def test_a_shifting_step_adds_the_mean_product_in_every_round(rules, name):
    method = rules.make(name, uniform_weights=False)
    state = method.start(fresh_adapter())
    weights = [1, 2, 4]
    for t in range(3):
        updates = [lora_adapter(10 * t + i + 1) for i in range(3)]
        before = state
        state = rules.step(method, state, list(zip(updates, weights, strict=True)), t)
        for module in ("x", "y"):
            mean = sum(w * product(u, module) for w, u in zip(weights, updates, strict=True)) / 7
            # W0' + s B' A' = W0 + s sum_k p_k B_k A_k
            difference = added(state, module) - shift_matrix(before, module) - mean
            # Abar and Bbar are sent in float32; FLoRA has no means to round.
            assert float(difference.norm() / mean.norm()) < {"fedex_lora": 1e-7, "flora": 1e-12}[name]


def test_identical_clients_leave_the_base_of_fedex_alone(rules):
    method = rules.make("fedex_lora")
    same = lora_adapter(3)
    after = rules.step(method, method.start(lora_adapter(0)), [(same, 3), (same, 5), (same, 7)])
    assert after["base_shift"] == {}
    assert all(torch.equal(after["adapter"][name], same[name]) for name in same)


@pytest.mark.parametrize("name", SHIFTING)
def test_ranks_of_the_shift_are_what_the_papers_say(rules, name):
    method = rules.make(name)
    updates = [(lora_adapter(i, d=40, m=30, r=2, modules=("x",)), 1) for i in range(1, 4)]
    after = rules.step(method, method.start(lora_adapter(0, d=40, m=30, r=2, modules=("x",))), updates)
    start_rank = 2 if name == "flora" else 0  # this start has B != 0, which FLoRA merges
    rank = after["base_shift"]["x.left"].shape[1]
    # FLoRA: the sum of the ranks. FedEx: sum_k p_k (B_k - Bbar) (A_k - Abar) has (K - 1) r; the paper's bound is K r.
    assert rank - start_rank == {"flora": 3 * 2, "fedex_lora": 2 * 2}[name]


def test_a_server_folds_any_number_of_clients_into_sums_of_one_size(rules):
    for name in SHIFTING:
        method, sizes = rules.make(name), []
        sums = {}
        for k in range(40):
            rules.fold(method, sums, {"adapter": lora_adapter(k)}, 1)
            sizes.append(sum(f.left.numel() + f.right.numel() for f in sums["products"].mean().values()))
        # Two modules, at most min(d, m) = 5 columns while they are factors, then one matrix each: never the 80 columns
        # of all clients side by side.
        assert max(sizes) == sizes[-1] == 2 * (6 + 5) * 5


# -- mixed ranks --------------------------------------------------------------------------------------------------


def test_flora_client_of_a_lower_rank_trains_and_sends_its_rank_only(rules):
    method = rules.make("flora", ranks={"a": 1, "b": 2, "c": 2, "d": 2})
    start = fresh_adapter()
    state = method.start(start)
    given = []
    visit = rules.visit(
        method.broadcast(state, "a", 0), lambda s, options: given.append(s) or s, start_adapter=start, client_id="a"
    )
    update = method.client_update(visit)
    assert given[0]["x.lora_A.weight"][1:].abs().sum() == 0
    assert given[0]["x.lora_A.weight"][:1].any()
    shapes = {name: tuple(tensor.shape) for name, tensor in update["adapter"].items()}
    assert shapes["x.lora_A.weight"] == (1, 5)
    assert shapes == method.expects(state, "a", 0)["adapter"]
    with pytest.raises(ConfigError, match="rank 3 but lora_r is 2"):
        rules.make("flora", ranks={"a": 1, "b": 3}).start(start)
