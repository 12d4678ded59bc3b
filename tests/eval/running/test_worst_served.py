"""Who is served worst: by hand, with ties, directions, languages, and what is said where a tenth is one person."""

import pyarrow as pa
import pytest

from fedllm_eval.reporting.all_sections import markdown_sections, terminal_tables
from fedllm_eval.reporting.client_sections import gains_section, spread_section, worst_served_section
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.reporting.results_page import finding
from fedllm_eval.reporting.table_section import worst_tenth
from fedllm_eval.results import Results, read_results
from fedllm_eval.running.assemble import join_results, make_results
from fedllm_eval.running.worst_served import worst_served_records
from fedllm_eval.scores import ClientScores


def scored(name, scores, *, score="heldout_loss", rows=None, split="test", languages=None):
    """Results of hand-made scores: client -> score; `rows` and `languages` by client."""
    num = [(rows or {}).get(client, 1) for client in scores]
    columns = {"client_id": list(scores), "split": [split] * len(num), "num_rows": num, "num_tokens": num}
    columns |= {"num_skipped": [0] * len(num), "num_truncated": [0] * len(num)}
    columns[score] = pa.array(list(scores.values()), pa.float64())
    per_row = None
    if languages is not None:
        lines = [
            {"split": split, "client_id": c, "row_id": f"{c}{i}", "language": code, "num_tokens": 1, score: scores[c]}
            for c, codes in languages.items()
            for i, code in enumerate(codes)
        ]
        per_row = pa.Table.from_pylist(lines)
    task = "sft" if score == "heldout_loss" else "preference"
    return make_results(
        [
            ClientScores(
                task=task,
                split=split,
                table=pa.table(columns),
                policy={"name": name, "adapter_sha256": name},
                reference=None,
                dataset={"name": "memory", "revision": "abc", "num_clients": len(num), "num_rows": sum(num)},
                settings={"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0},
                rows=per_row,
            )
        ]
    )


def test_the_worst_by_hand_with_language_rows_before_and_now():
    losses = {"ann": 1.0, "bob": 3.0, "cyd": 2.0}
    policy = scored(
        "run", losses, rows={"ann": 1, "bob": 4, "cyd": 2}, languages={"bob": ["it", "de", "it", "und"], "cyd": ["en"]}
    )
    (found,) = worst_served_records({"policy": policy, "base": scored("base", {"bob": 3.5, "cyd": 1.5})})
    assert (found["score"], found["num_clients"], found["num_in_worst_decile"]) == ("heldout_loss", 3, 1)
    assert [client["client_id"] for client in found["clients"]] == ["bob", "cyd", "ann"]
    assert found["clients"][0] == {
        "client_id": "bob",
        "languages": ["it", "de"],
        "num_rows": 4,
        "before": 3.5,
        "now": 3.0,
    }
    assert found["clients"][2]["before"] is None
    assert found["clients"][2]["languages"] is None


def test_high_is_good_for_an_accuracy_and_ties_go_to_those_with_more_rows():
    accuracy = {f"c{i:02}": 0.0 if i < 13 else 1.0 for i in range(25)}
    rows = {"c12": 9, "c03": 5}
    results = {"policy": scored("run", accuracy, score="ranking_accuracy_per_token", rows=rows)}
    (found,) = worst_served_records(results)
    listed = [client["client_id"] for client in found["clients"]]
    assert len(listed) == 10
    assert listed[:3] == ["c12", "c03", "c00"]
    # 13 have accuracy 0, ten are listed.
    assert (found["num_tied_beyond"], found["num_in_worst_decile"]) == (3, 2)


@pytest.fixture
def joined():
    losses = {f"client-{i:02}": 1.0 + 0.1 * i for i in range(12)}
    base = scored("base", {client: loss + 0.5 for client, loss in losses.items()})
    languages = {client: ["de"] for client in losses}
    return join_results({"policy": scored("run", losses, languages=languages), "base": base})


def test_the_table_is_in_the_json_the_page_the_text_and_the_terminal(joined, tmp_path):
    write_results(joined, tmp_path / "out")
    assert read_results(tmp_path / "out").summary["worst_served"] == joined.summary["worst_served"]
    page, text = ((tmp_path / "out" / f"results.{end}").read_text(encoding="utf-8") for end in ("html", "md"))
    for shown in (page, text):
        assert "Who is served worst" in shown
        assert "client-11" in shown
        assert "the worst tenth of 12 clients is one person, client-11." in shown
    assert "| client-11 (global adapter, test: heldout_loss ↓) | de | 1 | 2.6000 | 2.1000 (-0.5000) |" in text
    (table, notes), *_ = (one for one in terminal_tables(joined.summary) if "served worst" in str(one[0].title))
    assert table.row_count == 10
    assert any("one person" in note for note in notes)


def test_a_worst_tenth_that_is_one_person_says_so_wherever_it_stands(joined):
    assert "2.1000 for the one client served worst." in finding(joined.summary)
    assert "(1 client)" in joined.markdown()
    (row,) = (row for row in spread_section(joined.summary).rows if row[1][0] == "global adapter")
    assert row[2] == ("2.1000", "1 client")
    (row, *_) = gains_section(joined.summary).rows
    assert row[7][1] == "one client"
    assert worst_tenth(200) == "worst tenth (20 clients)"


def test_ids_are_escaped_and_nothing_is_shown_where_nothing_is_known(tmp_path):
    evil = {"<img src>|x": 2.0, "bob": 1.0}
    results = join_results({"policy": scored("run", evil)})
    write_results(results, tmp_path / "out")
    assert "<img" not in (tmp_path / "out" / "results.html").read_text(encoding="utf-8")
    assert any("&lt;img src&gt;\\|x" in line for line in markdown_sections(results.summary))
    assert worst_served_section({"splits": {}}).rows == ()
    empty = Results(results.summary, results.per_client.slice(0, 0))
    assert worst_served_records({"policy": empty}) == []


def test_an_id_is_one_cell_and_one_line_whatever_markdown_would_make_of_it():
    evil = {"back\\|slash": 3.0, "two\r\nlines": 2.0, "[bot](https://example.org)": 1.5, "__init__": 1.0}
    lines = markdown_sections(join_results({"policy": scored("run", evil)}).summary)
    shown = [line for line in lines if "heldout_loss" in line and line.startswith("| ")]
    assert [line.split(" (")[0] for line in shown] == [
        "| back\\\\\\|slash",
        "| two  lines",
        "| [bot\\](https://example.org)",
        "| \\_\\_init\\_\\_",
    ]
    assert "- global adapter, test: the worst tenth of 4 clients is one person, back\\\\\\|slash." in lines
    assert not any("\n" in line or "\r" in line for line in lines)


def test_a_small_score_and_a_small_change_are_not_shown_as_none():
    losses = {f"client-{i:02}": 4e-8 + i for i in range(3)}
    base = scored("base", {client: loss + 3e-5 for client, loss in losses.items()})
    text = join_results({"policy": scored("run", losses), "base": base}).markdown()
    assert "| client-02 (global adapter, test: heldout_loss ↓) | – | 1 | 2.0000 | 2.0000 (-3.0e-05) |" in text
    assert "| client-00 (global adapter, test: heldout_loss ↓) | – | 1 | 3.0e-05 | 4.0e-08 (-3.0e-05) |" in text
