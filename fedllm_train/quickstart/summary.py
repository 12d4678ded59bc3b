"""The end of the quickstart: one page and one table that say what federated tuning gained, for whom, at what cost.

`summary.html` needs no other file, and speaks English and Japanese; it links to the pages and cards beside it. Every
text that comes from data or a model is escaped.
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup, escape

from fedllm_data.in_place import write_file
from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.report_words import visible
from fedllm_data.reporting.shared_figures import SharedFigures
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import language_now, marked, words
from fedllm_data.wording.forms import interval_text, sentences
from fedllm_eval.results import Results
from fedllm_eval.texts import whole
from fedllm_train.quickstart.answer_languages import with_strays
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
    comparison_sentence,
    difference_text,
    headline,
    plain_price,
    plain_sentence,
    price_sentence,
    score_text,
    stray_sentence,
    unseen_sentence,
)

__all__ = ["print_table", "write_summary"]

POLICY_NAMES = {"base": marked("base"), "sft": "SFT", "dpo": "DPO"}
MAX_ANSWER_CHARS = 2000
_TICKS = re.compile("[✓✔✅☑]\ufe0f?")
NUM_LOSERS = 10
MIN_LOSER_ROWS = 5
"""A client with fewer held-out rows is not named as a loser: one row more or less turns its score around."""
SPLIT_NAMES = {
    "test": (marked("1 training client"), marked("{num} training clients")),
    "unseen": (marked("1 unseen client"), marked("{num} unseen clients")),
}
SCORE_ROWS = (
    ("loss", "heldout_loss", False, marked("Held-out loss ↓"), marked("nats per token")),
    (
        *("loss", "heldout_loss", True),
        *(marked("… worst-served tenth ↓"), marked("mean over the clients with the highest loss")),
    ),
    (
        *("preference", "ranking_accuracy", False),
        *(marked("Ranking accuracy ↑"), marked("how often the preferred answer is likelier")),
    ),
    (
        *("preference", "implicit_reward_accuracy", False, marked("DPO reward accuracy ↑")),
        marked("how often DPO raised the preferred answer above the other, against the SFT policy"),
    ),
)
"""Kind, score, whether the worst decile is meant, title, meaning."""
SCORE_TITLES = {"heldout_loss": marked("Held-out loss"), "ranking_accuracy": marked("Ranking accuracy")}
LINKS = (
    ("report/report.html", marked("How different the clients are: the heterogeneity report")),
    ("fed-synth/README.md", marked("Card of the dataset")),
    ("fed-synth-pa/README.md", marked("Card of the preference dataset")),
    ("runs/sft/README.md", marked("Card of the SFT run")),
    ("runs/dpo/README.md", marked("Card of the DPO run")),
    ("decision/decision.html", marked("What to decide")),
    ("compare/loss/comparison.html", marked("Comparison, client by client: loss")),
    ("compare/preference/comparison.html", marked("Comparison, client by client: preferences")),
    ("scores/loss/base/results.html", marked("Scores of the base model: loss")),
    ("scores/loss/sft/results.html", marked("Scores of SFT: loss")),
    ("scores/loss/dpo/results.html", marked("Scores of DPO: loss")),
    ("scores/preference/base/results.html", marked("Scores of the base model: preferences")),
    ("scores/preference/sft/results.html", marked("Scores of SFT: preferences")),
    ("scores/preference/dpo/results.html", marked("Scores of DPO: preferences")),
)
"""Pages and cards beside the summary, where the quickstart made them."""


def write_summary(folder: Path, language: str | None = None) -> Path:
    """Write `summary.html` into a finished quickstart folder and return its path.

    Args:
        folder: as `fedllm_train.quickstart` leaves it; nothing else in it is changed.
        language: of the page, `en` or `ja`; by default it carries both, and the reader's browser chooses.

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
    write_file(page, whole(_render(evidence, answers, num_parameters, language)))
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
        for split in SPLIT_NAMES:
            cells = []
            for policy in POLICIES:
                # SFT's own implicit reward is measured against the base: another reference, another meaning.
                is_shown = score != "implicit_reward_accuracy" or policy == "dpo"
                found = summary_of(scores[kind, policy], split, score, worst=worst) if is_shown else None
                cells.append(None if found is None else {**found, **_score_texts(score, found)})
            numbers = [cell["num_clients"] for cell in cells if cell is not None]
            if numbers:
                rows.append(
                    {
                        "title": words(title),
                        "meaning": words(meaning),
                        "cells": cells,
                        "clients": _who(split, max(numbers)),
                    }
                )
    return rows


