"""The findings of an audit, one sentence each."""

from collections.abc import Mapping
from typing import Any

__all__ = ["audit_lines"]


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """Return the findings of an audit, as `audit_run` gives them, one sentence each."""
    found = audit["membership"]
    lines = [
        f"members: {found['num_members']:,} training rows of {found['num_member_clients']:,} clients; non-members: "
        f"{found['num_nonmembers']:,} rows of {found['num_nonmember_clients']:,} clients"
    ]
    for name, attack in found["attacks"].items():
        lines.append(f"{name}: AUC {_interval(attack['auc'], attack['auc_low'], attack['auc_high'])}; 0.5 is guessing")
        for positives in attack["true_positives"]:
            where = f"{name}: true positives at {100 * positives['max_false_positive_fraction']:g} % false ones"
            share = _interval(positives["fraction"], positives["low"], positives["high"])
            lines.append(f"{where}: {share if positives['reason'] is None else positives['reason']}")
        for unit, bound in attack["epsilon"].items():
            if bound["epsilon"] is None:
                lines.append(f"{name}: no bound on epsilon for one {unit}: {bound['reason']}")
            else:
                lines.append(
                    f"{name}: epsilon for one {unit} is at least {bound['epsilon']:.2f} "
                    f"({100 * bound['confidence']:g} % sure, delta {bound['delta']:g}); with "
                    f"{bound['num_members']:,} members and {bound['num_nonmembers']:,} non-members no attack could "
                    f"have shown more than {bound['largest_epsilon']:.2f}"
                )
    if found["reference_auc"] is not None:
        before = found["reference_auc"]
        lines.append(
            f"start policy: AUC {_interval(before['auc'], before['auc_low'], before['auc_high'])} by its loss"
        )
    for when, canaries in (audit["canaries"] or {}).items():
        if canaries is None:
            continue
        bits, share = canaries["exposure"], canaries["extraction"]
        who = "start policy" if when == "start" else "canaries"
        lines.append(
            f"{who}: exposure {_interval(bits['mean_bits'], bits['low'], bits['high'])} bits over "
            f"{canaries['num_canaries']} canaries; {bits['chance_bits']:.2f} by chance, "
            f"{bits['ceiling_bits']:.2f} at most"
        )
        extracted = _interval(share["fraction"], share["low"], share["high"])
        lines.append(f"{who}: share extracted by their prefix {extracted}")
    return lines + list(found["notes"])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    shown = ["n/a" if number is None else f"{number:.3f}" for number in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"
