"""The tables beside the clients': suites, what training changed, what the run cost, what it gives away.

Each is a function of the summary (`results.json`) alone, and None where the summary has nothing for it.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import plural_words, words
from fedllm_data.wording.recorded import again
from fedllm_eval.reporting.audit_lines import audit_lines
from fedllm_eval.reporting.table_section import ORDER, Cell, Section, arrow, interval, name_of, number, signed
from fedllm_eval.scoring.length_controlled import DISTANCE

__all__ = ["audit_section", "changes_section", "cost_section", "suites_section"]

LENGTH_CONTROLLED = "pairwise/length_controlled_win_rate"
"""A number that looks like one of a leaderboard and is another."""


def suites_section(summary: Mapping[str, Any]) -> Section | None:
    """Return the suites' scores."""
    rows, notes = [], []
    suites = summary.get("suites", {})
    labels = [label for label in ORDER if any(label in by_policy for by_policy in suites.values())]
    for name, by_policy in suites.items():
        listed = [score["name"] for record in by_policy.values() for score in record["scores"]]
        if LENGTH_CONTROLLED in listed:
            notes.append(words("{name} is {what}.", name=LENGTH_CONTROLLED, what=DISTANCE))
        for score_name in dict.fromkeys(listed):
            found = {
                label: score
                for label, record in by_policy.items()
                for score in record["scores"]
                if score["name"] == score_name
            }
            one = next(iter(found.values()))
            cells = [
                (number(found[label]["value"]), interval(found[label]["low"], found[label]["high"]))
                if label in found
                else ("–", "")
                for label in labels
            ]
            num_items = " / ".join(dict.fromkeys(f"{score['num_items']:,}" for score in found.values()))
            rows.append(((f"{score_name} {arrow(one)}".rstrip(), again(one["unit"])), *cells, (num_items, "")))
        for label, record in by_policy.items():
            judge = record["settings"].get("judge")
            who = words("{name}, {split}", name=name, split=name_of(label, summary))
            if isinstance(judge, Mapping):
                model, kind = judge.get("model"), judge.get("kind")
                notes.append(words("{who}: judged by {model} ({kind}).", who=who, model=model, kind=kind))
            notes += [words("{where}: {note}.", where=who, note=again(note)) for note in record["notes"]]
    return Section(
        "suites",
        words("Suites"),
        words("Questions put to the policy, with the 95 % interval over items."),
        (words("score"), *(name_of(label, summary) for label in labels), words("items")),
        tuple(rows),
        notes=tuple(notes),
    )


