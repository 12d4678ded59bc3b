"""Equal adapters have equal content, whatever their folder; what changes nothing is the base."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedllm_eval.policy.adapter_content import UNCHANGED, adapter_content


def test_an_untrained_lora_is_the_base(make_adapter, tmp_path):
    assert adapter_content(make_adapter(tmp_path / "start")) == UNCHANGED == adapter_content(None)
    assert adapter_content(make_adapter(tmp_path / "trained", 3)) not in (UNCHANGED, None)


def test_equal_tensors_in_another_order_are_one_content_and_other_scaling_is_not(make_adapter, tmp_path):
    one, two = make_adapter(tmp_path / "one", 3), make_adapter(tmp_path / "two", 3)
    # A is drawn anew by PEFT; take the other's.
    tensors = load_file(one / "adapter_model.safetensors")
    save_file(dict(reversed(tensors.items())), two / "adapter_model.safetensors", metadata={"made": "elsewhere"})
    assert adapter_content(one) == adapter_content(two)
    config = json.loads((two / "adapter_config.json").read_text())
    turned = {**config, "inference_mode": False, "revision": "x", "target_modules": config["target_modules"][::-1]}
    (two / "adapter_config.json").write_text(json.dumps(turned))
    assert adapter_content(one) == adapter_content(two)
    (two / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 99}))
    assert adapter_content(one) != adapter_content(two)


@pytest.mark.parametrize("change", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"peft_type": "IA3"}])
def test_zeros_alone_do_not_make_it_the_base(make_adapter, tmp_path, change):
    folder = make_adapter(tmp_path / "start")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
    assert adapter_content(folder) not in (UNCHANGED, None)


def test_other_tensors_beside_zeros_do_not_make_it_the_base(make_adapter, tmp_path):
    folder = make_adapter(tmp_path / "start")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, "model.bias": np.ones(3, np.float32)}, folder / "adapter_model.safetensors")
    assert adapter_content(folder) not in (UNCHANGED, None)


def test_what_cannot_be_read_has_no_content(make_adapter, tmp_path):
    folder = make_adapter(tmp_path / "start")
    (folder / "adapter_model.safetensors").write_bytes(b"short")
    assert adapter_content(folder) is None
    assert adapter_content(tmp_path) is None
