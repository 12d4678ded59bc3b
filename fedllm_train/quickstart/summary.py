"""The end of the quickstart: one page and one table that say what federated tuning gained, for whom, at what cost.

`summary.html` needs no other file and no script; it links to the heterogeneity report beside it. Every text that comes
from data or a model is escaped.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedllm_data.in_place import write_file
from fedllm_eval.results import Results
from fedllm_eval.texts import whole
from fedllm_train.quickstart.answers import held_out_answers
from fedllm_train.quickstart.commands import steps
from fedllm_train.quickstart.evidence import (
    POLICIES,
    Evidence,
    languages,
    paired_clients,
    read_evidence,
    read_scores,
    summary_of,
)
from fedllm_train.quickstart.summary_plots import draw_before_after, draw_curves, draw_languages
from fedllm_train.quickstart.summary_words import (
    bytes_text,
    comparison_sentence,
    difference_text,
    headline,
    price_sentence,
    score_text,
    unseen_sentence,
)

__all__ = ["print_table", "write_summary"]

POLICY_NAMES = {"base": "base", "sft": "SFT", "dpo": "DPO"}
NUM_LOSERS = 5
MIN_LOSER_ROWS = 5
"""A client with fewer held-out rows is not named as a loser: one row more or less turns its score around."""
SPLIT_NAMES = {"test": "training clients", "unseen": "unseen clients"}
SCORE_ROWS = (
    ("loss", "heldout_loss", False, "Held-out loss ↓", "nats per token"),
    ("loss", "heldout_loss", True, "… worst-served tenth ↓", "mean over the clients with the highest loss"),
    ("preference", "ranking_accuracy", False, "Ranking accuracy ↑", "how often the preferred answer is likelier"),
    ("preference", "implicit_reward_accuracy", False, "DPO reward accuracy ↑",
     "how often DPO raised the preferred answer above the other, against the SFT policy"),
)  # fmt: skip
"""Kind, score, whether the worst decile is meant, title, meaning."""


def write_summary(folder: Path) -> Path:
    """Write `summary.html` into a finished quickstart folder and return its path.

    Args:
        folder: as `fedllm_train.quickstart` leaves it; nothing else in it is changed.

    Raises:
        ConfigError: if a step's output is missing or cannot be read; the message names the file.

    >>> write_summary(Path("no-such-folder"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no-such-folder/report/heterogeneity.json is missing: ...
    """
    folder = Path(folder)
    evidence = read_evidence(folder)
    answers, num_parameters = held_out_answers(folder)
    page = folder / "summary.html"
    write_file(page, whole(_render(evidence, answers, num_parameters)))
    return page


def print_table(folder: Path) -> None:
    """Print the scores of base, SFT and DPO.

    Args:
        folder: as `fedllm_train.quickstart` leaves it; only its scores are read.

    Raises:
        ConfigError: if a score is missing or cannot be read; the message names the file.

    >>> print_table(Path("no-such-folder"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no-such-folder/scores/loss/base/results.json is missing: ...
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Mean over clients with its 95 % interval", box=SIMPLE_HEAD)
    table.add_column("score")
    for name in POLICY_NAMES.values():
        table.add_column(name, justify="right", no_wrap=True)
    for row in _score_rows(read_scores(Path(folder))):
        cells = ["–" if cell is None else f"{cell['text']}\n{cell['interval']}" for cell in row["cells"]]
        table.add_row(f"{row['title']}\n  {row['clients']}", *cells)
    Console().print(table)


def _score_rows(scores: dict[tuple[str, str], Results]) -> list[dict[str, Any]]:
    rows = []
    for kind, score, worst, title, meaning in SCORE_ROWS:
        for split, split_name in SPLIT_NAMES.items():
            cells = []
            for policy in POLICIES:
                # SFT's own implicit reward is measured against the base: another reference, another meaning.
                is_shown = score != "implicit_reward_accuracy" or policy == "dpo"
                found = summary_of(scores[kind, policy], split, score, worst=worst) if is_shown else None
                cells.append(None if found is None else {**found, **_score_texts(score, found)})
            numbers = [cell["num_clients"] for cell in cells if cell is not None]
            if numbers:
                clients = f"{max(numbers):,} {split_name}" if max(numbers) > 1 else f"1 {split_name[:-1]}"
                rows.append({"title": title, "meaning": meaning, "cells": cells, "clients": clients})
    return rows


def _score_texts(score: str, found: dict[str, Any]) -> dict[str, str]:
    low, high = (score_text(score, found[key]) for key in ("low", "high"))
    interval = "" if found["low"] is None else f"{low.removesuffix(' %')} to {high}"
    return {"text": score_text(score, found["value"]), "interval": interval}


def _render(evidence: Evidence, answers: list[dict[str, Any]], num_parameters: int) -> str:
    environment = Environment(
        loader=PackageLoader("fedllm_train.quickstart", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(bytes=bytes_text, difference=difference_text, keep=_keep_together)
    environment.globals["score"] = score_text
    sft, dpo = (
        {split: evidence.compared(score, policy, split) for split in SPLIT_NAMES}
        for score, policy in (("heldout_loss", "sft"), ("ranking_accuracy", "dpo"))
    )
    sft_test, dpo_test = sft["test"], dpo["test"]
    assert sft_test, "read_scores refuses scores without split test"
    assert dpo_test, "read_scores refuses scores without split test"
    loss, preference = _pairs(evidence, "loss"), _pairs(evidence, "preference")
    figures = {
        "curves": draw_curves(evidence.runs["sft"].rounds, evidence.runs["dpo"].rounds),
        "before_after": draw_before_after(loss, preference),
        "languages": draw_languages(
            languages(evidence.folder, "loss", loss["test"]),
            languages(evidence.folder, "preference", preference["test"]),
        ),
    }
    seed = evidence.runs["sft"].config["federated"]["seed"]
    return environment.get_template("summary.html.jinja").render(
        headline=headline(sft_test["outcome"], dpo_test["outcome"]),
        sentences=[
            comparison_sentence(sft_test),
            comparison_sentence(dpo_test),
            price_sentence(evidence.compared("heldout_loss", "dpo", "test")),
        ],
        unseen=unseen_sentence(sft["unseen"], dpo["unseen"]),
        heterogeneity=evidence.heterogeneity,
        figures={name: Markup(svg) for name, svg in figures.items()},
        score_rows=_score_rows(evidence.scores),
        policy_names=list(POLICY_NAMES.values()),
        names=POLICY_NAMES,
        split_names=SPLIT_NAMES,
        comparisons=evidence.comparisons,
        losers={"loss": _losers(loss, "heldout_loss"), "preference": _losers(preference, "ranking_accuracy")},
        costs=_costs(evidence),
        model_bytes=evidence.model_bytes,
        answers=answers,
        num_parameters=num_parameters,
        seed=seed,
        steps=steps(evidence.folder, seed=seed),
        versions=evidence.runs["sft"].config["versions"],
    )


def _keep_together(text: str) -> str:
    """Let no line break part a number from its sign of percent."""
    return text.replace(" %", "\u00a0%")


def _pairs(evidence: Evidence, kind: str) -> dict[str, list[dict[str, Any]]]:
    """Clients before and after, by split: base against SFT for loss, SFT against DPO for preferences."""
    before, after, score = {"loss": ("base", "sft", "heldout_loss"), "preference": ("sft", "dpo", "ranking_accuracy")}[
        kind
    ]
    pairs = {
        split: paired_clients(evidence.scores[kind, before], evidence.scores[kind, after], split, score)
        for split in SPLIT_NAMES
    }
    return {split: clients for split, clients in pairs.items() if clients}


def _losers(pairs: dict[str, list[dict[str, Any]]], score: str) -> dict[str, Any]:
    """The clients of both splits that lost most, and how many lost at all."""
    clients = [client | {"split": split} for split in pairs for client in pairs[split]]
    lost = sorted((client for client in clients if client["gain"] < 0), key=lambda c: (c["gain"], c["client_id"]))
    named = [client for client in lost if client["num_rows"] >= MIN_LOSER_ROWS][:NUM_LOSERS]
    texts = [client | {when: score_text(score, client[when]) for when in ("before", "after")} for client in named]
    return {"num_lost": len(lost), "num_clients": len(clients), "clients": texts, "min_rows": MIN_LOSER_ROWS}


def _costs(evidence: Evidence) -> dict[str, Any]:
    runs = [
        {
            "name": POLICY_NAMES[name],
            "num_rounds": len(run.rounds),
            "num_visits": len(run.visits),
            "num_reached": len({visit["client_id"] for visit in run.visits}),
            "num_clients": run.config["data"]["num_clients"],
            "seconds": run.seconds,
            **run.ledger,
        }
        for name, run in evidence.runs.items()
    ]
    keys = ("num_visits", "num_local_steps", "download_bytes", "upload_bytes", "client_seconds", "seconds")
    total = {key: sum(run[key] for run in runs) for key in keys}
    moved = total["download_bytes"] + total["upload_bytes"]
    return {"runs": runs, "total": total, "moved_bytes": moved, "visit_bytes": moved / max(1, total["num_visits"])}
