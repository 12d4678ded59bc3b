"""Whole runs of LoRA methods that average exactly or share one factor: what travels, is finished, is refused."""

import pytest
import torch
from peft import PeftModel

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.chat import encode_pair
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.adapters.lora import factor_names, is_a, is_b
from fedllm_train.adapters.shifted_model import shifted
from fedllm_train.messages import codec
from fedllm_train.seeds import stream_seed
from fedllm_train.strategies import STRATEGIES

from .conftest import added, product, shift_matrix

METHODS = ["ffa_lora", "rolora", "fedsa_lora", "fedex_lora", "flora"]
EXACT = [name for name in METHODS if STRATEGIES[name].traits.exact_aggregation]
SHIFTING = ["fedex_lora", "flora"]


def test_training_a_low_rank_inside_a_high_one_is_exact(kit, tmp_path):
    """The padded rows and columns stay zero through AdamW, and the rest trains as an adapter of that rank does."""
    wide = kit.make_trainer(tmp_path / "wide", strategy="flora")
    narrow = FederatedTrainer(
        kit.make_model(), FederatedConfig(output_dir=str(tmp_path / "narrow"), strategy="flora", cohort_size=3,
        local_steps=2, seed=5), kit.make_clients(), kit.trl_args("sft"), kit.lora(r=2, lora_alpha=4),
        tokenizer=kit.make_tokenizer(),
    )  # fmt: skip
    start = dict(wide.start_adapter)
    for name in start:
        if is_a(name):
            start[name] = start[name].clone()
            start[name][2:] = 0
    small = {name: t[:2] if is_a(name) else t[:, :2] for name, t in start.items()}
    ends = []
    for trainer, begin in ((wide, start), (narrow, small)):
        host = trainer.loaded.host
        rows = host.tokens["cyd"].rows
        ends.append(host.resident.fit(begin, rows, learning_rate=1e-2, seed=1, num_steps=3)[0])
    for name, tensor in ends[0].items():
        kept, rest = (tensor[:2], tensor[2:]) if is_a(name) else (tensor[:, :2], tensor[:, 2:])
        assert rest.abs().sum() == 0
        # 1e-6 off at most where AdamW divides a gradient near zero by its own size.
        torch.testing.assert_close(kept, ends[1][name], rtol=1e-4, atol=1e-5)
    assert (ends[0]["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"] != 0).any()


