"""IFD against a stub whose losses are known, and score files that are whole, resumable and the same in any batch."""

import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fedllm_data.errors import ConfigError, MetricError, ResumeError
from fedllm_data.schema import SCHEMAS
from fedllm_data.scorers.score_file import read_scores
from fedllm_eval import row_quality
from fedllm_eval.cli import main
from fedllm_eval.ifd import difficulty
from fedllm_eval.policy.chat import encode_messages
from fedllm_eval.policy.models import load_policy
from fedllm_eval.row_quality import RowScoreSettings, score_rows


class Stub(torch.nn.Module):
    """Gives every token of the vocabulary a loss of 2 nats where a question was asked before, and of 4 where none was.

    `exp(-2)` for a hundred tokens is no distribution, so the answer must consist of the two tokens it knows.
    """

    def __init__(self, vocabulary, known, asked):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.vocabulary, self.known, self.asked = vocabulary, known, asked

    def forward(self, input_ids, attention_mask, use_cache=False):
        logits = torch.zeros(*input_ids.shape, self.vocabulary, dtype=torch.float64)
        for row, ids in enumerate(input_ids):
            loss = 2.0 if (ids == self.asked).any() else 4.0
            # Each known token has probability p = exp(-loss), the others share the rest.
            p = math.exp(-loss)
            rest = (1 - p * len(self.known)) / (self.vocabulary - len(self.known))
            logits[row] = math.log(rest)
            logits[row, :, self.known] = math.log(p)
        return type("Output", (), {"logits": logits})()


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder)


@pytest.fixture(scope="module")
def repo(tmp_path_factory, message_rows):
    """An sft repo with a train and a test split."""
    folder = tmp_path_factory.mktemp("repos") / "talks"
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        filled = [
            {**row, "row_id": f"{split}{i}", "language": "en", "detected_language": None}
            for i, row in enumerate(message_rows)
        ]
        pq.write_table(
            pa.Table.from_pylist(filled, SCHEMAS["sft"]), folder / "data" / f"{split}-00000-of-00001.parquet"
        )
    return folder


def _talk(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def test_losses_2_and_4_give_a_half(tokenizer):
    known = [tokenizer("a", add_special_tokens=False)["input_ids"][0], tokenizer.convert_tokens_to_ids("<|end|>")]
    stub = Stub(len(tokenizer), known, tokenizer.convert_tokens_to_ids("<|user|>"))
    scores = difficulty(stub, tokenizer, [_talk("what?", "a")])
    # The answer is "a" and its end of turn: L(y|x) = 2, L(y) = 4; IFD = 2 / 4, IRA = 4 - 2.
    assert scores.ifd_N.tolist() == [pytest.approx(0.5, abs=1e-6)]
    assert scores.ira_N.tolist() == [pytest.approx(2.0, abs=1e-5)]
    assert scores.num_tokens_N.tolist() == [2]


def _mean_loss(model, ids, mask):
    with torch.no_grad():
        logps = model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
    taken = logps.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    return -float(taken[torch.tensor(mask[1:]).bool()].mean())


def test_scores_equal_a_plain_loop_over_rows(policy, message_rows):
    tokenizer = policy.tokenizer
    talks = [row["messages"] for row in message_rows]
    scores = difficulty(policy.model, tokenizer, talks, batch_size=3)
    header = tokenizer("<|assistant|>", add_special_tokens=False)["input_ids"]
    for messages, ifd_value, ira_value in zip(talks, scores.ifd_N, scores.ira_N, strict=True):
        answer = tokenizer(messages[-1]["content"] + "<|end|>", add_special_tokens=False)["input_ids"]
        ids = encode_messages(tokenizer, messages)["input_ids"]
        given = _mean_loss(policy.model, ids, [0] * (len(ids) - len(answer)) + [1] * len(answer))
        alone = _mean_loss(policy.model, header + answer, [0] * len(header) + [1] * len(answer))
        assert ifd_value == pytest.approx(given / alone, abs=1e-5)
        assert ira_value == pytest.approx(alone - given, abs=1e-5)
        # IRA = L(y) (1 - IFD).
        assert ira_value == pytest.approx(alone * (1 - ifd_value), abs=1e-5)


def test_only_the_last_answer_is_judged_and_what_precedes_it_is_the_instruction(policy):
    one = difficulty(policy.model, policy.tokenizer, [_talk("hi", "yes", "go on", "no, the mill is old")])
    two = difficulty(policy.model, policy.tokenizer, [_talk("hi", "the river", "go on", "no, the mill is old")])
    assert one.num_tokens_N.tolist() == two.num_tokens_N.tolist()
    assert one.ifd_N[0] != two.ifd_N[0]


def test_neither_order_nor_batch_changes_a_score(policy, message_rows):
    talks = [row["messages"] for row in message_rows]
    together = difficulty(policy.model, policy.tokenizer, talks, batch_size=4)
    backwards = difficulty(policy.model, policy.tokenizer, talks[::-1], batch_size=1)
    np.testing.assert_allclose(together.ifd_N, backwards.ifd_N[::-1], atol=1e-5)


def test_rows_that_are_too_long_have_no_score(policy, message_rows):
    talks = [row["messages"] for row in message_rows]
    lengths = [len(encode_messages(policy.tokenizer, talk)["input_ids"]) for talk in talks]
    limit = sorted(lengths)[1]
    scores = difficulty(policy.model, policy.tokenizer, talks, max_length=limit)
    assert np.isnan(scores.ifd_N).tolist() == [length > limit for length in lengths]
    assert difficulty(policy.model, policy.tokenizer, []).ifd_N.shape == (0,)


def test_a_template_without_generation_prompt_leaves_the_first_token_out(policy, tokenizer):
    import copy

    plain = copy.deepcopy(tokenizer)
    plain.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}<|assistant|>"
        "{% else %}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}{% endif %}{% endfor %}"
    )
    talk = _talk("what runs past the mill?", "the river")
    with_prompt = difficulty(policy.model, tokenizer, [talk])
    assert difficulty(policy.model, plain, [talk]).num_tokens_N[0] == with_prompt.num_tokens_N[0] - 1


