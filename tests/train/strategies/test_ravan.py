"""RAVAN: heads with cores of their own, whose mean is exact, and the model that computes with them."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.cored_model import cored
from fedllm_train.adapters.lora import factor_names, is_b
from fedllm_train.adapters.lora_core import core_name, folded, scale_name, zero_cores
from fedllm_train.messages import codec

from .conftest import product, shift_matrix
from .test_exact_lora import lora_adapter

HEADS = {"ravan_heads": 2}


def fresh(r=4):
    return {name: t * 0 if is_b(name) else t for name, t in lora_adapter(0, d=8, m=7, r=r).items()}


def drawn_cores(seed, num_heads=2, size=2):
    generator = torch.Generator().manual_seed(seed)
    return {core_name(module): torch.randn(num_heads, size, size, generator=generator) for module in "xy"}


def head_sum(frame, cores, module="x"):
    """Sum over the heads of B_i H_i A_i, written out."""
    a, b = (frame[f"{module}.lora_{factor}.weight"].double() for factor in "AB")
    cores = cores[core_name(module)].double()
    size = cores.shape[-1]
    parts = [slice(i * size, (i + 1) * size) for i in range(len(cores))]
    return sum(b[:, part] @ head @ a[part] for part, head in zip(parts, cores, strict=True))


@pytest.mark.parametrize("frame", ["orthogonal", "normal"])
def test_the_mean_of_the_cores_is_the_mean_of_the_products(rules, frame):
    method = rules.make("ravan", head_frame=frame, **HEADS)
    state = method.start(fresh())
    assert not product(state["adapter"]).any()
    clients = [drawn_cores(seed) for seed in (1, 2, 3)]
    after = rules.step(method, state, [(each, n) for each, n in zip(clients, (1, 2, 3), strict=True)])
    for module in "xy":
        exact = sum(n * head_sum(state["frame"], each, module) for n, each in zip((1, 2, 3), clients, strict=True)) / 6
        torch.testing.assert_close(product(after["adapter"], module), exact, atol=1e-5, rtol=1e-5)
        assert int(torch.linalg.matrix_rank(exact)) == 4  # heads times the size of one
    assert method.broadcast(after, "a", 1)["adapter"].keys() == clients[0].keys()
    of_one = method.contribution(state, {"adapter": clients[0]})
    torch.testing.assert_close(product(of_one), head_sum(state["frame"], clients[0]), atol=1e-5, rtol=1e-5)


def test_a_client_sends_the_products_of_scales_and_cores(rules):
    method = rules.make("ravan", **HEADS)
    state = method.start(fresh())
    seen = {}

    def fit(start, options):
        seen.update(start=start, trained={name for name in start if options["trains"](name)})
        scales = {scale_name(module): torch.tensor([2.0, -3.0]) for module in "xy"}
        return start | drawn_cores(5) | scales

    visit = rules.visit(method.broadcast(state, "a", 0), fit, start_adapter=fresh())
    update = method.client_update(visit)
    assert seen["trained"] == {f"{module}.lora_{kind}.weight" for module in "xy" for kind in "RS"}
    assert all(torch.equal(seen["start"][scale_name(module)], torch.ones(2)) for module in "xy")
    # 2 H_1 and -3 H_2, and nothing else travels.
    assert update["adapter"].keys() == drawn_cores(5).keys()
    for name, head in drawn_cores(5).items():
        torch.testing.assert_close(update["adapter"][name], torch.stack([2 * head[0], -3 * head[1]]))


def test_an_orthogonal_frame_is_orthonormal_across_heads_and_drawn_by_everybody(rules):
    method, other = rules.make("ravan", **HEADS), rules.make("ravan", client_ids=("z",), **HEADS)
    frame = method.start(fresh())["frame"]
    assert adapter_sha256(frame) == adapter_sha256(other.start(fresh())["frame"])
    assert adapter_sha256(frame) != adapter_sha256(rules.make("ravan", seed=1, **HEADS).start(fresh())["frame"])
    a, b = frame["x.lora_A.weight"], frame["x.lora_B.weight"]
    for gram in (a @ a.mT, b.mT @ b):
        torch.testing.assert_close(gram, torch.eye(4), atol=1e-6, rtol=0)


def test_one_head_is_fed_sb_with_a_drawn_frame(rules):
    ravan, fed_sb = (
        rules.make("ravan", ravan_heads=1),
        rules.make("fed_sb", core_frame="random", uniform_weights=False),
    )
    cores = [{core_name(module): torch.randn(4, 4) for module in "xy"} for _ in range(2)]
    ends = []
    for method, clients in (
        (ravan, [{name: core[None] for name, core in each.items()} for each in cores]),
        (fed_sb, cores),
    ):
        ends.append(rules.step(method, method.start(fresh()), [(clients[0], 1), (clients[1], 3)])["adapter"])
    assert adapter_sha256(ends[0]) == adapter_sha256(ends[1])


def test_a_model_computes_with_heads_and_scales_and_their_gradients_are_the_products(kit):
    model = get_peft_model(kit.make_model(), kit.lora()).eval()
    names = {name.replace(".default", ""): p for name, p in model.named_parameters() if "lora_" in name}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in names.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    start = {name: parameter.detach().clone() for name, parameter in names.items()}
    modules = [*factor_names(start)]
    heads = {core_name(module): torch.randn(2, 2, 2, generator=generator) for module in modules}
    scales = {scale_name(module): torch.randn(2, generator=generator) for module in modules}
    ids = torch.arange(5, 15).unsqueeze(0)
    with cored(model, heads | scales) as parameters:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        assert all(parameters[name].grad is not None for name in heads | scales)
    plain = folded(start, {name: head * scales[scale_name(name.split(".lora_R")[0])][:, None, None]
                           for name, head in heads.items()})  # fmt: skip
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(plain[name])
        again = model(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(again, loss.detach(), atol=1e-5, rtol=1e-5)
    # d loss / d s_i = <H_i, d loss / d (s_i H_i)> and d loss / d H_i = s_i d loss / d (s_i H_i).
    for module in modules:
        head, scale = parameters[core_name(module)], parameters[scale_name(module)]
        by_product = head.grad / scale.detach()[:, None, None]
        torch.testing.assert_close(scale.grad, (by_product * head.detach()).sum((1, 2)), atol=1e-5, rtol=1e-4)


def test_a_trained_start_is_in_the_shift(rules):
    method = rules.make("ravan", **HEADS)
    start = lora_adapter(0, d=8, m=7, r=4)
    state = method.start(start)
    torch.testing.assert_close(shift_matrix(state), product(start), atol=1e-6, rtol=1e-6)
    assert not product(state["adapter"]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ravan_heads": 0}, "ravan_heads is 0; it must be at least 1"),
        ({"head_frame": "gram"}, "head_frame is 'gram'; it must be orthogonal or normal"),
    ],
)
def test_odd_settings_are_refused(rules, settings, message):
    with pytest.raises(ConfigError, match=message):
        rules.make("ravan", **settings)


def test_heads_that_do_not_divide_the_rank_are_refused(rules):
    with pytest.raises(ConfigError, match="ravan_heads is 3, which does not divide the LoRA rank 4 of x"):
        rules.make("ravan", ravan_heads=3).start(fresh())


def test_an_orthogonal_frame_cannot_be_wider_than_a_module_but_a_normal_one_can(rules):
    wide = lora_adapter(0, d=8, m=7, r=10)
    with pytest.raises(ConfigError, match="LoRA rank 10 is more than 7"):
        rules.make("ravan", **HEADS).start(wide)
    assert rules.make("ravan", head_frame="normal", **HEADS).start(wide)["core"][core_name("x")].shape == (2, 5, 5)


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_stopped_run_goes_on_to_the_same_bits_and_sends_cores_alone(kit, tmp_path, task):
    settings = {"strategy": "ravan", "num_rounds": 3, "cohort_size": 2, "local_steps": 2, "keep_checkpoints": 3}
    settings |= HEADS
    trainer = kit.make_trainer(tmp_path / "whole", task, **settings)
    whole = trainer.train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    for part in whole.server:
        assert adapter_sha256(resumed.server[part]) == adapter_sha256(whole.server[part])
    assert all(core.any() for core in whole.server["core"].values())
    assert all(record["aggregation_error"] < 1e-5 for record in kit.records_of(tmp_path / "cut"))
    message = len(codec.encode({"adapter": zero_cores(trainer.start_adapter, 2)}))
    assert whole.ledger.upload_bytes == whole.ledger.download_bytes == 3 * 2 * message


def logits(model, tokenizer):
    ids = torch.tensor([tokenizer.encode("say red one two")])
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def test_a_run_from_a_trained_adapter_begins_as_that_policy_and_finishes_as_plain_peft(kit, tmp_path):
    first = kit.make_trainer(tmp_path / "first", num_rounds=1)
    first.train()
    before = logits(first.model, first.tokenizer)
    # The loss of a visit's only step is that of the policy it begins with.
    begun = {}
    for name in ("fedavg", "ravan"):
        run, adapter = tmp_path / name, tmp_path / "first" / "adapter"
        kit.make_trainer(run, strategy=name, num_rounds=1, local_steps=1, adapter=adapter).train()
        begun[name] = kit.records_of(run)[0]["train_loss"]
    assert begun["ravan"] == pytest.approx(begun["fedavg"], rel=1e-5)
    moved = kit.make_trainer(
        tmp_path / "moved", strategy="ravan", num_rounds=2, adapter=tmp_path / "first" / "adapter"
    )
    moved.train()
    records = kit.records_of(tmp_path / "moved")
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    finished = PeftModel.from_pretrained(kit.make_model(), tmp_path / "moved" / "adapter")
    found = logits(finished, first.tokenizer)
    torch.testing.assert_close(found, logits(moved.model, moved.tokenizer), rtol=1e-4, atol=1e-5)
    assert (found - before).abs().max() > 1e-3
