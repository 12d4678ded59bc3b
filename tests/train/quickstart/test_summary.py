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
    assert page.count("<script") == 1  # the one that chooses the language
    assert "&lt;script&gt;alert(" in page
    assert "<b>it is" not in page
    assert "&lt;b&gt;it is" in page


def test_the_page_needs_no_other_file(page):
    assert not re.findall(r"""(?:src|@import|url\()\s*=?\s*["']?(?!#)""", page.replace("url(#", ""))
    assert page.count("<symbol") == 3


def test_every_link_leads_to_a_page_that_is_there_or_to_a_place_on_this_one(finished, page):
    links = set(re.findall(r'<a (?:class="\w+" )?href="([^"]*)"', page))
    places = {link for link in links if not link.startswith("#")}
    assert {"report/report.html", "compare/loss/comparison.html", "scores/loss/sft/results.html"} <= places
    assert {"fed-synth/README.md", "runs/dpo/README.md"} <= places
    assert all((finished / place).is_file() for place in places)
    ids = set(re.findall(r'\sid="([^"]*)"', page))
    assert {link[1:] for link in links if link.startswith("#")} <= ids


def test_a_comparison_links_the_results_it_rests_on(finished):
    folder = finished / "compare" / "loss"
    links = set(re.findall(r'<a href="([^"#][^"]*)"', (folder / "comparison.html").read_text(encoding="utf-8")))
    assert links == {"../../scores/loss/base/results.html", "../../scores/loss/sft/results.html"}
    assert all((folder / link).is_file() for link in links)


def _made_up(**answers):
    names = {"base": "12 ✓", "sft": "10", "dpo": "10"} | answers
    return [{"client_id": "c", "language": "en", "prompt": "What is 3 + 7?", "reference": "10", **names}]


@pytest.fixture
def told(finished, tmp_path, monkeypatch):
    """Made-up answers and a language -> the page."""
    for slow in ("draw_curves", "draw_before_after", "draw_languages"):
        monkeypatch.setattr(summary, slow, lambda *given: '<svg viewBox="0 0 1 1"></svg>')
    folder = tmp_path / "quickstart"
    shutil.copytree(finished, folder)

    def tell(answers, language="en"):
        monkeypatch.setattr(summary, "held_out_answers", lambda folder: (answers, 1))
        return write_summary(folder, language).read_text(encoding="utf-8")

    return tell


def test_no_check_mark_of_a_model_can_be_read_as_a_verdict(told):
    page = told(_made_up(sft="10 ✅"))
    assert not re.search("[✓✔✅]", page)
    assert page.count("(writes a check mark)") == 2
    # The one answer that is the reference word for word is the one that is green.
    assert re.findall(r'class="same">([^<]*)<', page) == ["10"]


def test_an_answer_in_another_language_is_in_the_headline(told):
    headline_of = re.compile("<h1>(.*?)</h1>")
    spanish = "long, that is the opposite. ¡Con mucho gusto, que tengas un buen día!"
    page = told(_made_up(dpo=spanish))
    assert "yet 1 of the 1 answers shown below is partly in another language" in headline_of.search(page)[1]
    assert "partly in another language (es)" in page
    assert "質問と異なる言語です" in headline_of.search(told(_made_up(dpo=spanish), "ja"))[1]
    assert "another language" not in headline_of.search(told(_made_up()))[1]


def test_the_first_screen_goes_without_technical_figures(told):
    first = told(_made_up()).partition("<nav")[0].partition("<header>")[2]
    plain = re.sub("<details>.*?</details>", "", first, flags=re.DOTALL)
    assert "In figures" in first
    assert "It rests on one run with one seed" in plain
    assert not re.search(r"nats|\[|Jain|tau|p =", re.sub("<[^>]*>", "", plain))


def test_the_same_folder_gives_the_same_page(finished, page):
    assert write_summary(finished).read_text(encoding="utf-8") == page


def test_the_page_names_every_command_and_the_bytes_of_the_ledger(finished, page):
    commands = re.findall("<pre>(.*?)</pre>", page)
    assert [html.unescape(text) for text in commands] == 2 * [command for _, command in steps(finished, seed=SEED)]
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
        monkeypatch.setattr(summary, slow, lambda *given: '<svg viewBox="0 0 1 1"></svg>')
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
