"""DPO's and KTO's reference is the policy the run started from, for every kind of adapter.

At learning rate 0 the policy is its own reference, so every reward is 0: DPO's loss is -log sigmoid(0) = ln 2, and
KTO's losses are 1 - sigmoid(0) = 1/2, whatever the rows, the adapter and its weights.
"""

import json
import math
import warnings

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl import KTOConfig
from trl.trainer.utils import use_adapter

from fedllm_data.errors import ConfigError
from fedllm_train.clients.reference_adapter import check_reference, copy_reference
from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer

LLM = {"task_type": "CAUSAL_LM"}
SMALL = {"r": 4, "lora_alpha": 8, **LLM}
LINEAR = {"target_modules": ["q_proj", "v_proj", "down_proj"], **LLM}
FAST = {
    "lora": lambda: LoraConfig(target_modules="all-linear", **SMALL),
    "lora_on_embeddings": lambda: LoraConfig(target_modules=["embed_tokens"], **SMALL),
    "dora_on_embeddings": lambda: LoraConfig(use_dora=True, target_modules=["embed_tokens", "q_proj"], **SMALL),
    "trained_tokens": lambda: LoraConfig(trainable_token_indices=[5, 9], target_modules=["q_proj"], **SMALL),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **LLM),
    "prompt_tuning": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, **LLM),
}
OTHERS = {
    "lora_drawn": lambda: LoraConfig(init_lora_weights=False, target_modules="all-linear", **SMALL),
    "lora_bias": lambda: LoraConfig(lora_bias=True, target_modules="all-linear", **SMALL),
    "dora": lambda: LoraConfig(use_dora=True, target_modules="all-linear", **SMALL),
    "rslora": lambda: LoraConfig(use_rslora=True, target_modules="all-linear", **SMALL),
    "modules_to_save": lambda: LoraConfig(modules_to_save=["lm_head", "norm"], target_modules=["q_proj"], **SMALL),
    "embeddings_to_save": lambda: LoraConfig(modules_to_save=["embed_tokens"], target_modules=["q_proj"], **SMALL),
    "tokens_alone": lambda: peft.TrainableTokensConfig(token_indices=[5, 9], **LLM),
    "ln_tuning": lambda: peft.LNTuningConfig(**LLM),
    "prefix_tuning": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, **LLM),
    "loha": lambda: peft.LoHaConfig(r=4, **LINEAR),
    "lokr": lambda: peft.LoKrConfig(r=4, **LINEAR),
    "oft": lambda: peft.OFTConfig(oft_block_size=4, **LINEAR),
    "hra": lambda: peft.HRAConfig(r=4, **LINEAR),
    "fourier": lambda: peft.FourierFTConfig(n_frequency=20, **LINEAR),
    "miss": lambda: peft.MissConfig(r=4, **LINEAR),
    "vblora": lambda: peft.VBLoRAConfig(r=4, num_vectors=8, vector_length=4, topk=2, **LINEAR),
    "road": lambda: peft.RoadConfig(group_size=4, **LINEAR),
    "c3a": lambda: peft.C3AConfig(block_size=4, **LINEAR),
    "waveft": lambda: peft.WaveFTConfig(n_frequency=20, **LINEAR),
    "gralora": lambda: peft.GraloraConfig(r=4, **LINEAR),
    "psoft": lambda: peft.PsoftConfig(r=4, **LINEAR),
}
KINDS = FAST | OTHERS
OBJECTIVES = {
    "dpo": (None, True, math.log(2)),
    "dpo, reference in the step": (None, False, math.log(2)),
    "kto": ("kto", False, 0.5),
    "kto without mismatches": ("apo_zero_unpaired", True, 0.5),
}
"""KTO's loss or DPO's default, whether the reference is kept, and the loss at learning rate 0."""

pytestmark = pytest.mark.filterwarnings("ignore:Unsupported layer type")  # PEFT, of layer norms


@pytest.fixture
def trained(kit, tmp_path):
    """Write an adapter of a kind all of whose weights were moved, and return its folder."""

    def make(kind):
        model = get_peft_model(kit.make_model(), KINDS[kind]())
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
        # As PEFT saves it by itself: for an adapter on the embeddings, those are in the file too.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
            model.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return make


