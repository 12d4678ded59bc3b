from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pytest

from fedllm_data import profiles
from fedllm_data.clients import ClientDataset
from fedllm_data.codebook.making import make_codebook
from fedllm_data.errors import ConfigError
from fedllm_data.features.cache import FeatureCache, content_digest, default_cache
from fedllm_data.features.judges import Judges
from fedllm_data.heterogeneity.quality import ScorerInfo
from fedllm_data.model_encoders import load_encoder
from fedllm_data.profiles import client_profiles
from fedllm_data.scorers.scorer import Scorer


def _clients(task: str, first: str = "hi") -> ClientDataset:
    def said(role, text):
        return [{"role": role, "content": text}]

    rows = []
    for index, client_id in enumerate("aaaabbbbcc"):
        asked, answer = said("user", f"{first} {index}"), said("assistant", "w " * index + "end")
        columns = {"messages": asked + answer}
        if task == "preference":
            columns = {"prompt": asked, "chosen": answer, "rejected": said("assistant", "no"), "chosen_model": None}
        rows.append({"client_id": client_id, "row_id": str(index), "language": "en", **columns})
    return ClientDataset.from_dataset(datasets.Dataset.from_list(rows))


@pytest.mark.parametrize("task", ["sft", "preference"])
def test_a_second_profiling_embeds_and_scores_nothing_and_finds_the_same(tmp_path, monkeypatch, task):
    monkeypatch.setattr(profiles, "BATCH_ROWS", 4)
    calls = []

    def score(judged):
        calls.append(len(judged))
        return np.arange(len(judged)) / 7

    info = ScorerInfo("mine", revision="1", unit="none")
    book = make_codebook(_clients(task), scorers=[info])
    encoder = load_encoder(book.encoder)
    embedded = []

    def encode(texts):
        embedded.append(len(texts))
        return encoder.encode(texts)

    monkeypatch.setattr("fedllm_data.features.rows.load_encoder", lambda name: replace(encoder, encode=encode))
    settings = {"codebook": book, "judges": Judges((Scorer(info, score),)), "cache": FeatureCache(tmp_path)}
    plain = client_profiles([_clients(task)], codebook=book, judges=settings["judges"])
    calls.clear()
    embedded.clear()

    first = client_profiles([_clients(task)], **settings)
    assert (calls, embedded) == ([4, 4, 2], [4, 4, 2])
    assert client_profiles([_clients(task)], **settings) == first == plain
    assert (calls, embedded) == ([4, 4, 2], [4, 4, 2])

    client_profiles([_clients(task, first="hello")], **settings)
    assert calls[3:] == [4, 4, 2]  # other texts
    other = Judges((Scorer(ScorerInfo("mine", revision="2", unit="none"), score),))
    client_profiles([_clients(task)], **settings | {"judges": other})
    assert calls[6:] == [4, 4, 2]  # another revision


def test_columns_come_back_as_they_were(tmp_path):
    columns = {
        "embedding": np.arange(6, dtype=np.float32).reshape(3, 2) / 7,
        "score:x": np.array([0.1, np.nan, 1.0]),
        "half": np.array([0, 1, 1], np.int8),
        "has_parser": np.array([True, False, True]),
        "verb": ["write", None, ""],
        "none": [None, None, None],
    }
    cache = FeatureCache(tmp_path / "new" / "folder")
    cache.write("abcd", columns)
    kept = cache.read("abcd")
    assert kept is not None
    assert list(kept) == list(columns)
    for name, column in columns.items():
        if isinstance(column, list):
            assert kept[name] == column
        else:
            assert kept[name].dtype == column.dtype
            assert np.array_equal(kept[name], column, equal_nan=column.dtype.kind == "f")


def test_a_broken_file_is_as_none(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.write("abcd", {"half": np.array([1])})
    (tmp_path / "ab" / "abcd.parquet").write_text("broken")
    assert cache.read("abcd") is None


def test_the_digest_is_of_the_content_alone():
    table = pa.table({"a": ["x", "y", "z"], "b": [[1], [], [2, 3]]})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    named = table.replace_schema_metadata({"any": "thing"})
    assert content_digest(table, 1) == content_digest(chunked, 1) == content_digest(named, 1)
    others = [content_digest(table, 2), content_digest(table.slice(1), 1), content_digest(table.select(["a"]), 1)]
    assert len({content_digest(table, 1), *others}) == 4


def test_a_folder_that_was_asked_for_must_be_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: .*; name another folder"):
        FeatureCache(tmp_path / "file").write("abcd", {"half": np.array([1])})
    FeatureCache(tmp_path / "file", is_required=False).write("abcd", {"half": np.array([1])})


def test_the_user_decides_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDLLM_CACHE", str(tmp_path))
    assert default_cache() == FeatureCache(tmp_path / "features")
    monkeypatch.setenv("FEDLLM_CACHE", "off")
    assert default_cache() is None
    monkeypatch.delenv("FEDLLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == FeatureCache(tmp_path / "fedllm-commons" / "features", is_required=False)
