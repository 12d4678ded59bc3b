"""The tables beside the clients': suites, what training changed, what the run cost, what it gives away.

Each is a function of the summary (`results.json`) alone, and None where the summary has nothing for it.
"""

from collections.abc import Mapping
from typing import Any

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
            notes.append(f"{LENGTH_CONTROLLED} is {DISTANCE}.")
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
            rows.append(((f"{score_name} {arrow(one)}".rstrip(), one["unit"]), *cells, (num_items, "")))
        for label, record in by_policy.items():
            judge = record["settings"].get("judge")
            who = f"{name}, {name_of(label, summary)}"
            if isinstance(judge, Mapping):
                notes.append(f"{who}: judged by {judge.get('model')} ({judge.get('kind')}).")
            notes += [f"{who}: {note}." for note in record["notes"]]
    return Section(
        "suites",
        "Suites",
        "Questions put to the policy, with the 95 % interval over items.",
        ("score", *(name_of(label, summary) for label in labels), "items"),
        tuple(rows),
        notes=tuple(notes),
    )


def changes_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what training changed on the same items, and how far it went."""
    rows: list[tuple[Cell, ...]] = []
    for change in summary.get("changes", []):
        if change["reason"] is not None:
            rows.append(((change["suite"], change["reason"]), ("n/a", ""), ("–", ""), ("–", ""), ("–", "")))
            continue
        found = change["change"]
        rows.append(
            (
                (change["suite"], "same items before and after"),
                (signed(found["difference"]), interval(found["low"], found["high"], signed=True)),
                (f"{change['lost']['fraction']:.0%}", ""),
                (f"{change['won']['fraction']:.0%}", ""),
                (f"{found['num_clients']:,} item{'s' * (found['num_clients'] != 1)}", ""),
            )
        )
    if (general := summary.get("general_text")) is not None:
        bounds = (
            interval(-general["ci_high"], -general["ci_low"], signed=True) if general["ci_low"] is not None else ""
        )
        rows.append(
            (
                ("general text", "nats per token, positive is better"),
                (signed(-general["loss_increase"]), bounds),
                ("–", ""),
                ("–", ""),
                (f"{general['num_rows']:,} rows", ""),
            )
        )
    if (kl := summary.get("kl")) is not None:
        per = kl["per_sequence"]
        rows.append(
            (
                ("KL from the base", f"nats per answer; {number(kl['per_token'])} per token"),
                (number(per["mean"]), interval(per["low"], per["high"])),
                ("–", ""),
                ("–", ""),
                (f"{kl['num_sequences']:,} answers", ""),
            )
        )
    return Section(
        "changes",
        "What training changed",
        "Against the base on the same items, in the direction of better: below 0 something was forgotten.",
        ("what", "change, 95 %", "items worse", "items better", "of"),
        tuple(rows),
    )


def cost_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what the run cost."""
    cost = summary.get("cost")
    if not cost:
        return None
    bound = "at most, by the settings" if cost["tokens_are_bound"] else "counted"
    lines: list[tuple[str, str, str]] = [
        ("rounds", f"{cost['num_rounds']:,}", f"{cost['num_visits']:,} visits of {cost['num_clients']:,} clients"),
        ("to the clients", f"{cost['download_bytes'] / 2**20:,.2f} MiB", f"{cost['download_bytes']:,} bytes"),
        ("from the clients", f"{cost['upload_bytes'] / 2**20:,.2f} MiB", f"{cost['upload_bytes']:,} bytes"),
        ("clients' time", f"{cost['client_seconds']:,.1f} s", f"{cost['num_local_steps']:,} local steps"),
        ("time of the rounds", f"{cost['seconds']:,.1f} s", "where they ran"),
    ]
    if cost["transfer_seconds"] is not None:
        lines.append(("sending", f"{cost['transfer_seconds']:,.1f} s", "over the stated lines"))
    if cost["num_tokens"] is not None:
        lines.append(("tokens", f"{cost['num_tokens']:,}", bound))
    if cost["flops"] is not None:
        lines.append(
            ("operations", f"{cost['flops']:.3g}", f"{'at most; ' * cost['tokens_are_bound']}{cost['flops_rule']}")
        )
    if cost["peak_memory_bytes"] is not None:
        lines.append(("peak memory", f"{cost['peak_memory_bytes'] / 2**20:,.0f} MiB", "measured"))
    if cost["energy_kwh"] is not None:
        lines.append(("energy", f"{cost['energy_kwh']:.3g} kWh", cost["energy_source"] or ""))
    return Section(
        "cost",
        "What the run cost",
        "From the run's own ledger; estimates are marked as such.",
        ("what", "amount", "how"),
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
            (name, "membership inference"),
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
        "What it gives away",
        "How well training rows are told from rows the run never saw: AUC 0.5 is guessing, 1 gives every row away.",
        ("attack", "AUC, 95 %", "epsilon is at least"),
        tuple(rows),
        notes=tuple(audit_lines(audit)),
    )


def _bound(unit: str, bound: Mapping[str, Any]) -> str:
    if bound["epsilon"] is None:
        return f"{unit}: no bound"
    return (
        f"{unit}: {bound['epsilon']:.2f}, with this many units at most {bound['largest_epsilon']:.2f} could be shown"
    )
