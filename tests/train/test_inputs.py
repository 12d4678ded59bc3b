"""What a Python user passes: TRL's habits are taken, mistakes end in one line, and all before a model is loaded."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import BitsAndBytesConfig, EarlyStoppingCallback, LlamaForSequenceClassification, TrainingArguments
from trl import DPOConfig, GRPOConfig, RewardConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.client_inputs import as_clients
from fedllm_train.inputs import asks_to_resume
from fedllm_train.models import base_settings
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.strategies.fedprox import FedProx


def config(path="run", **changes):
    return FederatedConfig(
        output_dir=str(path), **{"num_rounds": 1, "cohort_size": 1, "local_steps": 1, "seed": 5} | changes
    )


def trainer(kit, **changes):
    inputs = {
        "model": kit.make_model(),
        "args": config(),
        "clients": kit.make_clients(),
        "client_args": kit.trl_args("sft"),
    }
    inputs |= {"peft_config": kit.lora(), "tokenizer": kit.make_tokenizer()}
    return FederatedTrainer(**inputs | changes)


def adapter_after(made):
    made.train()
    return kit_sha(made)


def kit_sha(made):
    return json.loads((made.run / "rounds.jsonl").read_text().splitlines()[-1])["adapter_sha256"]


def bare(rows):
    return [{name: value for name, value in row.items() if name != "client_id"} for row in rows]


def sft_forms(kit):
    sizes = {"ann": 3, "bob": 2}
    rows = {name: kit.sft_rows(name, size) for name, size in sizes.items()}
    flat = [row for each in rows.values() for row in each]
    conversational = [
        {"client_id": row["client_id"], "prompt": row["messages"][:1], "completion": row["messages"][1:]}
        for row in flat
    ]
    return {
        "ClientDataset": kit.ClientDataset.from_dataset(Dataset.from_list(flat)),
        "dict of Dataset": {name: Dataset.from_list(bare(each)) for name, each in rows.items()},
        "dict of lists": {name: bare(each) for name, each in rows.items()},
        "Dataset": Dataset.from_list(flat),
        "rows in any order": flat[::-1][::-1],
        "prompt and completion": Dataset.from_list(conversational),
    }


def test_every_form_of_the_same_clients_is_the_same_dataset(kit):
    held = {}
    for number, (form, clients) in enumerate(sft_forms(kit).items()):
        where = {"train_dataset" if number % 2 else "clients": clients}
        made = trainer(kit, **{"clients": None} | where)
        held[form] = {name: made.clients[name]["messages"][:] for name in made.clients}
    first = held.pop("ClientDataset")
    assert {name: len(rows) for name, rows in first.items()} == {"ann": 3, "bob": 2}
    assert all(rows == first for rows in held.values())


def test_preferences_with_the_prompt_inside_are_those_with_it_apart(kit):
    rows = kit.preference_rows("ann", 4)
    inside = [
        {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"], "score": 1.0}
        for row in rows
    ]
    made = as_clients({"ann": inside})["ann"]
    for name in ("prompt", "chosen", "rejected"):
        assert made[name][:] == [row[name] for row in rows]


@given(st.dictionaries(st.integers(0, 99) | st.text("abc", min_size=1), st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_every_row_of_every_client_is_there(sizes):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = {key: [{"messages": [*turns, *turns][: 2 + 2 * (i % 2)]} for i in range(n)] for key, n in sizes.items()}
    made = as_clients(rows)
    assert made.sizes == {str(key): n for key, n in sizes.items()}
    flat = [{"client_id": str(key), **row} for key, each in rows.items() for row in each]
    assert as_clients(Dataset.from_list(flat)).sizes == as_clients(flat).sizes == made.sizes
    for key, each in rows.items():
        assert made[str(key)]["messages"][:] == [row["messages"] for row in each]


def test_a_folder_and_integers_name_clients(kit, tmp_path):
    rows = bare(kit.sft_rows("a", 2))
    assert list(trainer(kit, clients={10: rows, 9: rows}).clients) == ["10", "9"]
    with pytest.raises(ConfigError, match="two clients that are called '1'"):
        trainer(kit, clients={1: rows, "1": rows})


def test_names_of_trl_and_paths_are_taken(kit, tmp_path):
    kit.make_model().save_pretrained(tmp_path / "base")
    clients, tokenizer = kit.make_clients(), kit.make_tokenizer()
    made = FederatedTrainer(
        model=tmp_path / "base", args=config(tmp_path / "run"), train_dataset=clients, processing_class=tokenizer,
        client_args=kit.trl_args("sft"), peft_config=kit.lora(), ref_model=None, data_collator=None,
        optimizers=(None, None), quantization_config=None,
    )  # fmt: skip
    assert made.clients is clients
    assert made.tokenizer is tokenizer
    assert made.args.output_dir == str(tmp_path / "run")


@pytest.mark.parametrize(("task", "frozen"), [("sft", False), ("dpo", True)])
def test_the_adapter_of_a_peft_model_is_trained_from_where_it_is(kit, tmp_path, task, frozen):
    """The same run as with the adapter's folder, and nothing is wrapped twice."""
    start = get_peft_model(kit.make_model(), kit.lora())
    with torch.no_grad():
        for name, parameter in start.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    start.save_pretrained(tmp_path / "start")
    changes = {"clients": kit.make_clients("sft" if task == "sft" else "preference")}
    changes |= {"client_args": kit.trl_args(task)}
    by_folder = trainer(kit, args=config(tmp_path / "folder"), adapter=tmp_path / "start", peft_config=None, **changes)
    model = PeftModel.from_pretrained(kit.make_model(), tmp_path / "start", is_trainable=not frozen)
    by_model = trainer(kit, args=config(tmp_path / "model"), model=model, peft_config=model.peft_config, **changes)
    assert by_model.model is model
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 14  # 7 layers of 2 blocks, once
    assert adapter_after(by_model) == adapter_after(by_folder)
    started = by_model.start_adapter
    assert any(not torch.equal(value, started[name]) for name, value in by_model.state.adapter.items())


