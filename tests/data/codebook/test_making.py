from dataclasses import replace

import datasets
import numpy as np
import pytest

from fedllm_data.clients import ClientDataset
from fedllm_data.codebook.making import make_codebook
from fedllm_data.encoders import hashed_ngrams
from fedllm_data.errors import ConfigError, ReportError
from fedllm_data.features.cache import FeatureCache
from fedllm_data.heterogeneity.quality import SHIPPED
from fedllm_data.model_encoders import load_encoder

TOPICS = ("How do I bake {}?", "Wer hat {} erfunden?", "你能告诉我{}吗？")
THINGS = ("bread", "a cake", "the wheel", "paper", "tea")


def _clients(num_rows: int, order: int = 1, split: str = "public") -> ClientDataset:
    rows = [
        {
            "client_id": split,
            "row_id": f"{split}-{index}",
            "language": ("en", "de", "zh")[index % 3],
            "messages": [
                {"role": "user", "content": TOPICS[index % 3].format(f"{THINGS[index % 5]} {index}")},
                {"role": "assistant", "content": "Gladly."},
            ],
        }
        for index in range(num_rows)
    ]
    return ClientDataset.from_dataset(datasets.Dataset.from_list(rows[::order]), split=split)


def test_the_order_of_the_rows_and_the_number_of_files_change_nothing():
    book = make_codebook(_clients(90))
    assert make_codebook(_clients(90, order=-1)) == book
    assert book.made_from == {"splits": ["public"], "num_rows": 90, "seed": 0}
    assert make_codebook(_clients(90), seed=1) != book


def test_clusters_find_the_three_kinds_of_text_and_the_largest_comes_first():
    book = make_codebook(_clients(100), max_clusters=3)
    vectors = hashed_ngrams([TOPICS[kind].format(thing) for kind in range(3) for thing in THINGS])
    clusters = book.clusters(vectors).reshape(3, -1)
    assert [len(set(row)) for row in clusters.tolist()] == [1, 1, 1]
    assert len(set(clusters[:, 0].tolist())) == 3
    assert clusters[0, 0] == 0  # 34 of 100 rows; the others have 33


def test_a_small_sample_has_few_clusters_and_a_sample_has_its_size():
    assert len(make_codebook(_clients(15)).centres) == 1
    assert len(make_codebook(_clients(64)).centres) == 4  # 16 rows for each
    assert make_codebook(_clients(90), sample_rows=40).made_from["num_rows"] == 40


def test_splits_are_sampled_together():
    both = make_codebook([_clients(40, split="train"), _clients(40, split="test")])
    assert both.made_from == {"splits": ["test", "train"], "num_rows": 80, "seed": 0}


def test_the_bandwidth_is_the_median_distance_of_projected_texts():
    book = make_codebook(_clients(90))
    texts = [TOPICS[index % 3].format(f"{THINGS[index % 5]} {index}") for index in range(90)]
    points = book.project(hashed_ngrams(texts)).astype(float)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))[np.triu_indices(90, 1)]
    assert book.fourier_bandwidth == pytest.approx(np.median(distances), abs=1e-5)


def test_texts_that_are_all_alike_give_one_cluster_and_a_bandwidth():
    rows = [{"client_id": "a", "messages": [{"role": "user", "content": "?"}]}] * 40
    book = make_codebook(ClientDataset.from_dataset(datasets.Dataset.from_list(rows)))
    assert (len(book.centres), book.fourier_bandwidth) == (1, 1.0)


def test_a_secret_salt_can_be_given():
    assert make_codebook(_clients(20), salt=b"a" * 32).prompt_salt == "61" * 32


def test_the_sample_is_embedded_once(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path)
    book = make_codebook(_clients(90), cache=cache)
    encoder = replace(load_encoder("hashed-ngrams-v1"), encode=lambda texts: pytest.fail("embedded again"))
    monkeypatch.setattr("fedllm_data.codebook.making.load_encoder", lambda name: encoder)
    assert make_codebook(_clients(90), cache=cache) == book


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ReportError, match="give at least 1, 1, 2 and 1"):
        make_codebook(_clients(9), dimensions=0)
    with pytest.raises(ReportError, match="the scorers are named heuristics, heuristics"):
        make_codebook(_clients(9), scorers=SHIPPED[:1] * 2)
    with pytest.raises(ReportError, match="no rows to make a codebook from"):
        make_codebook(_clients(9).select([]))
    with pytest.raises(ConfigError, match="there is no encoder 'nothing'"):
        make_codebook(_clients(9), encoder="nothing")
    with pytest.raises(ConfigError, match="parser 'no_parser' is not installed"):
        make_codebook(_clients(9), parsers={"en": "no_parser"})
