"""Bytes, times, operations and energy by hand."""

import math

import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.cost import communication, energy_kwh, training_flops, transfer_seconds

DOWN, UP, CLIENTS = [400, 600], [200, 300], [2, 3]


def test_bytes_by_hand():
    found = communication(DOWN, UP, CLIENTS)
    assert (found.download_bytes, found.upload_bytes, found.num_rounds, found.num_visits) == (1000, 500, 2, 5)
    assert found.bytes_per_visit == 300.0
    assert found.total_mib == 1500 / 1024 / 1024
    assert communication(DOWN[::-1], UP[::-1], CLIENTS[::-1]) == found


def test_a_published_total():
    # FedLLM-Bench, Fed-Aya: 200 rounds of 4 clients, 33.55 MB (8,388,608 values of 4 bytes) each way: 53.7 GB.
    per_round = [4 * 4 * 8_388_608] * 200
    found = communication(per_round, per_round, [4] * 200)
    assert (found.download_bytes + found.upload_bytes) / 1e9 == pytest.approx(53.7, abs=0.05)


def test_rounds_in_which_nobody_took_part():
    found = communication([0], [0], [0])
    assert math.isnan(found.bytes_per_visit)
    assert transfer_seconds([0], [0], [0], download_mbit_per_second=1, upload_mbit_per_second=1) == 0.0


def test_transfer_by_hand():
    # A client's share is 200 down and 100 up in both rounds; 8 bits: 1600 / 1000 + 800 / 400 = 3.6 s a round.
    seconds = transfer_seconds(DOWN, UP, CLIENTS, download_mbit_per_second=0.001, upload_mbit_per_second=0.0004)
    assert seconds == pytest.approx(7.2)


def test_operations_by_hand():
    assert training_flops(7, 3) == 6 * 7 * 3
    assert training_flops(7, 3, adapter_parameters=2) == (4 * 7 + 6 * 2) * 3
    assert training_flops(7, 3, adapter_parameters=2, recompute=True) == (4 * 7 + 6 * 2 + 2 * 9) * 3
    assert training_flops(7, 3, adapter_parameters=2, reference=True) == (4 * 7 + 6 * 2 + 2 * 7) * 3
    # Kaplan et al.: one petaflop/s-day is 8.64e19 operations, about 96 billion tokens of 150 million parameters.
    assert training_flops(150_000_000, 96_000_000_000) == pytest.approx(8.64e19)


def test_an_adapter_as_large_as_the_base_costs_more_than_training_it():
    assert training_flops(10, 1, adapter_parameters=10) > training_flops(10, 1)


def test_energy():
    assert energy_kwh(3600, 1000) == 1.0
    assert energy_kwh(0, 1000) == 0.0


def test_errors():
    for columns in ([[], [], []], [[1], [1, 2], [1]], [[-1], [1], [1]], [[1], [float("nan")], [1]]):
        with pytest.raises(MetricError):
            communication(*columns)
    with pytest.raises(MetricError, match="upload bandwidth"):
        transfer_seconds([1], [1], [1], download_mbit_per_second=1.0, upload_mbit_per_second=0.0)
    with pytest.raises(MetricError):
        training_flops(0, 3)
    with pytest.raises(MetricError):
        energy_kwh(-1.0, 3.0)
