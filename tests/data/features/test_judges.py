from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fedllm_data.codebook import Codebook
from fedllm_data.errors import ConfigError
from fedllm_data.features.judges import Judges, find_judges
from fedllm_data.heterogeneity.quality import SHIPPED, ScorerInfo
from fedllm_data.scorers.score_file import ScoreFile
from fedllm_data.scorers.scorer import Scorer

BOOK = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")
IFD = ScorerInfo("ifd", revision="model@1", unit="ratio")
FILE = ScoreFile((IFD,), pa.table({"row_id": ["b", "a"], "ifd": [0.5, None]}))


def test_shipped_scorers_need_not_be_given_and_a_file_comes_beside_them():
    judges = find_judges(replace(BOOK, scorers=(*SHIPPED[:2], IFD)), Judges(files=(FILE,)))
    assert sorted(info.name for info in judges.infos) == ["heuristics", "ifd", "repetition"]
    scores = judges.from_files(pa.table({"row_id": ["a", "b", "c"]}))["score:ifd"]
    assert np.array_equal(scores, [np.nan, 0.5, np.nan], equal_nan=True)


def test_a_scorer_that_is_missing_unknown_or_of_another_revision_is_refused():
    with pytest.raises(ConfigError, match="lists scorer 'ifd' and there are no scores of it"):
        find_judges(replace(BOOK, scorers=(IFD,)))
    with pytest.raises(ConfigError, match="the codebook does not list scorer 'ifd'"):
        find_judges(BOOK, Judges(files=(FILE,)))
    other = Scorer(replace(IFD, revision="model@2"), lambda judged: np.zeros(len(judged)))
    with pytest.raises(ConfigError, match="scorer 'ifd' is at revision model@2, the codebook's is model@1"):
        find_judges(replace(BOOK, scorers=(IFD,)), Judges(scorers=(other,)))


def test_a_scorer_of_a_shipped_name_takes_its_place():
    mine = Scorer(replace(SHIPPED[1], revision="mine"), lambda judged: np.ones(len(judged)))
    judges = find_judges(replace(BOOK, scorers=(mine.info,)), Judges(scorers=(mine,)))
    assert judges.scorers == (mine,)
