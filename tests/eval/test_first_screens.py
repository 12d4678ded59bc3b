"""The first screen of a page is said without a technical figure; notes are sentences of the catalogue."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import fedllm_eval
from fedllm_data.wording.catalogue import in_language
from fedllm_data.wording.recorded import is_known
from fedllm_eval.compare import compare_results
from fedllm_eval.comparing.comparison_page import plain_outcomes, render_page
from fedllm_eval.reporting.audit_lines import audit_lines
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.reporting.results_page import render_page as render_results
from fedllm_eval.running.assemble import make_results
from fedllm_eval.scores import ClientScores, warnings_about
from fedllm_eval.scoring.membership import membership as membership_of

TECHNICAL = re.compile(r"\bnats?\b|Jain|\btau\b|\[|\bp[- ]?value|heldout_loss|ranking_accuracy|chosen_loss|Holm")


def scores(name, **columns):
    num = len(next(iter(columns.values())))
    table = {"client_id": [f"c{i:03}" for i in range(num)], "split": ["test"] * num}
    table |= {column: pa.array([3] * num, pa.int64()) for column in ("num_rows", "num_tokens")}
    table |= {column: pa.array([0] * num, pa.int64()) for column in ("num_skipped", "num_truncated")}
    return ClientScores(
        task="preference",
        split="test",
        table=pa.table(table | {name: pa.array(values, pa.float64()) for name, values in columns.items()}),
        policy={"name": name, "base": "b", "adapter_sha256": name},
        reference=None,
        dataset={"name": "memory", "revision": "r", "num_clients": num, "num_rows": 3 * num},
        settings={"max_length": 64, "max_clients": None, "max_rows_per_client": None, "seed": 0},
    )


@pytest.fixture
def comparison(tmp_path):
    """DPO that ranks better and predicts the preferred answers worse, as the quickstart's does."""
    rng = np.random.default_rng(0)
    ranking, loss = rng.random(40) / 2, 1 + rng.random(40)
    write_results(make_results([scores("sft", ranking_accuracy=ranking, chosen_loss=loss)]), tmp_path / "sft")
    after = scores("dpo", ranking_accuracy=ranking + 0.3, chosen_loss=loss + 0.3 + 0.1 * rng.random(40))
    write_results(make_results([after]), tmp_path / "dpo")
    return compare_results([tmp_path / "sft", tmp_path / "dpo"])


def first_screen(html):
    head = html.split("<header>")[1].split("</header>")[0]
    return re.sub(r"<[^>]+>", " ", re.sub(r"<details>.*?</details>", " ", head, flags=re.DOTALL))


@pytest.mark.parametrize("language", ["en", "ja"])
def test_results_and_comparisons_begin_in_plain_words(comparison, language):
    results = make_results([scores("dpo", ranking_accuracy=[0.5] * 12, chosen_loss=[1.0] * 12)])
    for html in (render_page(comparison, language), render_results(results, language)):
        said = first_screen(html)
        assert len(said.split()) > 5
        assert TECHNICAL.findall(said) == []


def test_a_gain_in_one_score_does_not_hide_the_loss_in_another(comparison):
    gain, loss = plain_outcomes(comparison)
    assert "dpo serves clients better than sft: 100 %" in gain
    assert "But in another score dpo serves them worse: 100 % of 40 clients" in loss


def test_no_note_is_put_together_outside_of_the_catalogue():
    root = Path(fedllm_eval.__file__).parent
    loose = [
        f"{path.name}: {found}"
        for path in sorted(root.rglob("*.py"))
        for found in re.findall(r"\b(?:notes|told|sentences)\.append\(\s*f?\"[^\"]*", path.read_text(encoding="utf-8"))
    ]
    assert loose == []


def test_the_findings_of_an_audit_are_japanese_on_a_japanese_page():
    rng = np.random.default_rng(0)
    found = membership_of(rng.random(30), rng.random(30))
    attack = {
        "auc": found.auc,
        "auc_low": 0.4,
        "auc_high": 0.6,
        "true_positives": [vars(one) for one in found.true_positives],
        "epsilon": {
            "client": {"epsilon": None, "reason": "a bound needs 10 or more of each side, unit client"},
            "example": {
                "epsilon": 0.5,
                "confidence": 0.95,
                "delta": 1e-5,
                "num_members": 30,
                "num_nonmembers": 30,
                "largest_epsilon": 2.0,
            },
        },
    }
    membership = {
        "num_members": 30,
        "num_member_clients": 3,
        "num_nonmembers": 30,
        "num_nonmember_clients": 1,
        "attacks": {"loss": attack},
        "reference_auc": {"auc": 0.5, "auc_low": 0.4, "auc_high": 0.6},
        "notes": ["non-members come from other people than members: part of an AUC may be who writes, not training"],
    }
    audit = {"membership": membership, "canaries": None}
    english = audit_lines(audit)
    assert "members: 30 training rows of 3 clients; non-members: 30 rows of 1 client" in english
    with in_language("ja"):
        for line in audit_lines(audit):
            assert re.search("[\u3040-\u30ff\u4e00-\u9fff]", line)
            assert not re.search(r"\b(?:the|of|is|for|non-members)\b", line)


def test_what_makes_scores_less_certain_is_known_in_japanese():
    table = pa.table({"num_rows": [1, 0], "num_skipped": [0, 2], "num_truncated": [1, 0]})
    told = warnings_about(table)
    assert len(told) == 4
    with in_language("ja"):
        assert [note for note in told if not is_known(note)] == []
