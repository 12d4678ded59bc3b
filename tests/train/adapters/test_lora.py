"""The algebra of LoRA factors against dense matrices."""

import pytest
import torch

from fedllm_train.adapters.arithmetic import RunningSum
from fedllm_train.adapters.lora import Factors, ProductSum, aggregation_error, factor_names, truncated_factors


def adapter(seed, d=6, m=5, r=2, modules=("x", "y")):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(*shape, generator=generator)
        for module in modules
        for name, shape in ((f"{module}.lora_A.weight", (r, m)), (f"{module}.lora_B.weight", (d, r)))
    }


def dense_mean(adapters, weights, module="x"):
    total = sum(
        w * a[f"{module}.lora_B.weight"].double() @ a[f"{module}.lora_A.weight"].double()
        for a, w in zip(adapters, weights, strict=True)
    )
    return total / sum(weights)


@pytest.mark.parametrize("num_clients", [1, 2, 7])  # 7 * 2 columns > 5: kept as a matrix
def test_product_sums_equal_the_dense_sums(num_clients):
    adapters, weights = [adapter(i) for i in range(num_clients)], [float(i + 1) for i in range(num_clients)]
    total = ProductSum()
    for each, weight in zip(adapters, weights, strict=True):
        total.add(each, weight)
    for module in ("x", "y"):
        expected = dense_mean(adapters, weights, module)
        torch.testing.assert_close(total.mean()[module].product(), expected, rtol=0, atol=1e-12)


def test_clients_of_several_ranks_add_up():
    total = ProductSum()
    adapters = [adapter(0, r=1, modules=("x",)), adapter(1, r=3, modules=("x",))]
    for each in adapters:
        total.add(each, 1.0)
    torch.testing.assert_close(total.mean()["x"].product(), dense_mean(adapters, [1.0, 1.0]), rtol=0, atol=1e-12)


def test_aggregation_error_by_hand():
    # Rank 1, d = m = 1: B A = 2*1 and 4*3; mean product (2 + 12) / 2 = 7, Bbar Abar = 3 * 2 = 6; lost 1 of 7.
    one = {"x.lora_A.weight": torch.tensor([[1.0]]), "x.lora_B.weight": torch.tensor([[2.0]])}
    two = {"x.lora_A.weight": torch.tensor([[3.0]]), "x.lora_B.weight": torch.tensor([[4.0]])}
    mean, products = RunningSum(), ProductSum()
    for each in (one, two):
        mean.add(each, 1)
        products.add(each, 1)
    assert aggregation_error(mean.mean(), products.mean()) == pytest.approx(1 / 7, abs=1e-12)


def test_aggregation_error_is_the_covariance_of_the_factors():
    adapters, p = [adapter(i, modules=("x",)) for i in range(3)], [0.5, 0.3, 0.2]
    mean = {n: sum(w * a[n].double() for a, w in zip(adapters, p, strict=True)) for n in adapters[0]}
    lost = sum(
        w * (a["x.lora_B.weight"] - mean["x.lora_B.weight"]) @ (a["x.lora_A.weight"] - mean["x.lora_A.weight"])
        for a, w in zip(adapters, p, strict=True)
    )
    products = ProductSum()
    for each, weight in zip(adapters, p, strict=True):
        products.add(each, weight)
    expected = float(lost.norm() / dense_mean(adapters, p).norm())
    assert aggregation_error(mean, products.mean()) == pytest.approx(expected, rel=1e-9)


def test_equal_clients_lose_nothing_and_zeros_have_no_error():
    products = ProductSum()
    for _ in range(3):
        products.add(adapter(0), 1.0)
    assert aggregation_error(adapter(0), products.mean()) == pytest.approx(0.0, abs=1e-12)
    zero = {name: torch.zeros_like(tensor) for name, tensor in adapter(0).items()}
    nothing = ProductSum()
    nothing.add(zero, 1.0)
    assert aggregation_error(zero, nothing.mean()) is None
    assert factor_names({"embedding.weight": torch.zeros(1)}) == {}


@pytest.mark.parametrize("rank", [1, 3, 5, 8])
def test_truncation_is_the_best_of_its_rank(rank):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    factors, singular = truncated_factors(Factors(matrix, torch.eye(5, dtype=torch.float64)), rank)
    torch.testing.assert_close(singular, torch.linalg.svdvals(matrix), rtol=0, atol=1e-12)
    assert factors.left.shape == (6, rank)
    # Eckart-Young: what is lost is the norm of the singular values left out.
    error = float((factors.product() - matrix).norm())
    assert error == pytest.approx(float(singular[rank:].norm()), abs=1e-10)
