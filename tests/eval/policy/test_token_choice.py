"""Tokens chosen for a whole batch are those that each row alone is given by the formula."""

import hashlib

import numpy as np
import pytest
import torch

from fedllm_eval.policy import token_choice
from fedllm_eval.policy.token_choice import TokenChooser


def by_the_formula(logits_V, temperature, top_p, stream):
    """One row, everything sorted."""
    p_V = (logits_V.double() / temperature).softmax(-1)
    if top_p < 1:
        p_sorted_V, order_V = p_V.sort(descending=True, stable=True)
        gone_V = p_sorted_V.cumsum(-1) - p_sorted_V >= top_p
        p_V[order_V[gone_V]] = 0.0
    cdf_V = p_V.cumsum(-1)
    drawn = stream.random() * float(cdf_V[-1])
    return int((cdf_V <= drawn).sum())


def stream_of(seed, key):
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def logits(kind, num_rows, num_words, generator):
    drawn = torch.randn(num_rows, num_words, generator=generator)
    if kind == "ties":
        return (drawn * 2).round()
    return drawn * {"peaked": 8.0, "flat": 0.01, "usual": 2.0}[kind]


@pytest.mark.parametrize("num_words", [2, 3, 300, 5000])
@pytest.mark.parametrize("kind", ["usual", "peaked", "flat", "ties"])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.5, 0.5), (1.0, 1e-9), (0.3, 0.999)])
def test_a_batch_is_given_what_each_row_alone_is(kind, num_words, temperature, top_p):
    generator = torch.Generator().manual_seed(num_words)
    choose, keys = TokenChooser(temperature, top_p, 5), [f"talk {at}" for at in range(7)]
    streams = {key: stream_of(5, key) for key in keys}
    for step in range(4):
        alive = keys[step:]
        logits_BV = logits(kind, len(alive), num_words, generator)
        expected = [
            by_the_formula(logits_V, temperature, top_p, streams[key])
            for key, logits_V in zip(alive, logits_BV, strict=True)
        ]
        assert choose(alive, logits_BV) == expected


def test_few_sorted_words_are_enough_or_all_are_sorted(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits_BV = logits("usual", 6, 400, generator)
    keys = list("abcdef")
    expected = [TokenChooser(1.0, 0.9, 0)(keys, logits_BV)]
    for number in (1, 5, 399, 1000):
        monkeypatch.setattr(token_choice, "NUM_LIKELIEST", number)
        assert TokenChooser(1.0, 0.9, 0)(keys, logits_BV) == expected[0]


def test_temperature_zero_takes_the_likeliest():
    logits_BV = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert TokenChooser(0.0, 0.5, 0)(["a", "b"], logits_BV) == [1, 0]


def test_a_vocabulary_of_one_word():
    assert TokenChooser(1.0, 0.5, 0)(["a"], torch.tensor([[2.0]])) == [0]
