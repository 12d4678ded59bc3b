"""IID partitions of a generated corpus lie inside the nulls; what is not IID does not."""

import numpy as np
import pytest
from datasets import Dataset

from fedllm_data.calibration import corpus_features, deal_profiles, iid_p_values
from fedllm_data.clients import ClientDataset
from fedllm_data.codebook.making import make_codebook
from fedllm_data.heterogeneity import AXES, measure_axes, profile_rows
from fedllm_data.sources.synth import read_sft

CHEAP = {name: AXES[name] for name in ("quantity", "language", "length", "quality", "instruction")}
NUM_SEEDS = 20


@pytest.fixture(scope="module")
def corpus():
    """Clients that differ on every axis."""
    options = {"num_clients": "30", "public_rows": "0"}
    rows = [item.row for item in read_sft(None, 0, options)]
    return ClientDataset.from_dataset(Dataset.from_list(rows), name="fed-synth")


@pytest.fixture(scope="module")
def features(corpus):
    codebook = make_codebook([corpus])
    return corpus_features([corpus], codebook), codebook.digest


def test_dealing_keeps_sizes_and_rows(features):
    columns, digest = features
    profiles = deal_profiles(columns, digest, seed=4)
    natural = np.unique(columns["client_id"], return_counts=True)[1]
    assert sorted(profile.num_rows for profile in profiles) == sorted(natural.tolist())
    for language, rows in zip(*np.unique(columns["language"].astype(str), return_counts=True), strict=True):
        assert sum(profile.counts["language"].get(language, 0) for profile in profiles) == rows


def test_the_natural_clients_differ_on_these_axes(features):
    columns, digest = features
    own = {name: columns["client_id"] == name for name in np.unique(columns["client_id"]).tolist()}
    parts = {name: {key: column[rows] for key, column in columns.items()} for name, rows in own.items()}
    profiles = [profile_rows(name, part, codebook=digest) for name, part in parts.items()]
    results = measure_axes(profiles, num_null=99, num_bootstrap=1, axes=CHEAP)
    assert {name for name, result in results.items() if result.verdict == "more than chance"} == set(CHEAP)


def test_iid_partitions_lie_inside_the_null_of_every_axis(features):
    columns, digest = features
    p_values = iid_p_values(columns, CHEAP, digest, seeds=range(NUM_SEEDS), num_null=49)
    for name, axis in CHEAP.items():
        values = np.array(p_values[name, axis.headline])
        assert len(values) == NUM_SEEDS
        # 15 of 20 or fewer have probability 0.003 where the null holds; the seeds are fixed.
        assert (values > 0.05).sum() > 15, (name, values.round(2).tolist())
        assert len(np.unique(values)) > 5
