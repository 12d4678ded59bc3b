"""KTO from pairs, and DPO with every loss of TRL's: what a visit computes, from which reference, what is refused."""

import inspect
import re

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PrinterCallback
from trl import DPOTrainer, KTOTrainer

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import DPO_LOSSES, OBJECTIVES, rows_of_visit
from fedllm_train.clients.token_cache import encoder_for
from fedllm_train.config import FederatedConfig
from fedllm_train.messages import codec
from fedllm_train.seeds import stream_rng, stream_seed
from fedllm_train.trainer import FederatedTrainer


def client_args(kit, objective, **changes):
    common = {"bf16": False, "use_cpu": True, "activation_checkpointing": False, "per_device_train_batch_size": 4}
    return OBJECTIVES[objective].config(**{**common, "learning_rate": 1e-2, "max_length": 64, **changes})


def make_trainer(kit, run, args, *, sizes=None, adapter=None, **changes):
    settings = {"num_rounds": 1, "cohort_size": 1, "local_steps": 5, "seed": 3, **changes}
    return FederatedTrainer(
        kit.make_model(),
        FederatedConfig(output_dir=str(run), **settings),
        kit.make_clients("preference", sizes or {"ann": 7}),
        args,
        None if adapter else kit.lora(),
        adapter=adapter,
        tokenizer=kit.make_tokenizer(),
    )


def plain_kto(kit, tmp_path, start, **changes):
    """KTOTrainer on the unpaired rows of ann, in the order of her visit."""
    model = get_peft_model(kit.make_model(), kit.lora())
    set_peft_model_state_dict(model, start)
    seed = stream_seed(3, "client", round_index=0, client_id="ann")
    args = client_args(
        kit,
        "kto",
        **{"seed": seed, "max_steps": 5, "lr_scheduler_type": "constant", "save_strategy": "no"},
        **{"logging_strategy": "no", "disable_tqdm": True, "output_dir": str(tmp_path / "plain")},
        **changes,
    )
    unpaired = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in kit.make_clients("preference", {"ann": 7})["ann"]
        for side in ("chosen", "rejected")
    ]
    order = stream_rng(seed, "kto_order").permutation(len(unpaired))
    rows = Dataset.from_list([unpaired[i] for i in order])
    trainer = KTOTrainer(model=model, args=args, train_dataset=rows, processing_class=kit.make_tokenizer())
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}


@pytest.mark.parametrize(
    ("changes", "cache"),
    [
        ({"desirable_weight": 1.5}, True),
        ({"loss_type": "apo_zero_unpaired", "undesirable_weight": 0.5}, False),
        ({"loss_type": "apo_zero_unpaired"}, True),
    ],
)
def test_one_client_one_round_kto_equals_plain_trl_to_the_bit(kit, tmp_path, changes, cache):
    trainer = make_trainer(kit, tmp_path / "run", client_args(kit, "kto", **changes), reference_cache=cache)
    start = trainer.start_adapter
    result = trainer.train().adapter
    keeps = cache and "loss_type" in changes  # only the loss without mismatched completions
    expected = plain_kto(kit, tmp_path, start, precompute_ref_log_probs=keeps, **changes)
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    assert any(not torch.equal(start[name], expected[name]) for name in start)


def test_a_pair_gives_a_desirable_and_an_undesirable_row(kit):
    (row,) = kit.preference_rows("ann", 1)
    tokenizer = kit.make_tokenizer()
    good, bad = encoder_for(client_args(kit, "kto"), tokenizer)(row)
    assert (good["label"], bad["label"]) == (True, False)
    assert good["prompt_ids"] == bad["prompt_ids"]
    assert tokenizer.decode(good["completion_ids"]) == "red<|end|>\n"
    assert tokenizer.decode(bad["completion_ids"]) == "red blue<|end|>\n"


def test_mismatched_completions_rotate_within_each_batch(kit):
    rows = Dataset.from_dict({"completion_ids": [[i] for i in range(7)], "label": [True] * 7})
    got = rows_of_visit(rows, client_args(kit, "kto", per_device_train_batch_size=3), seed=1)
    a, b, c, d, e, f, g = (ids[0] for ids in got["completion_ids"])
    # Batches of 3: (a b c) (d e f) (g); each takes the completion before it, the first that of the batch's last.
    assert [ids[0] for ids in got["KL_completion_ids"]] == [c, a, b, f, d, e, g]
    assert sorted((a, b, c, d, e, f, g)) == list(range(7))


def test_every_visit_of_kto_has_an_order_of_its_own(kit):
    rows = Dataset.from_dict({"completion_ids": [[i] for i in range(20)], "label": [True] * 20})
    args = client_args(kit, "kto")
    first, second, again = (rows_of_visit(rows, args, seed=seed)["completion_ids"][:] for seed in (1, 2, 1))
    assert first == again != second


