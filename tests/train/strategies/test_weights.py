"""How clients count in the mean: by the method's source, and as `uniform_weights` says, for every method there is."""

import pytest
import torch

from fedllm_train.monitoring.observer import Step
from fedllm_train.monitoring.step_size import AggregationError
from fedllm_train.strategies import STRATEGIES

# By the papers and released code named in each file.
SOURCES = {
    "rows": {"fedavg", "fedprox", "fedavgm", "fedsa_lora", "flora", "flexlora", "lora_fair", "fedavg_ft", "ditto"}
    | {"language_clusters", "fednova", "fedkseed", "fedsvd", "fedrot_lora", "ravan", "fedbiscuit", "fedmomentum"},
    "uniform": {
        "scaffold",
        "fedadagrad",
        "fedyogi",
        "fedadam",
        "ffa_lora",
        "rolora",
        "fedex_lora",
        "fed_sb",
        "feddpa",
    },
    "norms": {"hetlora"},
    "none": {"local", "centralized"},
}
AVERAGING = sorted(set(STRATEGIES) - SOURCES["none"])
SENT = ("adapter", "control_change")
NAMES = ("x.lora_A.weight", "x.lora_B.weight", "x.lora_R.weight")


def test_every_method_says_how_its_source_counts_clients():
    said = {weights: set() for weights in SOURCES}
    for name, strategy in STRATEGIES.items():
        said[strategy.traits.weights].add(name)
    assert said == SOURCES


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(1, 1, generator=generator, dtype=torch.float64) for name in NAMES}


def stepped(rules, name, rows, uniform):
    """The server's state after clients with one update each and some rows, as tensors in a list."""
    settings = {"fed_sb": {"core_frame": "random"}, "fedkseed": {"walk_seeds": 3}, "ravan": {"ravan_heads": 1}}.get(
        name, {}
    )
    strategy = rules.make(name, uniform_weights=uniform, **settings)
    state = strategy.start({n: drawn(9)[n] * (0.01 if n == NAMES[0] else 0) for n in NAMES[:2]})
    updates = []
    for seed, num_rows in rows:
        expected = strategy.expects(state, "a", 0)
        parts = {part: {n: drawn(seed)[n] for n in shapes} for part, shapes in expected.items() if part in SENT}
        if "steps" in expected:
            parts["steps"] = {"num_steps": torch.tensor([7])}
        if "moves" in expected:  # whole numbers of tiny units, which every mean below leaves whole
            parts["moves"] = {"sums": torch.tensor([4, 8, 12]).double() * seed}
        if "group" in expected:
            parts["group"] = strategy.broadcast(state, "a", 0)["group"]
        updates.append((parts, num_rows))
    sums = {}
    for update, num_rows in updates:
        rules.fold(strategy, sums, update, num_rows)
    after = strategy.server_step(state, sums, 0)
    return [tensor for part in sorted(after) for _, tensor in sorted(after[part].items())]


def same(first, second):
    return len(first) == len(second) and all(
        torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("name", AVERAGING)
def test_rows_count_where_the_source_says_so_or_the_setting_does(rules, name):
    by_rows = stepped(rules, name, [(1, 1), (2, 3)], False)
    # Three rows count as three clients of one row each would.
    if name != "scaffold":  # whose control variates are summed, not averaged
        assert same(by_rows, stepped(rules, name, [(1, 1), (2, 1), (2, 1), (2, 1)], True))
    alike = stepped(rules, name, [(1, 1), (2, 3)], True)
    assert same(alike, stepped(rules, name, [(1, 5), (2, 5)], False))
    assert not same(alike, by_rows)
    source = STRATEGIES[name].traits.weights
    if source != "norms":
        default = stepped(rules, name, [(1, 1), (2, 3)], None)
        assert same(default, alike if source == "uniform" else by_rows)


def test_the_row_that_is_written_of_a_round_has_the_methods_own_weights(rules):
    for name in set(AVERAGING) - {"fedsa_lora", "hetlora", "fedkseed"}:
        weight = rules.make(name).weigh({"adapter": {n: drawn(1)[n] for n in NAMES[:2]}}, 7)["adapter"]
        assert weight == (1 if STRATEGIES[name].traits.weights == "uniform" else 7)


def test_hetloras_products_are_measured_against_by_the_norms_it_averages_by(rules):
    one = {NAMES[0]: torch.tensor([[2.0]]), NAMES[1]: torch.tensor([[3.0]])}  # |B A| = 6
    nothing = {NAMES[0]: torch.tensor([[2.0]]), NAMES[1]: torch.tensor([[0.0]])}
    strategy = rules.make("hetlora")
    weights = [strategy.weigh({"adapter": each}, 7) for each in (one, nothing)]
    assert [each["adapter"] for each in weights] == pytest.approx([6.0, 0.0])
    errors = []
    for updates in ((one, nothing), (nothing,)):
        watching = AggregationError(strategy)
        for each in updates:
            watching.watch({}, {"adapter": each}, strategy.weigh({"adapter": each}, 7))
        state = {"adapter": updates[0]}
        errors.append(watching.stepped(Step(index=0, before=state, after=state, is_made=True))["aggregation_error"])
    # One's product counts alone; where all products are zero, and so all weights, there is nothing to be off from.
    assert errors == [pytest.approx(0.0, abs=1e-12), None]
