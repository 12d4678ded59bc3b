"""The tables over clients: scores, their spread, what each client gains, languages and transfer between them.

Each is a function of the summary (`results.json`) alone, and None where the summary has nothing for it.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_eval.reporting.table_section import (
    Cell,
    Section,
    arrow,
    by_label,
    fewer_clients,
    interval,
    name_of,
    number,
    signed,
)
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.rounding import difference_beyond_rounding
from fedllm_eval.scoring.spread import num_worst

__all__ = [
    "gains_section",
    "languages_section",
    "scores_section",
    "spread_section",
    "transfer_section",
    "worst_served_section",
]


def scores_section(summary: Mapping[str, Any]) -> Section | None:
    """Return every policy's scores."""
    policies = by_label(summary)
    rows: list[tuple[Cell, ...]] = []
    for split, part in summary["splits"].items():
        for name, own in part["scores"].items():
            cells: list[Cell] = [(f"{name} {arrow(own)}", f"{split}, {own['unit']}")]
            for splits in policies.values():
                score = splits.get(split, {}).get("scores", {}).get(name)
                cells.append(
                    ("–", "")
                    if score is None
                    else (
                        number(score["mean"]),
                        interval(score["ci_low"], score["ci_high"]) + _beside(fewer_clients(score, own)),
                    )
                )
            cells.append((f"{own['num_clients']:,}", f"{own['num_items']:,} {own['weighted_by']}"))
            rows.append(tuple(cells))
            if own.get("perplexity") is not None:
                cells = [
                    (f"{'perplexity' if name == 'heldout_loss' else f'perplexity of {name}'} ↓", f"{split}, by token")
                ]
                for splits in policies.values():
                    score = splits.get(split, {}).get("scores", {}).get(name)
                    of = None if score is None else score["perplexity"]
                    cells.append(
                        ("–", "")
                        if of is None
                        else (
                            number(of["by_token"], 2),
                            interval(of["ci_low"], of["ci_high"], digits=2) + _beside(fewer_clients(score, own)),
                        )
                    )
                cells.append((f"{own['num_clients']:,}", f"{own['num_items']:,} {own['weighted_by']}"))
                rows.append(tuple(cells))
    return Section(
        "scores",
        "Scores",
        "Mean over clients with its 95 % interval, clients as the unit; perplexity is over all tokens.",
        ("score", *(name_of(label, summary) for label in policies), "clients"),
        tuple(rows),
    )


def spread_section(summary: Mapping[str, Any]) -> Section | None:
    """Return how scores are spread over the clients."""
    rows: list[tuple[Cell, ...]] = []
    for split, part in summary["splits"].items():
        for name in part["scores"]:
            for label, splits in by_label(summary).items():
                score = splits.get(split, {}).get("scores", {}).get(name)
                if score is None:
                    continue
                num = num_worst(score["num_clients"])
                decile = (number(score["worst_decile"]), f"{num:,} client{'s' * (num != 1)}")
                values = [score[key] for key in ("worst", "best", "std", "jain", "gini")]
                pooled = (
                    number(score["weighted_mean"]),
                    interval(score["weighted_ci_low"], score["weighted_ci_high"]),
                )
                rows.append(
                    (
                        (f"{name} {arrow(score)}", split),
                        (name_of(label, summary), fewer_clients(score, part["scores"][name])),
                        decile,
                        *((number(value), "") for value in values),
                        pooled,
                    )
                )
    return Section(
        "spread",
        "Spread over clients",
        "Whom a policy serves worst: the tenth of the clients with the worst scores (mean), the worst and the best "
        "one, and how evenly scores lie. Jain 1 and Gini 0 are equal scores. Pooled: over all rows or tokens.",
        ("score", "policy", "worst decile", "worst", "best", "std", "Jain", "Gini", "pooled"),
        tuple(rows),
        num_text=2,
    )


