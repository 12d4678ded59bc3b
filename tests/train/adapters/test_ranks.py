"""Ranks of clients: the rules, and that training with zeros beyond a rank is training at that rank."""

import pickle

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.lora import factor_names
from fedllm_train.adapters.ranks import check_ranks, client_ranks, padded, rank_of, sliced
from fedllm_train.clients.memory_fit import ClientMemory, MemoryFit

SIZES = {"a": 9, "b": 1, "c": 5, "d": 5, "e": 2}


def test_fewer_rows_lower_rank():
    # By rows: b 1, e 2, c 5, d 5, a 9; five clients over three ranks.
    assert client_ranks("8,2,4", SIZES, None, seed=0) == {"a": 8, "b": 2, "c": 4, "d": 4, "e": 2}


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text("abcdef", max_size=4), st.integers(1, 5), min_size=1, max_size=30),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_each_rank_goes_to_equally_many_by_rows_and_then_by_id(sizes, ranks):
    ordered = sorted(sizes, key=lambda client_id: (sizes[client_id], client_id))
    expected = {
        client_id: sorted(ranks)[place * len(ranks) // len(ordered)] for place, client_id in enumerate(ordered)
    }
    found = client_ranks(",".join(map(str, ranks)), sizes, None, seed=0)
    assert found == expected
    assert list(found) == sorted(sizes)
    assert pickle.loads(pickle.dumps(found)) == expected


def test_a_random_rank_depends_on_the_client_alone():
    ranks = client_ranks("random:2,4,8", {f"c{i}": 1 for i in range(60)}, None, seed=3)
    assert set(ranks.values()) == {2, 4, 8}
    fewer = client_ranks("random:2,4,8", {f"c{i}": 1 for i in range(30)}, None, seed=3)
    assert all(ranks[client_id] == rank for client_id, rank in fewer.items())


def test_ranks_from_a_column():
    table = pa.table({"client_id": ["a", "b"], "gpu_rank": [4, 2]})
    found = client_ranks("column:gpu_rank", {"a": 1, "b": 1}, table, seed=0)
    assert found == {"a": 4, "b": 2}
    assert pickle.loads(pickle.dumps(found)) == found


def test_the_largest_rank_that_fits_a_clients_memory():
    shape = ModelShape(
        num_matmul_parameters=1400, num_layers=4, hidden_size=10, vocab_size=20, num_trainable=10**9 // 2
    )
    fit = MemoryFit(shape=shape, rank=8, precision="bf16", batch_size=1, sequence_length=1, recompute=False)
    # 16 bytes a trained value: 1 GB a rank, and a few kilobytes.
    memory = ClientMemory(memory_gb={"a": 3.0, "b": 8.1, "c": 100.0, "d": 1.0, "e": None}.get, fit=fit)
    sizes = dict.fromkeys("abc", 1)
    assert client_ranks("memory:8,2,4", sizes, None, seed=0, memory=memory) == {"a": 2, "b": 8, "c": 8}
    assert client_ranks("memory:8,2,4", sizes, None, seed=0) == {}
    with pytest.raises(
        ConfigError, match=r"'d' has 1 GB of memory, and training with the least of the ranks, 2, needs"
    ):
        client_ranks("memory:8,2,4", {"a": 1, "d": 1}, None, seed=0, memory=memory)
    with pytest.raises(
        ConfigError, match=r"'e' has no memory_gb in the client table, by .* chosen; state it, or give a profile"
    ):
        client_ranks("memory:8,2,4", {"e": 1}, None, seed=0, memory=memory)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("four", "give ranks such as 4,8,16"),
        ("0,4", "give ranks such as 4,8,16"),
        ("often:4", "give ranks such as 4,8,16"),
        ("column:gpu", r"which the clients table lacks; it has \['bad'\]"),
        ("column:bad", "holds 0 for client 'a'"),
    ],
)
def test_rules_that_cannot_be_read(rule, message):
    table = pa.table({"client_id": ["a"], "bad": [0]})
    with pytest.raises(ConfigError, match=message):
        client_ranks(rule, {"a": 1}, table, seed=0)


def test_padding_keeps_products_and_slicing_undoes_it():
    adapter = {"m.lora_A.weight": torch.randn(2, 5), "m.lora_B.weight": torch.randn(6, 2)}
    wide = padded(adapter, 4)
    assert rank_of(wide) == 4
    assert torch.equal(
        wide["m.lora_B.weight"] @ wide["m.lora_A.weight"], adapter["m.lora_B.weight"] @ adapter["m.lora_A.weight"]
    )
    assert adapter_sha256(sliced(wide, 2)) == adapter_sha256(adapter)
    with pytest.raises(ConfigError, match="raise lora_r to 8"):
        check_ranks({"a": 8}, adapter)
    with pytest.raises(ConfigError, match="no LoRA factors"):
        check_ranks({}, {"w": torch.ones(1)})


def test_training_padded_is_training_at_the_lower_rank(kit, tmp_path):
    def host(rank):
        trainer = kit.make_trainer(tmp_path / str(rank), peft_config=kit.lora(r=rank, lora_alpha=2 * rank))
        return trainer.loaded.host, trainer.start_adapter

    (low, start), (high, _) = host(2), host(4)
    options = {"learning_rate": 1e-2, "seed": 1, "num_steps": 4}
    expected, _ = low.resident.fit(start, low.tokens["cyd"].rows, **options)
    got, _ = high.resident.fit(padded(start, 4), high.tokens["cyd"].rows, **options)
    for a, b in factor_names(got).values():
        assert not bool(got[a][2:].any())
        assert not bool(got[b][:, 2:].any())
    for name, tensor in sliced(got, 2).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)
    assert any(not torch.equal(start[name], expected[name]) for name in start)
