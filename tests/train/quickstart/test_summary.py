"""The quickstart's page and table: escaped, honest about what is shown, and clear about what is missing."""

import html
import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.quickstart import summary
from fedllm_train.quickstart.answers import choose_rows, generate_answers
from fedllm_train.quickstart.commands import steps
from fedllm_train.quickstart.evidence import paired_clients, read_scores, summary_of
from fedllm_train.quickstart.summary import print_table, write_summary
from fedllm_train.quickstart.summary_words import comparison_sentence, headline, score_text, unseen_sentence
from tests.train.quickstart.conftest import SEED


@pytest.fixture
def page(finished):
    return (finished / "summary.html").read_text(encoding="utf-8")


def set_scores(folder, kind, policy, score, value_of):
    """Overwrite a score client by client: what a model that is better or worse would have left."""
    path = folder / "scores" / kind / policy / "per_client.parquet"
    table = pq.read_table(path)
    values = [value_of(position) for position in range(table.num_rows)]
    pq.write_table(table.set_column(table.column_names.index(score), score, pa.array(values, pa.float64())), path)
    path.with_name("per_row.parquet").unlink(missing_ok=True)  # the rows would tell another story


def test_hostile_text_is_escaped_and_no_script_is_on_the_page(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    assert "<b>it is" not in page
    assert "&lt;b&gt;it is" in page


def test_the_page_needs_no_other_file(page):
    assert not re.findall(r"""(?:src|@import|url\()\s*=?\s*["']?(?!#)""", page.replace("url(#", ""))
    links = set(re.findall(r'<a href="([^"]*)"', page))
    assert links == {"report/report.html"}
    assert page.count("<svg") == 3


def test_the_same_folder_gives_the_same_page(finished, page):
    assert write_summary(finished).read_text(encoding="utf-8") == page


def test_the_page_names_every_command_and_the_bytes_of_the_ledger(finished, page):
    commands = [re.sub("<[^>]*>", "", text) for text in re.findall("<pre>(.*?)</pre>", page)]
    assert [html.unescape(text) for text in commands] == [command for _, command in steps(finished, seed=SEED)]
    ledgers = [
        json.loads((finished / "runs" / run / "rounds.jsonl").read_text().splitlines()[-1])["ledger"]
        for run in ("sft", "dpo")
    ]
    moved = sum(ledger["download_bytes"] + ledger["upload_bytes"] for ledger in ledgers)
    assert f"{moved / 1000:.0f} kB" in page


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        (lambda position: 1.0 + 0.01 * position, "made the model better for these clients"),
        (lambda position: 2.0 + 0.1 * (-1) ** position, "made no difference that these clients can show"),
        (lambda position: 3.0 + 0.01 * position, "made the model worse for these clients"),
    ],
)
def test_the_headline_follows_the_verdict(finished, tmp_path, monkeypatch, after, outcome):
    for slow in ("draw_curves", "draw_before_after", "draw_languages"):
        monkeypatch.setattr(summary, slow, lambda *given: "<svg></svg>")
    monkeypatch.setattr(summary, "held_out_answers", lambda folder: ([], 1))
    folder = tmp_path / "quickstart"
    shutil.copytree(finished, folder)
    set_scores(folder, "loss", "base", "heldout_loss", lambda position: 2.0)
    set_scores(folder, "loss", "sft", "heldout_loss", after)
    text = write_summary(folder).read_text(encoding="utf-8")
    assert f"Federated SFT {outcome}" in re.search("<h1>(.*?)</h1>", text)[1]


def test_nine_headlines_say_nine_things():
    outcomes = ("better", "undecided", "worse")
    assert len({headline(sft, dpo) for sft in outcomes for dpo in outcomes}) == 9
    assert headline("better", "worse").endswith(", but federated DPO took it further from what they prefer")


def test_an_undecided_comparison_claims_no_direction():
    item = {
        "score": "ranking_accuracy",
        "baseline_mean": 0.5,
        "other_mean": 0.51,
        "difference": 0.01,
        "ci_low": -0.02,
        "ci_high": 0.04,
        "better_fraction": 0.5,
        "num_clients": 40,
        "outcome": "undecided",
    }
    sentence = comparison_sentence(item)
    assert sentence == (
        "Whether the answer they preferred is more often the likelier one cannot be told: 50.0 % of pairs before, "
        "51.0 % after (+1.0 points [−2.0, +4.0]; chance could explain it); 50 % of 40 clients gain."
    )
    assert "cannot be told" in unseen_sentence(None, item)
    assert unseen_sentence(None, None) == ""


