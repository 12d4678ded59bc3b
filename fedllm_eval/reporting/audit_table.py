"""The rows of an audit's table, one a run: what protected it, what it claims, and what attacks found, as words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedllm_data.wording.catalogue import marked, words
from fedllm_data.wording.forms import interval_text, percent
from fedllm_data.wording.recorded import again

__all__ = ["VERDICT_NAMES", "AuditRow", "audit_rows", "protection_words", "verdict_of"]

VERDICT_NAMES = {
    "above": marked("ABOVE ITS CLAIM"),
    "within": marked("within its claim"),
    "no claim": marked("nothing is claimed for this unit"),
    "no bound": marked("no bound at this delta"),
    "none": marked("no canaries with coins"),
}
_STRONGEST = ("calibrated", "loss")


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """One run."""

    name: str
    protected: str
    claimed: str
    empirical: str
    most: str
    """What perfect guesses would have shown."""
    verdict: str
    """A key of `VERDICT_NAMES`."""
    verdict_words: str
    membership: str
    exposure: str
    extraction: str


def audit_rows(runs: Mapping[str, Mapping[str, Any]]) -> list[AuditRow]:
    """Return a row for each audit, in their order, in the language that is spoken.

    Args:
        runs: name -> what `audit_run` returns.
    """
    return [_row(name, audit) for name, audit in runs.items()]


def protection_words(protected: Mapping[str, Any]) -> list[str]:
    """Return what protected a run's clients, one phrase each; empty where nothing did.

    Args:
        protected: as `claims.protections` gives it.

    >>> protection_words({"privacy": {}, "clip": 0.5, "secure_sum": True, "robust_sum": None, "wire": "int8"})
    ['updates clipped to norm 0.5', 'secure sum', 'uploads packed by int8, which is no protection by itself']
    """
    said = []
    if protected["privacy"]:
        said.append(words("differential privacy"))
    elif protected["clip"] is not None:
        said.append(words("updates clipped to norm {norm}", norm=f"{protected['clip']:g}"))
    if protected["secure_sum"]:
        said.append(words("secure sum"))
    if protected["robust_sum"] is not None:
        said.append(words("robust sum {name}", name=protected["robust_sum"]))
    if protected["wire"] is not None:
        said.append(words("uploads packed by {wire}, which is no protection by itself", wire=protected["wire"]))
    return said


def verdict_of(audit: Mapping[str, Any]) -> str:
    """Return the verdict of the coins, a key of `VERDICT_NAMES`."""
    found = [one["verdict"] for one in audit.get("verdicts", ()) if one["attack"] == "coins"]
    return str(found[0]) if found else "none"


def _row(name: str, audit: Mapping[str, Any]) -> AuditRow:
    claims, coins = audit["claimed"], audit["one_run"]
    attacks = audit["membership"]["attacks"]
    strongest = next(attacks[attack] for attack in _STRONGEST if attack in attacks)
    trained = (audit["canaries"] or {}).get("trained")
    verdict = verdict_of(audit)
    return AuditRow(
        name=name,
        protected="; ".join(protection_words(audit["protections"])) or words("nothing"),
        claimed="; ".join(
            words(
                "{unit}: {value} at delta {delta}",
                unit=again(unit),
                value=f"{claim['epsilon']:.2f}",
                delta=f"{claim['delta']:g}",
            )
            for unit, claim in claims.items()
        )
        or "–",
        empirical="–"
        if coins is None
        else words(
            "{unit}: at least {value} ({share} sure)",
            unit=again(coins["unit"]),
            value=f"{coins['epsilon']:.2f}",
            share=percent(coins["confidence"]),
        ),
        most="–" if coins is None else f"{coins['largest_epsilon']:.2f}",
        verdict=verdict,
        verdict_words=words(VERDICT_NAMES[verdict]),
        membership=_spread(strongest["auc"], strongest["auc_low"], strongest["auc_high"]),
        exposure="–"
        if trained is None
        else _spread(trained["exposure"]["mean_bits"], trained["exposure"]["low"], trained["exposure"]["high"]),
        extraction="–" if trained is None else percent(trained["extraction"]["fraction"]),
    )


def _spread(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{interval_text(f'{low:.2f}', f'{high:.2f}')}]"
