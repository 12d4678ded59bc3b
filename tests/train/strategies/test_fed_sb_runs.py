"""Fed-SB, whole runs: training against plain torch, what is finished, what is refused, and what privacy covers."""

import pytest
import torch
from peft import PeftModel
from trl import KTOConfig, SFTTrainer

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.chat import encode_pair
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.lora import factor_names
from fedllm_train.adapters.lora_core import core_name, random_frame, zero_cores
from fedllm_train.messages import codec
from fedllm_train.seeds import stream_seed

FRAMES = ["gradient", "random"]


def logits(model, tokenizer):
    ids = torch.tensor([tokenizer.encode("say red one two")])
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def kto_trainer(kit, run, **settings):
    settings = {"num_rounds": 3, "cohort_size": 2, "local_steps": 2, "seed": 5, **settings}
    return FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(run), strategy="fed_sb", **settings),
        kit.make_clients("preference"),
        KTOConfig(bf16=False, use_cpu=True, activation_checkpointing=False, learning_rate=1e-2, max_length=64),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
    )


@pytest.mark.parametrize(
    ("task", "frame"), [("sft", "gradient"), ("sft", "random"), ("dpo", "gradient"), ("kto", "gradient")]
)
def test_a_run_averages_exactly_learns_and_finishes_as_plain_peft(kit, tmp_path, task, frame):
    settings = {"core_frame": frame, "num_rounds": 3}
    if task == "kto":
        trainer = kto_trainer(kit, tmp_path / "run", **settings)
    else:
        trainer = kit.make_trainer(tmp_path / "run", task, strategy="fed_sb", **settings)
    state = trainer.train()
    records = kit.records_of(tmp_path / "run")
    assert all(record["left_out"] == [] for record in records)
    begins = frame == "gradient"
    assert (records[0]["aggregation_error"] is None) == begins  # nobody trained a product in that round
    assert all(record["aggregation_error"] < 1e-6 for record in records[begins:])
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    finished = PeftModel.from_pretrained(kit.make_model(), tmp_path / "run" / "adapter")
    found = logits(finished, trainer.tokenizer)
    torch.testing.assert_close(found, logits(trainer.model, trainer.tokenizer), rtol=1e-4, atol=1e-6)
    assert (found - logits(kit.make_model(), trainer.tokenizer)).abs().max() > 1e-3
    # What travels: r^2 numbers a module on the way up; A and B come down only where nobody can draw them.
    up = len(codec.encode({"adapter": state.server["core"]}))
    down = len(codec.encode({"adapter": state.server["core"], "frame": state.server["frame"]})) if begins else up
    before, after = (record["ledger"] for record in records[-2:])
    num_clients = len(records[-1]["clients"])
    assert after["upload_bytes"] - before["upload_bytes"] == num_clients * up
    assert after["download_bytes"] - before["download_bytes"] == num_clients * down
    assert {tensor.numel() for tensor in state.server["core"].values()} == {4 * 4}


class CoreLinear(torch.nn.Module):
    """W x + s B R A x with R alone trained, without PEFT."""

    def __init__(self, layer, a, b, core, scaling):
        super().__init__()
        self.layer, self.core = layer, torch.nn.Parameter(core.clone())
        self.a, self.b, self.scaling = a, b, scaling

    def forward(self, x):
        return self.layer(x) + self.scaling * (x @ self.a.T @ self.core.T @ self.b.T)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_clients_training_is_plain_trl_on_layers_written_by_hand(kit, tmp_path, checkpointing):
    clients = kit.make_clients(sizes={"ann": 7})
    changes = {"activation_checkpointing": checkpointing}
    trainer = FederatedTrainer(
        kit.make_model(),
        FederatedConfig(
            output_dir=str(tmp_path / "run"), strategy="fed_sb", core_frame="random", num_rounds=1, cohort_size=1,
            local_steps=5, seed=3,
        ),
        clients,
        kit.trl_args("sft", **changes),
        kit.lora(),
        tokenizer=kit.make_tokenizer(kit.MARKED_TEMPLATE),
    )  # fmt: skip
    found = trainer.train().server["core"]
    frame = random_frame(trainer.start_adapter, 3)
    plain = kit.make_model().requires_grad_(False)
    for module, (a, b) in factor_names(frame).items():
        parent, name = module.removeprefix("base_model.model.").rsplit(".", 1)
        owner = plain.get_submodule(parent)
        setattr(owner, name, CoreLinear(getattr(owner, name), frame[a], frame[b], torch.zeros(4, 4), 8 / 4))
    args = kit.trl_args(
        "sft", **changes, seed=stream_seed(3, "client", round_index=0, client_id="ann"), max_steps=5,
        lr_scheduler_type="constant", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        assistant_only_loss=True, output_dir=str(tmp_path / "plain"),
    )  # fmt: skip
    SFTTrainer(
        model=plain, args=args, train_dataset=clients["ann"],
        processing_class=kit.make_tokenizer(kit.MARKED_TEMPLATE),
    ).train()  # fmt: skip
    for module in factor_names(frame):
        expected = plain.get_submodule(module.removeprefix("base_model.model.")).core.detach()
        assert expected.abs().max() > 1e-2  # 5 steps of 1e-2
        torch.testing.assert_close(found[core_name(module)], expected, rtol=0, atol=1e-6)