@pytest.mark.parametrize(
    "name",
    [
        "report/heterogeneity.json",
        "base/config.json",
        "base/model.safetensors",
        "runs/sft/rounds.jsonl",
        "runs/dpo/config.yaml",
        "runs/dpo/adapter/adapter_config.json",
        "scores/loss/sft/results.json",
        "scores/preference/dpo/per_client.parquet",
    ],
)
def test_a_missing_piece_is_named_and_the_earlier_page_stays(finished, tmp_path, name):
    folder = tmp_path / "quickstart"
    shutil.copytree(finished, folder)
    before = (folder / "summary.html").read_bytes()
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=re.escape(f"{folder / name} is missing: make the folder whole by")):
        write_summary(folder)
    assert (folder / "summary.html").read_bytes() == before


def test_a_broken_file_is_named(finished, tmp_path):
    folder = tmp_path / "quickstart"
    shutil.copytree(finished, folder)
    (folder / "runs/sft/rounds.jsonl").write_text('{"round_index": 0')
    with pytest.raises(ConfigError, match=r"rounds\.jsonl, line 1 is no JSON.*or make the folder whole by"):
        write_summary(folder)


def test_the_table_shows_each_policy_with_interval_and_clients(finished, capsys):
    print_table(finished)
    out = capsys.readouterr().out
    base = read_scores(finished)["loss", "base"]
    num_test, num_unseen = (base.summary["splits"][split]["num_clients"] for split in ("test", "unseen"))
    mean = score_text("heldout_loss", summary_of(base, "test", "heldout_loss")["value"])
    for text in ("base", "SFT", "DPO", f"{num_test} training", f"{num_unseen} unseen", "worst-served", mean, " to "):
        assert text in out
    with pytest.raises(ConfigError, match=r"scores/loss/base/results\.json is missing"):
        print_table(Path("no-such-folder"))


def test_pairs_gain_in_the_direction_of_the_score(finished, tmp_path):
    folder = tmp_path / "quickstart"
    shutil.copytree(finished, folder)
    set_scores(folder, "loss", "base", "heldout_loss", lambda position: 2.0)
    set_scores(folder, "loss", "sft", "heldout_loss", lambda position: 1.5 if position else None)
    scores = read_scores(folder)
    pairs = paired_clients(scores["loss", "base"], scores["loss", "sft"], "test", "heldout_loss")
    num_test = scores["loss", "base"].summary["splits"]["test"]["num_clients"]
    assert len(pairs) == num_test - 1  # one has no score
    assert {pair["gain"] for pair in pairs} == {0.5}  # 2.0 - 1.5: a lower loss is a gain


def test_the_worst_decile_has_an_interval_around_it(finished):
    results = read_scores(finished)["loss", "base"]
    worst = summary_of(results, "test", "heldout_loss", worst=True)
    assert worst["low"] <= worst["value"] <= worst["high"]
    assert worst["value"] >= summary_of(results, "test", "heldout_loss")["value"]
    assert summary_of(results, "test", "ranking_accuracy") is None


def test_answers_do_not_depend_on_the_prompts_beside_them(finished):
    from fedllm_eval.policy.policies import load_policy

    policy = load_policy(finished / "runs" / "dpo", device="cpu")
    prompts = [[{"role": "user", "content": text}] for text in ("what is 1 and 2?", "and?")]
    assert generate_answers(policy, prompts) == [generate_answers(policy, [prompt])[0] for prompt in prompts]
    assert generate_answers(policy, []) == []


def test_rows_to_show_do_not_depend_on_their_order(kit):
    rows = [
        {**row, "language": language}
        for language in ("en", "de", "fr")
        for row in kit.sft_rows(f"client-{language}", 5)
    ]
    chosen = choose_rows(rows, 3)
    assert chosen == choose_rows(rows[::-1], 3)
    assert {row["language"] for row in chosen} == {"en", "de", "fr"}