@pytest.mark.parametrize(
    ("objective", "changes"), [("kto", {}), ("kto", {"loss_type": "apo_zero_unpaired"}), ("dpo", {})], ids=str
)
def test_the_reference_stays_the_starting_policy_whoever_trained_before(kit, tmp_path, objective, changes):
    """A policy's rewards are its distance from the reference: 0 for the starting adapter, at any time of the run."""
    kit.make_trainer(tmp_path / "sft", num_rounds=1).train()
    args = client_args(kit, objective, **changes)
    sizes = {"ann": 7, "bob": 3}
    trainer = make_trainer(kit, tmp_path / "run", args, sizes=sizes, adapter=str(tmp_path / "sft"))

    def visit(client_id, adapter, rate):
        return trainer.loaded.host.visit(kit.question(client_id, {"adapter": adapter}, step=1, learning_rate=rate))

    def rewards(reply):
        return max(abs(reply.facts["rewards/chosen"]), abs(reply.facts["rewards/rejected"]))

    trained = codec.decode(visit("bob", trainer.start_adapter, 1e-2).message)["adapter"]
    assert rewards(visit("ann", trainer.start_adapter, 0.0)) < 1e-5
    assert rewards(visit("ann", trained, 0.0)) > 1e-3


def test_dpo_losses_are_all_that_trl_knows():
    known = re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss))
    assert sorted(known) == sorted(DPO_LOSSES)


VARIANTS = [
    *({"loss_type": [name]} for name in DPO_LOSSES if name != "exo_pair"),
    {"loss_type": ["exo_pair"], "label_smoothing": 1e-3},
    {"loss_type": ["robust"], "label_smoothing": 0.1},
    {"loss_type": ["aot"], "label_smoothing": 0.1},
    {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},  # MPO
    *({"f_divergence_type": name} for name in ("forward_kl", "js_divergence", "alpha_divergence")),
    {"ld_alpha": 0.3},
    {"ld_alpha": 0.3, "loss_type": ["ipo"]},
    {"use_weighting": True},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_each_variant_of_dpo_has_the_same_gradient_with_a_kept_reference(kit, tmp_path, changes):
    host = make_trainer(kit, tmp_path / "run", client_args(kit, "dpo", **changes)).loaded.host
    trainer, live = host.resident.trainer, host.resident.live_adapter
    generator = torch.Generator().manual_seed(0)
    moved = {name: t + 0.05 * torch.randn(t.shape, generator=generator) for name, t in live.read().items()}
    plain_rows = host.tokens["ann"].rows
    kept_rows = host.resident.with_reference("ann", plain_rows)
    found = []
    for rows in (plain_rows, kept_rows):
        trainer.precompute_ref_logps = rows is kept_rows
        live.load(moved)
        trainer.model.zero_grad()
        inputs = trainer._prepare_inputs(trainer.data_collator([rows[i] for i in range(4)]))
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        found.append((loss.item(), {name: each.grad.clone() for name, each in live.parameters.items()}))
    (plain, plain_gradient), (kept, kept_gradient) = found
    assert kept == pytest.approx(plain, rel=1e-5, abs=1e-6)
    assert max(float(gradient.abs().max()) for gradient in plain_gradient.values()) > 1e-5
    for name, gradient in plain_gradient.items():
        torch.testing.assert_close(kept_gradient[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "changes", "reason"),
    [
        ("dpo", {"loss_type": ["simpo"]}, "none of DPO's"),
        ("dpo", {"label_smoothing": 0.1}, "does not look at it"),
        ("dpo", {"discopop_tau": 0.1}, "use discopop"),
        ("dpo", {"loss_type": ["exo_pair"]}, "exo_pair needs 0 < label_smoothing"),
        ("dpo", {"loss_type": ["robust"], "label_smoothing": 0.5}, "robust needs"),
        ("dpo", {"f_divergence_type": "hellinger"}, "is none of"),
        ("dpo", {"f_divergence_type": "forward_kl", "loss_type": ["nca_pair"]}, "difference of two rewards"),
        ("dpo", {"use_weighting": True, "loss_type": ["aot"]}, "sorts their sides apart"),
        ("dpo", {"ld_alpha": 2.0}, "from 0 to 1"),
        ("dpo", {"padding_free": True}, "switched off"),
        ("dpo", {"sync_ref_model": True}, "reference is fixed"),
        ("kto", {"loss_type": "bco"}, "none of KTO's"),
        ("kto", {"per_device_train_batch_size": 1}, "at least 2"),
        ("kto", {"train_sampling_strategy": "random"}, "mismatched completions"),
        ("kto", {"sync_ref_model": True}, "reference is fixed"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_is_written(kit, tmp_path, objective, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        make_trainer(kit, tmp_path / "run", client_args(kit, objective, **changes))
    assert not (tmp_path / "run").exists()


def test_trained_biases_of_the_base_are_refused_where_the_reference_would_move(kit, tmp_path):
    with pytest.raises(ConfigError, match="biases"):
        FederatedTrainer(
            kit.make_model(),
            FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=1),
            kit.make_clients("preference"),
            client_args(kit, "kto"),
            kit.lora(bias="all"),
            tokenizer=kit.make_tokenizer(),
        )