def test_a_frozen_prompt_of_a_peft_model_is_trained(kit, tmp_path):
    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    get_peft_model(kit.make_model(), prompt).save_pretrained(tmp_path / "start")
    frozen = PeftModel.from_pretrained(kit.make_model(), tmp_path / "start")
    made = trainer(kit, args=config(tmp_path / "run"), model=frozen, peft_config=None)
    made.train()
    assert kit.records_of(made.run)[0]["update_norm"] > 0


def test_a_peft_models_settings_alone_are_those_of_a_fresh_adapter(kit):
    of_another = get_peft_model(kit.make_model(), kit.lora(r=2)).peft_config
    assert trainer(kit, peft_config=of_another).model.peft_config["default"].r == 2


def test_a_strategys_class_is_its_name(kit, tmp_path):
    with_class = trainer(kit, args=config(tmp_path / "a", strategy=FedProx))
    assert with_class.args.strategy == "fedprox"
    assert adapter_after(with_class) == adapter_after(trainer(kit, args=config(tmp_path / "b", strategy="fedprox")))
    with pytest.raises(ConfigError, match="ditto_lambda is given but strategy 'fedprox'"):
        trainer(kit, args=config(strategy=FedProx, ditto_lambda=0.1))


class Tripled(FedAvg):
    """A method of a user's own: FedAvg whose server takes three times the step."""

    def server_step(self, state, sums, round_index):
        mean = super().server_step(state, sums, round_index)["adapter"]
        old = state["adapter"]
        return {"adapter": {name: old[name] + 3 * (mean[name] - old[name]) for name in mean}}


def test_a_class_of_ones_own_is_a_strategy(kit, tmp_path):
    own = trainer(kit, args=config(tmp_path / "own", strategy=Tripled, local_steps=2))
    plain = trainer(kit, args=config(tmp_path / "plain", local_steps=2))
    own.train(), plain.train()
    start = plain.start_adapter
    for name, value in plain.state.adapter.items():
        torch.testing.assert_close(own.state.adapter[name], start[name] + 3 * (value - start[name]))
    assert own.args.strategy.endswith(":Tripled")
    assert (own.run / "README.md").exists()