# -- whole runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sft", "dpo"])
@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on_to_the_same_bits(kit, tmp_path, name, task):
    settings = {"strategy": name, "num_rounds": 3, "cohort_size": 2, "local_steps": 1, "keep_checkpoints": 3}
    whole = kit.make_trainer(tmp_path / "whole", task, **settings).train()
    # Killed in round 2 after both clients were visited, before its checkpoint: their memory is there already.
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    for part in whole.server:
        assert adapter_sha256(resumed.server.get(part, {})) == adapter_sha256(whole.server[part])
    files = [tmp_path / run / "adapter" / "adapter_model.safetensors" for run in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole.ledger.upload_bytes == resumed.ledger.upload_bytes
    records = kit.records_of(tmp_path / "cut")
    assert [record["round_index"] for record in records] == [0, 1, 2]
    errors = [record["aggregation_error"] for record in records]
    # Rounding the means to float32 is all that exact methods lose; FedSA's products are nobody's to know.
    assert all(error < 1e-6 for error in errors) if name in EXACT else errors == [None] * 3


def test_half_of_the_adapter_travels(kit, tmp_path):
    ledgers, messages = {}, {}
    for name in ("fedavg", "ffa_lora", "rolora", "fedsa_lora"):
        trainer = kit.make_trainer(tmp_path / name, strategy=name, num_rounds=2, cohort_size=2, local_steps=1)
        ledgers[name] = trainer.train().ledger
        for half in (is_a, is_b):
            part = {n: t for n, t in trainer.start_adapter.items() if half(n)}
            messages[half] = len(codec.encode({"adapter": part}))
    visits = 2 * 2
    assert ledgers["ffa_lora"].download_bytes == ledgers["ffa_lora"].upload_bytes == visits * messages[is_b]
    assert ledgers["fedsa_lora"].download_bytes == ledgers["fedsa_lora"].upload_bytes == visits * messages[is_a]
    assert ledgers["rolora"].upload_bytes == 2 * (messages[is_a] + messages[is_b])
    assert ledgers["rolora"].download_bytes == ledgers["fedavg"].download_bytes
    # Names and shapes of a model this small weigh more than they do in earnest, yet halving shows.
    for half in (ledgers["ffa_lora"].upload_bytes, ledgers["fedsa_lora"].download_bytes):
        assert half == pytest.approx(ledgers["fedavg"].upload_bytes / 2, rel=0.01)


def test_the_frozen_factor_of_ffa_lora_is_the_starting_adapters(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", strategy="ffa_lora", num_rounds=2)
    state = trainer.train()
    for name, tensor in state.adapter.items():
        assert torch.equal(tensor, trainer.start_adapter[name]) == is_a(name)


def test_fedsa_leaves_every_client_an_adapter_of_its_own(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", strategy="fedsa_lora", num_rounds=1, cohort_size=2)
    state = trainer.train()
    sampled = {each["client_id"] for each in kit.records_of(tmp_path / "run")[0]["clients"]}
    own = {client_id: kit.memory_of(tmp_path / "run", client_id, before=1) for client_id in trainer.clients}
    assert {client_id for client_id, parts in own.items() if parts} == sampled
    first, second = (own[client_id]["adapter"] for client_id in sorted(sampled))
    assert first.keys() == state.adapter.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first if is_b(name))
    assert all(torch.equal(t, trainer.start_adapter[n]) for n, t in state.adapter.items() if is_b(n))


def test_one_client_in_round_0_is_fedavg_of_that_client(kit, tmp_path):
    """Alone there is nothing to average: what FedAvg's client ends with, if it trains the same factors."""
    clients = kit.make_clients(sizes={"ann": 7})
    settings = {"clients": clients, "cohort_size": 1, "num_rounds": 1}
    trainer = kit.make_trainer(tmp_path / "plain", **settings)
    plain = trainer.train().adapter
    ends = {
        name: kit.make_trainer(tmp_path / name, strategy=name, **settings).train().server
        for name in ("fedsa_lora", "fedex_lora", "flora")
    }
    assert all(torch.equal(ends["fedex_lora"]["adapter"][name], plain[name]) for name in plain)
    assert not ends["fedex_lora"]["base_shift"]
    assert all(torch.equal(ends["fedsa_lora"]["adapter"][name], plain[name]) for name in plain if is_a(name))
    # FLoRA's client draws an A of its own; from that one, the same visit ends with the same product.
    flora = kit.make_trainer(tmp_path / "begins", strategy="flora", **settings)
    begun = flora.plan.strategy.anchor({}, flora.start_adapter, "ann", 0)
    host = flora.loaded.host
    ended, _ = host.resident.fit(
        begun,
        host.tokens["ann"].rows,
        learning_rate=1e-2,
        seed=stream_seed(5, "client", round_index=0, client_id="ann"),
        num_steps=2,
    )
    for module in factor_names(plain):
        torch.testing.assert_close(shift_matrix(ends["flora"], module), product(ended, module), rtol=0, atol=1e-12)


# -- the shifted base and the finished adapter --------------------------------------------------------------------


def logits(model, tokenizer):
    ids = tokenizer("say red blue green", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("name", SHIFTING)
@pytest.mark.parametrize("rslora", [False, True])
def test_the_finished_adapter_on_the_original_base_is_the_resident_model(kit, tmp_path, name, rslora):
    peft_config = kit.lora(use_rslora=rslora, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 2})
    settings = {"strategy": name, "num_rounds": 2, "cohort_size": 2, "peft_config": peft_config}
    trainer = kit.make_trainer(tmp_path / "run", **settings)
    before = {n: p.clone() for n, p in trainer.model.named_parameters() if "lora_" not in n}
    state = trainer.train()
    finished = PeftModel.from_pretrained(kit.make_model(), tmp_path / "run" / "adapter")
    expected = logits(trainer.model, trainer.tokenizer)
    torch.testing.assert_close(logits(finished, trainer.tokenizer), expected, rtol=1e-4, atol=1e-6)
    # It could fail: the adapter without the shift is another model.
    unshifted = kit.make_trainer(tmp_path / "unshifted", **settings).model
    LiveAdapter(unshifted).load(state.adapter)
    assert (logits(unshifted, trainer.tokenizer) - expected).abs().max() > 1e-4
    with shifted(unshifted, state.server["base_shift"]):
        torch.testing.assert_close(logits(unshifted, trainer.tokenizer), expected, rtol=0, atol=0)
    # The base itself never moved.
    for parameter_name, parameter in trainer.model.named_parameters():
        assert "lora_" in parameter_name or torch.equal(parameter, before[parameter_name])


def test_the_evaluation_loads_the_finished_adapter(kit, tmp_path):
    from fedllm_eval.policy.policies import load_policy

    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer().save_pretrained(tmp_path / "base")
    trainer = FederatedTrainer(
        str(tmp_path / "base"),
        FederatedConfig(
            output_dir=str(tmp_path / "run"), strategy="flora", num_rounds=2, cohort_size=2, local_steps=2
        ),
        kit.make_clients(),
        kit.trl_args("sft"),
        kit.lora(),
    )
    trainer.train()
    with load_policy(str(tmp_path / "run")).active() as model:
        torch.testing.assert_close(
            logits(model, trainer.tokenizer), logits(trainer.model, trainer.tokenizer), rtol=1e-4, atol=1e-6
        )


def test_training_on_a_shift_is_training_on_merged_weights(kit, tmp_path):
    """The independent implementation: the shift written into the weights themselves."""
    trainers = [kit.make_trainer(tmp_path / name, strategy="fedex_lora") for name in ("beside", "merged")]
    generator = torch.Generator().manual_seed(0)
    shift = {}
    for module, (a, b) in factor_names(trainers[0].start_adapter).items():
        d, m = trainers[0].start_adapter[b].shape[0], trainers[0].start_adapter[a].shape[1]
        shift[f"{module}.left"] = torch.randn(d, 2, generator=generator) / 4
        shift[f"{module}.right"] = torch.randn(2, m, generator=generator) / 4
    merged = trainers[1].model
    with torch.no_grad():
        for module in factor_names(trainers[0].start_adapter):
            layer = merged.get_submodule(module)
            layer.base_layer.weight += layer.scaling["default"] * shift[f"{module}.left"] @ shift[f"{module}.right"]
    ends = []
    for trainer, base_shift in zip(trainers, (shift, None), strict=True):
        resident, rows = trainer.loaded.host.resident, trainer.loaded.host.tokens["cyd"].rows
        ends.append(
            resident.fit(trainer.start_adapter, rows, learning_rate=1e-3, seed=1, num_steps=2, base_shift=base_shift)
        )
    assert ends[0][1]["train_loss"] == pytest.approx(ends[1][1]["train_loss"], rel=1e-5)
    plain = trainers[0].loaded.host.resident.fit(
        trainers[0].start_adapter, rows, learning_rate=1e-3, seed=1, num_steps=2
    )
    assert plain[1]["train_loss"] != pytest.approx(ends[0][1]["train_loss"], rel=1e-3)  # hooks are gone again
    for name in ends[0][0]:
        torch.testing.assert_close(ends[0][0][name], ends[1][0][name], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", SHIFTING)
@pytest.mark.parametrize("with_sft_adapter", [False, True])
def test_the_dpo_reference_is_the_starting_policy_though_the_base_is_shifted(kit, tmp_path, name, with_sft_adapter):
    adapter = None
    if with_sft_adapter:
        kit.make_trainer(tmp_path / "sft", num_rounds=1).train()
        adapter = str(tmp_path / "sft")
    trainer = kit.make_trainer(tmp_path / "dpo", "dpo", adapter=adapter, strategy=name, num_rounds=2)
    row = trainer.clients["ann"][0]
    ids = encode_pair(trainer.tokenizer, row["prompt"], row["chosen"], row["rejected"])
    trainer.train()
    inner = trainer.loaded.host.resident.trainer
    assert trainer.state.server["base_shift"]
    batch = inner.data_collator([ids])
    reference = torch.stack(inner.compute_ref_log_probs(inner.model, batch))[:, 0]  # the shift is still on here
    start = kit.make_model()
    if with_sft_adapter:
        start = PeftModel.from_pretrained(start, tmp_path / "sft" / "adapter")
    expected = []
    for completion in (ids["chosen_ids"], ids["rejected_ids"]):
        tokens = torch.tensor([ids["prompt_ids"] + completion])
        with torch.no_grad():
            logps = start.eval()(input_ids=tokens).logits[:, :-1].log_softmax(-1)
        expected.append(logps.gather(-1, tokens[:, 1:, None])[0, -len(completion) :].sum())
    torch.testing.assert_close(reference, torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_a_trained_start_is_part_of_what_the_shifting_methods_finish(kit, tmp_path):
    kit.make_trainer(tmp_path / "sft", num_rounds=1).train()
    for name in SHIFTING:
        trainer = kit.make_trainer(
            tmp_path / name, adapter=str(tmp_path / "sft"), strategy=name, num_rounds=1, max_update_norm=1e-12
        )
        finished = trainer.train()  # every update is beyond the bound, so what was learned is the start
        for module in factor_names(trainer.start_adapter):
            start = product(trainer.start_adapter, module)
            assert start.norm() > 1e-3
            torch.testing.assert_close(added(finished.server, module), start, rtol=0, atol=1e-12)
        model = PeftModel.from_pretrained(kit.make_model(), tmp_path / name / "adapter")
        sft = PeftModel.from_pretrained(kit.make_model(), tmp_path / "sft" / "adapter")
        torch.testing.assert_close(
            logits(model, trainer.tokenizer), logits(sft, trainer.tokenizer), rtol=1e-4, atol=1e-6
        )


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "lora_embedding_A"),
    ],
)
def test_adapters_whose_identity_does_not_hold_are_refused(kit, tmp_path, name, changes, culprit):
    with pytest.raises(ConfigError, match=f"strategy {name} is defined for LoRA factors .*{culprit}"):
        FederatedTrainer(
            kit.make_model(),
            FederatedConfig(output_dir=str(tmp_path / "run"), strategy=name, cohort_size=2),
            kit.make_clients(),
            kit.trl_args("sft"),
            kit.lora(**changes),
            tokenizer=kit.make_tokenizer(),
        )
    assert not (tmp_path / "run").exists()


def test_clients_of_flora_with_ranks_of_their_own(kit, tmp_path):
    settings = {"strategy": "flora", "num_rounds": 2, "cohort_size": 5, "local_steps": 1}
    trainer = kit.make_trainer(tmp_path / "run", client_ranks="1,4", **settings)
    state = trainer.train()
    full = kit.make_trainer(tmp_path / "full", **settings).train()
    assert all(record["aggregation_error"] < 1e-12 for record in kit.records_of(tmp_path / "run"))
    # Two or three of the five send a quarter of the adapter; names and shapes stay.
    assert state.ledger.upload_bytes < 0.8 * full.ledger.upload_bytes
    finished = PeftModel.from_pretrained(kit.make_model(), tmp_path / "run" / "adapter")
    torch.testing.assert_close(
        logits(finished, trainer.tokenizer), logits(trainer.model, trainer.tokenizer), rtol=1e-4, atol=1e-6
    )


def test_flora_refuses_a_first_a_that_the_later_ones_would_not_be_like(kit, tmp_path):
    with pytest.raises(ConfigError, match="leave out init_lora_weights"):
        FederatedTrainer(
            kit.make_model(),
            FederatedConfig(output_dir=str(tmp_path / "run"), strategy="flora", cohort_size=2),
            kit.make_clients(),
            kit.trl_args("sft"),
            kit.lora(init_lora_weights="gaussian"),
            tokenizer=kit.make_tokenizer(),
        )


def test_uniform_weights_are_refused_where_nobody_reads_them(kit, tmp_path):
    for name in ("local", "centralized"):
        with pytest.raises(ConfigError, match=f"uniform_weights is given but strategy '{name}' does not use it"):
            kit.make_trainer(tmp_path / "run", strategy=name, uniform_weights=False)
