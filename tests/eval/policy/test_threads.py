"""Threads by model size, in the commands and where nobody said."""

import pytest
import torch

from fedllm_eval.policy.policies import load_policy
from fedllm_eval.policy.threads import fit_threads, threads_by_size
from fedllm_train.engines.process_engine import threads_of_a_process


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_the_largest_model_of_a_command_decides_and_afterwards_nothing_is_changed():
    with threads_by_size():
        assert torch.get_num_threads() == 4  # no model yet
        seen = []
        for num_parameters in (1_000_000, 25_000_000, 1_000_000, 7_000_000_000):
            fit_threads(num_parameters)
            seen.append(torch.get_num_threads())
    assert seen == [1, 2, 2, 4]
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_who_says_how_many_is_heard(monkeypatch, name):
    monkeypatch.setenv(name, "4")
    with threads_by_size():
        fit_threads(1_000_000)
        assert torch.get_num_threads() == 4


def test_a_command_takes_one_thread_for_a_tiny_model_and_python_keeps_its_own(model_folder):
    load_policy(model_folder)
    assert torch.get_num_threads() == 4
    with threads_by_size():
        load_policy(model_folder)
        assert torch.get_num_threads() == 1


def test_beside_a_gpu_nothing_is_changed(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with threads_by_size():
        fit_threads(1_000_000)
        assert torch.get_num_threads() == 4


def test_several_processes_compute_with_the_threads_of_one_where_the_cores_suffice():
    for num_threads, num_cores, num_processes in ((1, 2, 2), (1, 1, 8), (2, 16, 8), (4, 16, 4)):
        assert threads_of_a_process(num_threads, num_cores, num_processes) == num_threads
    assert threads_of_a_process(16, 16, 4) == 4
