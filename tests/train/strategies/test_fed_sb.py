"""Fed-SB, its rules by hand: exact averages of a core, and the frame it stands in."""

import torch

from fedllm_train.adapters.lora import Factors, truncated_factors
from fedllm_train.adapters.lora_core import core_name

from .conftest import product

FRAMES = ["gradient", "random"]


def fresh(d=6, m=5, r=2, modules=("x", "y")):
    """As PEFT makes one: B = 0."""
    draw = torch.Generator().manual_seed(0)
    adapter = {f"{module}.lora_A.weight": torch.randn(r, m, generator=draw) for module in modules}
    return adapter | {f"{module}.lora_B.weight": torch.zeros(d, r) for module in modules}


def cores(seed, r=2, modules=("x", "y")):
    draw = torch.Generator().manual_seed(seed)
    return {core_name(module): torch.randn(r, r, generator=draw) for module in modules}


def signs(seed, size, d=6, m=5, modules=("x", "y")):
    """What a client sends in the round that makes the frame, and the step it stands for."""
    draw = torch.Generator().manual_seed(seed)
    steps = {module: size * torch.randn(d, m, generator=draw).sign() for module in modules}
    sent = {f"{module}.sign": step.sign().to(torch.int8) for module, step in steps.items()}
    return sent | {f"{module}.size": torch.tensor([size]) for module in modules}, steps


# -- server rule --------------------------------------------------------------------------------------------------


def test_cores_are_averaged_by_hand(rules):
    method = rules.make("fed_sb", core_frame="random")
    state = method.start(fresh(d=1, m=1, r=1, modules=("x",)))
    assert product(state["adapter"]).item() == 0.0
    assert method.broadcast(state, "a", 0) == {"adapter": {"x.lora_R.weight": torch.tensor([[0.0]])}}
    updates = [({"x.lora_R.weight": torch.tensor([[value]])}, n) for value, n in ((2.0, 1), (6.0, 3))]
    after = rules.step(method, state, updates)
    # The paper's 1/K: (2 + 6) / 2 = 4; by rows (1 * 2 + 3 * 6) / 4 = 5.
    assert after["core"]["x.lora_R.weight"].item() == 4.0
    method = rules.make("fed_sb", core_frame="random", uniform_weights=False)
    after = rules.step(method, method.start(fresh(d=1, m=1, r=1, modules=("x",))), updates)
    assert after["core"]["x.lora_R.weight"].item() == 5.0
    assert abs(product(after["adapter"]).item()) == 5.0


def test_the_products_are_averaged_exactly(rules):
    method = rules.make("fed_sb", core_frame="random", uniform_weights=False)
    state = method.start(fresh())
    weights = [1, 2, 4]
    updates = [cores(seed) for seed in (1, 2, 3)]
    after = rules.step(method, state, list(zip(updates, weights, strict=True)))
    assert after["frame"] is state["frame"]
    for module in ("x", "y"):
        b, a = (state["frame"][f"{module}.lora_{factor}.weight"].double() for factor in "BA")
        mean = sum(w * b @ u[core_name(module)].double() @ a for w, u in zip(weights, updates, strict=True)) / 7
        assert float((product(after["adapter"], module) - mean).norm() / mean.norm()) < 1e-7


def test_the_frame_is_that_of_the_mean_step(rules):
    method = rules.make("fed_sb")
    start = fresh()
    state = method.start(start)
    assert method.broadcast(state, "a", 0) == {"adapter": state["core"]}  # no frame yet
    assert not any(tensor.any() for tensor in state["core"].values())
    (one, step_one), (two, step_two) = signs(1, 0.5), signs(2, 0.25)
    zeros = state["core"]
    after = rules.step(
        method, state, [({"adapter": zeros, "first_step": one}, 1), ({"adapter": zeros, "first_step": two}, 3)]
    )
    for module in ("x", "y"):
        mean = (step_one[module] + 3 * step_two[module]).double() / 4
        best, singular = truncated_factors(Factors(mean, torch.eye(5, dtype=torch.float64)), 2)
        torch.testing.assert_close(product(after["adapter"], module), best.product(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(after["core"][core_name(module)].diagonal().double(), singular[:2])
        assert product(after["adapter"], module).norm() > 0.1
    # From then on the frame is sent and stays; cores are averaged as ever.
    assert list(method.broadcast(after, "a", 1)) == ["adapter", "frame"]
    assert list(method.expects(after, "a", 1)) == ["adapter"]
    last = rules.step(method, after, [(cores(4), 1)], 1)
    assert last["frame"] is after["frame"]


def test_a_client_asks_for_the_first_step_once_and_sends_signs(rules):
    method = rules.make("fed_sb")
    start = fresh()
    state = method.start(start)
    steps = {f"{module}.matrix": step for module, step in signs(1, 0.5)[1].items()}
    first = rules.visit(
        method.broadcast(state, "a", 0), None, start_adapter=start, stepper=lambda adapter: adapter is start and steps
    )
    update = method.client_update(first)
    assert {name: tensor.dtype for name, tensor in update["first_step"].items() if name.startswith("x.")} == {
        "x.sign": torch.int8,
        "x.size": torch.float32,
    }
    shapes = {part: {n: t.shape for n, t in tensors.items()} for part, tensors in update.items()}
    assert shapes == method.expects(state, "a", 0)
    assert method.contribution(state, update) == {}
    assert method.weigh(update, 3) == {"first_step": 3}
    steps["x.matrix"][0, 0] = torch.nan
    assert not method.client_update(first)["first_step"]["x.size"].isfinite()
    # In the next rounds only the core is trained, in the frame that was sent.
    after = rules.step(method, state, [(update, 1)])
    given = []
    second = rules.visit(
        method.broadcast(after, "a", 1),
        lambda start, options: given.append((start, options)) or start | cores(9),
        start_adapter=start,
        round_index=1,
    )
    update = method.client_update(second)
    assert update["adapter"].keys() == cores(9).keys()
    assert all(torch.equal(tensor, cores(9)[name]) for name, tensor in update["adapter"].items())
    ((began, options),) = given
    assert {name for name in began if options["trains"](name)} == set(cores(9))
    assert options["base_shift"] == {}
