"""What fits a client's memory: from a model on disk, from one in memory, and in a run whose ranks go by it."""

from types import SimpleNamespace

import pytest
from peft import IA3Config, LoraConfig

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.memory import memory_need
from fedllm_train.clients.memory_fit import memory_fit
from fedllm_train.models.model_shape import shape_of_model

CLIENT = SimpleNamespace(per_device_train_batch_size=3, max_length=20, gradient_checkpointing=False)
PEFT = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])


def test_it_is_the_need_of_the_model_that_will_be_trained(kit, tmp_path):
    kit.make_model().save_pretrained(tmp_path)
    fit = memory_fit(str(tmp_path), PEFT, CLIENT, task="dpo")
    assert memory_fit(kit.make_model(), PEFT, CLIENT, task="dpo") == fit
    from peft import get_peft_model

    for rank in (2, 8):
        model = get_peft_model(kit.make_model(), LoraConfig(r=rank, target_modules=["q_proj", "v_proj"]))
        need = memory_need(shape_of_model(model), "fp32", batch_size=6, sequence_length=20)
        assert fit.gb_of_rank(rank) == pytest.approx(need.total_gb[1], rel=1e-12)


def test_precision_is_what_the_settings_say(kit):
    model = kit.make_model()
    fits = [
        memory_fit(model, PEFT, CLIENT, task="sft", quantization=quantization, dtype=dtype)
        for quantization, dtype in (
            (None, None),
            (None, "bfloat16"),
            (SimpleNamespace(load_in_4bit=False), None),
            (SimpleNamespace(load_in_4bit=True), "bfloat16"),
        )
    ]
    assert [fit.precision for fit in fits] == ["fp32", "bf16", "int8", "nf4"]
    needs = [fit.gb_of_rank(8) for fit in fits]
    assert needs == sorted(needs, reverse=True)


def test_fewer_layers_need_less_and_all_of_them_the_whole(kit):
    fit = memory_fit(kit.make_model(), PEFT, CLIENT, task="sft")
    needs = [fit.gb_of_last_layers(layers) for layers in range(1, fit.shape.num_layers + 1)]
    assert needs == sorted(needs)
    assert needs[-1] == fit.gb_of_rank(8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"client": SimpleNamespace(**vars(CLIENT) | {"max_length": None})}, "max_length is None"),
        ({"peft": IA3Config(target_modules=["q_proj"], feedforward_modules=[])}, "IA3Config has no LoRA factors"),
    ],
)
def test_what_cannot_be_known_is_refused(kit, changes, says):
    with pytest.raises(ConfigError, match=says):
        memory_fit(kit.make_model(), changes.get("peft", PEFT), changes.get("client", CLIENT), task="sft")


def test_a_run_deals_out_ranks_by_its_client_table(kit, tmp_path):
    fit = memory_fit(kit.make_model(), kit.lora(), kit.trl_args("sft"), task="sft")
    between = (fit.gb_of_rank(2) + fit.gb_of_rank(4)) / 2
    table = tmp_path / "nodes.csv"
    first, *others = sorted(kit.SIZES)
    rows = [f"{first},{between!r}", f"*,{fit.gb_of_rank(4)!r}"]
    speeds = ",1e9,10,10\n"
    header = "client_id,memory_gb,flops,download_mbit,upload_mbit\n"
    table.write_text(header + "".join(row + speeds for row in rows))
    settings = {"strategy": "hetlora", "client_ranks": "memory:2,4", "client_table": str(table), "num_rounds": 1}
    trainer = kit.make_trainer(tmp_path / "run", cohort_rule="all", **settings)
    assert trainer.plan.federation.ranks == {first: 2} | dict.fromkeys(others, 4)
    state = trainer.train()
    assert state.next_round == 1
    with pytest.raises(ConfigError, match="there is no client_table; give one"):
        kit.make_trainer(tmp_path / "other", **settings | {"client_table": None})
    table.write_text(header + f"*,{fit.gb_of_rank(2) / 2!r}" + speeds)
    with pytest.raises(ConfigError, match="least of the ranks, 2, needs"):
        kit.make_trainer(tmp_path / "other", **settings)
    with pytest.raises(ConfigError, match="brings its own settings"):
        kit.make_trainer(tmp_path / "other", adapter=tmp_path / "run", **settings)
