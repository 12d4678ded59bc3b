"""Which methods, losses and adapters private steps go with: one line each, and a reason."""

from types import SimpleNamespace

import pytest
from peft import IA3Config, LoraConfig
from trl import DPOConfig, KTOConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import DPO_LOSSES
from fedllm_train.privacy.row_refusals import (
    ROW_METHODS,
    check_row_adapter,
    check_row_adapter_kind,
    check_row_privacy,
)
from fedllm_train.strategies import STRATEGIES

CONFIG = SimpleNamespace(full_finetuning=False, round_rows="all")
SFT = {"bf16": False, "use_cpu": True}


def test_every_method_is_judged():
    assert ROW_METHODS.keys() == STRATEGIES.keys()


@pytest.mark.parametrize("name", STRATEGIES)
def test_methods_go_or_are_refused_with_a_reason(name):
    if ROW_METHODS[name] is None:
        check_row_privacy(name, CONFIG, SFTConfig(**SFT))
        return
    with pytest.raises(ConfigError, match=f"strategy '{name}'") as caught:
        check_row_privacy(name, CONFIG, SFTConfig(**SFT))
    assert ROW_METHODS[name] in str(caught.value)


def test_a_method_of_which_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="by fit alone"):
        check_row_privacy("mine:Method", CONFIG, SFTConfig(**SFT))


def test_methods_that_take_no_gradients_are_refused():
    assert all(ROW_METHODS[name] is not None for name, each in STRATEGIES.items() if not each.traits.takes_gradients)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (SFTConfig, {"packing": True}, "packing is True"),
        (SFTConfig, {"padding_free": True}, "padding_free is True"),
        (SFTConfig, {"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
        (SFTConfig, {"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        (SFTConfig, {"loss_type": "dft"}, "loss_type is 'dft'"),
        (SFTConfig, {"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        (SFTConfig, {"train_sampling_strategy": "sequential"}, "train_sampling_strategy"),
        (SFTConfig, {"optim": "galore_adamw_layerwise"}, "optim"),
        (SFTConfig, {"optim": "lomo"}, "optim"),
        (DPOConfig, {"loss_type": ["aot"]}, "'aot' sorts"),
        (DPOConfig, {"loss_type": ["sigmoid", "aot_unpaired"]}, "'aot_unpaired' sorts"),
        (DPOConfig, {"loss_type": ["sigmoid", "sft"]}, "'sft' is a mean over all tokens"),
        (KTOConfig, {}, "KTO reads a pair as two rows"),
        (KTOConfig, {"loss_type": "apo_zero_unpaired"}, "KTO reads a pair as two rows"),
    ],
    ids=str,
)
def test_what_mixes_rows_is_refused(kind, changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check_row_privacy("fedavg", CONFIG, kind(**SFT, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [name for name in DPO_LOSSES if name not in ("aot", "aot_unpaired", "sft")])
def test_losses_of_single_pairs_go(loss):
    check_row_privacy("fedavg", CONFIG, DPOConfig(**SFT, loss_type=[loss], label_smoothing=0.1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"full_finetuning": True}, "full_finetuning"), ({"round_rows": "fedllm-bench"}, "round_rows")],
)
def test_settings_of_the_federation_that_break_the_bound_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        check_row_privacy("fedavg", SimpleNamespace(**{**vars(CONFIG), **changes}), SFTConfig(**SFT))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LoraConfig(use_dora=True), "use_dora"),
        (LoraConfig(bias="lora_only"), "bias"),
        (LoraConfig(lora_bias=True), "lora_bias"),
        (LoraConfig(modules_to_save=["lm_head"]), "modules_to_save"),
        (LoraConfig(trainable_token_indices=[1]), "trainable_token_indices"),
        (LoraConfig(target_parameters=["w"]), "target_parameters"),
        (IA3Config(), "peft_type is 'ia3'"),
    ],
    ids=str,
)
def test_adapters_beyond_plain_lora_are_refused(config, words):
    with pytest.raises(ConfigError, match=words):
        check_row_adapter(config)


def test_plain_adapters_go():
    for config in (None, LoraConfig(), LoraConfig(use_rslora=True, lora_dropout=0.1, rank_pattern={"q_proj": 2})):
        check_row_adapter(config)
    for kind in ("lora", "rslora"):
        check_row_adapter_kind(kind)
    with pytest.raises(ConfigError, match="must be lora or rslora"):
        check_row_adapter_kind("dora")