def test_visits_are_independent_of_one_another(kit, tmp_path):
    trainer = kit.make_trainer(tmp_path / "run", strategy="fed_sb", core_frame="random")
    host = trainer.loaded.host
    start = random_frame(trainer.start_adapter, 5) | zero_cores(trainer.start_adapter)
    names = [name for name, _ in trainer.model.named_parameters()]

    def fit(client_id):
        options = {"learning_rate": 1e-2, "seed": 1, "num_steps": 2, "trains": lambda name: "_R." in name}
        return host.resident.fit(start, host.tokens[client_id].rows, **options)[0]

    first, _, again = fit("ann"), fit("bob"), fit("ann")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], start[name]) == ("_R." not in name) for name in first)
    assert [name for name, _ in trainer.model.named_parameters()] == names


@pytest.mark.parametrize("after_round", [0, 1])
def test_a_resumed_run_equals_the_whole_one_to_the_bit(kit, tmp_path, after_round):
    settings = {"strategy": "fed_sb", "num_rounds": 3, "cohort_size": 2, "keep_checkpoints": 3}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=after_round)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    for part, tensors in whole.server.items():
        assert adapter_sha256(resumed.server[part]) == adapter_sha256(tensors), part
    paths = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "cut")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_until_somebody_sends_a_step_the_frame_waits(kit, tmp_path):
    settings = {"strategy": "fed_sb", "cohort_rule": "poisson", "cohort_size": 1, "num_rounds": 4, "seed": 13}
    trainer = kit.make_trainer(tmp_path / "run", **settings)
    state = trainer.train()
    records = kit.records_of(tmp_path / "run")
    first = next(i for i, record in enumerate(records) if record["clients"])
    assert [record["server_step"] for record in records] == [bool(record["clients"]) for record in records]
    assert "frame" in state.server
    # The first round with clients uploads signs for all weights, later ones r^2 numbers a module.
    uploaded = [0, *(record["ledger"]["upload_bytes"] for record in records)]
    sign_bytes = sum(t.numel() for n, t in trainer.model.named_parameters() if n.endswith("base_layer.weight"))
    assert uploaded[first + 1] - uploaded[first] > sign_bytes


def test_compressed_uploads_and_a_bound_on_the_norm(kit, tmp_path):
    settings = {"strategy": "fed_sb", "num_rounds": 3, "max_update_norm": 10.0, "wire": "topk"}
    state = kit.make_trainer(tmp_path / "run", **settings, error_feedback="ef14").train()
    records = kit.records_of(tmp_path / "run")
    assert all(record["left_out"] == [] and record["server_step"] for record in records)
    assert state.server["core"]


