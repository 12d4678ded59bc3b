"""The pages say what was decided in plain words, in both languages, and name nobody where they may not."""

import json
import math
import re
from datetime import UTC, datetime
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fedllm_data.wording.catalogue import in_language
from fedllm_eval.cli import main
from fedllm_eval.deciding.decision import decide
from fedllm_eval.deciding.decision_page import partner_anchor
from fedllm_eval.deciding.decision_words import gain_sentences
from fedllm_eval.deciding.partners import size_groups
from fedllm_eval.deciding.plain_amounts import own_gain
from fedllm_eval.deciding.trained_how import TrainedHow, how_sentences, trained_how
from tests.data.reporting.chromium import CHROMIUM, browser

TECHNICAL = ("nats", "Jain", "tau", "[", "p-value", "heldout_loss", "ranking_accuracy")


def scores(num=40):
    rng = np.random.default_rng(0)
    before = 2 + rng.random(num)
    after = before - 0.8 - 0.1 * rng.random(num)
    after[:2] = before[:2] + 0.2
    return before.tolist(), after.tolist()


def command(*words):
    return main(["decide", *map(str, words)])


def first_screen(html):
    return re.sub(r"<[^>]+>", " ", html.split("<header>")[1].split("</header>")[0])


def test_the_first_screen_has_no_technical_word(save_run, tmp_path, capsys):
    assert command(save_run("sft", *scores()), "--out", tmp_path / "out", "--language", "en") == 0
    said = first_screen((tmp_path / "out" / "decision.html").read_text(encoding="utf-8"))
    for question in ("What was gained?", "For whom?", "Who loses?", "At what cost?", "And going alone?"):
        assert question in said
    assert not [word for word in TECHNICAL if word in said]
    assert "Release it" in said
    assert "2 partners (5 %) are worse off." in said
    assert "c001" in said
    assert "doubt: " in capsys.readouterr().out


def test_nobody_is_named_on_request(save_run, tmp_path):
    out, run = tmp_path / "out", save_run("sft", *scores())
    assert command(run, "--out", out) == 0
    assert (out / "partners.html").exists()
    assert command(run, "--out", out, "--unnamed") == 0
    # Nor does the page for partners of an earlier decision stay beside it.
    assert not (out / "partners.html").exists()
    for name in ("decision.html", "decision.json"):
        assert "c001" not in (out / name).read_text(encoding="utf-8")