def test_a_run_goes_on_when_trls_argument_asks_for_it(kit, tmp_path):
    kit.run_and_stop(tmp_path / "run", after_round=1, num_rounds=3, cohort_size=1, local_steps=1)
    again = kit.make_trainer(tmp_path / "run", num_rounds=3, cohort_size=1, local_steps=1)
    with pytest.raises(ConfigError, match="a run goes on in its own folder"):
        again.train(resume_from_checkpoint=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="already holds a run"):
        again.train(resume_from_checkpoint=False)
    assert again.train(tmp_path / "run" / "checkpoints").next_round == 3
    assert len(kit.records_of(tmp_path / "run")) == 3
    assert asks_to_resume(True, run=tmp_path, resume=False)
    assert asks_to_resume(None, run=tmp_path, resume=True)
    assert not asks_to_resume(None, run=tmp_path, resume=False)


def test_save_model_writes_what_was_learned_with_its_tokenizer(kit, tmp_path):
    made = trainer(kit, args=config(tmp_path / "run"))
    with pytest.raises(ConfigError, match="call train"):
        made.save_model(tmp_path / "saved")
    made.train()
    assert made.save_model() == made.save_model(str(tmp_path / "run")) == tmp_path / "run" / "adapter"
    saved = made.save_model(tmp_path / "saved")
    first = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    assert (saved / "adapter_model.safetensors").read_bytes() == first.read_bytes()
    assert (saved / "tokenizer_config.json").exists()
    with pytest.raises(ConfigError, match="holds something"):
        made.save_model(tmp_path / "saved")


def test_one_function_is_a_list_of_one(kit, tmp_path):
    seen = []
    trainer(kit, args=config(tmp_path / "run"), callbacks=lambda record: seen.append(record["round_index"])).train()
    assert seen == [0]


def text_rows(**row):
    return {"ann": [row]}