@pytest.mark.slow
def test_two_processes_give_the_run_of_one_to_the_bit(kit, tmp_path):
    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer().save_pretrained(tmp_path / "base")
    states = []
    for num_processes in (1, 2):
        config = {"num_rounds": 3, "cohort_size": 3, "local_steps": 2, "seed": 5, "num_processes": num_processes}
        states.append(
            FederatedTrainer(
                str(tmp_path / "base"),
                FederatedConfig(output_dir=str(tmp_path / str(num_processes)), strategy="fed_sb", **config),
                kit.make_clients(),
                kit.trl_args("sft"),
                kit.lora(),
            ).train()
        )
    assert adapter_sha256(states[1].server["core"]) == adapter_sha256(states[0].server["core"])
    assert adapter_sha256(states[1].adapter) == adapter_sha256(states[0].adapter)
    assert states[1].ledger.upload_bytes == states[0].ledger.upload_bytes


# -- a run that starts from a trained adapter, and DPO's reference ----------------------------------------------------


@pytest.fixture
def sft_adapter(whole_run):
    return str(whole_run()[0])


@pytest.mark.parametrize("frame", FRAMES)
def test_a_trained_start_is_kept_beside_the_core(kit, tmp_path, sft_adapter, frame):
    trainer = kit.make_trainer(
        tmp_path / "run", "dpo", adapter=sft_adapter, strategy="fed_sb", core_frame=frame, num_rounds=2
    )
    sft = PeftModel.from_pretrained(kit.make_model(), f"{sft_adapter}/adapter")
    tokenizer = trainer.tokenizer
    (tmp_path / "start").mkdir()
    trainer.loaded.save_server(trainer.loaded.start_state, tmp_path / "start")  # before the first round
    held = PeftModel.from_pretrained(kit.make_model(), tmp_path / "start")
    torch.testing.assert_close(logits(held, tokenizer), logits(sft, tokenizer), rtol=1e-4, atol=1e-6)
    trainer.train()
    (*_, record) = kit.records_of(tmp_path / "run")
    assert record["aggregation_error"] < 1e-6
    assert 0.6 < kit.records_of(tmp_path / "run")[0]["train_loss"] < 0.7  # DPO begins at log 2: policy = reference
    finished = PeftModel.from_pretrained(kit.make_model(), tmp_path / "run" / "adapter")
    torch.testing.assert_close(logits(finished, tokenizer), logits(trainer.model, tokenizer), rtol=1e-4, atol=1e-6)
    assert (logits(finished, tokenizer) - logits(sft, tokenizer)).abs().max() > 1e-3


