"""A model's shape from its files equals that of the model itself, for every architecture and target."""

import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.flops import step_flops
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.models.adapter_shapes import AdapterSettings, adapter_shapes, num_values
from fedllm_train.models.architectures import ARCHITECTURES
from fedllm_train.models.base_tensors import header_shapes, tensors_of_headers, tensors_of_model
from fedllm_train.models.model_shape import base_tensors, shape_of_folder_or_id, shape_of_model
from fedllm_train.models.training_shape import training_shape

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
OF_ALL = {**SIZES, "num_key_value_heads": 2, "vocab_size": 60}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 16, **ENDS}
VARIANTS = [
    *((name, {}) for name in ARCHITECTURES),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", {"head_dim": 12}),
    ("qwen3", {"head_dim": 16, "attention_bias": True}),
    ("gpt_neox", {"attention_bias": False}),
    ("starcoder2", {"use_bias": False}),
    ("stablelm", {"use_qkv_bias": True}),
    ("gpt2", {"n_inner": 40}),
]


def make(name, changes):
    sizes = GPT2 if name == "gpt2" else OF_ALL | ENDS
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes, **changes))


@pytest.mark.parametrize(
    ("name", "changes"), VARIANTS, ids=lambda each: each if isinstance(each, str) else "_".join(each)
)
def test_config_headers_and_model_agree(tmp_path, name, changes):
    model = make(name, changes)
    model.save_pretrained(tmp_path)
    of_model = tensors_of_model(model)
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "config.json"
    alone.write_text((tmp_path / "config.json").read_text())
    assert base_tensors(str(tmp_path)) == base_tensors(str(alone)) == of_model
    assert of_model.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    if name not in ("gpt2", "gpt_neox"):  # weights lie transposed, or are called otherwise than in the model
        config = json.loads(alone.read_text())
        found = tensors_of_headers(header_shapes(tmp_path), config, where="m")
        assert (found.linears, found.parameters) == (of_model.linears, of_model.parameters)
    assert shape_of_folder_or_id(str(tmp_path), AdapterSettings(kind="full")) == shape_of_model(model)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in ("gpt2", "gpt_neox")])
def test_heads_that_a_config_leaves_out_are_those_of_transformers(tmp_path, name):
    sizes = {**SIZES, "hidden_size": 256, "num_attention_heads": 32, "vocab_size": 60}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes, **ENDS))
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": name, **sizes}))
    assert base_tensors(str(file)).linears == tensors_of_model(model).linears


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("phi", "qk_layernorm"),
        ("stablelm", "qk_layernorm"),
        ("stablelm", "use_parallel_residual"),
        ("gpt2", "add_cross_attention"),
    ],
)
def test_a_setting_that_changes_the_parameters_is_not_passed_over(tmp_path, name, setting):
    model = make(name, {setting: True})
    model.save_pretrained(tmp_path)
    if name != "gpt2":  # its weights lie transposed
        assert base_tensors(str(tmp_path)).parameters == tensors_of_model(model).parameters
    with pytest.raises(ConfigError, match=f"is a '{name}', .* does not tell with {setting}; give the folder"):
        base_tensors(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("opt", {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 70}),
        ("gpt_bigcode", {key: GPT2[key] for key in ("n_embd", "n_layer", "n_head", "n_positions")}),
        ("falcon", {key: value for key, value in SIZES.items() if key != "intermediate_size"}),
        (
            "gpt_neo",
            {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        ),
    ],
    ids=["opt", "gpt_bigcode", "falcon", "gpt_neo"],
)
def test_headers_of_other_architectures_tell_what_the_model_tells(tmp_path, name, sizes):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, vocab_size=60, **sizes, **ENDS))
    model.save_pretrained(tmp_path)
    found, of_model = base_tensors(str(tmp_path)), tensors_of_model(model)
    assert (found.linears, found.vocab_size, found.is_parallel) == (
        of_model.linears,
        of_model.vocab_size,
        of_model.is_parallel,
    )
    expected = shape_of_model(get_peft_model(model, LoraConfig(r=4, target_modules="all-linear")))
    assert shape_of_folder_or_id(str(tmp_path), AdapterSettings(rank=4)) == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"r": 3, "use_dora": True},
        {"target_modules": ["o_proj", "c_attn", "dense"]},
        {"target_modules": r".*\.1\.mlp\..*(fc1|c_proj|down_proj|4h)"},
        {"rank_pattern": {r"layers\.1\.self_attn\..*|1\.attn.*|.*1\.attention.*": 2}},
        {"target_modules": ["lm_head"]},
    ],
    ids=["all", "dora", "named", "pattern", "ranks", "head"],
)
@pytest.mark.filterwarnings("ignore:Model (with|has) .*tie")
def test_adapter_shapes_are_those_that_peft_makes(name, settings):
    model = make(name, {})
    base = tensors_of_model(model)
    targets = settings.get("target_modules", "all-linear")
    if isinstance(targets, list):
        targets = [each for each in targets if any(module.rpartition(".")[2] == each for module in base.linears)]
    config = LoraConfig(
        task_type="CAUSAL_LM", fan_in_fan_out=name == "gpt2", **{**settings, "target_modules": targets}
    )
    if targets == ["lm_head"]:
        config.fan_in_fan_out = False
    expected = AdapterSettings(
        kind="dora" if config.use_dora else "lora",
        rank=config.r,
        targets=targets,
        rank_pattern=dict(config.rank_pattern or {}),
    )
    peft = get_peft_model(model, config)
    made = {name: tuple(tensor.shape) for name, tensor in LiveAdapter(peft).read().items()}
    found = adapter_shapes(base, expected)
    assert found == made
    assert shape_of_model(peft).num_trainable == num_values(found)
    assert shape_of_model(peft).num_matmul_parameters == base.num_matmul_parameters


