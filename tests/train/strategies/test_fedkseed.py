"""FedKSeed: walk, rebuild and the server's adapter are one to the bit; a round in 18 kB; it descends by losses."""

import numpy as np
import pytest
import torch
from peft import LoraConfig
from trl import KTOConfig

from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.seeded_walk import UNIT, SeededWalk, direction, fixed_point
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.engines.engine import Reply
from fedllm_train.messages import codec
from fedllm_train.messages.wire import ServerWire
from fedllm_train.messages.wire_settings import WireSettings

K = 16


def settings(**changes):
    return {"strategy": "fedkseed", "walk_seeds": K, "num_rounds": 3, "local_steps": 4, **changes}


def pairs(seeds, scalars, **more):
    steps = {"seeds": torch.tensor(seeds, dtype=torch.int32), "scalars": torch.tensor(scalars, dtype=torch.int32)}
    return {"steps": steps | more}


def rebuilt(start, scalars, seed):
    walk = SeededWalk(start, run_seed=seed, num_seeds=len(scalars))
    walk.go_to(scalars.numpy())
    return walk.place()


def test_the_client_rule_by_hand(rules):
    # L(theta) = 3 w0 with theta0 = 0: slope along z is 3 z0 exactly for a linear loss, so theta1 = -eta 3 z0 z.
    strategy = rules.make("fedkseed", walk_seeds=1, walk_perturbation=0.25, seed=2)
    start = {"w": torch.zeros(3, dtype=torch.float64)}
    state = strategy.start(start)
    asked = []

    def walker(take_step):
        def loss(adapter):
            asked.append(adapter["w"])
            return 3.0 * float(adapter["w"][0])

        take_step(loss)

    received = strategy.broadcast(state, "a", 0)
    visit = rules.visit(received, None, start_adapter=start, walker=walker, learning_rate=0.5)
    update = strategy.client_update(visit)
    z = torch.from_numpy(direction(2, 0, "w", 0, 3) / 4096)
    assert torch.equal(asked[0], 0.25 * z)
    assert torch.equal(asked[1], -0.25 * z)
    move = 0.5 * 3.0 * float(z[0])
    sums = update["moves"]["sums"]  # 4 bytes for one seed, where the step would be 8
    assert sums.tolist() == [fixed_point(move)]
    after = rules_step(strategy, state, [(update, 7)])
    assert torch.allclose(after["adapter"]["w"], -move * z, rtol=0, atol=1e-8)


def rules_step(strategy, state, updates):
    sums = {}
    for update, num_rows in updates:
        update = strategy.opened(update)
        strategy.fold(sums, update, strategy.weigh(update, num_rows))
    return strategy.server_step(state, sums, 0)


def test_scalars_are_a_mean_by_rows(rules):
    strategy = rules.make("fedkseed", walk_seeds=4)
    state = strategy.start({"w": torch.zeros(2)})
    # Seed 1: (1 * 100 + 3 * (20 + 40)) / 4 = 70; seed 2: 3 * 8 / 4 = 6; seed 3: 1 * 4 / 4 = 1.
    updates = [(pairs([1, 3], [100, 4]), 1), (pairs([1, 1, 2], [20, 40, 8]), 3)]
    after = rules_step(strategy, state, updates)
    assert after["moves"]["sums"].tolist() == [0, 70, 6, 1]
    assert after["moves"]["sums"].dtype == torch.int32
    alike = rules.make("fedkseed", walk_seeds=4, uniform_weights=True)
    assert rules_step(alike, state, updates)["moves"]["sums"].tolist() == [0, 80, 4, 2]


def test_steps_and_their_sums_are_one_update(rules):
    strategy = rules.make("fedkseed", walk_seeds=4)
    sums = {"moves": {"sums": torch.tensor([0, 60, 8, 0], dtype=torch.int32)}}
    assert torch.equal(
        strategy.opened(sums)["moves"]["sums"], strategy.opened(pairs([1, 1, 2], [20, 40, 8]))["moves"]["sums"]
    )