def _score_texts(score: str, found: dict[str, Any]) -> dict[str, str]:
    low, high = (score_text(score, found[key]) for key in ("low", "high"))
    interval = "" if found["low"] is None else interval_text(low.removesuffix("%").removesuffix(" "), high)
    return {"text": score_text(score, found["value"]), "interval": interval}


def _render(
    evidence: Evidence, answers: list[dict[str, Any]], num_parameters: int, language: str | None = None
) -> str:
    environment = page_environment()
    environment.loader = ChoiceLoader([PackageLoader("fedllm_train.quickstart", "."), environment.loader])
    environment.filters.update(difference=difference_text, ticks=_without_ticks)
    environment.globals["score"] = score_text
    template = environment.get_template("summary.html.jinja")
    sft, dpo = (
        {split: evidence.compared(score, policy, split) for split in SPLIT_NAMES}
        for score, policy in (("heldout_loss", "sft"), ("ranking_accuracy", "dpo"))
    )
    sft_test, dpo_test = sft["test"], dpo["test"]
    assert sft_test, "read_scores refuses scores without split test"
    assert dpo_test, "read_scores refuses scores without split test"
    price = evidence.compared("heldout_loss", "dpo", "test")
    loss, preference = _pairs(evidence, "loss"), _pairs(evidence, "preference")
    drawings = SharedFigures(
        {
            "curves": draw_curves(evidence.runs["sft"].rounds, evidence.runs["dpo"].rounds),
            "before_after": draw_before_after(loss, preference),
            "languages": draw_languages(
                languages(evidence.folder, "loss", loss["test"]),
                languages(evidence.folder, "preference", preference["test"]),
            ),
        }
    )
    seed = evidence.runs["sft"].config["federated"]["seed"]
    answers = with_strays(answers, POLICIES)
    num_strays = {name: sum(item["stray"][name] is not None for item in answers) for name in POLICIES}
    versions = ", ".join(f"{package} {number}" for package, number in evidence.runs["sft"].config["versions"].items())
    costs = _costs(evidence)

    def body() -> Body:
        names = {name: words(shown) for name, shown in POLICY_NAMES.items()}
        html = template.render(
            headline=headline(sft_test["outcome"], dpo_test["outcome"], (num_strays["dpo"], len(answers))),
            plain=sentences([plain_sentence(sft_test), plain_sentence(dpo_test), plain_price(price)]),
            figures_said=sentences(
                [comparison_sentence(sft_test), comparison_sentence(dpo_test), price_sentence(price)]
            ),
            unseen=unseen_sentence(sft["unseen"], dpo["unseen"]),
            strays={name: stray_sentence(names[name], num, len(answers)) for name, num in num_strays.items()},
            heterogeneity=evidence.heterogeneity,
            drawn=lambda name, label: Markup(drawings.figure(name, label)),
            score_rows=_score_rows(evidence.scores),
            policy_names=list(names.values()),
            names=names,
            comparisons=[
                item | {"title": words(SCORE_TITLES[item["score"]]), "who": _who(item["split"], item["num_clients"])}
                for item in evidence.comparisons
            ],
            losers={"loss": _losers(loss, "heldout_loss"), "preference": _losers(preference, "ranking_accuracy")},
            costs=costs,
            model_bytes=evidence.model_bytes,
            answers=answers,
            num_parameters=num_parameters,
            seed=seed,
            steps=steps(evidence.folder, seed=seed),
            links=[(place, words(label)) for place, label in LINKS if (evidence.folder / place).is_file()],
            versions_said=versions,
        )
        title = words("Quickstart: federated SFT and DPO on {name}", name=evidence.heterogeneity["name"])
        return Body(title, html)

    style = environment.get_template("summary.css.jinja").render()
    return whole_page(body, language=language, style=style, shared=drawings.shared())


def _who(split: str, num: int) -> str:
    """How many clients of a split."""
    one, many = SPLIT_NAMES[split]
    return words(one) if num == 1 else words(many, num=f"{num:,}")


def _without_ticks(text: str) -> Markup:
    """A text of the data or a model, in which a check mark that it wrote itself cannot be read as a verdict."""
    own = words("(writes a check mark)")
    said = Markup('<span class="own" dir="auto" lang="{}">{}</span>').format(language_now(), own)
    return said.join(escape(visible(part, MAX_ANSWER_CHARS)) for part in _TICKS.split(text))


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
            "name": {"sft": "SFT", "dpo": "DPO"}[name],
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