def test_the_record_names_nobody_and_has_every_figure(save_run, tmp_path, capsys):
    assert command(save_run("sft", *scores()), "--out", tmp_path / "out", "--json") == 0
    record = json.loads((tmp_path / "out" / "decision.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == record
    assert "c001" not in json.dumps(record)
    assert record["candidates"][0]["gain"]["num_worse"] == 2


def test_a_partner_reads_its_own_gain_and_price(save_run, tmp_path):
    assert command(save_run("sft", *scores()), "--out", tmp_path / "out", "--language", "en") == 0
    html = (tmp_path / "out" / "partners.html").read_text(encoding="utf-8")
    own = html.split(f'<section id="{partner_anchor("c000")}"')[1].split("</section>")[0]
    assert "predicted worse" in own
    assert "3 held-out rows only" in own
    assert "2 rounds" in own
    absent = html.split(f'<section id="{partner_anchor("c010")}"')[1].split("</section>")[0]
    assert "You took part in no round" in absent


def test_every_link_to_a_partner_leads_to_its_section(save_run, tmp_path):
    ids = ["Acme", "acme", "\u6771\u4eac", *(f"c{number}" for number in range(37))]
    assert command(save_run("sft", *scores(), ids=ids), "--out", tmp_path / "out") == 0
    pages = {
        name: (tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("decision.html", "partners.html")
    }
    links = re.findall(r'href="partners.html#([^"]+)"', pages["decision.html"])
    sections = re.findall(r'<section id="(partner-[^"]+)"', pages["partners.html"])
    assert len(links) == 2 * 10
    assert set(links) <= set(sections)
    assert len(set(sections)) == len(sections) == len(ids)


def test_both_languages_say_the_same_figures(save_run, tmp_path):
    assert command(save_run("sft", *scores()), "--out", tmp_path / "out") == 0
    html = (tmp_path / "out" / "decision.html").read_text(encoding="utf-8")
    assert "公開をお勧めします" in html
    decision = decide([tmp_path / "run-sft"])
    english = gain_sentences(decision.chosen)
    with in_language("ja"):
        japanese = gain_sentences(decision.chosen)
    assert re.findall(r"[\d.]+\d", " ".join(english)) == re.findall(r"[\d.]+\d", " ".join(japanese))


def test_a_loss_that_rises_is_told_as_a_loss():
    assert own_gain("heldout_loss", 1.0, 2.0) == (
        "each word of an answer is predicted worse: only 37 % as well as before"
    )


def test_partners_are_grouped_by_size(save):
    decision = decide([save("sft", *scores(9))])
    groups = size_groups(decision.partners)
    assert [group.share_of_rows for group in groups] == pytest.approx([1 / 3] * 3)
    assert size_groups(decision.partners[:5]) == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--download-mbit", "5"],
        ["--watts", "-1"],
        ["--line", "acme"],
        ["--line", "c0=50/10"],
        ["--min-gain", "nan"],
        ["--seed", "-1"],
        ["--max-harmed", "3"],
        ["--lines", "/no/file.csv"],
        ["--partner", "nobody"],
        ["--score", "bleu"],
        ["--also-cost", "/no/run"],
    ],
)
def test_bad_input_is_one_line(save_run, tmp_path, capsys, flags):
    assert command(save_run("sft", *scores()), "--out", tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedllm-eval: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_somebody_elses_folder_stays(save_run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    assert command(save_run("sft", *scores()), "--out", tmp_path / "out") == 2
    assert "holds other files" in capsys.readouterr().err


def test_the_page_says_who_is_small_by_the_rows_for_training(save, tmp_path):
    folder, corpus = save("sft", *scores(9)), tmp_path / "corpus"
    (corpus / "clients").mkdir(parents=True)
    rows = {"client_id": [f"c{i:03}" for i in range(9)], "num_train_rows": list(range(10, 100, 10))}
    pq.write_table(pa.table(rows), corpus / "clients" / "clients-00000-of-00001.parquet")
    path = folder / "results.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["dataset"]["name"] = str(corpus)
    path.write_text(json.dumps(record), encoding="utf-8")
    assert command(folder, "--out", tmp_path / "out", "--language", "en") == 0
    html = (tmp_path / "out" / "decision.html").read_text(encoding="utf-8")
    table = html.split('<section id="sizes">')[1].split("</section>")[0]
    assert "rows for training" in table
    assert [text in table for text in ("10 to 30", "40 to 60", "70 to 90")] == [True] * 3
    # 60, 150 and 240 of 450.
    assert [text in table for text in ("13 %", "33 %", "53 %")] == [True] * 3


def test_links_lead_to_what_is_there(save_run, tmp_path):
    run = save_run("with #", *scores())
    assert command(run, "--out", tmp_path / "out", "--language", "en") == 0
    html = (tmp_path / "out" / "decision.html").read_text(encoding="utf-8")
    details = html.split('<section id="details">')[1].split("</section>")[0]
    links = [unquote(link) for link in re.findall(r'href="([^"]+)"', details)]
    assert {(tmp_path / "out" / link).resolve() for link in links} >= {(run / "rounds.jsonl").resolve()}
    assert all((tmp_path / "out" / link).is_file() for link in links)
    day = datetime.fromtimestamp((run / "rounds.jsonl").stat().st_mtime, UTC).date().isoformat()
    assert f"{day} (UTC)" in html


@pytest.mark.parametrize(
    ("score", "before", "after", "said"),
    [
        ("heldout_loss", 2.0, 1.98, "predicted 2.0 % better than before"),
        ("heldout_loss", 2.0, 2.0 - math.log(1.16), "1.16 times"),
        ("heldout_loss", 2.0, 2.0, "as well as before"),
        ("heldout_loss", 2.0, 2.002, "only 99.8 %"),
        ("ranking_accuracy", 0.0, 0.0, "0 of 10 times, as before"),
        ("ranking_accuracy", 0.5, 0.65, "6.5 of 10 times, before 5 of 10"),
    ],
)
def test_a_change_is_told_by_what_it_is(score, before, after, said):
    assert said in own_gain(score, before, after)


def test_lines_of_others_are_counted_and_lines_of_nobody_refused(save_run, tmp_path, capsys):
    run, path = save_run("sft", *scores()), tmp_path / "lines.csv"
    path.write_text("client_id,download_mbit,upload_mbit\nc000,50,10\nelsewhere,1,1\n", encoding="utf-8")
    assert command(run, "--out", tmp_path / "out", "--lines", path) == 0
    assert "note: 1 of 2 lines" in capsys.readouterr().out
    path.write_text("client_id,download_mbit,upload_mbit\nelsewhere,1,1\n", encoding="utf-8")
    assert command(run, "--out", tmp_path / "out", "--lines", path) == 2
    assert "names no partner" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: Debian's package `chromium`")
@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_pages_open_in_a_browser(save_run, tmp_path, language):
    assert command(save_run("sft", *scores()), "--out", tmp_path / "out", "--language", language) == 0
    with browser(tmp_path / "profile") as page:
        for name in ("decision.html", "partners.html"):
            for width in (1280, 400):
                for dark in (False, True):
                    page.open(tmp_path / "out" / name, width, dark=dark)
                    assert page.run("document.documentElement.scrollWidth") <= width
                    assert page.run("document.querySelector('h1').getBoundingClientRect().top") < 300
                    assert len(page.requests) == 1
                    assert page.complaints == []


def test_wire_and_participation_of_every_candidate_are_said(save_run, tmp_path):
    plain, packed = save_run("plain", *scores()), save_run("packed", *scores())
    config = yaml.safe_load((packed / "config.yaml").read_text())
    config["federated"] |= {
        "wire": "drive",
        "download_wire": "int4",
        "participation": "deadline",
        "deadline_seconds": 7200.0,
        "late": "apply",
        "drop_out": 0.1,
    }
    (packed / "config.yaml").write_text(yaml.safe_dump(config))
    decision = decide([plain, packed])
    assert {one.label: one.how.wire for one in decision.candidates} == {"run-plain": "none", "run-packed": "drive"}
    assert command(plain, packed, "--out", tmp_path / "out", "--language", "en") == 0
    html = (tmp_path / "out" / "decision.html").read_text(encoding="utf-8")
    for said in (
        "Nothing was packed: models and updates were sent whole. Every round waited for all who were asked.",
        "Clients sent their updates packed (drive), the server its model (int4).",
        "A round ended after 2.0 hours; what came later was used in a later round.",
        "By its settings 10 % of the visits were lost.",
    ):
        assert said in html
    record = json.loads((tmp_path / "out" / "decision.json").read_text())
    assert {one["trained_how"]["participation"] for one in record["candidates"]} == {"synchronous", "deadline"}


def test_a_run_of_an_older_version_says_its_upload_codec_and_a_missing_one_nothing(tmp_path):
    assert how_sentences(None) == []
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.yaml").write_text("federated: {upload_codec: topk, topk_fraction: 0.1}\n")
    assert how_sentences(trained_how(old))[0] == "Clients sent their updates packed (topk)."
    assert how_sentences(TrainedHow(participation="buffered", buffer_size=4))[1].startswith(
        "The server made a step for every 4 replies"
    )


def test_who_was_left_behind_joins_who_loses_without_naming_anybody(save_run, tmp_path):
    run = save_run("sft", *scores())
    ids = [f"c{at:03}" for at in range(40)]
    ledger = {"download_bytes": 1, "upload_bytes": 1, "num_local_steps": 1, "client_seconds": 1.0}
    visits = [{"client_id": client, "num_rows": 4, "num_steps": 5, "seconds": 1.0} for client in ids[20:]]
    rounds = [{"round_index": at, "clients": visits, "ledger": ledger, "seconds": 1.0} for at in range(3)]
    (run / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rounds))
    lines = [f"{client},8,8,{1e11 if at < 15 else 1e12 if at < 30 else 1e13}" for at, client in enumerate(ids)]
    (run / "client_table.csv").write_text("client_id,download_mbit,upload_mbit,flops\n" + "\n".join(lines) + "\n")
    assert command(run, "--out", tmp_path / "out", "--language", "en", "--unnamed") == 0
    html = (tmp_path / "out" / "decision.html").read_text(encoding="utf-8")
    said = " ".join(first_screen(html).split())
    assert "Slow clients did 0 % of the work that counted, though they are 38 % of the partners" in said
    assert not [word for word in TECHNICAL if word in said]
    assert "Who was left behind" in html
    assert not any(client in html for client in ids)
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"privacy": {"epsilon": 8.0, "delta": 1e-5}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert command(run, "--out", tmp_path / "out", "--language", "en") == 0
    assert "Who was left behind" not in (tmp_path / "out" / "decision.html").read_text(encoding="utf-8")