def test_pros_chances_follow_the_slopes_whatever_the_learning_rate(rules):
    strategy = rules.make("fedkseed", walk_seeds=3, walk_draws="pro")
    state = strategy.start({"w": torch.zeros(2)})
    assert strategy.broadcast(state, "a", 0)["chances"]["chances"].tolist() == pytest.approx([1 / 3] * 3)
    # Slopes 4 and 2 of seed 0 at a rate of .5, slope 1 of seed 1 at .25: means 3, 1, 0.
    first = pairs([0, 0], [fixed_point(-2.0 / 8), fixed_point(1.0 / 8)], learning_rate=torch.tensor([0.5 / 8]))
    second = pairs([1], [fixed_point(0.25)], learning_rate=torch.tensor([0.25]))
    after = rules_step(strategy, state, [(first, 1), (second, 50)])
    weights = np.exp([1, 1 / 3, 0])
    chances = strategy.broadcast(after, "a", 1)["chances"]["chances"].tolist()
    assert chances == pytest.approx(weights / weights.sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("update", "said"),
    [
        (pairs([0, 4], [1, 1]), "none of 4"),
        (pairs([-1], [1]), "none of 4"),
        (pairs([0, 1], [1]), "no pairs of integers"),
        ({"steps": {"seeds": torch.tensor([0.5]), "scalars": torch.tensor([1.0])}}, "no pairs of integers"),
        ({"steps": {"seeds": torch.tensor([0], dtype=torch.int32)}}, "its steps have seeds where"),
        ({"moves": {"sums": torch.zeros(4)}}, "neither steps nor their sums"),
        ({"moves": {"sums": torch.zeros(5, dtype=torch.int32)}}, "has shape (5,)"),
        (pairs([0], [1], learning_rate=torch.tensor([1.0])), "its steps have"),
    ],
)
def test_what_is_no_walk_is_left_out(rules, update, said):
    strategy = rules.make("fedkseed", walk_seeds=4)
    start = {"w": torch.zeros(2)}
    inbox = Inbox(
        strategy=strategy,
        wire=ServerWire(WireSettings(), seed=0, first=lambda _: {}),
        start_adapter=start,
        max_norm=None,
    )
    reply = Reply(step=0, client_id="a", message=codec.encode(update), num_rows=1)
    assert said in inbox.read(reply, strategy.start(start))[2]


def test_a_round_is_18_kb_whatever_the_model(rules):
    strategy = rules.make("fedkseed")
    state = strategy.start({"w": torch.zeros(1000)})
    down = codec.encode(strategy.broadcast(state, "a", 0))

    def walker(take_step):
        for _ in range(200):
            take_step(lambda adapter: float(adapter["w"].sum()))

    visit = rules.visit(codec.decode(down), None, start_adapter=state["adapter"], walker=walker, learning_rate=1e-4)
    up = codec.encode(strategy.client_update(visit))
    values = 4096 * 4 + 200 * 8
    assert values == 17_984
    headers = (len(down) - 4096 * 4, len(up) - 200 * 8)
    assert 0 < headers[0] < 100
    assert 0 < headers[1] < 200


def test_one_client_one_round_the_walk_is_the_servers_adapter_to_the_bit(rules):
    strategy, server = rules.make("fedkseed", walk_seeds=8), rules.make("fedkseed", walk_seeds=8)
    generator = torch.Generator().manual_seed(1)
    start = {"w": torch.randn(40, generator=generator)}
    state = server.start(start)
    ends = []

    def walker(take_step):
        for _ in range(3):
            take_step(lambda adapter: ends.append(adapter) or float(adapter["w"].square().sum()))

    visit = rules.visit(server.broadcast(state, "a", 0), None, start_adapter=start, walker=walker, learning_rate=1e-3)
    update = strategy.client_update(visit)
    steps = update["steps"]
    walk = SeededWalk(start, run_seed=0, num_seeds=8)
    for j, units in zip(steps["seeds"].tolist(), steps["scalars"].tolist(), strict=True):
        walk.move(j, units)
    after = rules_step(server, state, [(update, 13)])
    assert torch.equal(after["adapter"]["w"], walk.place()["w"])
    assert not torch.equal(after["adapter"]["w"], start["w"])
    # The losses that were compared lie on both sides of the place that was reached.
    middle = (ends[4]["w"].double() + ends[5]["w"].double()) / 2
    before_last = SeededWalk(start, run_seed=0, num_seeds=8)
    for j, units in list(zip(steps["seeds"].tolist(), steps["scalars"].tolist(), strict=True))[:2]:
        before_last.move(j, units)
    assert torch.allclose(middle, before_last.place()["w"].double(), atol=1e-6)


@pytest.mark.parametrize("draws", ["uniform", "pro"])
def test_the_servers_adapter_is_what_every_client_rebuilds_and_a_resumed_run_ends_alike(kit, tmp_path, draws):
    made = settings(walk_draws=draws, keep_checkpoints=4, num_rounds=4)
    state = kit.make_trainer(tmp_path / "whole", **made).train()
    scalars = state.server["moves"]["sums"]
    assert int((scalars != 0).sum()) > 4
    again = rebuilt(state.server["start"], scalars, seed=5)
    assert adapter_sha256(again) == adapter_sha256(state.server["adapter"])
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", **made).train(resume=True)
    assert adapter_sha256(resumed.server["adapter"]) == adapter_sha256(state.server["adapter"])
    assert torch.equal(resumed.server["moves"]["sums"], scalars)


@pytest.mark.parametrize("task", ["sft", pytest.param("dpo", marks=pytest.mark.slow)])
def test_the_loss_falls(kit, tmp_path, task):
    made = settings(num_rounds=6, local_steps=30, cohort_rule="all", cohort_size=None)
    made.pop("cohort_size")
    kit.make_trainer(tmp_path / task, task, **made).train()
    losses = [
        np.mean([visit["train_loss"] for visit in record["clients"]]) for record in kit.records_of(tmp_path / task)
    ]
    assert losses[-1] < losses[0]
    assert np.polyfit(np.arange(len(losses)), losses, 1)[0] < 0


