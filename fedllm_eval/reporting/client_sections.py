"""The tables over clients: scores, their spread, what each client gains, languages and transfer between them.

Each is a function of the summary (`results.json`) alone, and None where the summary has nothing for it.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import plural_words, words
from fedllm_data.wording.recorded import again
from fedllm_eval.reporting.table_section import (
    Cell,
    Section,
    arrow,
    by_label,
    counted,
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
            small = words("{split}, {unit}", split=split, unit=again(own["unit"]))
            cells: list[Cell] = [(f"{name} {arrow(own)}", small)]
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
            cells.append((f"{own['num_clients']:,}", counted(own)))
            rows.append(tuple(cells))
            if own.get("perplexity") is not None:
                title = words("perplexity of {name} ↓", name=name) if name != "heldout_loss" else words("perplexity ↓")
                cells = [(title, words("{split}, {unit}", split=split, unit=words("by token")))]
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
                cells.append((f"{own['num_clients']:,}", counted(own)))
                rows.append(tuple(cells))
    return Section(
        "scores",
        words("Scores"),
        words("Mean over clients with its 95 % interval, clients as the unit; perplexity is over all tokens."),
        (words("score"), *(name_of(label, summary) for label in policies), words("clients")),
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
                decile = (number(score["worst_decile"]), plural_words("{num} client", "{num} clients", num))
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
        words("Spread over clients"),
        words(
            "Whom a policy serves worst: the tenth of the clients with the worst scores (mean), the worst and the best"
            " one, and how evenly scores lie. Jain 1 and Gini 0 are equal scores. Pooled: over all rows or tokens."
        ),
        (
            *(words("score"), words("policy"), words("worst decile"), words("worst"), words("best"), words("std")),
            *("Jain", "Gini", words("pooled")),
        ),
        tuple(rows),
        num_text=2,
    )


def worst_served_section(summary: Mapping[str, Any]) -> Section | None:
    """Return the ten clients of every split that are served worst, by name."""
    rows, notes = [], []
    for item in summary.get("worst_served", []):
        where = words("{name}, {split}", name=name_of(item["policy"], summary), split=item["split"])
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
        total = f"{item['num_clients']:,}"
        if num == 1:
            client = item["clients"][0]["client_id"]
            notes.append(
                words(
                    "{where}: the worst tenth of {total} clients is one person, {client}.",
                    where=where,
                    total=total,
                    client=client,
                )
            )
        else:
            notes.append(
                words(
                    "{where}: the worst tenth of {total} clients is the {num} worst.",
                    where=where,
                    total=total,
                    num=f"{num:,}",
                )
            )
        if tied := item["num_tied_beyond"]:
            notes.append(
                plural_words(
                    "{where}: {num} more client with the score of the last one listed.",
                    "{where}: {num} more clients with the score of the last one listed.",
                    tied,
                    where=where,
                )
            )
    return Section(
        "worst",
        words("Who is served worst"),
        words(
            "The ten clients with the worst scores, the worst first; of equal scores those of more rows. Before: the"
            " base, where it was scored as well. A score of few rows is mostly chance."
        ),
        (words("client"), words("language"), words("rows"), words("before"), words("now")),
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
                (f"{item['score']}", words("{split}, {unit}", split=item["split"], unit=again(item["unit"]))),
                (name_of(item["policy"], summary), ""),
                (name_of(item["against"], summary), ""),
                (signed(item["gain"]), interval(item["ci_low"], item["ci_high"], signed=True)),
                ("n/a" if p_value is None else f"{p_value:.2g}", ""),
                (f"{item['better_off']:.0%}", interval(item["better_off_ci_low"], item["better_off_ci_high"])),
                (f"{item['worse_off']:.0%}", ""),
                (signed(item["worst_decile_gain"]), "" if num_worst(item["num_clients"]) > 1 else words("one client")),
                (f"{item['num_clients']:,}", ""),
            )
        )
    recovered = [
        words(
            "{where}, {score}: {share} of the way from training alone to training on all rows.",
            where=words("{name}, {split}", name=name_of(item["policy"], summary), split=item["split"]),
            score=item["score"],
            share=f"{item['recovered_fraction']:.0%}",
        )
        for item in summary.get("gains", [])
        if item.get("recovered_fraction") is not None
    ]
    return Section(
        "gains",
        words("What each client gains"),
        words(
            "Positive where the policy serves a client better than what it is set against, whichever direction of the"
            " score is better; against pooled training that is the gap. Better off: share of clients with a positive"
            " gain; a difference that is rounding is none. p is corrected (Holm) over all rows of this table;"
            " intervals are 95 % each and say what other clients would show, not what another seed of training would."
        ),
        (
            *(words("score"), words("policy"), words("against"), words("gain, 95 %"), words("p (Holm)")),
            *(words("better off"), words("worse off"), words("worst decile"), words("clients")),
        ),
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
        words("By language"),
        words(
            "The policy's mean over the clients that have rows in a language, each by its own rows of that language."
        ),
        (words("score"), words("language"), words("mean, 95 %"), words("clients"), words("rows")),
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
                of: (number(mean), plural_words("{num} client", "{num} clients", num))
                for of, mean, num in zip(item["tested_on"], means, nums, strict=True)
            }
            rows.append(((item["score"], item["split"]), (language, ""), *(cells.get(of, ("–", "")) for of in tested)))
        notes.append(
            words(
                "{score}, {split}: {value} where languages agree, {number} elsewhere; better by {gap} at home.",
                score=item["score"],
                split=item["split"],
                value=number(item["in_language"]),
                number=number(item["out_of_language"]),
                gap=number(item["transfer_gap"]),
            )
        )
    return Section(
        "transfer",
        words("Across languages"),
        words("Rows: language trained on. Columns: language tested on. Means over clients."),
        (words("score"), words("trained on"), *tested),
        tuple(rows),
        num_text=2,
        notes=tuple(notes),
    )


def _change(before: float, now: float, rounding: float) -> str:
    difference = float(difference_beyond_rounding(before, now, rounding))
    return signed(difference) if difference else words("same")


def _beside(words: str) -> str:
    return f"; {words}" if words else ""