def test_a_scores_file_says_what_it_holds(tmp_path, repo, model_folder):
    out = tmp_path / "scores.parquet"
    told = []
    summary = score_rows(repo, model_folder, out, progress=lambda *words: told.append(words))
    assert told == [("rows", 4, 8), ("rows", 8, 8)]
    assert (summary["num_rows"], summary["num_scored"]) == (8, 8)
    scores = read_scores(out)
    assert [info.name for info in scores.infos] == ["ifd", "ira"]
    assert scores.infos[0].higher_is_better
    assert scores.infos[0].revision.startswith("tiny@")
    assert scores.infos[0].revision.endswith("max_length 128")
    assert pq.read_schema(out).names == ["row_id", "ifd", "ira", "num_tokens"]
    columns = scores.columns(["test1", "unknown"])
    assert np.isfinite(columns["score:ifd"][0])
    assert np.isnan(columns["score:ifd"][1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.parquet"]


def test_a_run_that_broke_off_goes_on_and_ends_as_if_it_had_not(tmp_path, repo, model_folder, monkeypatch):
    monkeypatch.setattr(row_quality, "CHUNK_ROWS", 3)
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    score_rows(repo, model_folder, whole)
    calls = []

    def break_off(what, done, total):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_rows(repo, model_folder, broken, progress=break_off)
    assert not broken.exists()
    num_scored = []
    difficulty = row_quality.difficulty
    monkeypatch.setattr(row_quality, "difficulty", lambda *a, **k: num_scored.append(1) or difficulty(*a, **k))
    score_rows(repo, model_folder, broken)
    assert len(num_scored) == 2  # of four chunks: 3 + 1 rows of each split
    assert broken.read_bytes() == whole.read_bytes()


def test_chunks_of_other_settings_are_refused(tmp_path, repo, model_folder):
    out = tmp_path / "scores.parquet"

    def break_off(*words):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_rows(repo, model_folder, out, progress=break_off)
    with pytest.raises(ResumeError, match="rows scored with another model, other rows or other settings; remove it"):
        score_rows(repo, model_folder, out, settings=RowScoreSettings(max_length=100))
    shutil.rmtree(tmp_path / ".scores.parquet.parts")
    assert score_rows(repo, model_folder, out, settings=RowScoreSettings(max_length=100))["num_scored"] == 8


def test_a_sample_takes_rows_of_every_client(tmp_path, repo, model_folder):
    score_rows(
        repo,
        model_folder,
        tmp_path / "scores.parquet",
        settings=RowScoreSettings(splits=["train"], max_rows_per_client=1),
    )
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 3


def test_pairs_are_judged_by_the_chosen_answer(tmp_path, policy, pair_rows):
    folder = tmp_path / "pairs"
    (folder / "data").mkdir(parents=True)
    filled = [
        {**row, "row_id": str(i), "language": "en", "chosen_model": None, "rejected_model": None}
        for i, row in enumerate(pair_rows)
    ]
    table = pa.Table.from_pylist(filled, SCHEMAS["preference"])
    pq.write_table(table, folder / "data" / "test-00000-of-00001.parquet")
    score_rows(folder, policy, tmp_path / "scores.parquet")
    found = read_scores(tmp_path / "scores.parquet").columns([str(i) for i in range(len(pair_rows))])
    talks = [[*row["prompt"], *row["chosen"]] for row in pair_rows]
    expected = difficulty(policy.model, policy.tokenizer, talks)
    np.testing.assert_allclose(found["score:ifd"], expected.ifd_N, atol=1e-5)


def test_nothing_to_score_is_an_error(tmp_path, repo, model_folder):
    with pytest.raises(MetricError, match="none of 8 rows could be scored: all are longer than 2 tokens"):
        score_rows(repo, model_folder, tmp_path / "scores.parquet", settings=RowScoreSettings(max_length=2))
    with pytest.raises(ConfigError, match="is a folder; name the scores file"):
        score_rows(repo, model_folder, tmp_path)


def test_the_command(tmp_path, repo, model_folder, capsys):
    out = tmp_path / "scores.parquet"
    command = ["quality", str(repo), "--model", str(model_folder), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "8 of 8 rows scored by tiny@" in printed.out
    assert f"fedllm-data report {repo} --scores {out}" in printed.out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_scored"] == 8