def test_kto_walks_too(kit, tmp_path):
    args = KTOConfig(
        bf16=False, use_cpu=True, activation_checkpointing=False, per_device_train_batch_size=4, learning_rate=1e-2,
        max_length=64,
    )  # fmt: skip
    config = FederatedConfig(output_dir=str(tmp_path / "run"), seed=5, cohort_size=2, **settings(num_rounds=1))
    trainer = FederatedTrainer(
        kit.make_model(), config, kit.make_clients("preference"), args, kit.lora(), tokenizer=kit.make_tokenizer()
    )
    state = trainer.train()
    assert int((state.server["moves"]["sums"] != 0).sum()) > 0


def test_all_weights_of_a_model_can_walk(kit, tmp_path):
    config = FederatedConfig(
        output_dir=str(tmp_path / "run"), seed=5, cohort_size=2, full_finetuning=True, **settings(num_rounds=1)
    )
    trainer = FederatedTrainer(
        kit.make_model(), config, kit.make_clients(), kit.trl_args("sft"), tokenizer=kit.make_tokenizer()
    )
    state = trainer.train()
    assert adapter_sha256(rebuilt(state.server["start"], state.server["moves"]["sums"], seed=5)) == adapter_sha256(
        state.server["adapter"]
    )
    record = kit.records_of(tmp_path / "run")[0]
    assert record["ledger"]["download_bytes"] < 2 * (4 * K + 100)


@pytest.mark.parametrize(("value", "learning_rate"), [(float("nan"), 1e-3), (1.0, 1e9)])
def test_a_walk_into_nowhere_is_not_finite_and_so_not_sent(rules, value, learning_rate):
    strategy = rules.make("fedkseed", walk_seeds=4)
    state = strategy.start({"w": torch.ones(3)})

    def walker(take_step):
        for _ in range(2):
            take_step(lambda adapter: value * float(adapter["w"].sum()))

    sent = strategy.broadcast(state, "a", 0)
    visit = rules.visit(sent, None, start_adapter=state["adapter"], walker=walker, learning_rate=learning_rate)
    tensors = strategy.client_update(visit)["steps"].values()
    assert not all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_the_clip_bounds_a_steps_slope(kit, tmp_path):
    state = kit.make_trainer(tmp_path / "run", **settings(num_rounds=1, walk_clip=1e-3, cohort_size=1)).train()
    # Four steps of a slope of at most 1e-3 at a learning rate of 1e-2.
    assert 0 < int(state.server["moves"]["sums"].abs().max()) * UNIT <= 4 * 1e-5 + 4 * UNIT


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"walk_seeds": 0}, "walk_seeds is 0"),
        ({"walk_perturbation": 0.0}, "walk_perturbation is 0.0"),
        ({"walk_clip": -1.0}, "walk_clip is -1.0"),
        ({"walk_draws": "best"}, "walk_draws is 'best'"),
        ({"wire": "int8"}, "wire is given, but clients of strategy 'fedkseed' send a seed"),
        ({"download_wire": "int8"}, "download_wire is given, but strategy 'fedkseed' sends no adapter"),
        ({"max_update_norm": 1.0}, "max_update_norm is given"),
        (
            {"dp_clip": 1.0, "dp_noise_multiplier": 1.0, "dp_delta": 1e-5, "cohort_rule": "all"},
            "makes more of what clients send",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(kit, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        kit.make_trainer(tmp_path / "run", **settings(**changes)).plan  # noqa: B018


def test_settings_of_an_optimizer_are_refused(kit, tmp_path):
    config = FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=2, **settings())
    with pytest.raises(ConfigError, match=r"weight_decay=0\.1 is given, but clients of strategy 'fedkseed' make no"):
        FederatedTrainer(
            kit.make_model(), config, kit.make_clients(), kit.trl_args("sft", weight_decay=0.1), LoraConfig(),
            tokenizer=kit.make_tokenizer(),
        )  # fmt: skip


def test_half_precision_is_refused(rules):
    with pytest.raises(ConfigError, match="bfloat16, which rounds that away"):
        rules.make("fedkseed").start({"w": torch.zeros(2, dtype=torch.bfloat16)})


@pytest.mark.parametrize("changes", [{"local_steps": 4}, {"local_steps": 9}, {"local_steps": 9, "walk_draws": "pro"}])
def test_the_planned_layout_has_the_length_of_the_messages(kit, tmp_path, rules, changes):
    kit.make_trainer(tmp_path / "run", **settings(num_rounds=1, cohort_size=1, **changes)).train()
    ledger = kit.records_of(tmp_path / "run")[0]["ledger"]
    kept = {name: value for name, value in changes.items() if name != "local_steps"}
    strategy = rules.make("fedkseed", walk_seeds=K, **kept)
    kinds = {"I32": torch.int32, "F32": torch.float32}
    planned = [
        len(
            codec.encode(
                {
                    part: {name: torch.zeros(shape, dtype=kinds[kind]) for name, (kind, shape) in tensors.items()}
                    for part, tensors in layout.items()
                }
            )
        )
        for layout in strategy.layouts(changes["local_steps"])
    ]
    assert planned == [ledger["download_bytes"], ledger["upload_bytes"]]
