"""An adapter's tensors all find their places, and nothing of the base is overwritten."""

import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.policies import Backbone, load_policy


def edit(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("position", ["first", "second"])
def test_an_adapter_that_lacks_a_layer_or_has_one_too_many_is_refused(make_adapter, model_folder, tmp_path, position):
    fine, short, long = (make_adapter(tmp_path / name, 1) for name in ("fine", "short", "long"))
    edit(short, lambda weights: {name: each for name, each in weights.items() if "layers.1." not in name})
    edit(long, lambda weights: weights | {n.replace("layers.1.", "layers.7."): t.clone() for n, t in weights.items()})
    backbone = Backbone(AutoModelForCausalLM.from_pretrained(model_folder), str(model_folder))
    if position == "second":
        backbone.load_adapter(fine)
    for folder, problem in ((short, r"lacks .*layers\.1\..* has room"), (long, r"holds .*layers\.7\..* no room")):
        with pytest.raises(ConfigError, match=problem):
            Backbone(AutoModelForCausalLM.from_pretrained(model_folder), "tiny").load_adapter(folder)
        with pytest.raises(ConfigError, match=problem):
            backbone.load_adapter(folder)


def test_embeddings_saved_beside_an_adapter_must_be_the_bases_own(model_folder, tmp_path):
    config = LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
        model.save_pretrained(tmp_path / "same")
    (beside,) = (name for name in load_file(tmp_path / "same" / "adapter_model.safetensors") if "lora" not in name)
    policy = load_policy(tmp_path / "same")
    own = AutoModelForCausalLM.from_pretrained(model_folder).get_input_embeddings().weight
    assert torch.equal(policy.model.get_input_embeddings().base_layer.weight, own)
    shutil.copytree(tmp_path / "same", tmp_path / "other")
    edit(tmp_path / "other", lambda weights: weights | {beside: weights[beside] + 1})
    with pytest.raises(ConfigError, match="with other values than this base has"):
        load_policy(tmp_path / "other")


def test_a_whole_module_that_an_adapter_replaces_is_its_own(model_folder, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config)
    head = model.get_submodule("base_model.model.lm_head.modules_to_save.default")
    head.weight.data += 1
    model.save_pretrained(tmp_path / "adapter")
    policy = load_policy(tmp_path / "adapter")
    with policy.active() as active:
        assert torch.equal(active.get_output_embeddings().weight, head.weight)
