"""An adapter is put on the base it was trained on: digests that are known and differ are refused, the rest is said."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.base_identity import BaseIdentity, check_same_base, recorded_base, weights_digest
from fedllm_eval.policy.policies import load_policy, load_reference


def test_the_digest_is_of_the_weights_however_they_are_split_into_files(model_folder, tmp_path):
    weights = load_file(model_folder / "model.safetensors")
    names = sorted(weights)
    for name in ("shards", "pickled", "one"):
        (tmp_path / name).mkdir()
    for number, part in enumerate((names[::2], names[1::2])):
        save_torch({name: weights[name] for name in part}, tmp_path / "shards" / f"model-0000{number}.safetensors")
    torch.save(weights, tmp_path / "pickled" / "pytorch_model.bin")
    save_torch(weights, tmp_path / "one" / "model.safetensors", metadata={"format": "pt"})
    digest = weights_digest(model_folder)
    assert digest.startswith("sha256:")
    assert {weights_digest(tmp_path / name) for name in ("shards", "pickled", "one")} == {digest}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_weight_that_changes_changes_the_digest(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    values = np.zeros(shape, dtype=np.float32)
    save_file({"w": values, "v": values + 1}, folder / "model.safetensors")
    before = weights_digest(folder)
    values[data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))] += 1
    save_file({"w": values, "v": np.ones(shape, dtype=np.float32)}, folder / "model.safetensors")
    assert weights_digest(folder) != before


def test_training_moves_the_digest_of_a_tensor_of_which_only_blocks_are_read(tmp_path):
    values = torch.zeros(300, 1000)  # 1.2 MB, of which 64 KiB are read
    save_torch({"w": values}, tmp_path / "model.safetensors")
    before = weights_digest(tmp_path)
    save_torch({"w": values + 1e-3}, tmp_path / "model.safetensors")
    assert weights_digest(tmp_path) != before
    save_torch({"w": values.reshape(1000, 300)}, tmp_path / "model.safetensors")
    assert weights_digest(tmp_path) != before


def test_what_cannot_be_read_has_no_digest(tmp_path):
    assert weights_digest(None) is None
    assert weights_digest(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"{}")
    assert weights_digest(tmp_path) is None


A, B = (BaseIdentity(name=name, revision=None, weights=f"sha256:{name}") for name in "ab")


@pytest.mark.parametrize(
    ("recorded", "actual", "outcome"),
    [
        (A, A, None),
        (A, BaseIdentity(name="moved", weights=A.weights), None),
        (A, B, "refused"),
        (A, BaseIdentity(name="a", weights=B.weights), "refused"),
        (BaseIdentity(name="a"), A, None),
        (BaseIdentity(name="a"), B, "was trained on base 'a' and is put on 'b'"),
        (BaseIdentity(name="a", revision="1"), BaseIdentity(name="a", revision="1"), None),
        (BaseIdentity(name="a", revision="1"), BaseIdentity(name="a", revision="2"), "on revision 1 of base 'a'"),
        (None, A, "does not say which base model"),
        (None, BaseIdentity(), None),
    ],
)
def test_known_digests_that_differ_are_refused_and_what_is_not_known_is_said(recorded, actual, outcome, caplog):
    if outcome == "refused":
        with pytest.raises(ConfigError, match="was trained on base 'a' with other weights"):
            check_same_base(recorded, actual, adapter="runs/x")
        return
    with caplog.at_level(logging.WARNING):
        check_same_base(recorded, actual, adapter="runs/x")
    assert [outcome in message for message in caplog.messages] == ([] if outcome is None else [True])


def other_weights(folder, target):
    """A base of the same shapes and other weights."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    save_torch(
        {name: tensor + 0.01 for name, tensor in weights.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    return target


def set_base(run, **model):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] |= model
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_scoring_refuses_a_run_whose_base_has_other_weights_now(make_run, model_folder, tmp_path):
    run = make_run(tmp_path / "run", start_seed=3)
    base = shutil.copytree(model_folder, tmp_path / "base")
    set_base(run, name=str(base), weights=weights_digest(base))
    assert load_policy(run).adapter == run / "adapter"
    assert load_policy(run / "adapter").adapter == run / "adapter"  # its run is the folder above
    assert load_reference(run).adapter == run / "start_adapter"
    set_base(run, name=str(other_weights(model_folder, tmp_path / "other")))
    for name in (run, run / "adapter"):
        config = json.loads((run / "adapter" / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(tmp_path / "other")
        (run / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="with other weights"):
            load_policy(name)


def test_an_adapter_alone_is_known_by_the_base_it_names(make_adapter, model_folder, tmp_path):
    adapter = make_adapter(tmp_path / "adapter", 1)
    assert recorded_base(adapter) == BaseIdentity(name=str(model_folder))
    other = other_weights(model_folder, tmp_path / "other")
    actual = BaseIdentity(name=str(other), weights=weights_digest(other))
    with pytest.raises(ConfigError, match="with other weights"):
        check_same_base(recorded_base(adapter), actual, adapter="adapter")