def trainer(kit, run, objective, adapter, *, learning_rate=0.0, config=None, **changes):
    loss_type, keeps, _ = OBJECTIVES[objective]
    args = kit.trl_args("dpo", learning_rate=learning_rate)
    if loss_type is not None:
        args = KTOConfig(
            bf16=False, use_cpu=True, activation_checkpointing=False, per_device_train_batch_size=4, max_length=64,
            learning_rate=learning_rate, loss_type=loss_type,
        )  # fmt: skip
    return FederatedTrainer(
        kit.make_model(),
        FederatedConfig(
            output_dir=str(run), num_rounds=1, cohort_size=1, seed=3, reference_cache=keeps,
            **{"local_steps": 2, **changes},
        ),
        kit.make_clients("preference", {"ann": 4}),
        args,
        config,
        adapter=None if adapter is None else str(adapter),
        tokenizer=kit.make_tokenizer(),
    )  # fmt: skip


def loss_of(run):
    (record,) = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return record["train_loss"]


@pytest.mark.parametrize(
    ("objective", "kind"),
    [
        *((objective, kind) for objective in ("dpo", "dpo, reference in the step") for kind in FAST),
        *(("kto", kind) for kind in ("lora_on_embeddings", "ia3")),
        *(("kto without mismatches", kind) for kind in ("lora_on_embeddings", "ia3")),
    ],
)
def test_at_learning_rate_0_the_policy_is_its_own_reference(kit, tmp_path, trained, objective, kind):
    trainer(kit, tmp_path / "run", objective, trained(kind)).train()
    assert loss_of(tmp_path / "run") == pytest.approx(OBJECTIVES[objective][2], abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT has something to say of most kinds
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_at_learning_rate_0_every_kind_is_its_own_reference(kit, tmp_path, trained, objective, kind):
    trainer(kit, tmp_path / "trained", objective, trained(kind)).train()
    fresh = trainer(kit, tmp_path / "fresh", objective, None, config=KINDS[kind]())
    fresh.train()
    for run in ("trained", "fresh"):
        assert loss_of(tmp_path / run) == pytest.approx(OBJECTIVES[objective][2], abs=1e-6)


@pytest.mark.parametrize("objective", ["dpo", "dpo, reference in the step"])
def test_at_learning_rate_0_a_whole_model_is_its_own_reference(kit, tmp_path, objective):
    trainer(kit, tmp_path / "run", objective, None, full_finetuning=True).train()
    assert loss_of(tmp_path / "run") == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("kind", ["lora_on_embeddings", "ia3", "trained_tokens"])
def test_the_reference_stays_where_it_was_while_the_policy_moves(kit, tmp_path, trained, kind):
    tokens = torch.tensor([[5, 9, 17, 8, 11]])
    run = trainer(kit, tmp_path / "run", "dpo, reference in the step", trained(kind), learning_rate=0.1)
    run.model.eval()
    before = run.model(input_ids=tokens).logits.detach()
    run.train()
    run.model.eval()
    with torch.no_grad():
        after = run.model(input_ids=tokens).logits
        with use_adapter(run.model, "ref"):
            assert torch.equal(run.model(input_ids=tokens).logits, before)
    assert not torch.equal(after, before)
    assert not any(each.requires_grad for name, each in run.model.named_parameters() if "ref" in name.split("."))


def test_trls_own_copy_leaves_out_what_lies_in_a_dictionary_of_parameters(kit):
    """What is mended: after TRL's rule the reference is not the policy, after ours it is."""
    model = get_peft_model(kit.make_model(), KINDS["ia3"]())
    model.add_adapter("ref", model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if name.endswith("ia3_l.default"):
            parameter.data += 0.3
    for name, parameter in model.named_parameters():
        if ".default." in name:
            model.get_parameter(name.replace(".default.", ".ref.")).data.copy_(parameter.data)
    with pytest.raises(ConfigError, match=r"a logit differs by .* already before the first step"):
        check_reference(model, [5, 9, 17])
    copy_reference(model)
    check_reference(model, [5, 9, 17])


def test_a_weight_that_policy_and_reference_share_is_refused(kit):
    model = get_peft_model(kit.make_model(), LoraConfig(target_modules=["q_proj"], **SMALL))
    model.base_model.model.lm_head.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"lm_head\.weight is trained and belongs to both"):
        check_reference(model, [5, 9])


def test_an_adapter_without_a_copy_is_refused_with_the_reason(kit, tmp_path):
    config = peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=1, **LLM)
    with pytest.raises(ConfigError, match="AdaptionPromptConfig"):
        trainer(kit, tmp_path / "run", "dpo", None, config=config).train()
