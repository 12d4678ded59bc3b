"""Cohorts are drawn in blocks of clients, and are those of NumPy's own calls on whole arrays, to the client."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.client_index import sorted_ids
from fedllm_data.row_counts import row_counts
from fedllm_train.participation import cohort_rules
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.seeds import stream_rng


def whole(rule, ids, size, sizes, seed, round_index):
    """The cohort as it was drawn before: from arrays of all clients."""
    rng = stream_rng(seed, "cohort", round_index=round_index)
    if rule == "uniform":
        chosen = rng.choice(len(ids), size=size, replace=False)
    elif rule == "weighted":
        rows = np.array([sizes[client_id] for client_id in ids], dtype=np.float64)
        chosen = rng.choice(len(ids), size=size, replace=False, p=rows / rows.sum())
    elif rule == "poisson":
        chosen = np.flatnonzero(rng.random(len(ids)) < size / len(ids))
    else:
        chosen = random.Random(round_index).sample(range(len(ids)), size)
    return sorted(ids[place] for place in chosen)


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(["uniform", "weighted", "poisson", "fedllm-bench"]),
    counts=st.lists(st.one_of(st.integers(1, 9), st.integers(1, 10**7)), min_size=1, max_size=80),
    share=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    block=st.integers(1, 90),
    on_disk=st.booleans(),
)
def test_every_rule_draws_what_it_drew(rule, counts, share, seed, block, on_disk):
    ids = [f"c{number:03d}" for number in range(len(counts))]
    size = max(1, round(share * len(ids)))
    sizes = dict(zip(ids, counts, strict=True))
    expected = whole(rule, ids, size, sizes, seed, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort_rules, "BLOCK", block)
        if on_disk:
            ids = sorted_ids(ids)
            sizes = row_counts(ids, counts)
        assert sample_cohort(ids, size, seed=seed, round_index=3, rule=rule, sizes=sizes) == expected


@pytest.mark.parametrize("rule", ["uniform", "weighted", "poisson", "fedllm-bench"])
@pytest.mark.parametrize("num_clients", [9_999, 16_384, 50_001])
def test_the_same_with_many_clients(rule, num_clients):
    counts = np.random.default_rng(num_clients).zipf(1.6, num_clients).clip(1, 10**6)
    ids = sorted_ids(f"c{number:06d}" for number in range(num_clients))
    sizes = row_counts(ids, counts)
    for size in (3, 300):
        expected = whole(rule, list(ids), size, dict(sizes.items()), 7, size)
        assert sample_cohort(ids, size, seed=7, round_index=size, rule=rule, sizes=sizes) == expected