MISTAKES = {
    "clients nothing": ({"clients": None}, "clients is not given"),
    "clients a number": ({"clients": 3}, "clients is an int; pass a ClientDataset"),
    "clients a list of datasets": ({"clients": [Dataset.from_list([{"a": 1}])]}, "clients is a list"),
    "clients a Dataset without ids": (
        {"clients": Dataset.from_list([{"messages": [{"role": "user", "content": "a"}]}])}, "no client_id"
    ),
    "clients a DatasetDict": (
        {"clients": DatasetDict({"train": Dataset.from_list([{"a": 1}])})}, "pass one, such as dataset\\['train'\\]"
    ),
    "clients streamed": ({"clients": Dataset.from_list([{"a": 1}]).to_iterable_dataset()}, "is streamed"),
    "clients a path to nothing": ({"clients": Path("no/folder/here")}, "no folder no/folder/here"),
    "clients an empty dict": ({"clients": {}}, "holds no rows"),
    "clients an empty client": ({"clients": {"ann": []}}, "\\['ann'\\] holds no rows"),
    "clients ids that are numbers": ({"clients": {1.5: [{}]}}, "1.5 as a client id, a float"),
    "clients rows that are text": ({"clients": {"ann": ["hello"]}}, "row 0 is a str"),
    "clients text": ({"clients": text_rows(text="hello")}, "is plain text"),
    "clients prompt and completion as text": ({"clients": text_rows(prompt="a", completion="b")}, "is plain text"),
    "clients turns that are text": ({"clients": text_rows(prompt=["a"], completion=["b"])}, "no list of messages"),
    "clients sides that are nothing": ({"clients": text_rows(chosen=None, rejected=None)}, "chosen is None and no"),
    "quantization without a GPU": (
        {"model": "org/m", "quantization": BitsAndBytesConfig(load_in_8bit=True)}, "needs an NVIDIA GPU"
    ),
    "quantization of a loaded model": ({"quantization_config": BitsAndBytesConfig()}, "quantise it where it is"),
    "clients unpaired": (
        {"clients": text_rows(prompt=[], completion=[], label=True)}, "KTO takes pairs here"
    ),
    "clients odd roles": ({"clients": text_rows(messages=[{"role": "x", "content": "y"}])}, "role 'x' is none of"),
    "both names": ({"train_dataset": {}}, "mean the same and are both given"),
    "args SFTConfig": ({"args": SFTConfig(bf16=False)}, "args is an SFTConfig; TRL's settings are client_args"),
    "args nothing": ({"args": None}, "args is None; pass args=FederatedConfig"),
    "args a dict": ({"args": {"output_dir": "run"}}, "args is a dict"),
    "client_args GRPO": ({"client_args": GRPOConfig(bf16=False)}, "client_args is a GRPOConfig; pass TRL's SFTConfig"),
    "client_args Reward": ({"client_args": RewardConfig(bf16=False)}, "client_args is a RewardConfig"),
    "client_args TrainingArguments": ({"client_args": TrainingArguments()}, "client_args is a TrainingArguments"),
    "client_args a dict": ({"client_args": {"learning_rate": 1}}, "client_args is a dict"),
    "client_args FederatedConfig": ({"client_args": FederatedConfig(output_dir="r")}, "goes to args"),
    "client_args LoraConfig": ({"client_args": LoraConfig()}, "adapter's settings go to peft_config"),
    "client_args a class": ({"client_args": SFTConfig}, "client_args is the class SFTConfig"),
    "client_args of the other task": ({"client_args": DPOConfig(bf16=False)}, "holds sft rows"),
    "client_args text for a number": (
        {"client_args": SFTConfig(bf16=False, learning_rate="1e-4")}, "learning_rate of SFTConfig is '1e-4', a str"
    ),
    "model nothing": ({"model": None}, "model is None; pass a folder"),
    "model a module": ({"model": torch.nn.Linear(2, 2)}, "model is a Linear; pass a folder"),
    "model a dict": ({"model": {}}, "model is a dict"),
    "peft_config a dict": ({"peft_config": {"r": 8}}, "peft_config is a dict; pass a PEFT config"),
    "peft_config text for a number": ({"peft_config": LoraConfig(r="8")}, "r of LoraConfig is '8', a str"),
    "peft_config a class": ({"peft_config": LoraConfig}, "peft_config is the class LoraConfig"),
    "adapter a model": ({"adapter": torch.nn.Linear(2, 2)}, "adapter is a Linear; name a run folder"),
    "tokenizer a name": ({"tokenizer": "org/model"}, "AutoTokenizer.from_pretrained"),
    "callbacks of a trainer": ({"callbacks": [EarlyStoppingCallback()]}, "the TrainerCallback EarlyStoppingCallback"),
    "callbacks of a trainer, a class": ({"callbacks": [EarlyStoppingCallback]}, "the TrainerCallback"),
    "callbacks of two arguments": ({"callbacks": [lambda a, b: None]}, "take one argument, a round's record"),
    "callbacks a name": ({"callbacks": "wandb"}, "callbacks is a str"),
    "ref_model": ({"ref_model": "m"}, "the reference is the policy the run starts from"),
    "compute_metrics": ({"compute_metrics": len}, "eval_every scores during the run"),
    "formatting_func": ({"formatting_func": len}, "format them before"),
    "an unknown argument": ({"eval_datset": 1}, "takes no eval_datset; it takes model, args, clients"),
    "eval_dataset without eval_every": ({"eval_dataset": {}}, "give eval_every too"),
    "revision of a loaded model": ({"revision": "v1"}, "the model is loaded already"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_before_a_model_is_loaded(kit, tmp_path, monkeypatch, mistake):
    from fedllm_train import loaded_run as module

    monkeypatch.setattr(module, "load_starting_policy", None)
    monkeypatch.setattr(base_settings, "missing_for_quantization", lambda: "there is no GPU")
    changes, reason = MISTAKES[mistake]
    with pytest.raises(
        ValueError if "path" not in mistake else RuntimeError, match=reason
    ) as caught:  # project errors
        trainer(kit, **{"args": config(tmp_path / "run")} | changes)
    assert type(caught.value).__module__ == "fedllm_data.errors"
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_model_that_carries_another_adapter_is_refused(kit):
    wrapped = get_peft_model(kit.make_model(), kit.lora())
    with pytest.raises(ConfigError, match="the model is a PeftModel, whose adapter is trained, and peft_config"):
        trainer(kit, model=wrapped, peft_config=kit.lora(r=2))
    with pytest.raises(ConfigError, match="and adapter is given too"):
        trainer(kit, model=wrapped, peft_config=None, adapter="run")
    wrapped.add_adapter("second", kit.lora())
    with pytest.raises(ConfigError, match="adapters default, second, and a run trains one"):
        trainer(kit, model=wrapped, peft_config=None)
    with pytest.raises(ConfigError, match="LlamaForSequenceClassification, which writes no text"):
        trainer(kit, model=LlamaForSequenceClassification(kit.make_model().config))
    injected = kit.make_model()
    injected.add_adapter(kit.lora())
    with pytest.raises(ConfigError, match="add_adapter or load_adapter"):
        trainer(kit, model=injected)


def test_a_base_that_an_earlier_run_put_layers_into_is_refused(kit, tmp_path):
    """PEFT changes the base in place: IA3's factors of the first run would stay below the second run's LoRA."""
    base = kit.make_model()
    ia3 = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
    trainer(kit, model=base, args=config(tmp_path / "first"), peft_config=ia3)
    with pytest.raises(ConfigError, match="has layers of an adapter in it already"):
        trainer(kit, model=base, args=config(tmp_path / "second"))


def test_a_model_that_computes_with_a_shifted_base_is_refused(kit, tmp_path):
    """FedEx-LoRA leaves its sum beside the base; an adapter trained on both would name the base alone."""
    first = trainer(kit, args=config(tmp_path / "first", strategy="fedex_lora", cohort_size=3, local_steps=2))
    first.train()
    with pytest.raises(ConfigError, match="a finished run which added to the base's weights"):
        trainer(kit, model=first.model, args=config(tmp_path / "second"), peft_config=None)
    following = config(tmp_path / "third")
    trainer(kit, args=following, adapter=tmp_path / "first", peft_config=None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_rounds": "3"}, "num_rounds is '3', a str; pass a whole number, such as num_rounds=3"),
        ({"num_rounds": 2.5}, "num_rounds is 2.5, a float; pass a whole number"),
        ({"num_rounds": True}, "num_rounds is True, a bool"),
        ({"num_rounds": None}, "num_rounds is None; pass a whole number"),
        ({"strategy": "fedprox", "prox_mu": "0.1"}, "prox_mu is '0.1', a str; pass a number, such as prox_mu=0.1"),
        ({"load_best": "yes"}, "load_best is 'yes', a str; pass True or False"),
        ({"strategy": 3}, "strategy is 3, an int; pass text"),
        ({"strategy": FedProx(None) if False else object()}, "strategy is <object"),
        ({"report_to": ["wandb"]}, "report_to is \\['wandb'\\], a list; pass text"),
    ],
)
def test_values_of_another_kind_are_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        FederatedConfig(output_dir="run", **changes)


def test_numbers_of_numpy_and_paths_are_plain_values():
    import numpy as np

    made = FederatedConfig(
        output_dir=Path("a", "b"),
        strategy="fedprox",
        num_rounds=np.int64(3),
        prox_mu=np.float32(0.5),
        load_best=np.False_,
    )
    assert json.dumps([made.output_dir, made.num_rounds, made.prox_mu, made.load_best]) == '["a/b", 3, 0.5, false]'


def test_a_class_that_is_no_strategy_is_refused(kit):
    with pytest.raises(ConfigError, match="strategy is the class dict, which has no traits"):
        trainer(kit, args=config(strategy=dict))

    class Local(FedAvg):
        pass

    with pytest.raises(ConfigError, match="made inside a function"):
        trainer(kit, args=config(strategy=Local))
    with pytest.raises(ConfigError, match=r"strategy 'no\.module:Method' is unknown"):
        trainer(kit, args=config(strategy="no.module:Method"))


def test_options_that_there_are_not_are_refused(kit, tmp_path):
    made = trainer(kit, args=config(tmp_path / "run"))
    with pytest.raises(ConfigError, match="push_to_hub needs the name of a repo"):
        made.push_to_hub()
    with pytest.raises(ConfigError, match="push_to_hub takes no dataset_name; its options are private"):
        made.push_to_hub("org/name", dataset_name="x")
    with pytest.raises(ConfigError, match="evaluate takes no eval_dataset; its options are"):
        made.evaluate(eval_dataset=kit.make_clients())