@pytest.mark.parametrize("with_sft_adapter", [False, True])
def test_the_dpo_reference_is_the_starting_policy_while_a_core_is_on(kit, tmp_path, request, with_sft_adapter):
    adapter = request.getfixturevalue("sft_adapter") if with_sft_adapter else None
    row, tokenizer = kit.make_clients("preference")["ann"][0], kit.make_tokenizer()
    ids = encode_pair(tokenizer, row["prompt"], row["chosen"], row["rejected"])
    seen = []

    def look(host):
        inner = host.resident.trainer
        step, batch = inner.training_step, inner.data_collator([ids])

        def looked_at(*args, **kwargs):
            loss = step(*args, **kwargs)
            seen.append(torch.stack(inner.compute_ref_log_probs(inner.model, batch))[:, 0])
            return loss

        inner.training_step = looked_at

    settings = {"strategy": "fed_sb", "num_rounds": 2, "reference_cache": False}
    kit.make_trainer(tmp_path / "dpo", "dpo", adapter=adapter, engine=kit.in_process(look), **settings).train()
    start = kit.make_model()
    if with_sft_adapter:
        start = PeftModel.from_pretrained(start, f"{adapter}/adapter")
    expected = []
    for completion in (ids["chosen_ids"], ids["rejected_ids"]):
        tokens = torch.tensor([ids["prompt_ids"] + completion])
        with torch.no_grad():
            logps = start.eval()(input_ids=tokens).logits[:, :-1].log_softmax(-1)
        expected.append(logps.gather(-1, tokens[:, 1:, None])[0, -len(completion) :].sum())
    assert len(seen) == 12  # 2 rounds, 3 clients, 2 steps
    for reference in seen:
        torch.testing.assert_close(reference, torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", ["fed_sb", "ffa_lora"])
def test_what_rests_does_not_count_where_gradients_are_clipped(kit, tmp_path, sft_adapter, strategy):
    """PEFT makes the whole adapter trainable again when TRL has asked its copy of the start for the reference."""
    settings = {"strategy": strategy, "num_rounds": 2, "reference_cache": False}
    seen = []

    def look(host):
        inner = host.resident.trainer
        step = inner.training_step

        def looked_at(model, *args, **kwargs):
            loss = step(model, *args, **kwargs)
            seen.append([name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()])
            return loss

        inner.training_step = looked_at

    kit.make_trainer(tmp_path / "run", "dpo", adapter=sft_adapter, engine=kit.in_process(look), **settings).train()
    what = "core" if strategy == "fed_sb" else "lora_B"
    # Fed-SB's first round asks for gradients at the start, where all factors have some.
    seen = seen[6:]
    assert len(seen) == 6
    assert all(names and all(what in name for name in names) for names in seen)


# -- differential privacy ------------------------------------------------------------------------------------------

BUDGET = {"dp_clip": 0.05, "dp_noise_multiplier": 1.0, "dp_delta": 1e-2, "cohort_rule": "all", "cohort_size": 5}


def test_noise_is_on_the_core_alone(kit, tmp_path):
    settings = {"strategy": "fed_sb", "core_frame": "random", "num_rounds": 1, **BUDGET}
    noisy = kit.make_trainer(tmp_path / "noisy", **settings)
    state = noisy.train()
    quiet = kit.make_trainer(tmp_path / "quiet", **{**settings, "dp_noise_multiplier": 0.0}).train()
    assert adapter_sha256(state.server["frame"]) == adapter_sha256(quiet.server["frame"])
    noise = torch.cat([(state.server["core"][n] - quiet.server["core"][n]).flatten() for n in quiet.server["core"]])
    # z C / N = 0.05 / 5 on 14 modules of 16 numbers: that of 224 draws is off by 5 %, four times that is allowed.
    assert noise.std().item() == pytest.approx(0.01, rel=0.2)
    (record,) = kit.records_of(tmp_path / "noisy")
    assert record["privacy"]["num_clipped"] == 5
    assert record["privacy"]["epsilon"] > 0


# -- what is refused -----------------------------------------------------------------------------------------------


def test_a_frame_of_gradients_is_not_private(kit, tmp_path):
    with pytest.raises(ConfigError, match=r"core_frame is gradient: .*use core_frame random"):
        kit.make_trainer(tmp_path / "run", strategy="fed_sb", **BUDGET)
    kit.make_trainer(tmp_path / "run", strategy="fedavg", **BUDGET)  # nobody makes a frame there


def test_unknown_frames_and_other_methods_frames_are_refused(kit, tmp_path):
    with pytest.raises(ConfigError, match="core_frame is 'svd'; it must be gradient or random"):
        kit.make_trainer(tmp_path / "run", strategy="fed_sb", core_frame="svd")
    with pytest.raises(ConfigError, match="use strategy fed_sb"):
        kit.make_trainer(tmp_path / "run", core_frame="random")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "strategy fed_sb is defined for LoRA factors .*lora_magnitude_vector"),
        ({"modules_to_save": ["lm_head"]}, "strategy fed_sb is defined for LoRA factors .*lm_head"),
        ({"r": 9}, "LoRA rank 9 is more than 8, the smaller side of .*[kv]_proj"),
    ],
)
def test_adapters_that_cannot_hold_a_core_are_refused(kit, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        kit.make_trainer(tmp_path / "run", strategy="fed_sb", peft_config=kit.lora(**changes))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_leaves_the_client_out(kit, tmp_path):
    losses = []

    def spoil(host):
        inner = host.resident.trainer
        compute = inner.compute_loss

        def broken(*args, **kwargs):
            losses.append(compute(*args, **kwargs) * (float("nan") if len(losses) < 2 else 1.0))
            return losses[-1]

        inner.compute_loss = broken

    settings = {"strategy": "fed_sb", "num_rounds": 1, "cohort_size": 5, "engine": kit.in_process(spoil)}
    state = kit.make_trainer(tmp_path / "run", **settings).train()
    (record,) = kit.records_of(tmp_path / "run")
    assert [each["reason"] for each in record["left_out"]] == ["its update is not finite; lower the learning rate"]
    assert all(tensor.isfinite().all() for tensor in state.server["frame"].values())