def worst_served_section(summary: Mapping[str, Any]) -> Section | None:
    """Return the ten clients of every split that are served worst, by name."""
    rows, notes = [], []
    for item in summary.get("worst_served", []):
        where = f"{name_of(item['policy'], summary)}, {item['split']}"
        for client in item["clients"]:
            before, now = client["before"], client["now"]
            change = "" if before is None else _change(before, now, SCORES[item["score"]].rounding)
            rows.append(
                (
                    (client["client_id"], f"{where}: {item['score']} {arrow(item)}"),
                    (", ".join(client["languages"] or []) or "–", ""),
                    (f"{client['num_rows']:,}", ""),
                    ("–" if before is None else number(before), ""),
                    (number(now), change),
                )
            )
        num = item["num_in_worst_decile"]
        notes.append(
            f"{where}: the worst tenth of {item['num_clients']:,} clients is "
            + (f"one person, {item['clients'][0]['client_id']}." if num == 1 else f"the {num:,} worst.")
        )
        if tied := item["num_tied_beyond"]:
            notes.append(f"{where}: {tied:,} more client{'s' * (tied != 1)} with the score of the last one listed.")
    return Section(
        "worst",
        "Who is served worst",
        "The ten clients with the worst scores, the worst first; of equal scores those of more rows. Before: the "
        "base, where it was scored as well. A score of few rows is mostly chance.",
        ("client", "language", "rows", "before", "now"),
        tuple(rows),
        num_text=2,
        notes=tuple(notes),
    )


def gains_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what each client gains."""
    rows = []
    for item in summary.get("gains", []):
        p_value = item["p_holm"]
        rows.append(
            (
                (f"{item['score']}", f"{item['split']}, {item['unit']}"),
                (name_of(item["policy"], summary), ""),
                (name_of(item["against"], summary), ""),
                (signed(item["gain"]), interval(item["ci_low"], item["ci_high"], signed=True)),
                ("n/a" if p_value is None else f"{p_value:.2g}", ""),
                (f"{item['better_off']:.0%}", interval(item["better_off_ci_low"], item["better_off_ci_high"])),
                (f"{item['worse_off']:.0%}", ""),
                (signed(item["worst_decile_gain"]), "one client" if num_worst(item["num_clients"]) == 1 else ""),
                (f"{item['num_clients']:,}", ""),
            )
        )
    recovered = [
        f"{name_of(item['policy'], summary)}, {item['split']}, {item['score']}: {item['recovered_fraction']:.0%} of "
        "the way from training alone to training on all rows."
        for item in summary.get("gains", [])
        if item.get("recovered_fraction") is not None
    ]
    return Section(
        "gains",
        "What each client gains",
        "Positive where the policy serves a client better than what it is set against, whichever direction of the "
        "score is better; against pooled training that is the gap. Better off: share of clients with a positive gain; "
        "a difference that is rounding is none. p is corrected (Holm) over all rows of this table; intervals are 95 % "
        "each and say what other clients would show, not what another seed of training would.",
        ("score", "policy", "against", "gain, 95 %", "p (Holm)", "better off", "worse off", "worst decile", "clients"),
        tuple(rows),
        num_text=3,
        notes=tuple(recovered),
    )


def languages_section(summary: Mapping[str, Any]) -> Section | None:
    """Return the scores by language."""
    rows = []
    for split, scores in summary.get("languages", {}).items():
        for name, by_language in scores.items():
            for language, cell in by_language.items():
                rows.append(
                    (
                        (name, split),
                        (language, ""),
                        (number(cell["mean"]), interval(cell["ci_low"], cell["ci_high"])),
                        (f"{cell['num_clients']:,}", ""),
                        (f"{cell['num_rows']:,}", ""),
                    )
                )
    return Section(
        "languages",
        "By language",
        "The policy's mean over the clients that have rows in a language, each by its own rows of that language.",
        ("score", "language", "mean, 95 %", "clients", "rows"),
        tuple(rows),
        num_text=2,
    )


def transfer_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what runs on one language are worth in the others."""
    found = summary.get("transfer", [])
    tested = list(dict.fromkeys(language for item in found for language in item["tested_on"]))
    rows, notes = [], []
    for item in found:
        for language, means, nums in zip(item["trained_on"], item["mean"], item["num_items"], strict=True):
            cells = {
                of: (number(mean), f"{num} clients")
                for of, mean, num in zip(item["tested_on"], means, nums, strict=True)
            }
            rows.append(((item["score"], item["split"]), (language, ""), *(cells.get(of, ("–", "")) for of in tested)))
        notes.append(
            f"{item['score']}, {item['split']}: {number(item['in_language'])} where languages agree, "
            f"{number(item['out_of_language'])} elsewhere; better by {number(item['transfer_gap'])} at home."
        )
    return Section(
        "transfer",
        "Across languages",
        "Rows: language trained on. Columns: language tested on. Means over clients.",
        ("score", "trained on", *tested),
        tuple(rows),
        num_text=2,
        notes=tuple(notes),
    )


def _change(before: float, now: float, rounding: float) -> str:
    difference = float(difference_beyond_rounding(before, now, rounding))
    return signed(difference) if difference else "same"


def _beside(words: str) -> str:
    return f"; {words}" if words else ""