@pytest.mark.filterwarnings("ignore")  # transformers' hints at caches and checkpointing
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    "targets",
    ["all-linear", ("v_proj", "c_attn", "qkv_proj", "query_key_value"), r".*\.1\.mlp\..*(in|fc1|c_proj|4h|j)"],
)
@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
def test_operations_of_every_architecture_are_those_that_torch_counts(name, targets, recompute):
    sizes = GPT2 if name == "gpt2" else OF_ALL | ENDS | {"head_dim": 8}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(name, **sizes, attn_implementation="eager"), attn_implementation="eager"
    )
    base = tensors_of_model(model)
    if not isinstance(targets, str):
        targets = [each for each in targets if any(module.rpartition(".")[2] == each for module in base.linears)]
    shape = training_shape(base, adapter_shapes(base, AdapterSettings(rank=4, targets=targets)))
    peft = get_peft_model(model, LoraConfig(r=4, target_modules=targets, fan_in_fan_out=name == "gpt2"))
    assert shape_of_model(peft) == shape
    if recompute:
        peft.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    peft.train()
    ids = torch.zeros((2, 12), dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        peft(input_ids=ids, labels=ids).loss.backward()
    assert 24 * step_flops(shape, 12, recompute=recompute) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_full_tuning_trains_every_parameter_once():
    model = make("gemma", {})
    found = adapter_shapes(tensors_of_model(model), AdapterSettings(kind="full"))
    assert found == {name: tuple(tensor.shape) for name, tensor in LiveAdapter(model).read().items()}


def test_matrices_of_a_hand_made_llama_are_counted(tmp_path):
    # q 32x32, k and v 16x32, o 32x32: 3072; three of 48x32: 4608; two layers 15360; output layer 60x32: 1920
    make("llama", {}).save_pretrained(tmp_path)
    shape = shape_of_folder_or_id(str(tmp_path), AdapterSettings(rank=2))
    assert shape.num_matmul_parameters == 15360 + 1920
    # rank 2: q 128, k 96, v 96, o 128, three of 160: 928 a layer
    assert shape.num_trainable == 2 * 928


def test_an_unknown_architecture_is_read_from_the_headers_and_refused_from_a_config_alone(tmp_path):
    model = make("llama", {})
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"model_type": "llama"', '"model_type": "new"'))
    assert base_tensors(str(tmp_path)) == tensors_of_model(model)
    with pytest.raises(ConfigError, match=r"is a 'new', whose modules .* give the folder of its weights"):
        base_tensors(str(path))


def test_weights_in_several_files_are_read_by_their_index(tmp_path):
    model = make("qwen2", {})
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert header_shapes(tmp_path) == {name: tuple(each.shape) for name, each in model.named_parameters()}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, r"it holds no config\.json"),
        ("{", r"is no config\.json of a model"),
        ("[]", r"names no model_type"),
        ('{"model_type": "llama"}', r"has hidden_size None"),
        ('{"model_type": "llama", "hidden_size": true}', r"has hidden_size True"),
    ],
)
def test_a_folder_that_tells_nothing_is_refused(tmp_path, content, line):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=line):
        base_tensors(str(tmp_path))


def test_weights_of_another_model_are_refused(tmp_path):
    make("llama", {}).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"intermediate_size": 48', '"intermediate_size": 50'))
    with pytest.raises(ConfigError, match="they are not one model's"):
        base_tensors(str(tmp_path))


def test_a_damaged_file_and_a_mixture_of_experts_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "new"}')
    (tmp_path / "model.safetensors").write_bytes(b"\x05")
    with pytest.raises(ConfigError, match="is no whole safetensors file"):
        base_tensors(str(tmp_path))
    shapes = {"model.embed_tokens.weight": (8, 4), "model.layers.0.mlp.experts.0.w1.weight": (4, 4)}
    with pytest.raises(ConfigError, match=r"it holds model\.layers\.0\.mlp\.experts"):
        tensors_of_headers(shapes, {"model_type": "new"}, where="m")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"kind": "ia3"}, "peft_type ia3 trains tensors that only PEFT can name"),
        ({"rank": 0}, "lora_r is 0"),
        ({"targets": ["q_prj"]}, r"has 'q_prj', and no linear module is called so; they are called down_proj"),
        ({"targets": "(q"}, "is no pattern"),
        ({"targets": ".*nothing"}, "no linear module is called so"),
    ],
)
def test_adapters_that_cannot_be_told_are_refused(settings, line):
    base = tensors_of_model(make("llama", {}))
    with pytest.raises(ConfigError, match=line):
        adapter_shapes(base, AdapterSettings(**settings))


def test_a_shape_is_read_without_torch(tmp_path):
    make("llama", {}).save_pretrained(tmp_path)
    code = (
        "import sys; from fedllm_train.models.model_shape import shape_of_folder_or_id as shape; "
        f"print(shape({str(tmp_path)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_here_depends_on_the_values(tmp_path):
    model = make("llama", {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert shape_of_model(model) == shape_of_model(make("llama", {}))