def changes_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what training changed on the same items, and how far it went."""
    rows: list[tuple[Cell, ...]] = []
    for change in summary.get("changes", []):
        if change["reason"] is not None:
            rows.append(((change["suite"], again(change["reason"])), ("n/a", ""), ("–", ""), ("–", ""), ("–", "")))
            continue
        found = change["change"]
        rows.append(
            (
                (change["suite"], words("same items before and after")),
                (signed(found["difference"]), interval(found["low"], found["high"], signed=True)),
                (f"{change['lost']['fraction']:.0%}", ""),
                (f"{change['won']['fraction']:.0%}", ""),
                (plural_words("{num} item", "{num} items", found["num_clients"]), ""),
            )
        )
    if (general := summary.get("general_text")) is not None:
        bounds = (
            interval(-general["ci_high"], -general["ci_low"], signed=True) if general["ci_low"] is not None else ""
        )
        rows.append(
            (
                (words("general text"), words("nats per token, positive is better")),
                (signed(-general["loss_increase"]), bounds),
                ("–", ""),
                ("–", ""),
                (words("{num} rows", num=f"{general['num_rows']:,}"), ""),
            )
        )
    if (kl := summary.get("kl")) is not None:
        per = kl["per_sequence"]
        rows.append(
            (
                (
                    words("KL from the base"),
                    words("nats per answer; {number} per token", number=number(kl["per_token"])),
                ),
                (number(per["mean"]), interval(per["low"], per["high"])),
                ("–", ""),
                ("–", ""),
                (words("{num} answers", num=f"{kl['num_sequences']:,}"), ""),
            )
        )
    return Section(
        "changes",
        words("What training changed"),
        words("Against the base on the same items, in the direction of better: below 0 something was forgotten."),
        (words("what"), words("change, 95 %"), words("items worse"), words("items better"), words("of")),
        tuple(rows),
    )


def cost_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what the run cost."""
    cost = summary.get("cost")
    if not cost:
        return None
    bound = words("at most, by the settings") if cost["tokens_are_bound"] else words("counted")
    visits = words("{num} visits of {total} clients", num=f"{cost['num_visits']:,}", total=f"{cost['num_clients']:,}")
    sent = {key: words("{num} bytes", num=f"{cost[key]:,}") for key in ("download_bytes", "upload_bytes")}
    steps = words("{num} local steps", num=f"{cost['num_local_steps']:,}")
    lines: list[tuple[str, str, str]] = [
        (words("rounds"), f"{cost['num_rounds']:,}", visits),
        (words("to the clients"), f"{cost['download_bytes'] / 2**20:,.2f} MiB", sent["download_bytes"]),
        (words("from the clients"), f"{cost['upload_bytes'] / 2**20:,.2f} MiB", sent["upload_bytes"]),
        (words("clients' time"), f"{cost['client_seconds']:,.1f} s", steps),
        (words("time of the rounds"), f"{cost['seconds']:,.1f} s", words("where they ran")),
    ]
    if cost["transfer_seconds"] is not None:
        lines.append((words("sending"), f"{cost['transfer_seconds']:,.1f} s", words("over the stated lines")))
    if cost["num_tokens"] is not None:
        lines.append((words("tokens"), f"{cost['num_tokens']:,}", bound))
    if cost["flops"] is not None:
        lines.append(
            (
                words("operations"),
                f"{cost['flops']:.3g}",
                words("at most; {rule}", rule=cost["flops_rule"]) if cost["tokens_are_bound"] else cost["flops_rule"],
            )
        )
    if cost["peak_memory_bytes"] is not None:
        lines.append((words("peak memory"), f"{cost['peak_memory_bytes'] / 2**20:,.0f} MiB", words("measured")))
    if cost["energy_kwh"] is not None:
        lines.append((words("energy"), f"{cost['energy_kwh']:.3g} kWh", cost["energy_source"] or ""))
    return Section(
        "cost",
        words("What the run cost"),
        words("From the run's own ledger; estimates are marked as such."),
        (words("what"), words("amount"), words("how")),
        tuple(((what, ""), (amount, ""), (how, "")) for what, amount, how in lines),
    )


def audit_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what the run gives away."""
    audit = summary.get("audit")
    if not audit:
        return None
    found = audit["membership"]["attacks"]
    rows: list[tuple[Cell, ...]] = [
        (
            (name, words("membership inference")),
            (number(attack["auc"]), interval(attack["auc_low"], attack["auc_high"])),
            (
                "; ".join(_bound(unit, bound) for unit, bound in attack["epsilon"].items()),
                "",
            ),
        )
        for name, attack in found.items()
    ]
    return Section(
        "audit",
        words("What it gives away"),
        words(
            "How well training rows are told from rows the run never saw: AUC 0.5 is guessing, 1 gives every row away."
        ),
        (words("attack"), words("AUC, 95 %"), words("epsilon is at least")),
        tuple(rows),
        notes=tuple(again(line) for line in audit_lines(audit)),
    )


def _bound(unit: str, bound: Mapping[str, Any]) -> str:
    if bound["epsilon"] is None:
        return words("{unit}: no bound", unit=unit)
    return words(
        "{unit}: {value}, with this many units at most {number} could be shown",
        unit=unit,
        value=f"{bound['epsilon']:.2f}",
        number=f"{bound['largest_epsilon']:.2f}",
    )
